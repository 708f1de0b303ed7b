/** What a function's body starts: steps. */

/* eslint-disable @typescript-eslint/unbound-method -- methods say which call of the user's code they are, by themselves */

import type { FunctionDefinition, TaskDefinition } from "../definitions.js";
import { type RetryOptions, asRetry } from "../retries.js";
import type { AttemptContext } from "../attempt.js";
import { type Duration, limitOf, milliseconds, shown } from "../durations.js";
import { InvalidStepError } from "../errors.js";
import {
  type Event,
  type EventOf,
  type EventToSend,
  type EventTypes,
  type ReceivedEvent,
  type WaitOptions,
  outgoing,
  receivedOf,
} from "../events.js";
import type { Jsonify, Kept, Refusal } from "../jsonify.js";
import { checkId, checkText, endOf, fieldsOf } from "./checks.js";
import type { Invocation, PlanOptions } from "../replay/invocation.js";
import { type OutgoingEvent, StepKind, type Target } from "../replay/model.js";
import type { Payload } from "../model.js";
import { runAttempt } from "../replay/outside.js";
import { checkOptions } from "../options.js";
import { Values } from "../values.js";

const PLAIN = new Values();
const STEP_OPTIONS = ["id", "retries", "timeout", "attemptTimeout"];
const WAIT_OPTIONS = ["event", "match", "timeout"];
const INVOKE_OPTIONS = ["function", "data", "timeout"];
const EVENT_FIELDS = ["name", "data", "id", "time"];

/** A step's id, and options if it has any. */
export interface StepOptions {
  /** What it does, in the user's words. The same id may be used again: repetitions are counted. */
  readonly id: string;
  /** Retries after the first attempt, or a policy. The function's, if left out. */
  readonly retries?: number | RetryOptions;
  /** Longest time of the whole step, all attempts included. */
  readonly timeout?: Duration;
  /** Longest time of one attempt. */
  readonly attemptTimeout?: Duration;
}

/** A step's id, alone or with options. */
export type StepId = string | StepOptions;

/** The id of a step that has no options. */
export type StepName = string | { readonly id: string };

/** What `step.invoke` starts. */
export interface InvokeOptions<Data, Output> {
  /** The function's definition, its id, or "app/id" of another app. */
  readonly function: FunctionDefinition<Data, Output> | string;
  /** The data of the event that its run is given. */
  readonly data?: NoInfer<Data>;
  /** Longest time of the run. */
  readonly timeout?: Duration;
}

/**
 * Starts the steps of a function.
 *
 * Every method starts its step at once and gives the promise of its result: await it, or start others beside it. Bad
 * ids, options and arguments throw InvalidStepError at the call, a step that is started by a step's code
 * NestedStepError; awaiting throws StepError when the step has failed for good. Durations are in milliseconds, or texts
 * like "10s".
 */
export class Step<Events extends EventTypes = EventTypes> {
  readonly #invocation: Invocation;

  constructor(invocation: Invocation) {
    this.#invocation = invocation;
  }

  /** Run code once, in some worker, and give its result as JSON keeps it. The code is given the attempt that it is. */
  run<Output>(
    id: StepId,
    code: (attempt: AttemptContext) => Output,
    ...refused: Refusal<Awaited<Output>>
  ): Promise<Jsonify<Awaited<Output>>>;
  /** Run `code(...args)` once, in some worker, and give its result as JSON keeps it. */
  run<First, Rest extends unknown[], Output>(
    id: StepId,
    code: (first: First, ...rest: Rest) => Output & Kept<Output>,
    first: NoInfer<First>,
    ...rest: NoInfer<Rest>
  ): Promise<Jsonify<Awaited<Output>>>;
  run(id: StepId, code: (...args: never[]) => unknown, ...args: unknown[]): Promise<unknown> {
    const options = optionsOf(id);
    if (typeof code !== "function") {
      throw new InvalidStepError(
        `step '${options.id}' is to run ${shown(code)}, which can't be called: give the function, not its result`,
      );
    }
    const given = code as (...args: unknown[]) => unknown;
    const bound = args.length > 0 ? () => given(...args) : given;
    const run = (attempt: AttemptContext): unknown => runAttempt(bound, attempt);
    return this.#plan(options, { kind: StepKind.closure, run }, this.#decoder(options.id), this.run);
  }

