/** What code is told of where it runs: a function's body of its run, and a step's code of its attempt. */

import type { EventOf, EventTypes, ReceivedEvent } from "./events.js";
import type { Step } from "./step.js";

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

/** A run as its body sees it: the argument of the body. All of it is the same in every replay. */
export interface FunctionContext<
  Events extends EventTypes = EventTypes,
  Event extends ReceivedEvent = EventOf<Events, keyof Events & string>,
> {
  /** The event that started the run. */
  readonly event: Event;
  /** All events that started the run. */
  readonly events: readonly Event[];
  /** Starts steps. */
  readonly step: Step<Events>;
  /** The run's id. */
  readonly runId: string;
  /** The try at the body, from 1. */
  readonly attempt: number;
  /** Silent in replays, so that a line is logged once. */
  readonly logger: Logger;
  /** The time of the last recorded result, or of the run's creation. */
  readonly now: () => Date;
  /** A random number from 0 to 1 that is the same in every replay. */
  readonly random: () => number;
  /** A UUID (version 4) that is the same in every replay. */
  readonly uuid: () => string;
}
