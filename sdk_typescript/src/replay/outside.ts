/** Which mistake it is when a step is started while its body does not move: told apart by the stack of the call. */

import type { AttemptContext } from "../context.js";
import { ForeignAwaitError, NestedStepError } from "../errors.js";
import { aside } from "./moves.js";

const MOST_FRAMES = 200;

/** Run a step's code. The name of this function shows in the stacks of all that it awaits. */
export async function stepwireAttempt(
  code: (attempt: AttemptContext) => unknown,
  attempt: AttemptContext,
): Promise<unknown> {
  return await aside(() => code(attempt));
}

/** Give the error of a step that was started by whoever calls, while its body did not move. */
export function startedOutside(id: string, functionId: string): NestedStepError | ForeignAwaitError {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = MOST_FRAMES;
  const { stack = "" } = new Error();
  Error.stackTraceLimit = limit;
  if (stack.includes(stepwireAttempt.name)) {
    return new NestedStepError(
      `step '${id}' was started inside another step of '${functionId}': start steps in the function's body only, one ` +
        "after the other or side by side",
    );
  }
  return new ForeignAwaitError(
    `step '${id}' was started while the body of '${functionId}' should stand still: either the body awaited something ` +
      "that is no step (wrap the code that does this in a function of its own and await it with step.run(...)), or the " +
      "step was started inside another step (start steps in the function's body only)",
  );
}
