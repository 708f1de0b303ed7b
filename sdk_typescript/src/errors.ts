/** The errors that users of the SDK meet: one small tree under `StepwireError`. */

import { type Duration, milliseconds } from "./durations.js";
import { type Failure, keyText } from "./model.js";

/** Base of all errors that Stepwire throws. */
export class StepwireError extends Error {
  override name = "StepwireError";
}

/** Throw it in a step or in a function's body to fail at once, whatever the retry policy says. */
export class NonRetriableError extends StepwireError {
  override name = "NonRetriableError";
}

/**
 * Throw it in a step or in a function's body to be tried again no sooner than after a delay of your choice.
 *
 * `retryAfter` is a duration (milliseconds, or a text like "30s") or the Date before which nothing should happen. It
 * replaces the backoff of the policy, and still counts as one of its retries. Throws RangeError if it is negative.
 */
export class RetryAfterError extends StepwireError {
  override name = "RetryAfterError";
  /** The delay in milliseconds. */
  readonly delay: number;

  constructor(message: string, retryAfter: Duration | Date, options?: ErrorOptions) {
    super(message, options);
    // A date that has passed means at once.
    const delay = retryAfter instanceof Date ? Math.max(0, retryAfter.getTime() - Date.now()) : retryAfter;
    this.delay = milliseconds(delay, "RetryAfterError: the delay", RangeError, Number.POSITIVE_INFINITY);
  }
}

/**
 * A step failed for good; thrown in the function's body where the step is awaited, and catchable there.
 *
 * `name`, `message`, `stack` and `cause` are those of the error that the step's code has thrown, in whatever process
 * and language; `instanceof StepError` tells that a step failed. `failure` is all of it as data.
 */
export class StepError extends StepwireError {
  /** The step's id. */
  readonly step: string;
  /** The index of its repetition: 0, 1, …. */
  readonly index: number;
  /** How many tries it took. */
  readonly attempts: number;
  /** The error as data. */
  readonly failure: Failure;

  /** Whether the step succeeded, but its recorded result can't be read. */
  readonly unread: boolean;

  constructor(step: string, index: number, failure: Failure, attempts: number, unread = false) {
    super(failure.message, failure.cause ? { cause: errorOf(failure.cause) } : undefined);
    this.name = failure.type;
    this.step = step;
    this.index = index;
    this.attempts = attempts;
    this.unread = unread;
    this.failure = failure;
    this.stack = failure.stack || failureText(failure);
  }

  /** What happened in one line: which step failed, after how many attempts, and why. */
  get summary(): string {
    const tries = this.attempts === 1 ? "1 attempt" : `${String(this.attempts)} attempts`;
    const key = keyText({ id: this.step, index: this.index });
    if (this.unread) return `step '${key}' succeeded, but its result can't be read: ${failureText(this.failure)}`;
    return `step '${key}' failed after ${tries}: ${failureText(this.failure)}`;
  }
}

/** A replay of a function's body did other things than its journal holds. Never retried. */
export class NonDeterminismError extends StepwireError {
  override name = "NonDeterminismError";
}

/** A function's body awaited something that is neither a step nor made of steps. Never retried. */
export class ForeignAwaitError extends StepwireError {
  override name = "ForeignAwaitError";
}

/** A function's body went on without starting a step or waiting for a result, as if it polled. Never retried. */
export class SpinningBodyError extends StepwireError {
  override name = "SpinningBodyError";
}

/** Step code tried to start a step. Never retried. */
export class NestedStepError extends StepwireError {
  override name = "NestedStepError";
}

/** A step was started with an id, option or argument that is not allowed. Never retried. */
export class InvalidStepError extends StepwireError {
  override name = "InvalidStepError";
}

/** A value can't be encoded, or stored bytes can't be decoded. Never retried. */
export class EncodingError extends StepwireError {
  override name = "EncodingError";
}

/** An output or input is over the limit that the executor has set. Never retried. */
export class OutputTooLargeError extends StepwireError {
  override name = "OutputTooLargeError";
}

/** An app's functions or tasks are declared wrongly (an id used twice, an invalid option). */
export class RegistrationError extends StepwireError {
  override name = "RegistrationError";
}

/** A call to the executor failed. `code` is the gRPC status code's name, e.g. "UNAVAILABLE". */
export class ExecutorError extends StepwireError {
  override name = "ExecutorError";
  /** The gRPC status code's name. */
  readonly code: string;
  /** Fields of the request that are wrong, each with what is wrong about it. */
  readonly fields: readonly (readonly [field: string, description: string])[];

  constructor(
    code: string,
    message: string,
    fields: readonly (readonly [field: string, description: string])[] = [],
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.fields = fields;
  }
}

/** A run has not ended in the time that a client waited for it. The run itself goes on. */
export class WaitTimeoutError extends ExecutorError {
  override name = "WaitTimeoutError";
}

/** Thrown by a client that waited for the result of a run which failed or was cancelled. */
export class RunFailedError extends StepwireError {
  override name = "RunFailedError";
  /** The run's id. */
  readonly runId: string;
  /** The run's failure as data. */
  readonly failure: Failure;

  constructor(runId: string, failure: Failure) {
    super(`run ${runId} failed: ${failureText(failure)}`, { cause: errorOf(failure) });
    this.runId = runId;
    this.failure = failure;
  }
}

/** Errors that no retry can mend. */
export const NEVER_RETRIED: readonly (new (...args: never[]) => Error)[] = [
  NonRetriableError,
  NonDeterminismError,
  ForeignAwaitError,
  SpinningBodyError,
  NestedStepError,
  InvalidStepError,
  EncodingError,
  OutputTooLargeError,
];

/** Give a failure as one line of text. */
function failureText(failure: Failure): string {
  return failure.message ? `${failure.type}: ${failure.message}` : failure.type;
}

/** Make an error of a failure, with its causes. */
function errorOf(failure: Failure): Error {
  const error = new Error(failure.message, failure.cause ? { cause: errorOf(failure.cause) } : undefined);
  error.name = failure.type;
  error.stack = failure.stack || failureText(failure);
  return error;
}
