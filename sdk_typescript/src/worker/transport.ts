/**
 * The main thread's side of the stream's thread.
 *
 * The stream lives in a thread of its own (`thread.ts`), so that user code which blocks the event loop does not keep
 * heartbeats from being sent. What crosses are serialized frames, and a few numbers in shared memory.
 */
import { existsSync } from "node:fs";
import inspector from "node:inspector";
import { Worker as Thread } from "node:worker_threads";
import { ExecutorError, StepwireError } from "../errors.js";
import type { Logger } from "../attempt.js";
import { FOLDER } from "../place.js";
import type { Security } from "../security.js";
import { moveState, recover } from "../replay/moves.js";
import type { Ledger } from "./ledger.js";
import type { LogOptions } from "./logs.js";
import { signalFlags } from "./signal_source.js";
import { Counts, type Bytes, type FromThread, type ThreadData, type ToThread } from "./messages.js";

/** What the transport tells the worker, on the event loop that runs user code. */
export interface TransportHandlers {
  /** Give the frames to begin a stream with. */
  readonly hello: (stream: number) => readonly Bytes[];
  readonly received: (stream: number, frames: readonly Bytes[]) => void;
  readonly lost: (stream: number) => void;
  /** There will be no more streams: as asked, or because of the error. */
  readonly ended: (error: Error | undefined) => void;
}

/** What the stream's thread is given. */
export interface TransportOptions {
  readonly address: string;
  readonly security: Security;
  readonly ledger: Ledger;
  readonly drainSeconds: number;
  /** How the worker's process logs, if signals are to end it. */
  readonly process: LogOptions | undefined;
}

/** Keeps a stream open from its making until `stop` or `cut`. */
export class Transport {
  readonly #thread: Thread;
  readonly #counts: Int32Array;

  constructor(options: TransportOptions, logger: Logger, handlers: TransportHandlers) {
    const { address, security, ledger, drainSeconds, process } = options;
    const counts = new SharedArrayBuffer(Counts.length * Int32Array.BYTES_PER_ELEMENT);
    this.#counts = new Int32Array(counts);
    const workerData: ThreadData = {
      address,
      security: security.options,
      counts,
      moves: moveState.shared,
      ledger: ledger.shared,
      drainSeconds,
      ...(process && { process }),
    };
    this.#thread = new Thread(threadFile(), {
      name: "stepwire-stream",
      workerData,
      execArgv: process === undefined ? [] : signalFlags(),
    });
    this.#thread.on("message", (message: FromThread) => {
      this.#take(message, logger, handlers);
    });
    this.#thread.on("error", (error) => {
      handlers.ended(error instanceof Error ? error : new StepwireError(String(error)));
    });
    this.#thread.on("exit", () => {
      handlers.ended(new StepwireError("the stream's thread has ended unexpectedly"));
    });
  }

  #take(message: FromThread, logger: Logger, handlers: TransportHandlers): void {
    switch (message.kind) {
      case "frames":
        handlers.received(message.stream, message.frames);
        break;
      case "ping":
        Atomics.store(this.#counts, Counts.debugged, inspector.url() === undefined ? 0 : 1);
        Atomics.store(this.#counts, Counts.answeredPing, message.number);
        break;
      case "brokenOff":
        recover();
        break;
      case "connecting":
        this.#post({ kind: "hello", stream: message.stream, frames: handlers.hello(message.stream) });
        break;
      case "lost":
        handlers.lost(message.stream);
        break;
      case "log":
        logger[message.level](message.message);
        break;
      case "ended": {
        const error = message.error;
        handlers.ended(
          error &&
            new ExecutorError(
              error.code,
              error.message,
              error.fields.map(([field, description]) => [field, description]),
            ),
        );
        break;
      }
    }
  }

  /** Write frames to a stream, if it is still the one that is open. */
  send(stream: number, frames: readonly Bytes[]): void {
    this.#post(
      { kind: "frames", stream, frames },
      frames.map((frame) => frame.buffer),
    );
  }

  /** Give up a stream that brings what can't be read. */
  abandon(stream: number, reason: string): void {
    this.#post({ kind: "abandon", stream, reason });
  }

  /** What the next heartbeats say. */
  count(attemptsInHand: number, liveInvocations: number): void {
    Atomics.store(this.#counts, Counts.attemptsInHand, attemptsInHand);
    Atomics.store(this.#counts, Counts.liveInvocations, liveInvocations);
  }

  /** Say how far a drain is: a `Phase`. */
  enter(phase: number): void {
    Atomics.store(this.#counts, Counts.phase, phase);
  }

  /** Open no further stream, and expect the Welcome of one that is being opened soon: it may be on its way. */
  windDown(): void {
    this.#post({ kind: "windDown" });
  }

  /** Write what was given, and end the stream cleanly; it is cut if the executor does not end it in time. */
  stop(): void {
    this.#post({ kind: "stop" });
  }

  /** End the stream at once. */
  cut(): void {
    this.#post({ kind: "cut" });
  }

  /** Let the thread go. */
  async close(): Promise<void> {
    await this.#thread.terminate();
  }

  #post(message: ToThread, transfer: ArrayBuffer[] = []): void {
    this.#thread.postMessage(message, transfer);
  }
}

/** Give the file of the stream's thread. Throws StepwireError where a bundler has left it behind. */
function threadFile(): URL {
  const file = FOLDER === undefined ? undefined : new URL("dist/worker/thread.js", FOLDER);
  if (file === undefined || (file.protocol === "file:" && !existsSync(file))) {
    throw new StepwireError(
      "a worker needs the file dist/worker/thread.js of the package stepwire, but a bundler has put the package into other " +
        "code and left that file behind: leave the package out of the bundle, like esbuild's --external:stepwire",
    );
  }
  return file;
}
