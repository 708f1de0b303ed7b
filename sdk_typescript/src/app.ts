/** Apps: what a worker serves, as it is declared. */

import { Buffer } from "node:buffer";

import { checkText, codecOf, loggerOf } from "./arguments.js";
import type { AttemptContext, Logger } from "./attempt.js";
import type { FunctionContext } from "./body/context.js";
import type { FunctionDefinition, TaskDefinition } from "./definitions.js";
import { type Duration, milliseconds, shown } from "./durations.js";
import { RegistrationError } from "./errors.js";
import type { EventOf, EventTypes, ReceivedEvent } from "./events.js";
import { checkOptions, needOptions } from "./options.js";
import { sourceOf } from "./replay/source.js";
import { type RetryOptions, asRetry } from "./retries.js";
import type { Codec } from "./values.js";

const LONGEST_ID_BYTES = 256;
const LONGEST_NAME_BYTES = 128;

/** Options of an app. */
export interface AppOptions {
  /** The app's name. */
  readonly id: string;
  /** Tells code apart whose steps differ: runs prefer workers of the version that began them. */
  readonly version?: string;
  /** Applied to every value that leaves or enters the process. */
  readonly codec?: Codec;
  /** Takes the lines of functions' `logger`; if left out, the logger of the worker does, or `console` if it has none. */
  readonly logger?: Logger;
}

const APP_OPTIONS = ["id", "version", "codec", "logger"];
const FUNCTION_OPTIONS = ["id", "retries", "timeout", "triggers"];

/** Options of a function. */
export interface FunctionOptions {
  /** The function's id, unique in its app. */
  readonly id: string;
  /** Retries of its body, and of its steps that say nothing themselves. 4 if left out. */
  readonly retries?: number | RetryOptions;
  /** Longest time of a run. None if left out. */
  readonly timeout?: Duration;
}

/** Starts a function with every event of a name. */
export interface Trigger<Name extends string = string> {
  readonly event: Name;
}

/** Options of a function that says by itself what triggers it: an event or several; `[]` if it is only invoked. */
export interface TriggeredOptions<Name extends string = string> extends FunctionOptions {
  readonly triggers: Trigger<Name> | readonly Trigger<Name>[];
}

/** The event that starts a function with these triggers; any event if it has none, so that it is only invoked. */
export type TriggeredBy<Events extends EventTypes, Name extends keyof Events & string> = [Name] extends [never]
  ? // eslint-disable-next-line @typescript-eslint/no-explicit-any -- whoever invokes it decides
    ReceivedEvent<string, any>
  : EventOf<Events, Name>;

/**
 * A named set of functions and tasks.
 *
 * `Events` describes the data of events by their names:
 * `new Stepwire<{ "user/created": { userId: string } }>({ id: "app" })`. Throws RegistrationError for a name that is
 * not allowed.
 */
export class Stepwire<Events extends EventTypes = EventTypes> {
  readonly id: string;
  readonly version: string;
  readonly codec: Codec | undefined;
  readonly logger: Logger | undefined;
  readonly functions: ReadonlyMap<string, FunctionDefinition>;
  readonly tasks: ReadonlyMap<string, TaskDefinition>;
  readonly #functions = new Map<string, FunctionDefinition>();
  readonly #tasks = new Map<string, TaskDefinition>();

  constructor(options: AppOptions) {
    needOptions(options, APP_OPTIONS, "an app", RegistrationError);
    const { id, version = "", codec, logger } = options;
    checkId("an app's id", id, LONGEST_NAME_BYTES);
    checkPart("an app's id", id);
    if (version !== "") checkId("an app's version", version, LONGEST_NAME_BYTES);
    this.id = id;
    this.version = version;
    this.codec = codecOf(codec, RegistrationError);
    this.logger = loggerOf(logger, RegistrationError);
    this.functions = this.#functions;
    this.tasks = this.#tasks;
  }

