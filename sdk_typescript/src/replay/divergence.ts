/** Words for a body that does other things than its journal holds. */

import { NonDeterminismError } from "../errors.js";
import { type Entry, type Expected, type Planned, type StepKey, StepKind, keyText } from "./model.js";

/** Steps that are shown of those which the body has found. */
const SHOWN = 5;
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
  readonly runId: string;
  readonly functionId: string;
  /** What it has found under the recorded step's key, if anything. */
  readonly sameKey: Planned | undefined;
  /** What it awaits. */
  readonly awaited: Iterable<Planned>;
  readonly ended: boolean;
}

/** Show both sides with their source lines. */
export function diverged(recorded: Entry | Expected, found: Found): NonDeterminismError {
  const name = named(recorded.key, recorded.kind, recorded.source);
  const place =
    "sequence" in recorded
      ? `entry ${String(recorded.sequence)} of the journal is the result of the ${name}`
      : `the journal ends with the ${name} unfinished`;
  return new NonDeterminismError(
    `run ${found.runId}: ${place}, but the body of '${found.functionId}' ${otherSide(found)}. ${REMEDY}`,
  );
}

function otherSide(found: Found): string {
  if (found.sameKey) return `found the ${namedPlanned(found.sameKey)} under that key`;
  if (found.ended) return "has not found it and has ended";
  const shown: string[] = [];
  for (const planned of found.awaited) {
    shown.push(shown.length < SHOWN ? `the ${namedPlanned(planned)}` : "…");
    if (shown.length > SHOWN) break;
  }
  return `has not found it and awaits ${shown.join(", ") || "no step"}`;
}

function namedPlanned(planned: Planned): string {
  return named(planned.key, planned.target.kind, planned.source);
}

function named(key: StepKey, kind: StepKind, source: string): string {
  return `${NAMES[kind]} step '${keyText(key)}' at ${source || "an unknown line"}`;
}
