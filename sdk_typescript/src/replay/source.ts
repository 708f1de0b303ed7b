/** Where in the user's code a step stands, like "flow.ts:42". Explains a divergence, so it must never fail itself. */

/** In characters; the contract allows a source 256 bytes. */
const LONGEST_FILE_NAME = 50;
const MOST_PLACES = 10_000;
/** Sources that were given, by the place in the code that runs: source maps make the first look dear. */
const places = new Map<string, string>();

/** Give file and line of the code that has called `caller`. */
export function sourceOf(caller: (...args: never[]) => unknown): string {
  const { stackTraceLimit } = Error;
  // eslint-disable-next-line @typescript-eslint/unbound-method -- put back as it was, not called
  const { prepareStackTrace } = Error;
  try {
    Error.stackTraceLimit = 1;
    Error.prepareStackTrace = placeOf;
    const holder: { stack?: unknown } = {};
    Error.captureStackTrace(holder, caller);
    const place = holder.stack as string | undefined;
    if (!place) return "";
    const known = places.get(place);
    if (known !== undefined) return known;
    // Now as everybody else sees it: with the source maps that the program runs with, if any.
    Error.prepareStackTrace = prepareStackTrace;
    const mapped: { stack?: unknown } = {};
    Error.captureStackTrace(mapped, caller);
    const source = shortened(String(mapped.stack));
    if (places.size >= MOST_PLACES) places.clear();
    places.set(place, source);
    return source;
  } catch {
    return ""; // somebody has frozen Error
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
    Error.prepareStackTrace = prepareStackTrace;
  }
}

/** Give the name of the function that has called `callee`; "" if it has none. */
export function callerOf(callee: (...args: never[]) => unknown): string {
  const { stackTraceLimit } = Error;
  // eslint-disable-next-line @typescript-eslint/unbound-method -- put back as it was, not called
  const { prepareStackTrace } = Error;
  try {
    Error.stackTraceLimit = 1;
    Error.prepareStackTrace = nameOf;
    const holder: { stack?: unknown } = {};
    Error.captureStackTrace(holder, callee);
    return String(holder.stack);
  } catch {
    return "";
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
    Error.prepareStackTrace = prepareStackTrace;
  }
}

function nameOf(_error: Error, frames: NodeJS.CallSite[]): string {
  return frames[0]?.getFunctionName() ?? "";
}

function placeOf(_error: Error, frames: NodeJS.CallSite[]): string {
  const frame = frames[0];
  if (!frame) return "";
  return `${frame.getFileName() ?? ""}:${String(frame.getLineNumber())}:${String(frame.getColumnNumber())}`;
}

/** Find "flow.ts:42" in "Error\n    at run (file:///app/flow.ts:42:7)". */
function shortened(stack: string): string {
  const match = /([^/\\()]+):(\d+):\d+\)?\s*$/.exec(stack.trimEnd());
  if (!match) return "";
  const [, file = "", line = ""] = match;
  const name = file.split("?", 1)[0] ?? "";
  return `${name.slice(-LONGEST_FILE_NAME).replaceAll(/\p{Surrogate}/gu, "?")}:${line}`;
}
