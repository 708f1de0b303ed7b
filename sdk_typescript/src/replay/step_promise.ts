/** The promise of a step's result, which knows whether anything has ever asked for it. */

import { callerOf } from "./source.js";

/** Settled by its maker. `observed` is true once something has awaited it, or has called `then`, `race`, `all`, …. */
export class StepPromise extends Promise<unknown> {
  observed = false;
  /** How often code waits for it to go on after it, and not for the first of several. */
  #followers = 0;
  resolve!: (value: unknown) => void;
  reject!: (error: Error) => void;

  /** Make one that is pending. */
  static pending(): StepPromise {
    let resolve: StepPromise["resolve"] = nothing;
    let reject: StepPromise["reject"] = nothing;
    const promise = new StepPromise((resolveIt, rejectIt) => {
      resolve = resolveIt;
      reject = rejectIt;
    });
    promise.resolve = resolve;
    promise.reject = reject;
    return promise;
  }

  /** Whether code waits to go on after it. One that has only lost a race has none. */
  get isFollowed(): boolean {
    return this.#followers > 0;
  }

  /** Count what reads the constructor: all that asks for the value does. */
  note(): void {
    this.observed = true;
    this.#followers += 1;
  }

  override then<Result1 = unknown, Result2 = never>(
    onFulfilled?: ((value: unknown) => Result1 | PromiseLike<Result1>) | null,
    onRejected?: ((reason: unknown) => Result2 | PromiseLike<Result2>) | null,
  ): Promise<Result1 | Result2> {
    const followers = this.#followers;
    const promise = super.then(onFulfilled, onRejected);
    this.#followers = followers;
    if (typeof onFulfilled === "function") this.#noteThen(onFulfilled);
    return promise;
  }

  #noteThen(onFulfilled: (value: unknown) => unknown): void {
    if (!isNative(onFulfilled)) {
      this.#followers += 1;
    } else if (this.#followers > 0) {
      // What takes several promises has read the constructor just before.
      // eslint-disable-next-line @typescript-eslint/unbound-method -- says whose call this is
      const taker = callerOf(StepPromise.prototype.then);
      if (taker === "race" || taker === "any") this.#followers -= 1;
    }
  }

  /** Reject it; should nothing be there to see that, the process does not end by it. */
  fail(error: Error): void {
    const { observed } = this;
    const followers = this.#followers;
    void this.catch(nothing);
    this.observed = observed;
    this.#followers = followers;
    this.reject(error);
  }
}

// Whoever asks for a promise's value reads its constructor first: `await`, which calls no `then`, as well as `then`
// itself. Answering `Promise` keeps everything as it is with any other promise, down to the number of microtasks.
void Object.defineProperty(StepPromise.prototype, "constructor", {
  configurable: true,
  get(this: StepPromise) {
    this.note();
    return Promise;
  },
});

/** Whether a function is the engine's own: how `Promise.race`, `all`, … and promises that take over another one ask. */
function isNative(asks: (value: unknown) => unknown): boolean {
  return asks.name === "" && Function.prototype.toString.call(asks).endsWith("{ [native code] }");
}

function nothing(): void {
  // Nothing to do.
}