  /**
   * Run a task, by its definition or its name, in any worker of the app that has it, whatever its language.
   *
   * The step's id is the task's name unless the options give one.
   */
  call<Input, Output>(
    task: TaskDefinition<Input, Output>,
    ...given: undefined extends Input
      ? [input?: Input, options?: Partial<StepOptions>]
      : [input: Input, options?: Partial<StepOptions>]
  ): Promise<Jsonify<Output>>;

  call<Output = unknown>(task: string, input?: unknown, options?: Partial<StepOptions>): Promise<Output>;
  call(task: TaskDefinition | string, input?: unknown, options: Partial<StepOptions> = {}): Promise<unknown> {
    const name: unknown = isObject(task) ? task.name : task;
    checkText(name, "a task's name");
    const data = this.#invocation.values.encode(input, `input of task '${name}'`);
    const complete = optionsOf({ ...options, id: options.id ?? name });
    return this.#plan(complete, { kind: StepKind.task, name, input: data }, this.#decoder(complete.id), this.call);
  }

  /** Sleep, durably. */
  sleep(step: StepName, duration: Duration): Promise<void> {
    const id = nameOf(step);
    const delay = milliseconds(duration, `the duration of sleep '${id}'`, InvalidStepError);
    return this.#plan({ id }, { kind: StepKind.sleep, delay }, nothing, this.sleep) as Promise<void>;
  }

