/** Words for a body that does other things than its journal holds. */

import { NonDeterminismError } from "../errors.js";
import { type Entry, type Expected, type Planned, type RunInfo, StepKind, targetName } from "./model.js";
import { type StepKey, keyText } from "../model.js";

/** Steps that are shown of those which the body has found. */
const SHOWN = 5;
/** Characters that are shown of a step's id, of what identifies its target, and of its source. */
const LONGEST_SHOWN = 100;
const REMEDY =
  "A function must start the same steps in every replay: take clocks, random numbers and I/O into steps, and give " +
  "the app a new version after changing the ids or the order of steps, so that runs go on where they began";
const NAMES: Readonly<Record<StepKind, string>> = {
  [StepKind.closure]: "closure",
  [StepKind.task]: "task",
  [StepKind.sleep]: "sleep",
  [StepKind.invoke]: "invoke",
  [StepKind.sendEvents]: "send events",
  [StepKind.waitForEvent]: "wait for event",
};

/** What the body of a run has done. */
export interface Found {
  readonly run: RunInfo;
  /** What it has found under the recorded step's key, if anything. */
  readonly sameKey?: Planned | undefined;
  /** What it awaits. */
  readonly awaited: Iterable<Planned>;
  readonly ended: boolean;
}

/** Whether a step that the body has found is the one that was recorded under its key; `app` is the run's. */
export function isSame(recorded: Entry | Expected, planned: Planned, app: string): boolean {
  if (planned.target.kind !== recorded.kind) return false;
  return !recorded.target || recorded.target === targetName(planned.target, app);
}

/** Show both sides with their source lines. */
export function diverged(recorded: Entry | Expected, found: Found, cause: unknown): NonDeterminismError {
  const name = named(recorded.key, recorded.kind, recorded.target ?? "", recorded.source);
  const place =
    "sequence" in recorded
      ? `entry ${String(recorded.sequence)} of the journal is the result of the ${name}`
      : `the journal ends with the ${name} unfinished`;
  const { runId, app, functionId } = found.run;
  const other = found.sameKey
    ? `found the ${namedPlanned(found.sameKey, app)} under that key`
    : `has not found it and ${rest(found)}`;
  return new NonDeterminismError(
    `run ${runId}: ${place}, but the body of '${functionId}' ${other}. ${REMEDY}`,
    cause === undefined ? undefined : { cause },
  );
}

/** Show what the body has found here instead of a step that it has found in another worker. */
export function notFound(key: StepKey, found: Found): NonDeterminismError {
  const { runId, functionId } = found.run;
  return new NonDeterminismError(
    `run ${runId}: in this worker the body of '${functionId}' has not found step '${cut(keyText(key))}', which it is ` +
      `to run, and ${rest(found)}. ${REMEDY}`,
  );
}

function rest(found: Found): string {
  if (found.ended) return "has ended";
  const shown: string[] = [];
  for (const planned of found.awaited) {
    shown.push(shown.length < SHOWN ? `the ${namedPlanned(planned, found.run.app)}` : "…");
    if (shown.length > SHOWN) break;
  }
  return `awaits ${shown.join(", ") || "no step"}`;
}

function namedPlanned({ key, target, source }: Planned, app: string): string {
  return named(key, target.kind, targetName(target, app), source);
}

function named(key: StepKey, kind: StepKind, target: string, source: string): string {
  const of = target && target !== key.id ? ` of '${cut(target)}'` : "";
  return `${NAMES[kind]} step '${cut(keyText(key))}'${of} at ${cut(source) || "an unknown line"}`;
}

function cut(text: string): string {
  return text.length <= LONGEST_SHOWN ? text : `${text.slice(0, LONGEST_SHOWN - 1)}…`;
}
