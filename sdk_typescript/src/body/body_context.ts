/** What a body is given: the run as it sees it, the same in every replay. */

import type { FunctionContext } from "./context.js";
import type { Logger } from "../attempt.js";
import type { ReceivedEvent } from "../events.js";
import { withFields } from "../log_fields.js";
import { Step } from "./step.js";
import type { Invocation } from "../replay/invocation.js";
import { aside } from "../replay/moves.js";
import { uuidOf } from "../replay/random.js";

/** See FunctionContext. Bodies take it apart, so that its functions need no `this`. */
class BodyContext implements FunctionContext {
  readonly runId: string;
  readonly attempt: number;
  readonly step: Step;
  readonly logger: Logger;
  readonly now: () => Date;
  readonly random: () => number;
  readonly uuid: () => string;
  readonly #invocation: Invocation;
  #events: readonly ReceivedEvent[] | undefined;

  constructor(invocation: Invocation) {
    const { run } = invocation;
    this.#invocation = invocation;
    this.runId = run.runId;
    this.attempt = run.attempt;
    this.step = new Step(invocation);
    this.logger = loggerOf(invocation);
    this.now = () => new Date(invocation.time);
    // Code of a step, which runs in one worker only, gets other numbers, so that it can't disturb those of the body.
    this.random = () => (invocation.inBody ? invocation.random() : Math.random());
    this.uuid = () => uuidOf(this.random);
  }

  get events(): readonly ReceivedEvent[] {
    const { run, values } = this.#invocation;
    this.#events ??= run.events.map((event) => ({
      id: event.id,
      name: event.name,
      data: values.decode(event.data, `data of event '${event.name}'`),
      time: new Date(event.time),
    }));
    return this.#events;
  }

  get event(): ReceivedEvent {
    const [event] = this.events;
    if (!event) throw new Error(`run ${this.runId} was given no event`);
    return event;
  }
}

/** Make the context of an invocation's body. */
export function contextOf(invocation: Invocation): FunctionContext {
  return new BodyContext(invocation);
}

/** Make a logger that names the run, and is silent while the body does what it has done before. */
function loggerOf(invocation: Invocation): Logger {
  const { function: definition, run } = invocation;
  const fields = { app: run.app, functionId: definition.id, runId: run.runId, attempt: run.attempt };
  let target: Logger | undefined;
  const log = (level: keyof Logger, line: unknown[]): void => {
    if (invocation.inBody && invocation.isRepeating) return;
    target ??= withFields(definition.logger ?? invocation.logger, fields);
    const to = target;
    aside(() => {
      to[level](...line); // with the real time
    });
  };
  return {
    debug: (...line) => {
      log("debug", line);
    },
    info: (...line) => {
      log("info", line);
    },
    warn: (...line) => {
      log("warn", line);
    },
    error: (...line) => {
      log("error", line);
    },
  };
}
