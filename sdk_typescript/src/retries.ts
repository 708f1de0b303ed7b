/** Retry policies as users write them. */

import { type Duration, milliseconds, shown } from "./durations.js";
import type { Retry } from "./model.js";
import { checkOptions } from "./options.js";

const MOST_RETRIES = 100;
const RETRY_OPTIONS = ["retries", "initialInterval", "maximumInterval", "multiplier"];

/** A retry policy: `retries` after the first attempt, 0 to 100; the rest has the defaults 1 s, 5 min and 2. */
export interface RetryOptions {
  readonly retries: number;
  /** The longest delay before the first retry. */
  readonly initialInterval?: Duration;
  /** The longest delay before any retry. */
  readonly maximumInterval?: Duration;
  /** By how much the longest delay grows from retry to retry; at least 1. */
  readonly multiplier?: number;
}

/** Make a policy of what users write; throws an `ErrorType` if it is out of range. */
export function asRetry(
  given: number | RetryOptions | undefined,
  what: string,
  ErrorType: new (message: string) => Error,
): Retry | undefined {
  if (given === undefined) return undefined;
  if ((given as unknown) === null) throw new ErrorType(`${what}: retries is null, but must be a number or a policy`);
  const options: RetryOptions = typeof given === "object" ? given : { retries: given };
  checkOptions(options, RETRY_OPTIONS, `${what}: its retries`, ErrorType);
  const { retries, initialInterval = 1000, maximumInterval = 300_000, multiplier = 2 } = options;
  if (!Number.isInteger(retries) || retries < 0 || retries > MOST_RETRIES) {
    throw new ErrorType(
      `${what}: retries is ${shown(retries)}, but must be a whole number from 0 to ${String(MOST_RETRIES)} (--max-retries)`,
    );
  }
  if (!Number.isFinite(multiplier) || multiplier < 1) {
    throw new ErrorType(`${what}: the multiplier of its retries is ${shown(multiplier)}, but must be 1 or more`);
  }
  return {
    retries,
    initialInterval: milliseconds(initialInterval, `${what}: the initialInterval of its retries`, ErrorType),
    maximumInterval: milliseconds(maximumInterval, `${what}: the maximumInterval of its retries`, ErrorType),
    multiplier,
  };
}