  /**
   * Declare a function. It is triggered by every event of the named ones, or with `triggers: []` only invoked by others.
   *
   * The body is replayed: outside of its steps it must be deterministic, and must await nothing but steps. Throws
   * RegistrationError.
   */
  createFunction<const Name extends keyof Events & string = never, Output = unknown>(
    options: TriggeredOptions<Name>,
    body: (context: FunctionContext<Events, TriggeredBy<Events, Name>>) => Output,
  ): FunctionDefinition<TriggeredBy<Events, Name>["data"], Awaited<Output>>;
  /** The same with the triggers apart. */
  createFunction<const Name extends keyof Events & string = never, Output = unknown>(
    options: FunctionOptions,
    trigger: Trigger<Name> | readonly Trigger<Name>[],
    body: (context: FunctionContext<Events, TriggeredBy<Events, Name>>) => Output,
  ): FunctionDefinition<TriggeredBy<Events, Name>["data"], Awaited<Output>>;
  createFunction(options: FunctionOptions & Partial<TriggeredOptions>, ...rest: unknown[]): FunctionDefinition {
    needOptions(
      options,
      FUNCTION_OPTIONS,
      `function ${shown((options as { id?: unknown } | undefined)?.id)}`,
      RegistrationError,
    );
    const { id } = options;
    checkId("a function's id", id);
    checkPart("a function's id", id);
    const what = `function '${id}'`;
    if (this.#functions.has(id)) {
      throw new RegistrationError(`app '${this.id}' has two functions with the id '${id}': choose another id`);
    }
    const [trigger, body] = partsOf(what, options, rest);
    checkCode(body, what);
    const definition: FunctionDefinition = {
      app: this.id,
      id,
      triggers: triggersOf(what, trigger),
      retry: asRetry(options.retries, what, RegistrationError),
      runTimeout: runTimeoutOf(options.timeout, what),
      logger: this.logger,
      body: body as FunctionDefinition["body"],
      // eslint-disable-next-line @typescript-eslint/unbound-method -- says which call of the user's code this is
      source: sourceOf(this.createFunction),
    };
    this.#functions.set(id, definition);
    return definition;
  }

  /**
   * Declare a task: code that functions call by its name, with one value or none. Throws RegistrationError.
   *
   * It is given its input and the attempt that it runs as.
   */
  task<Input = undefined, Output = unknown>(
    name: string,
    run: (input: Input, attempt: AttemptContext) => Output,
  ): TaskDefinition<Input, Awaited<Output>> {
    checkId("a task's name", name);
    if (this.#tasks.has(name)) {
      throw new RegistrationError(`app '${this.id}' has two tasks named '${name}': choose another name`);
    }
    checkCode(run, `task '${name}'`);
    const definition: TaskDefinition = { name, run: run as TaskDefinition["run"] };
    this.#tasks.set(name, definition);
    return definition as TaskDefinition<Input, Awaited<Output>>;
  }
}

function runTimeoutOf(timeout: Duration | undefined, what: string): number | undefined {
  if (timeout === undefined) return undefined;
  const time = milliseconds(timeout, `the timeout of ${what}`, RegistrationError);
  if (time === 0) {
    throw new RegistrationError(`the timeout of ${what} is 0 ms: give it more, or leave it out for no limit`);
  }
  return time;
}

/** Give the triggers and the body of a function, in whichever form they were given. */
function partsOf(what: string, { triggers }: Partial<TriggeredOptions>, rest: unknown[]): [unknown, unknown] {
  const [first, second] = rest;
  const isApart = rest.length > 1 || typeof first !== "function";
  if (isApart && triggers !== undefined) {
    throw new RegistrationError(`${what} has both 'triggers' among its options and a trigger apart: give one of them`);
  }
  if (!isApart && triggers === undefined) {
    throw new RegistrationError(
      `${what} says nothing of its triggers: give { id, triggers }, [] if it is only invoked`,
    );
  }
  return isApart ? [first, second] : [triggers, first];
}

function triggersOf(what: string, trigger: unknown): readonly string[] {
  const triggers: readonly unknown[] = Array.isArray(trigger) ? trigger : [trigger];
  return triggers.map((each) => {
    if (typeof each !== "object" || each === null || !("event" in each)) {
      throw new RegistrationError(`${what}: ${shown(each)} is no trigger: use { event: "name" }`);
    }
    checkOptions(each, ["event"], `a trigger of ${what}`, RegistrationError);
    checkId(`the event name that triggers ${what}`, each.event);
    return each.event;
  });
}

function checkId(what: string, value: unknown, longest = LONGEST_ID_BYTES): asserts value is string {
  checkText(value, what, RegistrationError);
  const size = Buffer.byteLength(value);
  if (size > longest) {
    throw new RegistrationError(
      `${what} has ${String(size)} bytes, but at most ${String(longest)} are allowed: choose a shorter one`,
    );
  }
}

/** Refuse what could not be told apart in "app/function". */
function checkPart(what: string, name: string): void {
  if (name.includes("/")) {
    throw new RegistrationError(`${what} is ${shown(name)}, but '/' separates the app from the id: choose another`);
  }
}

function checkCode(code: unknown, what: string): void {
  if (typeof code !== "function") throw new RegistrationError(`${what}: ${shown(code)} is no function: give it one`);
  if (Object.prototype.toString.call(code).includes("Generator")) {
    throw new RegistrationError(`${what} is a generator: return values instead of yielding them`);
  }
  if (Function.prototype.toString.call(code).startsWith("class")) {
    throw new RegistrationError(`${what} is a class: give it a function`);
  }
}
