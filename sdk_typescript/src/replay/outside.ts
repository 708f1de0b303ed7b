/** Which mistake it is when a step is started while its body does not move: told apart by the stack of the call. */

import type { AttemptContext } from "../context.js";
import { ForeignAwaitError, NestedStepError } from "../errors.js";
import { aside } from "./moves.js";

const MOST_FRAMES = 200;
const MARK = "stepwireAttempt";
const MARKED = new RegExp(`${MARK}(\\d+)`);
/** Attempts whose code runs now, by the number in the name of the function that runs it. */
const running = new Map<number, AttemptContext>();
const nested = new WeakMap<AttemptContext, NestedStepError>();
let count = 0;

/** Run a step's code. A function's name that tells the attempt shows in the stacks of all that the code awaits. */
export async function runAttempt(
  code: (attempt: AttemptContext) => unknown,
  attempt: AttemptContext,
): Promise<unknown> {
  count += 1;
  const number = count;
  const name = `${MARK}${String(number)}`;
  const frames = { [name]: async (): Promise<unknown> => await aside(() => code(attempt)) };
  running.set(number, attempt);
  try {
    return await frames[name]?.();
  } finally {
    running.delete(number);
  }
}

/** What an attempt fails with, whatever its code makes of it: it has tried to start a step. */
export function nestedIn(attempt: AttemptContext): NestedStepError | undefined {
  return nested.get(attempt);
}

/**
 * Give the error of a step that was started by whoever calls, while its body did not move. An attempt whose code did it
 * is marked: see `nestedIn`.
 */
export function startedOutside(id: string, functionId: string): NestedStepError | ForeignAwaitError {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = MOST_FRAMES;
  const { stack = "" } = new Error();
  Error.stackTraceLimit = limit;
  const marked = MARKED.exec(stack);
  if (marked) {
    const attempt = running.get(Number(marked[1]));
    const by = attempt ? `by the code of step '${attempt.stepId}'` : "inside another step";
    const error = new NestedStepError(
      `step '${id}' was started ${by} of '${functionId}': start steps in the function's body only, one after the other ` +
        "or side by side",
    );
    if (attempt && !nested.has(attempt)) nested.set(attempt, error);
    return error;
  }
  return new ForeignAwaitError(
    `step '${id}' was started while the body of '${functionId}' should stand still: either the body awaited something ` +
      "that is no step (wrap the code that does this in a function of its own and await it with step.run(...)), or the " +
      "step was started inside another step (start steps in the function's body only)",
  );
}
