/** The promise of a step's result, which knows whether anything has ever asked for it. */

/** Settled by its maker. `observed` is true once something has awaited it, or has called `then`, `race`, `all`, …. */
export class StepPromise extends Promise<unknown> {
  observed = false;
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

  /** Reject it; should nothing be there to see that, the process does not end by it. */
  fail(error: Error): void {
    const { observed } = this;
    void this.catch(nothing);
    this.observed = observed;
    this.reject(error);
  }
}

// Whoever asks for a promise's value reads its constructor first: `await`, which calls no `then`, as well as `then`
// itself. Answering `Promise` keeps everything as it is with any other promise, down to the number of microtasks.
void Object.defineProperty(StepPromise.prototype, "constructor", {
  configurable: true,
  get(this: StepPromise) {
    this.observed = true;
    return Promise;
  },
});

function nothing(): void {
  // Nothing to do.
}
