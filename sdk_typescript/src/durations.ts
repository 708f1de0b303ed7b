/** Durations as users write them: milliseconds, or a text like "10s", "1.5h", "1 day" or "1h 30m". */

type Unit =
  | ("ms" | "millisecond" | "milliseconds" | "s" | "sec" | "secs" | "second" | "seconds")
  | ("m" | "min" | "mins" | "minute" | "minutes" | "h" | "hr" | "hrs" | "hour" | "hours")
  | ("d" | "day" | "days" | "w" | "week" | "weeks");
type Amount = `${number}${"" | " "}${Unit}`;

/** Milliseconds, or a text like "10s", "1.5h", "1 day" or "1h 30m". A text that is only known later needs a cast. */
export type Duration = number | Amount | `${Amount} ${string}`;

/** The executor's default limit for sleeps and timeouts (--max-sleep), in milliseconds. */
export const LONGEST = 366 * 86_400_000;

const UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  millisecond: 1,
  s: 1000,
  sec: 1000,
  second: 1000,
  m: 60_000,
  min: 60_000,
  minute: 60_000,
  h: 3_600_000,
  hr: 3_600_000,
  hour: 3_600_000,
  d: 86_400_000,
  day: 86_400_000,
  w: 604_800_000,
  week: 604_800_000,
};
const PART = /(\d+(?:\.\d+)?)\s*([a-z]+)\s*/gy;

/** Give a duration in milliseconds; throws an `ErrorType` if it is none, negative, or longer than `longest`. */
export function milliseconds(
  duration: unknown,
  what: string,
  ErrorType: new (message: string) => Error,
  longest = LONGEST,
): number {
  const value = typeof duration === "string" ? parsed(duration) : duration;
  if (typeof value !== "number" || Number.isNaN(value)) {
    throw new ErrorType(
      `${what} is ${shown(duration)}, but must be a number of milliseconds or a text like "10s" or "1 day"`,
    );
  }
  if (value < 0) throw new ErrorType(`${what} is ${shown(duration)}, but must not be negative`);
  if (value > longest) {
    throw new ErrorType(
      `${what} is ${shown(duration)}, over the limit of ${String(longest / 86_400_000)} days (--max-sleep)`,
    );
  }
  return value;
}

/** Give a timeout in milliseconds, which must not be 0: `milliseconds` for what limits something. */
export function limitOf(duration: unknown, what: string, ErrorType: new (message: string) => Error): number {
  const value = milliseconds(duration, what, ErrorType);
  if (value === 0) throw new ErrorType(`${what} is 0 ms, but must be more: leave it out for no limit`);
  return value;
}

/** Show any value in a message, shortened. */
export function shown(value: unknown): string {
  let text: string;
  try {
    if (typeof value === "string") text = JSON.stringify(value);
    else if (typeof value === "function") text = value.name ? `the function ${value.name}` : "a function";
    else if (typeof value === "object" && value !== null) text = JSON.stringify(value);
    else text = String(value);
  } catch {
    text = typeof value;
  }
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

function parsed(text: string): number {
  const lower = text.trim().toLowerCase();
  let total = 0;
  let end = 0;
  for (const match of lower.matchAll(PART)) {
    const [whole, amount = "", name = ""] = match;
    const unit = UNITS[name] ?? UNITS[name.replace(/s$/, "")];
    if (unit === undefined) return Number.NaN;
    total += Number(amount) * unit;
    end += whole.length;
  }
  return end === lower.length && end > 0 ? total : Number.NaN;
}