  /** Sleep until a time: a Date, or Unix time in milliseconds. A time in the past ends at once. */
  sleepUntil(step: StepName, when: Date | number): Promise<void> {
    const id = nameOf(step);
    const until = endOf(id, when, this.#invocation.time);
    return this.#plan({ id }, { kind: StepKind.sleep, until }, nothing, this.sleepUntil) as Promise<void>;
  }

  /** Send an event or several, exactly once; gives their ids. */
  sendEvent(step: StepName, events: EventToSend<Events> | readonly EventToSend<Events>[]): Promise<string[]> {
    const id = nameOf(step);
    const listed: readonly unknown[] = Array.isArray(events) ? events : [events];
    if (listed.length === 0) throw new InvalidStepError(`step '${id}' sends no events: give it at least one`);
    const outgoing = listed.map((event) => outgoingOf(id, event, this.#invocation.values));
    const target = { kind: StepKind.sendEvents, events: outgoing } as const;
    return this.#plan({ id }, target, ownJson, this.sendEvent) as Promise<string[]>;
  }

  /**
   * Wait for an event with this name whose data equals `match`. Gives null if the time runs out.
   *
   * Events that arrived since the run began count. An event is given to one wait of a run only: waits in a loop get one
   * event after the other; of waits side by side the one that was started first gets it.
   */
  waitForEvent<const Name extends keyof Events & string>(
    step: StepName,
    options: WaitOptions<Name, Events[Name]>,
  ): Promise<EventOf<Events, Name> | null> {
    const id = nameOf(step);
    if (!isObject(options))
      throw new InvalidStepError(`wait '${id}' is given ${shown(options)}: use { event: "name" }`);
    checkOptions(options, WAIT_OPTIONS, `wait '${id}'`, InvalidStepError);
    const { event, match = {}, timeout } = options;
    checkText(event, `the name of the event that wait '${id}' is for`);
    const limit =
      timeout === undefined ? {} : { timeout: milliseconds(timeout, `the timeout of wait '${id}'`, InvalidStepError) };
    const target = { kind: StepKind.waitForEvent, eventName: event, fields: fieldsOf(id, match), ...limit } as const;
    const decode = (output: Payload): ReceivedEvent => receivedOf(output, this.#invocation.values);
    return this.#plan({ id }, target, decode, this.waitForEvent) as Promise<EventOf<Events, Name> | null>;
  }

  /** Start a run of another function and give its result. If its run fails, so does the step, with StepError. */
  invoke<Data, Output>(step: StepName, options: InvokeOptions<Data, Output>): Promise<Jsonify<Output>> {
    const id = nameOf(step);
    if (!isObject(options))
      throw new InvalidStepError(`step '${id}' invokes ${shown(options)}: use { function, data }`);
    checkOptions(options, INVOKE_OPTIONS, `invoke '${id}'`, InvalidStepError);
    const [app, functionId] = namesOf(id, options.function);
    const input = this.#invocation.values.encode(options.data, `data of invoke '${id}'`);
    const complete = options.timeout === undefined ? { id } : { id, timeout: options.timeout };
    const target = { kind: StepKind.invoke, app, functionId, input } as const;
    return this.#plan(complete, target, this.#decoder(id), this.invoke) as Promise<Jsonify<Output>>;
  }

  #plan(
    options: StepOptions,
    target: Target,
    decode: (output: Payload) => unknown,
    caller: (...args: never[]) => unknown,
  ): Promise<unknown> {
    return this.#invocation.plan(options.id, target, decode, caller, planOptionsOf(options));
  }

  #decoder(id: string): (output: Payload) => unknown {
    return (output) => this.#invocation.values.decode(output, `the output of step '${id}'`);
  }
}

function optionsOf(step: StepId): StepOptions {
  return typeof step === "string" ? { id: nameOf(step) } : { ...step, id: nameOf(step, STEP_OPTIONS) };
}

/** Give a step's id, checked, as well as the options beside it. */
function nameOf(step: StepName, known: readonly string[] = ["id"]): string {
  const id: unknown = isObject(step) ? step.id : step;
  checkId(id);
  if (isObject(step)) checkOptions(step, known, `step '${id}'`, InvalidStepError);
  return id;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function planOptionsOf({ id, retries, timeout, attemptTimeout }: StepOptions): PlanOptions | undefined {
  if (retries === undefined && timeout === undefined && attemptTimeout === undefined) return undefined;
  const time = (duration: Duration | undefined, name: string): number | undefined =>
    duration === undefined ? undefined : limitOf(duration, `the ${name} of step '${id}'`, InvalidStepError);
  return {
    retry: asRetry(retries, `step '${id}'`, InvalidStepError),
    stepTimeout: time(timeout, "timeout"),
    attemptTimeout: time(attemptTimeout, "attemptTimeout"),
  };
}

/** Give the app and the id of a function that is to be invoked. */
function namesOf(id: string, definition: FunctionDefinition | string): [app: string, functionId: string] {
  if (isObject(definition)) return [definition.app, definition.id];
  checkText(definition, `the function that step '${id}' invokes`);
  const slash = definition.lastIndexOf("/");
  const functionId = definition.slice(slash + 1);
  if (functionId === "" || slash === 0) {
    throw new InvalidStepError(`step '${id}' invokes '${definition}': give a function's id, or app/id`);
  }
  return [definition.slice(0, Math.max(0, slash)), functionId];
}

function outgoingOf(id: string, given: unknown, values: Values): OutgoingEvent {
  if (!isObject(given) || !("name" in given)) {
    throw new InvalidStepError(`step '${id}' sends ${shown(given)}, which is no event: use { name, data }`);
  }
  const event = given as Event;
  checkOptions(event, EVENT_FIELDS, `an event that step '${id}' sends`, InvalidStepError);
  checkText(event.name, `the name of an event that step '${id}' sends`);
  return outgoing(event, values);
}

function nothing(): undefined {
  return undefined;
}

/** Decode what the executor itself has encoded: JSON without a codec. */
function ownJson(output: Payload): unknown {
  return PLAIN.decode(output);
}
