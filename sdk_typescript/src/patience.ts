/** How often and how soon a call that failed is made again. Knows no gRPC, and no clock but the one it is given. */
import { ExecutorError, WaitTimeoutError } from "./errors.js";

/** How long one call that waits may take before it is repeated, in milliseconds. */
const WAIT_MS = 30_000;
const LEAST_DELAY_MS = 20;

/** What a patience is about. */
export interface PatienceOptions {
  /** What must happen before the call is answered; its deadline is no failure, then. Empty if there is no such thing. */
  readonly waitsFor: string;
  /** Milliseconds for all tries together; Infinity for no end. */
  readonly timeout: number;
  /** For how many milliseconds a call that finds no executor is made again; one that waits goes on until the timeout. */
  readonly retryFor: number;
  /** Milliseconds since any beginning, never going back. */
  readonly clock?: () => number;
  /** Numbers from 0 to 1. */
  readonly draw?: () => number;
}

/** The patience of one call. */
export class Patience {
  readonly #options: PatienceOptions;
  readonly #clock: () => number;
  readonly #draw: () => number;
  readonly #end: number;
  /** Tries that have found no executor, since one has. */
  #losses = 0;
  #lostAt: number | undefined;

  constructor(options: PatienceOptions) {
    this.#options = options;
    this.#clock = options.clock ?? (() => performance.now());
    this.#draw = options.draw ?? Math.random;
    this.#end = this.#clock() + options.timeout;
  }

  /** How long the next try may take: at least a moment, so that it can be answered. */
  get tryMs(): number {
    const rest = Math.max(this.#end - this.#clock(), 10);
    return this.#options.waitsFor ? Math.min(rest, WAIT_MS) : rest;
  }

  /** Give the delay until the next try; throws the error if there is to be none. `wanted`: the executor asks for it. */
  delayAfter(error: ExecutorError, wanted?: number): number {
    const now = this.#clock();
    const { waitsFor, timeout } = this.#options;
    const isWaiting = waitsFor !== "" && error.code === "DEADLINE_EXCEEDED";
    let delay: number;
    if (error.code === "UNAVAILABLE") {
      delay = this.#afterLoss(error, now);
    } else if (error.code === "RESOURCE_EXHAUSTED" && wanted !== undefined) {
      delay = wanted * (1 + this.#draw() / 4);
    } else if (isWaiting) {
      this.#lostAt = undefined;
      this.#losses = 0;
      delay = LEAST_DELAY_MS;
    } else {
      throw error;
    }
    if (now + delay < this.#end) return delay;
    if (!isWaiting) throw error;
    throw new WaitTimeoutError(
      error.code,
      `${waitsFor} has not ended within ${String(timeout / 1000)} s; it goes on, wait for it again, or ask ` +
        "`client.why` what it waits for",
    );
  }

  /** Full jitter over a backoff from 0.1 s to 2 s, and never at once. */
  #afterLoss(error: ExecutorError, now: number): number {
    this.#lostAt ??= now;
    this.#losses += 1;
    if (!this.#options.waitsFor && now - this.#lostAt >= this.#options.retryFor) throw error;
    return LEAST_DELAY_MS + this.#draw() * Math.min(2_000, 100 * 2 ** Math.min(this.#losses - 1, 10));
  }
}
