/** What the worker's two threads tell each other. Frames are serialized, and transferred rather than copied. */
import type { SecurityOptions } from "../security.js";
import type { LogOptions } from "./logs.js";

export type Bytes = Uint8Array<ArrayBuffer>;

/** Given to the stream's thread at its start. */
export interface ThreadData {
  /** HOST:PORT of the executor, or several with commas between them. */
  readonly address: string;
  readonly security: SecurityOptions;
  /** `Counts`, shared by both threads. */
  readonly counts: SharedArrayBuffer;
  /** The `MoveState` of the main thread. */
  readonly moves: SharedArrayBuffer;
  /** The `Ledger` of the main thread. */
  readonly ledger: SharedArrayBuffer;
  /** How long a drain may take. */
  readonly drainSeconds: number;
  /** How the worker's process logs, if signals are to end it; else they are the program's affair. */
  readonly process?: LogOptions;
}

/** Places in the shared counts. `debugged` is 1 while somebody debugs the main thread; `phase` is a `Phase`. */
export const Counts = {
  attemptsInHand: 0,
  liveInvocations: 1,
  answeredPing: 2,
  debugged: 3,
  phase: 4,
  length: 5,
} as const;

/** To the stream's thread. What names a stream is for that one only. */
export type ToThread =
  /** The first frames of a stream: the Hello. */
  | { readonly kind: "hello"; readonly stream: number; readonly frames: readonly Bytes[] }
  | { readonly kind: "frames"; readonly stream: number; readonly frames: readonly Bytes[] }
  /** What came on this stream can't be read: give it up. */
  | { readonly kind: "abandon"; readonly stream: number; readonly reason: string }
  /** Open no further stream, and expect the Welcome of one that is being opened soon. */
  | { readonly kind: "windDown" }
  /** Write what was given, and end the stream cleanly. */
  | { readonly kind: "stop" }
  /** End the stream at once. */
  | { readonly kind: "cut" };

/** An error on its way between the threads; the code is a gRPC status. */
export interface ErrorData {
  readonly code: string;
  readonly message: string;
  readonly fields: readonly (readonly [string, string])[];
}

/** From the stream's thread. */
export type FromThread =
  /** A stream is to be opened: wants its Hello. */
  | { readonly kind: "connecting"; readonly stream: number }
  | { readonly kind: "frames"; readonly stream: number; readonly frames: readonly Bytes[] }
  | { readonly kind: "lost"; readonly stream: number }
  /** There will be no more streams: as asked, or because of the error. */
  | { readonly kind: "ended"; readonly error?: ErrorData }
  /** A body did not come to rest, and was broken off. */
  | { readonly kind: "brokenOff" }
  /** Wants its number in the shared counts, as soon as the loop gets there. */
  | { readonly kind: "ping"; readonly number: number }
  | { readonly kind: "log"; readonly level: "info" | "warn"; readonly message: string };
