/** Plays the executor for one invocation at a time: completes steps in a seeded order and keeps the journal. */

import { contextOf } from "../../src/body/body_context.js";
import { type FunctionDefinition, type FunctionContext, Stepwire } from "../../src/index.js";
import type { AttemptContext } from "../../src/index.js";
import { Invocation, type InvocationOptions } from "../../src/replay/invocation.js";
import {
  type Entry,
  type Expected,
  type Outcome,
  type Planned,
  type RunInfo,
  StepKind,
  type StepOutcome,
  type Turn,
} from "../../src/replay/model.js";
import { keyOf, keyText } from "../../src/model.js";
import { seeded } from "../../src/replay/random.js";
import { Values } from "../../src/values.js";

/** Unix time in milliseconds at which all runs begin. */
export const START = 1_700_000_000_000;
export const VALUES = new Values();

/** A function's body. */
export type Body = (context: FunctionContext) => unknown;

/** Declare a body as a function that "go" triggers. */
export function definitionOf(body: Body, logger?: FunctionDefinition["logger"]): FunctionDefinition {
  const app = new Stepwire({ id: "app", ...(logger ? { logger } : {}) });
  return app.createFunction({ id: body.name || "body" }, { event: "go" }, body);
}

/** What an invocation is told of a run that an event with `data` has started. */
export function runInfo(functionId: string, data: unknown = null): RunInfo {
  const event = { id: "e", name: "go", data: VALUES.encode(data), time: START };
  return { runId: "run-1", app: "app", functionId, attempt: 1, events: [event], createdAt: START };
}

/** Make an invocation of a body. */
export function invocation(body: Body, options: InvocationOptions = {}, data: unknown = null): Invocation {
  const definition = definitionOf(body);
  return new Invocation(definition, runInfo(definition.id, data), VALUES, contextOf, options);
}

/** Make an attempt at a step. */
export function attemptAt(planned: Pick<Planned, "key">): AttemptContext {
  const { signal } = new AbortController();
  return {
    runId: "run-1",
    stepId: planned.key.id,
    index: planned.key.index,
    number: 1,
    signal,
    traceparent: "",
    app: "app",
    functionId: "f",
    logger: console,
  };
}

/** Make a journal entry. */
export function entry(
  sequence: number,
  id: string,
  value: unknown = "x",
  more: Partial<Omit<Entry, "key" | "sequence">> & { readonly index?: number } = {},
): Entry {
  const { index = 0, ...rest } = more;
  return {
    sequence,
    key: { id, index },
    kind: StepKind.closure,
    outcome: { case: "output", output: VALUES.encode(value) },
    recordedAt: START + sequence,
    attempts: 1,
    source: `old.ts:${String(sequence)}`,
    ...rest,
  };
}

/** Make a journal entry of a step that has failed for good. */
export function failed(sequence: number, id: string, error: unknown, index = 0): Entry {
  return entry(sequence, id, null, { index, outcome: { case: "failure", failure: VALUES.failure(error) } });
}

/** Really run a closure, as a worker does. */
export async function really(
  planned: Pick<Planned, "key">,
  run: (attempt: AttemptContext) => unknown,
): Promise<StepOutcome> {
  try {
    return { case: "output", output: VALUES.encode(await run(attemptAt(planned))) };
  } catch (error) {
    return { case: "failure", failure: VALUES.failure(error) };
  }
}

/** Runs a body live. `turns` holds what it has found, turn by turn. */
export class Driver {
  readonly journal: Entry[] = [];
  readonly turns: Turn[] = [];
  outcome: Outcome | undefined;
  readonly body: Body;
  readonly #data: unknown;
  readonly #random: () => number;
  readonly #known = new Set<string>();
  #open: Planned[] = [];
  #clock = START;

  constructor(body: Body, seed = 0, data: unknown = null) {
    this.body = body;
    this.#data = data;
    this.#random = seeded(String(seed));
  }

  /** Run to the end, completing one open step at a time. */
  async run(): Promise<Outcome> {
    const live = invocation(this.body, {}, this.#data);
    this.#take(await live.start([]));
    while (this.outcome === undefined) {
      const step = this.#choose();
      this.#open = this.#open.filter((each) => each !== step);
      const recorded = await this.#complete(step);
      this.journal.push(recorded);
      this.#take(await live.resume([recorded]));
    }
    live.close();
    return this.outcome;
  }

  /** Give the steps that the executor knew as unfinished after `length` journal entries. */
  openAfter(length: number): Planned[] {
    const gone = new Set(this.journal.slice(0, length).map((each) => keyOf(each.key)));
    const found = this.turns.slice(0, length + 1).flatMap((turn) => turn.found);
    return found.filter((step) => !gone.has(keyOf(step.key)));
  }

  /** Choose the step that ends next: sleeps end in the order of their times, after everything else. */
  #choose(): Planned {
    const working = this.#open.filter((step) => step.target.kind !== StepKind.sleep);
    const chosen = working[Math.floor(this.#random() * working.length)];
    if (chosen) return chosen;
    const delay = ({ target }: Planned): number => (target.kind === StepKind.sleep ? (target.delay ?? 0) : 0);
    return this.#open.reduce((first, step) => (delay(step) < delay(first) ? step : first));
  }

  async #complete(step: Planned): Promise<Entry> {
    this.#clock += 500;
    const { key, target, source } = step;
    let outcome: StepOutcome = { case: "output", output: VALUES.encode(`result of ${keyText(key)}`) };
    if (target.kind === StepKind.closure) outcome = await really(step, target.run);
    if (target.kind === StepKind.waitForEvent) outcome = { case: "timedOut" };
    if (target.kind === StepKind.sleep) {
      this.#clock += target.delay ?? 0;
      outcome = { case: "output", output: { data: new Uint8Array(), encoding: "", metadata: {} } };
    }
    if (target.kind === StepKind.sendEvents) {
      outcome = { case: "output", output: VALUES.encode(target.events.map((_, index) => `id-${String(index)}`)) };
    }
    const sequence = this.journal.length + 1;
    return { sequence, key, kind: target.kind, outcome, recordedAt: this.#clock, attempts: 1, source };
  }

  #take(turn: Turn): void {
    this.turns.push(turn);
    for (const planned of turn.found) {
      if (this.#known.has(keyOf(planned.key))) throw new Error(`${keyText(planned.key)} was found twice`);
      this.#known.add(keyOf(planned.key));
    }
    this.#open.push(...turn.found);
    this.outcome = turn.outcome;
  }
}

/** Give steps as an Invoke names them. */
export function expected(steps: readonly Planned[]): Expected[] {
  return steps.map(({ key, target, source }) => ({ key, kind: target.kind, source }));
}

/** Give the value that a body has returned. */
export function returned(outcome: Outcome | undefined): unknown {
  if (outcome?.case !== "returned") throw new Error(`the body has not returned: ${JSON.stringify(outcome)}`);
  return VALUES.decode(outcome.output);
}

/** Give the failure that a body has ended with. */
export function failureIn(turn: Turn): Extract<Outcome, { case: "thrown" }>["failure"] {
  if (turn.outcome?.case !== "thrown") throw new Error(`the body has not thrown: ${JSON.stringify(turn)}`);
  return turn.outcome.failure;
}
