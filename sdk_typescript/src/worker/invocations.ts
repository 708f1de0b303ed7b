/** Live invocations: the bodies that this worker holds, least recently used first. A body makes one move at a time. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { contextOf } from "../body/body_context.js";
import type { App } from "./app.js";
import type { Logger } from "../attempt.js";
import type { JournalEntry, StepPlannedSchema } from "../gen/stepwire/v1/opcode_pb.js";
import type { Attempt } from "../gen/stepwire/v1/value_pb.js";
import type { AttemptStart, Invoke, JournalChunk, Limits, PlannedStep, Resume } from "../gen/stepwire/v1/worker_pb.js";
import { Invocation } from "../replay/invocation.js";
import { StepKind, type Planned, type Turn } from "../replay/model.js";
import type { Failure, StepKey } from "../model.js";
import { Values } from "../values.js";
import { entry, expected, key, toFailure, toPayload, toPlanned } from "../wire.js";
import { serialized, type Said } from "../frames.js";
import type { Code } from "./attempts.js";
import type { FailureLog } from "./failure_log.js";
import { Leftovers } from "./leftovers.js";
import { Live, pagesOf, runInfo, type Permission } from "./live.js";
import type { Plan } from "./outbox.js";

const DEFAULT_MAX_STEPS = 100_000;
const DEFAULT_MAX_STEP_ID_BYTES = 1_024;

/** What the invocations need of the worker. */
export interface Shell {
  /** Tell the executor something of a run's body: the plan of a lone step that is held back goes before it. */
  say(runId: string, message: Uint8Array): void;
  /** Run a lone step at once, and send the report of its plan. */
  runLone(live: Live, step: Planned, code: Code, permission: Permission, plan: Plan): void;
  /** Run an attempt that has waited for its body. */
  runClosure(start: AttemptStart, attempt: Attempt, invocation: bigint): void;
  /** Whether attempts of a run are in hand. */
  isBusy(runId: string): boolean;
}

/** Holds live invocations, at most `most` of those that have nothing to do here. */
export class Invocations {
  readonly values: Values;
  limits: Limits | undefined;
  /** Whether lone steps are run at once where that is permitted. */
  eager = true;
  readonly #app: App;
  readonly #most: number;
  readonly #shell: Shell;
  readonly #logger: Logger;
  readonly #leftovers: Leftovers;
  readonly #failures: FailureLog;
  readonly #bodies: Logger | undefined;
  /** In the order of use, the least recently used first. */
  readonly #live = new Map<string, Live>();

  /** `bodies` takes the lines of the loggers of bodies; `console` does if it is left out. */
  constructor(app: App, most: number, shell: Shell, logger: Logger, failures: FailureLog, bodies?: Logger) {
    this.#bodies = bodies;
    this.#failures = failures;
    this.#app = app;
    this.#most = most;
    this.#shell = shell;
    this.#logger = logger;
    this.#leftovers = new Leftovers(logger);
    this.values = new Values(app.codec);
  }

  /** How many are live. */
  get size(): number {
    return this.#live.size;
  }

  /** Give an invocation; undefined if this one is not held. */
  get(runId: string, fence: bigint): Live | undefined {
    const live = this.#live.get(runId);
    return live?.fence === fence ? live : undefined;
  }

  // What the executor asks for.

  /** Start a body, or wait for the rest of its journal. */
  invoke(message: Invoke): void {
    this.drop(message.runId);
    const live = new Live(message.invocation, message.lead, runInfo(message, this.#app.id), message.journalLength);
    live.permission = { fence: message.eagerFence, traceparent: message.eagerTraceparent };
    this.#live.set(live.runId, live);
    this.#evict();
    this.#read(live, message.journal, message.planned);
  }

  /** Take more of a journal. */
  chunk(message: JournalChunk): void {
    const live = this.get(message.runId, message.invocation);
    if (live !== undefined && live.invocation === undefined) this.#read(live, message.entries, message.planned);
  }

  /** Give a body new results, or make it the lead. */
  resume(message: Resume): void {
    const live = this.get(message.runId, message.invocation);
    const invocation = live?.invocation;
    if (live === undefined || invocation === undefined) {
      this.needJournal(message.runId, message.invocation);
      return;
    }
    this.#used(live);
    let entries;
    try {
      entries = message.entries.map(entry);
    } catch (error) {
      this.#broken(live, error);
      return;
    }
    const promoted = message.lead && !live.lead;
    live.lead ||= message.lead;
    this.#move(live, {
      permission: { fence: message.eagerFence, traceparent: message.eagerTraceparent },
      make: async () => {
        live.unfinished -= entries.length;
        const turn = entries.length > 0 ? await invocation.resume(entries) : NOTHING;
        if (!promoted) return turn;
        live.unfinished = 0; // promotion tells all of them again
        return invocation.promote();
      },
    });
  }

