/** Which mistake it is when a step is started while its body does not move: told apart by the stack of the call. */

import type { AttemptContext } from "../attempt.js";
import { shown } from "../durations.js";
import { ForeignAwaitError, NestedStepError } from "../errors.js";
import { aside } from "./moves.js";

const MOST_FRAMES = 200;
const MARK = "stepwireAttempt";
const MARKED = new RegExp(`${MARK}(\\d+)`);
/** How many frames rest before one is used again: code that an attempt has left behind may still have its name. */
const RESTING = 64;

/** A function whose own name, which shows in stacks, tells the attempt whose code it runs. */
interface Frame {
  readonly run: (code: (attempt: AttemptContext) => unknown, attempt: AttemptContext) => Promise<unknown>;
  attempt: AttemptContext | undefined;
}

/** By number. Making one costs more than the rest of an attempt, so they are used again, the longest unused first. */
const frames: Frame[] = [];
const resting: Frame[] = [];
/** What attempts fail with, whatever their code makes of it. */
const spoiled = new WeakMap<AttemptContext, Error>();

/** Run a step's code. A function's name that tells the attempt shows in the stacks of all that the code awaits. */
export async function runAttempt(
  code: (attempt: AttemptContext) => unknown,
  attempt: AttemptContext,
): Promise<unknown> {
  const frame = (resting.length > RESTING ? resting.shift() : undefined) ?? newFrame();
  frame.attempt = attempt;
  try {
    return await frame.run(code, attempt);
  } finally {
    frame.attempt = undefined;
    resting.push(frame);
  }
}

function newFrame(): Frame {
  const run: Frame["run"] = async (code, attempt) => await aside(() => begin(code, attempt));
  Object.defineProperty(run, "name", { value: `${MARK}${String(frames.length)}` });
  const frame = { run, attempt: undefined };
  frames.push(frame);
  return frame;
}

/** Not every engine shows the names of such functions in its stacks (Bun's does not): up to its first await code is known so. */
let beginning: AttemptContext | undefined;

function begin(code: (attempt: AttemptContext) => unknown, attempt: AttemptContext): unknown {
  const outer = beginning;
  beginning = attempt;
  try {
    return code(attempt);
  } finally {
    beginning = outer;
  }
}

/**
 * What an attempt fails with, whatever its code makes of it: it has tried to start a step, or has left a promise that was
 * rejected.
 */
export function spoiledBy(attempt: AttemptContext): Error | undefined {
  return spoiled.get(attempt);
}

/**
 * Give the attempt whose code has left a promise that was rejected, and have it fail with that: the one that the stack
 * names, else the only one that runs. Gives nothing if it can't be told.
 */
export function blame(reason: unknown): AttemptContext | undefined {
  let marked: RegExpExecArray | null;
  try {
    marked = MARKED.exec(reason instanceof Error ? String(reason.stack) : "");
  } catch {
    return undefined; // it does not let itself be looked at
  }
  const running = frames.flatMap((frame) => frame.attempt ?? []);
  const attempt = marked ? frames[Number(marked[1])]?.attempt : running.length === 1 ? running[0] : undefined;
  if (attempt && !spoiled.has(attempt)) {
    const error = reason instanceof Error ? reason : new Error(`${shown(reason)} was thrown, which is no Error`);
    spoiled.set(attempt, error);
  }
  return attempt;
}

/**
 * Give the error of a step that was started by whoever calls, while its body did not move. An attempt whose code did it
 * is marked: see `spoiledBy`. `source` is the line of the call.
 */
export function startedOutside(id: string, functionId: string, source: string): NestedStepError | ForeignAwaitError {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = MOST_FRAMES;
  const { stack = "" } = new Error();
  Error.stackTraceLimit = limit;
  const marked = MARKED.exec(stack);
  if (marked ?? beginning) {
    const attempt = marked ? frames[Number(marked[1])]?.attempt : beginning;
    const by = attempt ? `by the code of step '${attempt.stepId}'` : "inside another step";
    const error = new NestedStepError(
      `step '${id}' was started ${by} of '${functionId}': start steps in the function's body only, one after the other ` +
        "or side by side",
    );
    if (attempt && !spoiled.has(attempt)) spoiled.set(attempt, error);
    return error;
  }
  return new ForeignAwaitError(
    `step '${id}' at ${source || "an unknown line"} was started while the body of '${functionId}' should stand still: ` +
      "a callback, of setTimeout say, started it (start it in the body itself, after step.sleep(...) if it is to come " +
      "later), or the body awaited something that is no step (wrap the code that does this in a function of its own and " +
      "await it with step.run(...)), or it was started inside another step (start steps in the function's body only)",
  );
}
