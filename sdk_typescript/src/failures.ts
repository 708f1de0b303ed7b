/** Errors as data: what a `Failure` says of them. Limits its size, and never fails itself. */

import { Buffer } from "node:buffer";
import { fileURLToPath } from "node:url";

import { LONGEST, shown } from "./durations.js";
import { NEVER_RETRIED, RetryAfterError, StepError } from "./errors.js";
import { FOLDER } from "./place.js";
import type { Failure } from "./model.js";

const MOST_CAUSES = 16;
const MOST_MEMBERS = 100;
const LONGEST_TEXT_BYTES = 64 * 1024;
const CUT = "[…]";
/** Where this package's own code stands, as stacks name it: built, and by its source maps. */
const OWN =
  FOLDER === undefined
    ? []
    : [`${FOLDER}dist/`, `${FOLDER}src/`].flatMap((url) =>
        url.startsWith("file:") ? [url, fileURLToPath(url)] : [url],
      );

/**
 * Describe whatever was thrown, with its stack and its causes, at most 16 deep; texts have at most 64 KiB each.
 *
 * A `note` of ours stands below the stack. The error itself says whether and when a retry makes sense, or the first one
 * in its chain of causes that does: NonRetriableError and its like, the StepError of a step that failed with one, or a
 * RetryAfterError. In an AggregateError one member that is not to be retried is enough; of several delays the longest
 * counts.
 */
export function failureOf(error: unknown, note = ""): Failure {
  try {
    return describe(error, MOST_CAUSES, new Set(), note);
  } catch {
    return { type: "Error", message: "what was thrown can't be described", stack: "", retryable: true };
  }
}

/** Whether an error says by its kind that no retry can mend it. */
export function isNeverRetried(error: unknown): boolean {
  return NEVER_RETRIED.some((type) => error instanceof type);
}

function describe(error: unknown, depth: number, seen: Set<unknown>, note = ""): Failure {
  seen.add(error);
  const word = wordOf(error, MOST_CAUSES);
  return {
    type: shortened(read(() => typeOf(error))),
    message: shortened(read(() => messageOf(error))),
    stack: shortened([read(() => stackOf(error)), note].filter(Boolean).join("\n"), true),
    retryable: word !== "never",
    retryAfter: typeof word === "number" ? word : undefined,
    cause: causeOf(error, depth, seen),
  };
}

/** Give what an error says of a retry: after so many milliseconds, never, or nothing. */
function wordOf(error: unknown, depth: number, seen = new Set<unknown>()): number | "never" | undefined {
  if (seen.has(error)) return undefined; // an error may contain itself
  seen.add(error);
  try {
    if (isNeverRetried(error)) return "never";
    if (error instanceof StepError && !error.failure.retryable) return "never";
    if (error instanceof RetryAfterError && error.delay >= 0) return Math.min(error.delay, LONGEST);
    if (depth === 0 || !isErrorLike(error)) return undefined;
    if (error instanceof AggregateError) {
      const words = error.errors.map((each) => wordOf(each, depth - 1, seen));
      if (words.includes("never")) return "never";
      const delays = words.filter((word) => typeof word === "number");
      if (delays.length > 0) return Math.max(...delays);
    }
    return error instanceof StepError ? undefined : wordOf(error.cause, depth - 1, seen);
  } catch {
    return undefined; // reading it throws
  }
}

function causeOf(error: unknown, depth: number, seen: Set<unknown>): Failure | undefined {
  if (error instanceof StepError) return error.failure;
  if (!isErrorLike(error) || depth === 0) return undefined;
  let cause: unknown;
  try {
    cause = error.cause;
  } catch {
    return undefined;
  }
  return cause === undefined || cause === null || seen.has(cause) ? undefined : describe(cause, depth - 1, seen);
}

function typeOf(error: unknown): string {
  if (error instanceof StepError) return "StepError";
  if (!isErrorLike(error)) return "Error";
  const name: unknown = error.name;
  if (typeof name === "string" && name !== "" && name !== "Error") return name;
  // A subclass that did not set its name.
  const made: unknown = (error as { constructor?: { name?: unknown } }).constructor?.name;
  return typeof made === "string" && made !== "" && made !== "Object" ? made : "Error";
}

function messageOf(error: unknown): string {
  if (error instanceof StepError) return error.summary;
  if (isErrorLike(error)) return String(error.message);
  return typeof error === "string" ? error : `${shown(error)} was thrown, which is no Error`;
}

function stackOf(error: unknown, seen = new Set<unknown>()): string {
  if (error instanceof StepError) return `StepError: ${error.summary}`;
  if (!isErrorLike(error)) return "";
  const stack = typeof error.stack === "string" ? withoutOwn(error.stack) : "";
  if (!(error instanceof AggregateError)) return stack;
  // Its members belong to it; they might contain it.
  seen.add(error);
  const members = error.errors.flatMap((each, index) => {
    if (seen.has(each) || seen.size > MOST_MEMBERS) return [];
    seen.add(each);
    return [`[errors ${String(index)}] ${read(() => stackOf(each, seen) || messageOf(each))}`];
  });
  return [stack, ...members].join("\n");
}

/** Leave out the frames of this package: what is of use are those of the user's code. */
function withoutOwn(stack: string): string {
  const isFrame = /^\s+at /;
  return stack
    .split("\n")
    .filter((line) => !isFrame.test(line) || !OWN.some((place) => line.includes(place)))
    .join("\n");
}

/** Errors of other realms, and objects that look like errors, count as errors. */
function isErrorLike(error: unknown): error is { name?: unknown; message: unknown; stack?: unknown; cause?: unknown } {
  return error instanceof Error || (typeof error === "object" && error !== null && "message" in error);
}

function read(text: () => string): string {
  try {
    return text();
  } catch {
    return "(can't be had: reading it throws)";
  }
}

/** Cut a text to what may be stored; what is not valid Unicode is replaced. */
function shortened(text: string, keepEnd = false): string {
  const data = Buffer.from(text);
  if (data.byteLength <= LONGEST_TEXT_BYTES) return data.toString();
  const room = LONGEST_TEXT_BYTES - Buffer.byteLength(CUT) - 3; // a character that is cut takes 3 bytes itself
  return keepEnd
    ? CUT +
        data
          .subarray(-room)
          .toString()
          .replace(/^\uFFFD+/, "")
    : data
        .subarray(0, room)
        .toString()
        .replace(/\uFFFD+$/, "") + CUT;
}
