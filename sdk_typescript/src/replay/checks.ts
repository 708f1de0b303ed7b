/** Checks of what users give to steps. Every function throws InvalidStepError, which says what to do. */

import { checkText as checkGiven } from "../arguments.js";
import { LONGEST, shown } from "../durations.js";
import { InvalidStepError } from "../errors.js";

const RESERVED = "stepwire.";
/** The first millisecond of the year 1: the contract has no earlier time. */
const FIRST = -62_135_596_800_000;

/** Check a step's id; how long it may be is checked later. */
export function checkId(id: unknown): asserts id is string {
  if (typeof id !== "string") throw new InvalidStepError(`a step's id is ${shown(id)}, but must be a text`);
  if (id === "") throw new InvalidStepError("a step's id is empty: give each step a name that says what it does");
  if (id.startsWith(RESERVED)) {
    throw new InvalidStepError(`a step's id is '${id}', but ids that start with '${RESERVED}' are Stepwire's own`);
  }
  checkText(id, "a step's id");
}

/** Check a text that can't be empty. */
export function checkText(text: unknown, what: string): asserts text is string {
  checkGiven(text, what, InvalidStepError);
}

/** Give the end of a sleep in Unix milliseconds. */
export function endOf(id: string, when: unknown, now: number): number {
  const end = when instanceof Date ? when.getTime() : when;
  if (typeof end !== "number" || !Number.isFinite(end)) {
    throw new InvalidStepError(
      `sleep '${id}' is until ${shown(when)}, but must be a valid Date or Unix time in milliseconds`,
    );
  }
  if (end < FIRST) {
    throw new InvalidStepError(`sleep '${id}' is until ${shown(when)}, which is before the year 1`);
  }
  if (end - now > LONGEST) {
    throw new InvalidStepError(
      `sleep '${id}' is until ${shown(when)}, ${String((end - now) / 86_400_000)} days ahead, over the limit of ` +
        `${String(LONGEST / 86_400_000)} days (--max-sleep)`,
    );
  }
  return end;
}

/** Give the fields that an event must have, their values as JSON text. */
export function fieldsOf(id: string, match: unknown): Record<string, string> {
  if (typeof match !== "object" || match === null || Array.isArray(match)) {
    throw new InvalidStepError(`wait '${id}' matches ${shown(match)}, but must be given paths and their values`);
  }
  const fields: [string, string][] = Object.entries(match).map(([path, value]) => {
    checkText(path, `a path that wait '${id}' matches`);
    return [path, jsonOf(id, path, value)];
  });
  return Object.fromEntries(fields);
}

function jsonOf(id: string, path: string, value: unknown): string {
  const isEndless = typeof value === "number" && !Number.isFinite(value);
  if (isEndless || (value !== null && !["string", "number", "boolean"].includes(typeof value))) {
    throw new InvalidStepError(
      `wait '${id}' matches '${path}' with ${shown(value)}: values are texts, numbers, booleans or null`,
    );
  }
  if (typeof value === "string" && value !== "") checkText(value, `what wait '${id}' matches '${path}' with`);
  return JSON.stringify(value);
}