  /** Ask for a run's journal again, and give back attempts that can't begin without it. */
  needJournal(runId: string, invocation: bigint, returnedAttempts: Attempt[] = []): void {
    this.#say(runId, { case: "needJournal", value: { runId, invocation, returnedAttempts } });
  }

  /** Keep an attempt until the body has moved as far as it was told to; false if it has. */
  wait(live: Live, start: AttemptStart): boolean {
    this.#used(live);
    if ((live.invocation !== undefined && !live.moving) || live.failure !== undefined) return false;
    live.waiting.push(start);
    return true;
  }

  /** Give, and let go of, the attempt with a fence if it waits for its body; all such ones without a fence. */
  takeWaiting(fence?: bigint): Attempt[] {
    const taken: Attempt[] = [];
    for (const live of this.#live.values()) {
      const keep = fence === undefined ? [] : live.waiting.filter((each) => each.attempt?.fence !== fence);
      for (const { attempt } of live.waiting) {
        if (attempt !== undefined && (fence === undefined || attempt.fence === fence)) taken.push(attempt);
      }
      live.waiting = keep;
    }
    return taken;
  }

  /** Report that the body has not found a step that the executor knows of, or has thrown before it came there. */
  notFound(live: Live, start: AttemptStart): void {
    if (live.failure !== undefined) {
      live.waiting.push(start); // it is given back
      this.#fail(live, live.failure);
    } else if (live.invocation !== undefined) {
      const step = start.attempt?.key;
      this.#fail(live, this.values.failure(live.invocation.notFound(key(step))), step);
    }
  }

  /** Log that a run has failed of which a body is here, though not by that. */
  runFailed(runId: string, failure: Failure): void {
    const live = this.#live.get(runId);
    if (live !== undefined) this.#failures.runFailed(live.info, failure);
  }

  /** Drop a run's body, without a word, and the attempts that wait for it. */
  drop(runId: string): void {
    const live = this.#live.get(runId);
    if (live === undefined) return;
    this.#live.delete(runId);
    live.dropped = true;
    live.moves = [];
    live.waiting = [];
    live.invocation?.close();
  }

  /** Drop all bodies: they do not outlive their stream. */
  dropAll(): void {
    for (const runId of [...this.#live.keys()]) this.drop(runId);
  }

  // How a body moves.

  #used(live: Live): void {
    this.#live.delete(live.runId);
    this.#live.set(live.runId, live);
  }

  /** Take a piece of the journal; begin when it is whole. */
  #read(live: Live, entries: readonly JournalEntry[], planned: readonly PlannedStep[]): void {
    try {
      for (const each of entries) live.journal.push(entry(each));
      for (const each of planned) live.expected.push(expected(each));
    } catch (error) {
      this.#broken(live, error);
      return;
    }
    if (live.journal.length < live.journalLength) return;
    const definition = this.#app.functions.get(live.info.functionId);
    if (definition === undefined) {
      const known = [...this.#app.functions.keys()].sort().join(", ") || "none";
      const message = `this worker has no function '${live.info.functionId}': it has ${known}`;
      this.#fail(live, { type: "FunctionNotFoundError", message, stack: "", retryable: true });
      return;
    }
    const invocation = new Invocation(definition, live.info, this.values, contextOf, {
      lead: live.lead,
      maxSteps: Number(this.limits?.maxSteps ?? 0n) || DEFAULT_MAX_STEPS,
      maxStepIdBytes: Number(this.limits?.maxStepIdBytes ?? 0n) || DEFAULT_MAX_STEP_ID_BYTES,
      logger: this.#bodies,
      onFault: (outcome) => {
        if (!live.dropped && live.lead) this.#report(live, NO_PERMISSION, { found: [], outcome });
      },
      onLeft: (left) => {
        this.#leftovers.tell(live.info, left);
      },
    });
    live.invocation = invocation;
    const { journal, expected: awaited } = live;
    [live.journal, live.expected] = [[], []];
    live.unfinished = awaited.length;
    this.#move(live, { permission: live.permission, make: () => invocation.start(journal, awaited) });
  }

  /** Move a body, after the moves that it has still to make. */
  #move(live: Live, move: Live["moves"][number]): void {
    live.moves.push(move);
    if (!live.moving) void this.#makeMoves(live);
  }

