/** Checks of what users give to steps. Every function throws InvalidStepError, which says what to do. */

import { Buffer } from "node:buffer";

import { checkText as checkGiven } from "../arguments.js";
import { LONGEST, shown } from "../durations.js";
import { InvalidStepError } from "../errors.js";

const RESERVED = "stepwire.";
/** The first millisecond of the year 1: the contract has no earlier time. */
const FIRST = -62_135_596_800_000;
/** The contract's limits of what a wait compares: see WaitForEventTarget.fields. */
const MOST_FIELDS = 16;
const LONGEST_PATH_BYTES = 256;
const MOST_NAMES = 16;
const MOST_MATCH_BYTES = 1_024;

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
  const entries = Object.entries(match);
  if (entries.length > MOST_FIELDS) {
    throw new InvalidStepError(
      `wait '${id}' matches ${String(entries.length)} fields, but at most ${String(MOST_FIELDS)} are allowed`,
    );
  }
  const fields: [string, string][] = entries.map(([path, value]) => {
    checkPath(id, path);
    return [path, jsonOf(id, path, value)];
  });
  const sizes = fields.map(([path, text]) => asciiLength(JSON.stringify(path)) + asciiLength(text) + 2);
  const size = sizes.reduce((sum, each) => sum + each, 2); // in two lists
  if (size > MOST_MATCH_BYTES) {
    throw new InvalidStepError(
      `wait '${id}' matches paths and values of ${String(size)} bytes as JSON in ASCII, but at most ` +
        `${String(MOST_MATCH_BYTES)} together are allowed: compare less, like an id`,
    );
  }
  return Object.fromEntries(fields);
}

function checkPath(id: string, path: string): void {
  checkText(path, `a path that wait '${id}' matches`);
  const [size, names] = [Buffer.byteLength(path), path.split(".").length];
  if (size > LONGEST_PATH_BYTES || names > MOST_NAMES) {
    throw new InvalidStepError(
      `wait '${id}' matches a path of ${String(size)} bytes and ${String(names)} names, but at most ` +
        `${String(LONGEST_PATH_BYTES)} bytes and ${String(MOST_NAMES)} names are allowed: ${shown(path.slice(0, 40))}`,
    );
  }
}

/** How long a JSON text is once all its characters outside of ASCII are escaped, as "\u00e9". */
function asciiLength(json: string): number {
  return json.length + 5 * json.replace(/[\0-\x7f]/g, "").length;
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
