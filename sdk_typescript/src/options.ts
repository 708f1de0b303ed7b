/** Options that nobody knows are errors in plain JavaScript too: a name that is mistyped would change nothing in silence. */

import { shown } from "./durations.js";

/** Edits within which a name is taken for a known one that was mistyped. */
const NEAR = 3;

/** The same for options that must be given. */
export function needOptions(
  given: unknown,
  known: readonly string[],
  what: string,
  ErrorType: new (message: string) => Error,
): void {
  if (given === undefined) throw new ErrorType(`${what}: give an object of ${known.join(", ")}`);
  checkOptions(given, known, what, ErrorType);
}

/** Throw an `ErrorType` unless what was given is an object, or nothing, with known options only. */
export function checkOptions(
  given: unknown,
  known: readonly string[],
  what: string,
  ErrorType: new (message: string) => Error,
): void {
  if (given === undefined) return;
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw new ErrorType(`${what}: ${shown(given)} was given as options, but must be an object of ${known.join(", ")}`);
  }
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    throw new ErrorType(
      `${what}: nobody knows the option '${name}'` +
        (near === undefined ? `; use ${known.join(", ")}` : `: did you mean '${near}'? (${known.join(", ")})`),
    );
  }
}

/** Give the known name that is most like another one, if any is like it at all. */
function nearest(name: string, known: readonly string[]): string | undefined {
  const plain = (text: string): string => text.replaceAll(/[_-]/g, "").toLowerCase();
  const ranked = known
    .map((each) => ({ each, edits: plain(each).startsWith(plain(name)) ? 0 : distance(plain(name), plain(each)) }))
    .sort((one, other) => one.edits - other.edits);
  const [best] = ranked;
  return best && best.edits <= Math.min(NEAR, Math.floor(best.each.length / 2)) ? best.each : undefined;
}

/** How many letters must be put in, left out or changed to make one text of another. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  Array.from(from).forEach((letter, line) => {
    const next = [line + 1];
    Array.from(to).forEach((other, column) => {
      const changed = (row[column] ?? 0) + (letter === other ? 0 : 1);
      next.push(Math.min(changed, (row[column + 1] ?? 0) + 1, (next[column] ?? 0) + 1));
    });
    row = next;
  });
  return row[to.length] ?? 0;
}
