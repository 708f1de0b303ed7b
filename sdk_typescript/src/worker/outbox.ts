/**
 * Attempts in hand, and their results until they are recorded.
 *
 * An attempt is in hand from `take` until `forget`: while it runs, and then while its result is unrecorded. Knows nothing
 * of streams, and nothing of what the results say: they are serialized messages.
 */
import type { Attempt } from "../gen/stepwire/v1/value_pb.js";

/** What the worker owes the executor, by fence. */
export class Outbox {
  readonly #inHand = new Map<bigint, Attempt>();
  readonly #results = new Map<bigint, Uint8Array>();
  /** Fences of the attempts that the last Hello has named. */
  #named: ReadonlySet<bigint> = new Set();

  /** How many attempts are in hand. */
  get inHand(): number {
    return this.#inHand.size;
  }

  /** Whether an attempt is in hand. */
  holds(fence: bigint): boolean {
    return this.#inHand.has(fence);
  }

  /** Take an attempt in hand, just before it starts. */
  take(attempt: Attempt): void {
    this.#inHand.set(attempt.fence, attempt);
  }

  /** Keep an attempt's result until it is forgotten; false if the attempt is no longer in hand. */
  keep(fence: bigint, result: Uint8Array): boolean {
    if (!this.#inHand.has(fence)) return false;
    this.#results.set(fence, result);
    return true;
  }

  /** Drop attempts: recorded, refused, cancelled or given back. */
  forget(fences: Iterable<bigint>): void {
    for (const fence of fences) {
      this.#inHand.delete(fence);
      this.#results.delete(fence);
    }
  }

  /** Give at most so many attempts in hand, running ones first: what a Hello names. */
  holdings(most: number): Attempt[] {
    const all = [...this.#inHand.values()];
    const running = all.filter((attempt) => !this.#results.has(attempt.fence));
    const reported = all.filter((attempt) => this.#results.has(attempt.fence));
    const named = [...running, ...reported].slice(0, most);
    this.#named = new Set(named.map((attempt) => attempt.fence));
    return named;
  }

  /**
   * Begin a stream: gives the results that are still kept, to be sent again.
   *
   * What the executor does not want is forgotten, and what its Hello has not named: it takes that for gone.
   */
  reopen(unwanted: readonly bigint[]): Uint8Array[] {
    this.forget(unwanted);
    this.forget([...this.#inHand.keys()].filter((fence) => !this.#named.has(fence)));
    return [...this.#results.values()];
  }
}
