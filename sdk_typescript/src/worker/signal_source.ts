/**
 * Signals that reach the stream's thread, whatever the main thread does.
 *
 * Node hands signals to the main thread's event loop only. But libuv has every loop that asks for a signal told of it, and
 * Node's own class for that works in any thread; it is not public. `--expose-internals`, a flag of the thread's own that
 * Node's tests use, gives it in all of Node 20 to 25. Deno has signals in every thread. Where neither works (Bun) signals
 * wait for the main thread, as everywhere in Node.
 */
import { createRequire } from "node:module";
import { constants } from "node:os";

/** Give the flags of a thread that is to watch signals. */
export function signalFlags(): string[] {
  const isNode = process.release.name === "node" && !("Deno" in globalThis || "Bun" in globalThis);
  return isNode ? ["--expose-internals"] : [];
}

export const SIGNALS = ["SIGTERM", "SIGINT"] as const;

/** Node's class around a `uv_signal_t`. */
interface SignalHandle {
  onsignal: (number: number) => void;
  start(number: number): number;
  unref(): void;
}
interface Internals {
  internalBinding(name: "signal_wrap"): { readonly Signal: new () => SignalHandle };
}

/** Call `heard` for each signal from now on, in a thread that was started with `signalFlags`; false if that can't be. */
export function listen(heard: () => void): boolean {
  if ("Deno" in globalThis) {
    for (const name of SIGNALS) process.on(name, heard);
    return true;
  }
  if (signalFlags().length === 0) return false;
  try {
    const { Signal } = internals().internalBinding("signal_wrap");
    for (const name of SIGNALS) {
      const handle = new Signal();
      handle.unref();
      handle.onsignal = heard;
      if (handle.start(constants.signals[name]) !== 0) return false;
      kept.push(handle);
    }
    return true;
  } catch {
    return false; // a Node that has moved its insides
  }
}

/** Handles end when they are collected. */
const kept: SignalHandle[] = [];

/** Give Node's insides, without its warning that they are for its own tests. */
function internals(): Internals {
  // eslint-disable-next-line @typescript-eslint/unbound-method -- put back as it was, not called
  const { emitWarning } = process;
  process.emitWarning = () => undefined;
  try {
    return createRequire(process.execPath)("internal/test/binding") as Internals;
  } finally {
    process.emitWarning = emitWarning;
  }
}
