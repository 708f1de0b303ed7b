/** How a body's end becomes an outcome. */

import type { FunctionDefinition } from "../definitions.js";
import { StepError } from "../errors.js";
import { isNeverRetried } from "../failures.js";
import type { Values } from "../values.js";
import type { Outcome } from "./model.js";

/** Errors within errors that are looked at. */
const MOST = 1_000;

/** How a body has ended: it returned a value, or threw something. */
export type Ending =
  { readonly case: "returned"; readonly value: unknown } | { readonly case: "thrown"; readonly error: unknown };

/** Give the outcome of a body that has ended; if that is in a replay, `place` says where. */
export function outcomeOf(ending: Ending, definition: FunctionDefinition, values: Values, place: string): Outcome {
  if (ending.case === "thrown") return thrown(ending.error, values, place);
  try {
    return { case: "returned", output: values.encode(ending.value, `output of '${definition.id}'`) };
  } catch (error) {
    return thrown(error, values, place);
  }
}

function thrown(error: unknown, values: Values, place: string): Outcome {
  const failure = values.failure(error, place);
  // A step that failed for good has had its retries.
  const isFinal = allAreFinal(error);
  return { case: "thrown", failure: isFinal ? { ...failure, retryable: false } : failure };
}

/** Whether no retry can mend an error, nor any that is in it. One that can't be looked at may be mended. */
function allAreFinal(error: unknown): boolean {
  try {
    return leaves(error, new Set()).every((leaf) =>
      leaf instanceof StepError ? hasHadItsTries(leaf) : isNeverRetried(leaf),
    );
  } catch {
    return false;
  }
}

/** Whether nothing is left to try: a codec that could not read a result may do so another time. */
function hasHadItsTries(error: StepError): boolean {
  return !error.unread || !error.failure.retryable;
}

/** Give the errors in an AggregateError, and in those that are in it, or the error itself; each once. */
function leaves(error: unknown, seen: Set<unknown>): unknown[] {
  if (seen.has(error)) return [];
  seen.add(error);
  if (!(error instanceof AggregateError) || error.errors.length === 0 || seen.size > MOST) return [error];
  return error.errors.flatMap((each) => leaves(each, seen));
}
