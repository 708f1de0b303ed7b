/** Attempts that run here: code of steps and tasks, and the reports of how it ended. */
import type { App } from "./app.js";
import type { AttemptContext, Logger } from "../attempt.js";
import { serialized } from "../frames.js";
import type { AttemptStart, TaskStart } from "../gen/stepwire/v1/worker_pb.js";
import type { Attempt } from "../gen/stepwire/v1/value_pb.js";
import { ownLines, withFields, type Fields } from "../log_fields.js";
import { keyText, type Failure } from "../model.js";
import { spoiledBy } from "../replay/outside.js";
import { Values } from "../values.js";
import { key, payload, toDuration, toFailure, toPayload } from "../wire.js";
import { FailureLog } from "./failure_log.js";

/** Code that still runs so long after it was cancelled is told of: nobody waits for it, but it goes on. */
const ABANDONED_MS = 1_000;

/** Code of an attempt. */
export type Code = (attempt: AttemptContext) => unknown;

/** How an attempt is to run. */
export interface Start {
  readonly attempt: Attempt;
  /** From 1. */
  readonly number: number;
  readonly traceparent: string;
  readonly functionId: string;
  /** The line of the body that has started the step, like "flow.ts:42"; a task has none. */
  readonly source?: string;
}

interface Running {
  readonly attempt: Attempt;
  readonly source: string;
  readonly fields: Fields;
  readonly controller: AbortController;
  begun: number;
  ended: boolean;
}

/** Runs attempts, and gives one serialized report of each to `report`, unless it was cancelled. */
export class Attempts {
  readonly values: Values;
  readonly failures: FailureLog;
  readonly #app: App;
  readonly #logger: Logger;
  readonly #report: (fence: bigint, message: Uint8Array) => void;
  readonly #running = new Map<bigint, Running>();

  constructor(app: App, logger: Logger, report: (fence: bigint, message: Uint8Array) => void) {
    this.#app = app;
    this.#logger = logger;
    this.#report = report;
    this.failures = new FailureLog(logger);
    this.values = new Values(app.codec);
  }

  /** What runs here. */
  get fences(): bigint[] {
    return [...this.#running.keys()];
  }

  /** Whether an attempt of a run runs here. */
  hasRun(runId: string): boolean {
    for (const { attempt } of this.#running.values()) if (attempt.runId === runId) return true;
    return false;
  }

  /** Run code as an attempt. */
  start(start: Start, code: Code): void {
    const { attempt } = start;
    const fields = this.#fields(start);
    const running: Running = {
      attempt,
      fields,
      source: start.source ?? "",
      controller: new AbortController(),
      begun: performance.now(),
      ended: false,
    };
    this.#running.set(attempt.fence, running);
    const logger = this.#logger;
    const context: AttemptContext = {
      runId: attempt.runId,
      stepId: attempt.key?.id ?? "",
      index: attempt.key?.index ?? 0,
      number: start.number,
      app: fields.app,
      functionId: fields.functionId,
      get logger() {
        return withFields(logger, fields);
      },
      signal: running.controller.signal,
      traceparent: start.traceparent,
    };
    // Not now: this may be called while a body runs dry, which code of a step must not be a part of.
    setImmediate(() => {
      if (this.#running.has(attempt.fence)) void this.#run(running, code, context);
      else running.ended = true;
    });
  }

  /** Run a task by its name. */
  startTask(start: AttemptStart & { attempt: Attempt }, { name, input, functionId }: TaskStart): void {
    const task = this.#app.tasks.get(name);
    if (task === undefined) {
      const known = [...this.#app.tasks.keys()].sort().join(", ") || "none";
      const message = `this worker has no task '${name}': it has ${known}`;
      const failure = { type: "TaskNotFoundError", message, stack: "", retryable: false };
      this.failures.attemptFailed(start.attempt.fence, this.#fields({ ...start, functionId }), failure);
      this.#report(start.attempt.fence, failed(start.attempt, failure, 0));
      return;
    }
    this.start({ ...start, functionId }, (attempt) =>
      task.run(this.values.decode(payload(input), `the input of task '${name}'`), attempt),
    );
  }

  /** Stop an attempt; nothing is reported of it. */
  cancel(fence: bigint, reason: string): void {
    const running = this.#running.get(fence);
    if (running === undefined) return;
    this.#running.delete(fence);
    setTimeout(() => {
      if (!running.ended) this.#tellAbandoned(running, reason);
    }, ABANDONED_MS).unref();
    running.controller.abort(new DOMException(reason || "the attempt was cancelled", "AbortError"));
  }

  /** Stop an attempt that has failed since its time is over. */
  timeOut(fence: bigint, reason: string, failure: Failure, retried: boolean): void {
    const running = this.#running.get(fence);
    if (running === undefined) return;
    this.failures.timedOut(running.fields, failure, retried);
    this.cancel(fence, reason);
  }

  /** Stop all attempts of a run; gives their fences. */
  cancelRun(runId: string, reason: string): bigint[] {
    const fences = this.fences.filter((fence) => this.#running.get(fence)?.attempt.runId === runId);
    for (const fence of fences) this.cancel(fence, reason);
    return fences;
  }

  /** Stop everything; gives the attempts. */
  giveUp(reason: string): Attempt[] {
    const attempts = [...this.#running.values()].map((running) => running.attempt);
    for (const attempt of attempts) this.cancel(attempt.fence, reason);
    return attempts;
  }

  #tellAbandoned({ attempt, source }: Running, reason: string): void {
    const step = `'${keyText(key(attempt.key))}'${source && ` (${source})`}`;
    ownLines(this.#logger).warn(
      `step ${step} of run ${attempt.runId} still runs ${String(ABANDONED_MS / 1000)} s after it was cancelled ` +
        `(${reason}): it is abandoned, but goes on; let it end when its attempt's signal is aborted`,
    );
  }

  #fields({ attempt, number, functionId }: Pick<Start, "attempt" | "number" | "functionId">): Fields {
    const { runId, key } = attempt;
    return { app: this.#app.id, functionId, runId, stepId: key?.id ?? "", index: key?.index ?? 0, attempt: number };
  }

  async #run(running: Running, code: Code, context: AttemptContext): Promise<void> {
    const { attempt } = running;
    let message: Uint8Array;
    running.begun = performance.now();
    try {
      const value = await code(context);
      throwSpoiled(context);
      if (!this.#running.has(attempt.fence)) return; // it was cancelled: what became of it is of no interest
      const output = this.values.encode(value, `the output of step '${context.stepId}'`);
      const elapsed = toDuration(performance.now() - running.begun);
      message = serialized({ case: "stepRun", value: { attempt, output: toPayload(output), elapsed } });
    } catch (error) {
      const failure = this.values.failure(spoiledBy(context) ?? error);
      if (this.#running.has(attempt.fence)) this.failures.attemptFailed(attempt.fence, running.fields, failure);
      message = failed(attempt, failure, performance.now() - running.begun);
    } finally {
      running.ended = true;
    }
    if (this.#running.delete(attempt.fence)) this.#report(attempt.fence, message);
  }
}

function throwSpoiled(context: AttemptContext): void {
  const error = spoiledBy(context);
  if (error) throw error;
}

function failed(attempt: Attempt, failure: Failure, elapsed: number): Uint8Array {
  return serialized({
    case: "stepFailed",
    value: { attempt, failure: toFailure(failure), elapsed: toDuration(elapsed) },
  });
}
