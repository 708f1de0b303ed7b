/**
 * A run's body in this process: replayed over its journal, then fed with new results as they come.
 *
 * Pure: it is given entries and gives turns. Who asks and where the entries come from is the caller's affair.
 */

import { Buffer } from "node:buffer";

import type { FunctionDefinition } from "../definitions.js";
import type { AttemptContext, Logger } from "../attempt.js";
import {
  ForeignAwaitError,
  InvalidStepError,
  NestedStepError,
  type NonDeterminismError,
  SpinningBodyError,
  StepError,
} from "../errors.js";
import { failureOf } from "../failures.js";
import type { Values } from "../values.js";
import { type Found as Seen, diverged, isSame, notFound } from "./divergence.js";
import {
  type Entry,
  type Expected,
  type Outcome,
  type Planned,
  type RunInfo,
  StepKind,
  type Target,
  type Turn,
} from "./model.js";
import { type Payload, type Retry, type StepKey, keyOf, keyText } from "../model.js";
import { enqueue, moveState, moving } from "./moves.js";
import { type Ending, outcomeOf } from "./outcome.js";
import { startedOutside } from "./outside.js";
import { seeded } from "./random.js";
import { sourceOf } from "./source.js";
import { StepPromise } from "./step_promise.js";

/** Options of an invocation. */
export interface InvocationOptions {
  /** False for a replica. */
  readonly lead?: boolean;
  readonly maxSteps?: number;
  readonly maxStepIdBytes?: number;
  /** Takes the lines of the body's `logger`, unless its app has one; `console` if left out. */
  readonly logger?: Logger | undefined;
  /**
   * Told the outcome of a lead's body that was ended while no turn was awaited, because it did something after awaiting
   * what is no step. Every later turn has the same outcome.
   */
  readonly onFault?: (outcome: Outcome) => void;
  /** Told what a lead's body leaves behind: when it returns, and when the run ends after that; not if that is nothing. */
  readonly onLeft?: (left: Left) => void;
}

/** Makes what a body is given; of that the replay machine knows nothing. */
export type ContextOf = (invocation: Invocation) => unknown;

/** Options that a step may have. Times are in milliseconds. */
export interface PlanOptions {
  readonly retry?: Retry | undefined;
  readonly attemptTimeout?: number | undefined;
  readonly stepTimeout?: number | undefined;
}

/** Repetitions of an id whose lines are looked for; those after them are given the line of the last of these. */
const LOOKS = 8;

/** A promise of a step's result, as its maker sees it. */
interface Deferred {
  readonly promise: StepPromise;
  readonly decode: (output: Payload) => unknown;
}

/** A step that has its result, which nothing has asked for yet. */
interface Unseen {
  readonly planned: Planned;
  readonly promise: StepPromise;
  readonly error: Error | undefined;
}

/** What a body that has returned leaves behind. */
export interface Left {
  /** Steps that nothing has ever awaited: the run ends when they have. */
  readonly forgotten: readonly Planned[];
  /** Unfinished steps for which code waits that was to go on after them, and never does: they are given up. */
  readonly cutOff: readonly Planned[];
  /** Unfinished steps that have lost a race, or the like: they are given up. */
  readonly givenUp: readonly Planned[];
}

/** A step that the body has found. */
interface Found {
  readonly planned: Planned;
  /** Gone once the step has its result: a run may have very many. */
  deferred: Deferred | undefined;
  /** Whether the executor knows it. */
  told: boolean;
}

/** One invocation of a function. Await each turn before you ask for the next, and `close` it at the end. */
export class Invocation {
  readonly function: FunctionDefinition;
  readonly run: RunInfo;
  readonly values: Values;
  readonly logger: Logger;
  readonly #contextOf: ContextOf;
  /** Whether its discoveries count: see `promote`. */
  lead: boolean;
  readonly #maxSteps: number;
  readonly #maxStepIdBytes: number;
  readonly #onFault: ((outcome: Outcome) => void) | undefined;
  #random: (() => number) | undefined;
  readonly #onLeft: ((left: Left) => void) | undefined;
  /** All steps that were found: by id, then by index. */
  readonly #found = new Map<string, Found[]>();
  #count = 0;
  /** The newest of them. */
  #latest: Planned | undefined;
  readonly #open = new Set<Found>();
  /** Found since the last turn was given. */
  #fresh: Found[] = [];
  /** Steps whose results came before anything had asked for them. */
  #unseen: Unseen[] = [];
  /** An unfinished step that nothing awaits, once the body has returned. */
  #holding: Found | undefined;
  #toldForgotten = false;
  #expected = new Set<string>();
  #sequence = 0;
  #time: number;
  #replaying = false;
  /** How many entries it was started with. */
  #journalLength = 0;
  /** What the body has thrown, if it has. */
  #thrownError: unknown;
  #pending = 0;
  #ending: Ending | undefined;
  #fault: Outcome | undefined;
  #outcome: Outcome | undefined;
  #closed = false;

