/** What a step's code is told of its attempt, and what takes log lines. */

/** One attempt at a step, as its code sees it: the argument of a step's code, and the second one of a task's. */
export interface AttemptContext {
  /** The run's id. */
  readonly runId: string;
  /** The step's id. */
  readonly stepId: string;
  /** The index of the step's repetition: 0, 1, …. */
  readonly index: number;
  /** The number of the attempt, from 1. */
  readonly number: number;
  /** The app's id. */
  readonly app: string;
  /** The id of the function whose run this is of. */
  readonly functionId: string;
  /** The worker's logger; its lines say which app, function, run, step and attempt they are of. */
  readonly logger: Logger;
  /** Aborted once the attempt's result is no longer wanted. */
  readonly signal: AbortSignal;
  /** The attempt's W3C trace context, to be the parent of spans that the code makes; empty if there is none. */
  readonly traceparent: string;
}

/** What takes log lines: `console`, a pino logger, or anything alike. */
export interface Logger {
  debug(...line: unknown[]): void;
  info(...line: unknown[]): void;
  warn(...line: unknown[]): void;
  error(...line: unknown[]): void;
}
