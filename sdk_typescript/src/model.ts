/** What all parts speak of, as data: encoded values, failures, keys of steps, policies. Durations are in milliseconds. */

/** An encoded value: see `Payload` in the contract. An absent value is empty `data` with an empty encoding. */
export interface Payload {
  readonly data: Uint8Array;
  readonly encoding: string;
  readonly metadata: Readonly<Record<string, string>>;
}

/** An error as data: see `Failure` in the contract. */
export interface Failure {
  readonly type: string;
  readonly message: string;
  readonly stack: string;
  readonly retryable: boolean;
  /** The earliest delay before the next attempt. */
  readonly retryAfter?: number | undefined;
  readonly cause?: Failure | undefined;
  readonly details?: Payload | undefined;
}

/** A step's identity in its run: the user's id, and the index of its repetition (0, 1, …). */
export interface StepKey {
  readonly id: string;
  readonly index: number;
}

/**
 * A retry policy: `retries` after the first attempt (0 to 100). The delay before retry n is drawn evenly from zero to
 * min(maximumInterval, initialInterval * multiplier ** (n - 1)).
 */
export interface Retry {
  readonly retries: number;
  readonly initialInterval: number;
  readonly maximumInterval: number;
  readonly multiplier: number;
}

/** Give a key as text for people. */
export function keyText(key: StepKey): string {
  return key.index === 0 ? key.id : `${key.id}:${String(key.index)}`;
}

/** Give a key as text that no other key has. */
export function keyOf(key: StepKey): string {
  return `${String(key.index)}:${key.id}`;
}
