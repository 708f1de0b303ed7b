/**
 * The worker's log lines about what has failed here: attempts, steps for good, bodies, runs. Lines of one kind are limited,
 * so that a fan-out that fails ten thousand times leaves a log that can be read.
 */
import type { Logger } from "../attempt.js";
import { oneLine, ownLines, withFields, type Fields } from "../log_fields.js";
import type { Failure, Retry } from "../model.js";
import type { RunInfo } from "../replay/model.js";

/** So many lines of one kind are written within the window; more are counted, and summed up in a line. */
const MOST_ALIKE = 50;
/** Kinds that are told apart within that time; more count as one, as ids may hold data. */
const MOST_KINDS = 100;
const WINDOW_MS = 10_000;
const DEFAULT_RETRIES = 4;

type Level = "warn" | "error";

interface Kind {
  readonly level: Level;
  readonly text: string;
  count: number;
}

/** Writes the lines. */
export class FailureLog {
  readonly #logger: Logger;
  readonly #kinds = new Map<string, Kind>();
  /** Failed attempts, by fence, of which the executor has not said yet whether their step goes on. */
  readonly #unconfirmed = new Map<bigint, readonly [Fields, Failure]>();
  #opened = -WINDOW_MS;
  #timer: NodeJS.Timeout | undefined;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Log that an attempt has failed; that its step has failed for good may follow. */
  attemptFailed(fence: bigint, fields: Fields, failure: Failure): void {
    this.#unconfirmed.set(fence, [fields, failure]);
    this.#warn(fields, failure);
  }

  /** Log that an attempt was stopped by the executor since its time was over. */
  timedOut(fields: Fields, failure: Failure, retried: boolean): void {
    this.#warn(fields, failure);
    if (!retried) this.#forGood(fields, failure);
  }

  /** Take the executor's word on reported attempts: with some of them their step has failed for good. */
  confirmed(fences: readonly bigint[], failedSteps: readonly bigint[] = []): void {
    if (this.#unconfirmed.size === 0) return;
    for (const fence of failedSteps) {
      const known = this.#unconfirmed.get(fence);
      if (known !== undefined) this.#forGood(...known);
    }
    for (const fence of [...failedSteps, ...fences]) this.#unconfirmed.delete(fence);
  }

  /** Forget attempts that are no longer in hand: nothing more is told of them. */
  forget(holds: (fence: bigint) => boolean): void {
    for (const fence of this.#unconfirmed.keys()) if (!holds(fence)) this.#unconfirmed.delete(fence);
  }

  /** Log that a body has failed: an error if its run has by that, else a warning. */
  bodyFailed(run: RunInfo, retry: Retry | undefined, failure: Failure): void {
    const retried = failure.retryable && run.attempt <= (retry?.retries ?? DEFAULT_RETRIES);
    if (retried) {
      const what = `attempt ${String(run.attempt)} of the body failed`;
      this.#write("warn", kindOf(run.app, run.functionId, failure), fieldsOf(run), `${what}: ${story(failure)}`);
    } else this.runFailed(run, failure);
  }

  /** Log that a run has failed. */
  runFailed(run: RunInfo, failure: Failure): void {
    const text = `the run has failed: ${story(failure)}`;
    this.#write("error", kindOf(run.app, run.functionId, failure), fieldsOf(run), text);
  }

  /** Sum up what was not written. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const { level, text, count } of this.#kinds.values()) {
      if (count <= MOST_ALIKE) continue;
      const more = (count - MOST_ALIKE).toLocaleString("en-US");
      this.#logger[level](`… and ${more} more like it within ${String(WINDOW_MS / 1000)} s: ${oneLine(text)}`);
    }
    this.#kinds.clear();
  }

  #warn(fields: Fields, failure: Failure): void {
    const what = `attempt ${String(fields.attempt)} of step '${nameOf(fields)}' failed`;
    this.#write("warn", kindOfStep(fields, failure), fields, `${what}: ${story(failure)}`);
  }

  #forGood(fields: Fields, failure: Failure): void {
    const tries = fields.attempt === 1 ? "1 attempt" : `${String(fields.attempt)} attempts`;
    const what = `step '${nameOf(fields)}' has failed for good after ${tries}`;
    this.#write("error", kindOfStep(fields, failure), fields, `${what}: ${failure.type}: ${failure.message}`);
  }

  #write(level: Level, text: string, fields: Fields, line: string): void {
    if (!this.#allows(level, text)) return;
    ownLines(withFields(this.#logger, fields))[level](line);
  }

  #allows(level: Level, text: string): boolean {
    const now = performance.now();
    if (this.#timer === undefined && now - this.#opened > WINDOW_MS) {
      this.#kinds.clear();
      this.#opened = now;
    }
    let key = `${level} ${text}`;
    if (!this.#kinds.has(key) && this.#kinds.size >= MOST_KINDS) key = `${level} others`;
    const kind = this.#kinds.get(key) ?? { level, text: key.slice(level.length + 1), count: 0 };
    this.#kinds.set(key, kind);
    kind.count++;
    if (kind.count > MOST_ALIKE) this.#timer ??= setTimeout(this.close.bind(this), WINDOW_MS).unref();
    return kind.count <= MOST_ALIKE;
  }
}

function fieldsOf({ app, functionId, runId, attempt }: RunInfo): Fields {
  return { app, functionId, runId, attempt };
}

function nameOf({ stepId = "", index = 0 }: Fields): string {
  return oneLine(index > 0 ? `${stepId}:${String(index)}` : stepId);
}

/** What the lines of many failures have in common. */
function kindOf(app: string, functionId: string, failure: Failure): string {
  return `${app}/${functionId}: ${failure.type}`;
}

/** Numbers in steps' ids tell no kinds apart. */
function kindOfStep({ app, functionId, stepId = "" }: Fields, failure: Failure): string {
  return `step '${stepId.replaceAll(/\d+/g, "*")}' of ${kindOf(app, functionId, failure)}`;
}

/** Write a failure with its stack, which begins with the error itself, and its causes. */
function story(failure: Failure): string {
  const stack = failure.stack === "" ? "" : `\n${failure.stack}`;
  const cause = failure.cause === undefined ? "" : `\ncaused by ${story(failure.cause)}`;
  return `${failure.type}: ${failure.message}${stack}${cause}`;
}
