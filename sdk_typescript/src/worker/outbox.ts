/**
 * Attempts in hand, and their results until they are recorded.
 *
 * An attempt is in hand from `take` until `forget`: while it runs, and then while its result is unrecorded. Knows nothing
 * of streams, and nothing of what the results say: they are serialized messages.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { StepsFoundSchema } from "../gen/stepwire/v1/opcode_pb.js";
import type { Attempt } from "../gen/stepwire/v1/value_pb.js";
import type { Ledger } from "./ledger.js";

/** What a lead has found, as it tells it. */
export type Plan = MessageInitShape<typeof StepsFoundSchema>;

/** What the worker owes the executor, by fence. */
export class Outbox {
  readonly #ledger: Pick<Ledger, "drop">;
  readonly #inHand = new Map<bigint, Attempt>();
  readonly #results = new Map<bigint, Uint8Array>();
  /** Of lone steps in hand: the stream may be lost before the executor has read them. */
  readonly #plans = new Map<bigint, Plan>();
  /** Fences of the attempts that the last Hello has named. */
  #named: ReadonlySet<bigint> = new Set();

  constructor(ledger: Pick<Ledger, "drop">) {
    this.#ledger = ledger;
  }

  /** How many attempts are in hand. */
  get inHand(): number {
    return this.#inHand.size;
  }

  /** Whether an attempt is in hand. */
  holds(fence: bigint): boolean {
    return this.#inHand.has(fence);
  }

  /** Take an attempt in hand, just before it starts; a lone step with its plan. */
  take(attempt: Attempt, plan?: Plan): void {
    this.#inHand.set(attempt.fence, attempt);
    if (plan !== undefined) this.#plans.set(attempt.fence, plan);
  }

  /** Keep an attempt's result until it is forgotten; false if the attempt is no longer in hand. */
  keep(fence: bigint, result: Uint8Array): boolean {
    this.#ledger.drop(fence);
    if (!this.#inHand.has(fence)) return false;
    this.#results.set(fence, result);
    return true;
  }

  /** Drop attempts: recorded, refused, cancelled or given back. */
  forget(fences: Iterable<bigint>): void {
    for (const fence of fences) {
      this.#ledger.drop(fence);
      this.#inHand.delete(fence);
      this.#results.delete(fence);
      this.#plans.delete(fence);
    }
  }

  /**
   * Give what a Hello names: at most so many attempts in hand, and the plans of lone steps among them.
   *
   * Running ones come first, then the newest results: the executor is the least likely to have read those.
   */
  holdings(most: number): { readonly attempts: Attempt[]; readonly plans: Plan[] } {
    const running = [...this.#inHand.values()].filter((attempt) => !this.#results.has(attempt.fence));
    const reported = [...this.#results.keys()].reverse().flatMap((fence) => this.#inHand.get(fence) ?? []);
    const attempts = [...running, ...reported].slice(0, most);
    this.#named = new Set(attempts.map((attempt) => attempt.fence));
    return { attempts, plans: [...this.#plans].flatMap(([fence, plan]) => (this.#named.has(fence) ? [plan] : [])) };
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