  constructor(
    definition: FunctionDefinition,
    run: RunInfo,
    values: Values,
    contextOf: ContextOf,
    options: InvocationOptions = {},
  ) {
    this.function = definition;
    this.run = run;
    this.values = values;
    this.#contextOf = contextOf;
    this.lead = options.lead ?? true;
    this.#maxSteps = options.maxSteps ?? 100_000;
    this.#maxStepIdBytes = options.maxStepIdBytes ?? 1024;
    this.logger = options.logger ?? console;
    this.#onFault = options.onFault;
    this.#onLeft = options.onLeft;
    this.#time = run.createdAt;
  }

  // What the worker calls.

  /** The number of the last entry that was delivered. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Whether the body has ended. */
  get ended(): boolean {
    return this.#outcome !== undefined;
  }

  /** Run the body dry, then give it the journal. Rejects with RangeError if that has gaps. */
  start(journal: readonly Entry[], expected: readonly Expected[] = []): Promise<Turn> {
    this.#expected = new Set(expected.map((each) => keyOf(each.key)));
    this.#journalLength = journal.length;
    this.#replaying = journal.length > 0;
    return this.#move(journal, expected, true);
  }

  /** Give the body new results. Rejects with RangeError if they do not follow those before. */
  resume(entries: readonly Entry[]): Promise<Turn> {
    return this.#move(entries, [], false);
  }