  async #makeMoves(live: Live): Promise<void> {
    for (let move = live.moves.shift(); move !== undefined; move = live.moves.shift()) {
      live.moving = true;
      try {
        const turn = await move.make();
        if (live.dropped) return;
        live.moving = false;
        this.#report(live, move.permission, turn);
      } catch (error) {
        if (live.dropped) return;
        live.moving = false;
        this.#broken(live, error);
      }
    }
    this.#release(live);
  }

  /** Begin the attempts that have waited for the body. */
  #release(live: Live): void {
    const waiting = live.waiting;
    live.waiting = [];
    for (const start of waiting) {
      if (start.attempt !== undefined) this.#shell.runClosure(start, start.attempt, live.fence);
    }
  }

  // What the executor is told.

  #say(runId: string, kind: Said): void {
    this.#shell.say(runId, serialized(kind));
  }

  /**
   * Tell what a lead has done in a turn: last that it has run dry, or has ended. A replica only remembers what keeps it
   * from finding more.
   */
  #report(live: Live, permission: Permission, turn: Turn): void {
    live.unfinished += turn.found.length;
    const { outcome } = turn;
    if (!live.lead) {
      if (outcome?.case === "thrown") live.failure = outcome.failure;
    } else if (outcome === undefined) {
      this.#tellFound(live, permission, turn.found);
    } else if (outcome.case === "returned") {
      const output = toPayload(outcome.output);
      this.#say(live.runId, { case: "runFinished", value: { runId: live.runId, invocation: live.fence, output } });
      this.drop(live.runId);
    } else {
      this.#fail(live, outcome.failure);
    }
  }

  /** Report steps in pages; an empty report too, since it says that the body has run dry. */
  #tellFound(live: Live, permission: Permission, found: readonly Planned[]): void {
    const [step] = found;
    const lone =
      this.eager && permission.fence !== 0n && live.unfinished === 1 && found.length === 1 ? step : undefined;
    let pages: readonly MessageInitShape<typeof StepPlannedSchema>[][];
    try {
      if (lone?.target.kind === StepKind.closure) {
        const plan = this.#stepsFound(live, [toPlanned(lone, permission.fence)], true);
        this.#shell.runLone(live, lone, lone.target.run, permission, plan);
        return;
      }
      pages = [...pagesOf(found)];
    } catch (error) {
      this.#fail(live, this.values.failure(error)); // a time out of range
      return;
    }
    pages.forEach((page, number) => {
      this.#say(live.runId, { case: "stepsFound", value: this.#stepsFound(live, page, number === pages.length - 1) });
    });
  }

  #stepsFound(live: Live, steps: MessageInitShape<typeof StepPlannedSchema>[], quiescent: boolean): Plan {
    const sequence = BigInt(live.invocation?.sequence ?? 0);
    return { runId: live.runId, invocation: live.fence, sequence, steps, quiescent };
  }

  #fail(live: Live, failure: Failure, notFound?: Attempt["key"]): void {
    this.#failures.bodyFailed(live.info, this.#app.functions.get(live.info.functionId)?.retry, failure);
    const value = { runId: live.runId, invocation: live.fence, failure: toFailure(failure), notFound };
    this.#say(live.runId, { case: "runFailed", value });
    const waiting = live.waiting.flatMap(({ attempt }) => (attempt === undefined ? [] : [attempt]));
    if (waiting.length > 0) this.needJournal(live.runId, live.fence, waiting);
    this.drop(live.runId);
  }

  /** Take what no body should do, or what this version of the SDK can't read. */
  #broken(live: Live, error: unknown): void {
    const failure = this.values.failure(error);
    this.#logger.error(`run ${live.runId} can't go on in this worker: ${failure.stack || failure.message}`);
    if (live.lead) {
      this.#fail(live, failure);
    } else {
      live.failure = failure;
      live.moves = [];
      this.#release(live);
    }
  }

  /** Keep to the most: the least recently used bodies go that have nothing to do here. */
  #evict(): void {
    if (this.#live.size <= this.#most) return;
    for (const live of [...this.#live.values()].slice(0, -1)) {
      if (this.#live.size <= this.#most) return;
      if (live.invocation === undefined || live.moving || this.#shell.isBusy(live.runId)) continue;
      this.#say(live.runId, { case: "evicted", value: { runId: live.runId, invocation: live.fence } });
      this.drop(live.runId);
    }
  }
}

const NOTHING: Turn = { found: [] };
const NO_PERMISSION: Permission = { fence: 0n, traceparent: "" };

/** Give the key of an attempt's step. */
export function keyOfAttempt(attempt: Attempt): StepKey {
  return key(attempt.key);
}
