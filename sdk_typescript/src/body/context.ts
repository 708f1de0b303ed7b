/** What a function's body is told of its run. */

import type { Logger } from "../attempt.js";
import type { EventOf, EventTypes, ReceivedEvent } from "../events.js";
import type { Step } from "./step.js";

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