  /**
   * Make a replica the lead: gives all that it has kept to itself, as one turn.
   *
   * `found` are the unfinished steps; the executor knows which of them are news. Throws if a turn is awaited.
   */
  promote(): Turn {
    if (this.#pending > 0) throw new Error(`run ${this.run.runId}: its turn must be awaited before it is promoted`);
    this.lead = true;
    this.#fresh = [];
    for (const found of this.#open) found.told = true;
    return { found: this.ended ? [] : [...this.#open].map((found) => found.planned), outcome: this.#outcome };
  }

  /** Give the code of a step that the body has found; undefined if it has found no such closure. */
  closure(key: StepKey): ((attempt: AttemptContext) => unknown) | undefined {
    const target = this.#find(key)?.planned.target;
    return target?.kind === StepKind.closure ? target.run : undefined;
  }

  /** Give the line of a step that the body has found; "" if it has found no such step, or the line is not known. */
  source(key: StepKey): string {
    return this.#find(key)?.planned.source ?? "";
  }

  /** Drop the body. Promises that it awaits are never settled, so that none of its code runs any more. */
  close(): void {
    this.#closed = true;
    this.#release();
    this.#found.clear();
  }

  // What steps and the body's context ask.

  /** The time of the last result, or of the run's creation. */
  get time(): number {
    return this.#time;
  }

  /** Give the body's next random number. */
  readonly random = (): number => {
    this.#random ??= seeded(this.run.runId);
    return this.#random();
  };

  /** Whether the code that asks is the body's, and not, say, a step's. */
  get inBody(): boolean {
    return moving() === this;
  }

  /** Whether the body does not do now for the first time what it does. */
  get isRepeating(): boolean {
    return !this.lead || this.#replaying;
  }

  /**
   * Start a step and give the promise of its result. `caller` is the function that users call.
   *
   * Throws InvalidStepError and NestedStepError; the promise may reject with ForeignAwaitError.
   */
  plan(
    id: string,
    target: Target,
    decode: (output: Payload) => unknown,
    caller: (...args: never[]) => unknown,
    options: PlanOptions = {},
  ): Promise<unknown> {
    if (!this.inBody) return this.#refuse(id, caller);
    if (this.#closed || this.ended || this.#fault) return never();
    const same = this.#found.get(id) ?? this.#firstOf(id);
    if (this.#count >= this.#maxSteps) {
      this.#stop({ case: "thrown", failure: this.#tooManySteps() });
      return never();
    }
    // Looking costs more than all the rest: what is found again and again stands in a loop.
    const source = same[LOOKS - 1]?.planned.source ?? sourceOf(caller);
    const key = { id, index: same.length };
    const told = this.#expected.size > 0 && this.#expected.has(keyOf(key));
    const deferred = { promise: StepPromise.pending(), decode };
    const found: Found = { planned: { key, target, ...options, source }, deferred, told };
    this.#count += 1;
    moveState.note();
    this.#latest = found.planned;
    same.push(found);
    this.#open.add(found);
    this.#fresh.push(found);
    return deferred.promise;
  }

  // How it works inside.

  #move(entries: readonly Entry[], expected: readonly Expected[], begin: boolean): Promise<Turn> {
    this.#pending += 1;
    return new Promise((resolve, reject) => {
      let position = 0;
      let begun = !begin;
      const advance = (): boolean => {
        if (!begun) {
          begun = true;
          this.#begin();
          return true;
        }
        for (let entry = entries[position]; entry && !this.#closed; entry = entries[position]) {
          position += 1;
          this.#follow(entry);
          this.#replaying &&= position < entries.length;
          if (this.#fault === undefined && this.#give(entry)) return true;
        }
        this.#replaying = false;
        this.#checkExpected(expected);
        this.#expected.clear();
        this.#pending -= 1;
        resolve(this.#turn());
        return false;
      };
      enqueue({
        owner: this,
        look: () => {
          this.#check();
        },
        advance: () => {
          try {
            return advance();
          } catch (error) {
            this.#pending -= 1;
            reject(error instanceof Error ? error : new Error(String(error)));
            return false;
          }
        },
        breakOff: (place) => {
          this.#pending -= 1;
          if (!this.#closed && !this.ended) {
            this.#fault = this.#thrown(spinning(this.function.id, place));
            this.#end(this.#fault);
          }
          resolve(this.#turn());
        },
      });
    });
  }

  #begin(): void {
    if (this.#closed) return;
    // Not at once, but as a microtask: only there may a body be broken off.
    const body = Promise.resolve(this.#contextOf(this)).then(stepwireBody.bind(undefined, this.function));
    body.then(
      (value: unknown) => {
        this.#takeEnding({ case: "returned", value });
      },
      (error: unknown) => {
        this.#takeEnding({ case: "thrown", error });
      },
    );
  }

  #takeEnding(ending: Ending): void {
    if (this.inBody) {
      this.#ending = ending;
    } else {
      this.#stray(
        new ForeignAwaitError(
          `the body of '${this.function.id}', ${this.#whereabouts()}, ended after awaiting something that is no step: ` +
            "wrap the code that does this in a function of its own and await it with step.run(...)",
          ending.case === "thrown" ? { cause: ending.error } : undefined,
        ),
      );
    }
  }

  /** Say about where the body stands: a promise does not tell where it is awaited. */
  #whereabouts(): string {
    const latest = this.#latest;
    if (latest) return `after step '${keyText(latest.key)}' at ${latest.source || "an unknown line"}`;
    return `declared at ${this.function.source ?? "an unknown line"}, before its first step`;
  }

  /** See how things stand once the body has run dry. */
  #check(): void {
    if (this.#closed || this.ended) return;
    if (this.#fault) this.#end(this.#fault);
    else if (this.#ending) this.#takeEnd(this.#ending);
    else if (this.#open.size === 0) {
      const error = new ForeignAwaitError(
        `the body of '${this.function.id}', ${this.#whereabouts()}, waits for something that no step will bring: wrap the ` +
          "code that brings it in a function of its own and await it with step.run(...)",
      );
      this.#end(this.#thrown(error));
    }
  }

  /**
   * End with the body, but not before the steps that nothing has awaited: they were started, and a forgotten `await` must
   * not lose them. As a rejection that nothing handles ends a program, the failure of such a step fails the run.
   */
  #takeEnd(ending: Ending): void {
    if (ending.case === "returned") {
      this.#tellForgotten();
      if (this.#isHeld()) return;
      this.#tellGivenUp();
      const failed = this.#unseen.find(({ promise, error }) => error !== undefined && !promise.observed);
      if (failed) ending = { case: "thrown", error: failed.error };
    }
    this.#thrownError = ending.case === "thrown" ? ending.error : undefined;
    this.#end(outcomeOf(ending, this.function, this.values, this.#place()));
  }

  #isHeld(): boolean {
    const isHolding = (found: Found): boolean => found.deferred?.promise.observed === false;
    if (this.#holding && isHolding(this.#holding)) return true;
    this.#holding = undefined;
    for (const found of this.#open) {
      if (isHolding(found)) {
        this.#holding = found;
        return true;
      }
    }
    return false;
  }

  #tellForgotten(): void {
    if (this.#toldForgotten) return;
    this.#toldForgotten = true;
    const isForgotten = ({ promise }: { promise: StepPromise }): boolean => !promise.observed;
    const open = [...this.#open].filter(({ deferred }) => deferred && isForgotten(deferred));
    this.#tellLeft({ forgotten: [...this.#unseen.filter(isForgotten), ...open].map(({ planned }) => planned) });
  }

  #tellGivenUp(): void {
    const left = (isFollowed: boolean): Planned[] =>
      [...this.#open]
        .filter(({ deferred }) => deferred?.promise.isFollowed === isFollowed)
        .map(({ planned }) => planned);
    this.#tellLeft({ cutOff: left(true), givenUp: left(false) });
  }

  #tellLeft({ forgotten = [], cutOff = [], givenUp = [] }: Partial<Left>): void {
    if (!this.lead || forgotten.length + cutOff.length + givenUp.length === 0) return;
    this.#onLeft?.({ forgotten, cutOff, givenUp });
  }

  #follow(entry: Entry): void {
    if (entry.sequence !== this.#sequence + 1) {
      throw new RangeError(`journal entry ${String(entry.sequence)} follows ${String(this.#sequence)}: there is a gap`);
    }
    this.#sequence = entry.sequence;
  }

  /** Give the body a result; says whether that has stirred it. */
  #give(entry: Entry): boolean {
    const found = this.#find(entry.key);
    if (!found || !isSame(entry, found.planned, this.run.app)) {
      this.#diverge(entry, found);
      return false;
    }
    if (this.ended) return false;
    this.#time = Math.max(this.#time, entry.recordedAt);
    if (!found.deferred) return false;
    const { promise } = found.deferred;
    const error = settle(found.deferred, entry);
    if (!promise.observed) this.#unseen.push({ planned: found.planned, promise, error });
    found.deferred = undefined;
    this.#open.delete(found);
    return true;
  }

  #checkExpected(expected: readonly Expected[]): void {
    for (const each of expected) {
      if (this.#fault || this.#closed) return;
      const found = this.#find(each.key);
      if (!found || !isSame(each, found.planned, this.run.app)) this.#diverge(each, found);
    }
  }

  /** Say where in a replay the body has ended; "" if it has ended where it had not been before. */
  #place(): string {
    const isMissing = (key: string): boolean => {
      const colon = key.indexOf(":");
      return !this.#find({ id: key.slice(colon + 1), index: Number(key.slice(0, colon)) });
    };
    if (!this.#replaying && ![...this.#expected].some(isMissing)) return "";
    const length = String(this.#journalLength);
    return `Raised in a replay, after entry ${String(this.#sequence)} of ${length} of the run's journal.`;
  }

  /** Make the error for a step which the body has found in another worker only. */
  notFound(key: StepKey): NonDeterminismError {
    return notFound(key, this.#seen());
  }

  #seen(sameKey?: Planned): Seen {
    const awaited = [...this.#open].map((each) => each.planned);
    return { run: this.run, sameKey, awaited, ended: this.ended };
  }

  /** End the body, as it has not found what was recorded, unless it has thrown before it came there. */
  #diverge(recorded: Entry | Expected, found: Found | undefined): void {
    if (!found && this.#outcome?.case === "thrown") return;
    const error = diverged(recorded, this.#seen(found?.planned), this.#thrownError);
    this.#fault = this.#thrown(error);
    this.#end(this.#fault);
  }

  #turn(): Turn {
    const news = this.ended ? [] : this.#fresh.filter((found) => found.deferred && !found.told);
    for (const found of news) found.told = true;
    this.#fresh = [];
    return { found: news.map((found) => found.planned), outcome: this.#outcome };
  }

  #end(outcome: Outcome): void {
    this.#outcome = outcome;
    this.#release();
  }

  /** Forget what is awaited: nothing moves any more. */
  #release(): void {
    this.#open.clear();
    this.#fresh = [];
    this.#unseen = [];
  }

  /** End the body where it stands, with a failure that is not its own. */
  #stop(fault: Outcome): void {
    this.#fault ??= fault;
  }

  /** End a body that does something at a time when no result has moved it. */
  #stray(error: ForeignAwaitError): void {
    if (this.#closed || this.ended || this.#fault) return;
    this.#fault = this.#thrown(error);
    this.#end(this.#fault);
    if (this.lead && this.#pending === 0) this.#onFault?.(this.#fault);
  }

  #refuse(id: string, caller: (...args: never[]) => unknown): Promise<never> {
    const error = startedOutside(id, this.function.id, sourceOf(caller));
    if (error instanceof NestedStepError) throw error; // the step's code fails with it, whether it awaits or not
    this.#stray(error);
    return Promise.reject(error); // thrown, it might end the process: the caller may be a timer
  }

  #thrown(error: Error): Outcome {
    return { case: "thrown", failure: this.values.failure(error) };
  }

  #find(key: StepKey): Found | undefined {
    return this.#found.get(key.id)?.[key.index];
  }

  #firstOf(id: string): Found[] {
    const size = Buffer.byteLength(id);
    if (size > this.#maxStepIdBytes) {
      throw new InvalidStepError(
        `step id '${id.slice(0, 40)}'… has ${String(size)} bytes, over ` +
          `--max-step-id-bytes=${String(this.#maxStepIdBytes)}: choose a shorter one`,
      );
    }
    const same: Found[] = [];
    this.#found.set(id, same);
    return same;
  }

  #tooManySteps(): { type: string; message: string; stack: string; retryable: boolean } {
    const message =
      `run ${this.run.runId} found step ${String(this.#count + 1)}, over --max-steps=${String(this.#maxSteps)}: ` +
      "split the work over several runs with step.invoke, or raise the limit";
    return { type: "TooManyStepsError", message, stack: "", retryable: false };
  }
}

/** Run a body. Whatever it throws rejects, and its name shows in stacks. */
async function stepwireBody(definition: FunctionDefinition, context: unknown): Promise<unknown> {
  return await definition.body(context as never);
}

/** Give the body a result; returns the error that it is given instead, if any. */
function settle({ promise, decode }: Deferred, { outcome, key, attempts }: Entry): Error | undefined {
  try {
    if (outcome.case === "output") promise.resolve(read(decode, outcome.output, key, attempts));
    else if (outcome.case === "timedOut") promise.resolve(null);
    else throw new StepError(key.id, key.index, outcome.failure, attempts);
    return undefined;
  } catch (error) {
    promise.fail(error as Error);
    return error as Error;
  }
}

/** Read a recorded result. Throws StepError: the step has succeeded, and the body may catch it. */
function read(decode: Deferred["decode"], output: Payload, key: StepKey, attempts: number): unknown {
  try {
    return decode(output);
  } catch (error) {
    throw new StepError(key.id, key.index, failureOf(error), attempts, true);
  }
}

function nothing(): void {
  // Nothing to do.
}

/** The promise of something that a body which has ended still asks for. */
function never(): Promise<never> {
  return new Promise(nothing);
}

function spinning(functionId: string, place: string): SpinningBodyError {
  return new SpinningBodyError(
    `the body of '${functionId}' does not come to rest${place && ` at ${place}`}: it has gone on for 5 s without ` +
      "starting a step or getting a result, and nothing else has had a turn. If it polls, for example in a loop with " +
      "`await null`, await the step's promise itself: only the result of a step can change anything. If it computes, do " +
      "that in a step",
  );
}
