/**
 * Log lines on stderr, for people, or as JSON objects for machines. Both are as those of Python's workers and of the
 * executor: the same fields, and times in UTC.
 */
import { format } from "node:util";
import type { Logger } from "../attempt.js";
import { StepwireError } from "../errors.js";
import { escapedJson, visible } from "../log_fields.js";
import { checkOptions } from "../options.js";

const LEVELS = ["debug", "info", "warning", "error"] as const;

/** From which level on lines are written. */
export type LogLevel = (typeof LEVELS)[number];

/** Options of a logger. */
export interface LogOptions {
  /** From which level on lines are written: `info` by default, or what STEPWIRE_LOG_LEVEL says. */
  readonly level?: LogLevel;
  /** Whether lines are JSON objects: not by default, unless STEPWIRE_LOG_JSON says so. */
  readonly json?: boolean;
}

/** A logger that makes others, whose lines carry fields. */
export interface FieldLogger extends Logger {
  child(fields: object): FieldLogger;
}

/**
 * Make a logger that writes to stderr. A plain object at the end of a line's arguments gives fields, an error its stack:
 * `logger.error("can't charge", error, { order: 7 })`. Throws StepwireError for a level that is none.
 */
export function createLogger(options: LogOptions = {}): FieldLogger {
  return loggerFrom(settled(options), {});
}

/** Give options with what the environment says of those that are left out. Throws StepwireError. */
export function settled(options: LogOptions): Required<LogOptions> {
  checkOptions(options, ["level", "json"], "a logger", StepwireError);
  const { STEPWIRE_LOG_LEVEL = "", STEPWIRE_LOG_JSON = "" } = process.env;
  const given = options.level ?? (STEPWIRE_LOG_LEVEL === "" ? "info" : STEPWIRE_LOG_LEVEL.toLowerCase());
  const level = LEVELS.find((each) => each === given);
  if (level === undefined) throw new StepwireError(`the log level is '${given}': give one of ${LEVELS.join(", ")}`);
  return { level, json: options.json ?? ["1", "true", "yes", "on"].includes(STEPWIRE_LOG_JSON.toLowerCase()) };
}

function loggerFrom(options: Required<LogOptions>, fields: object): FieldLogger {
  const least = LEVELS.indexOf(options.level);
  const writer = (level: LogLevel): ((...line: unknown[]) => void) => {
    if (LEVELS.indexOf(level) < least) return nothing;
    return (...line) => {
      process.stderr.write(lineOf(level, line, fields, options));
    };
  };
  return {
    debug: writer("debug"),
    info: writer("info"),
    warn: writer("warning"),
    error: writer("error"),
    child: (more) => loggerFrom(options, { ...fields, ...more }),
  };
}

function nothing(): void {
  // This level is not written.
}

/** Write a line, with its newline. */
export function lineOf(level: LogLevel, given: readonly unknown[], fields: object, { json }: LogOptions = {}): string {
  const line = [...given];
  if (line.length > 1 && isPlain(line[0]) && typeof line[1] === "string") line.push(line.shift()); // as pino has it
  const last = line.at(-1);
  // With a '%' in the text the object may belong to that.
  const more = line.length > 1 && isPlain(last) && !String(line[0]).includes("%") ? last : {};
  if (more === last) line.pop();
  const error = json && line.length > 1 && line.at(-1) instanceof Error ? line.pop() : undefined;
  const message = format(...line);
  const all = Object.entries({ ...fields, ...more }).filter(([, value]) => value !== undefined);
  const time = new Date().toISOString();
  if (json) {
    const head = { time, level, logger: "stepwire", process: String(process.pid), message };
    const rest = all.filter(([name]) => !(name in head));
    const whole = { ...head, ...Object.fromEntries(rest), ...(error !== undefined && { error: textOf(error) }) };
    return `${escapedJson(toJson(whole))}\n`;
  }
  const [first = "", ...others] = message.split("\n");
  const shown = all
    .filter(([name, value]) => value !== "" && !(name === "index" && value === 0))
    .map(([name, value]) => ` ${wordOf(name)}=${wordOf(value)}`);
  const text = [`${time.replace("T", " ")} ${level.toUpperCase()} ${first}${shown.join("")}`, ...others].join("\n");
  return `${visible(text)}\n`;
}

function isPlain(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function toJson(line: object): string {
  try {
    return JSON.stringify(line, (_, value: unknown) => {
      const isNone = typeof value === "bigint" || (typeof value === "number" && !Number.isFinite(value));
      return isNone ? String(value) : value; // JSON does not know such numbers
    });
  } catch {
    // A circle, or something that throws when it is looked at.
    return JSON.stringify(Object.fromEntries(Object.entries(line).map(([name, value]) => [name, textOf(value)])));
  }
}

/** Write a field's value: as it is if that is one word, else quoted. */
function wordOf(value: unknown): string {
  const text = textOf(value);
  return /^[^\s"=\p{C}]+$/u.test(text) ? text : JSON.stringify(text);
}

function textOf(value: unknown): string {
  try {
    return typeof value === "string" ? value : format(value);
  } catch {
    return "(can't be written)";
  }
}

/** Writes warnings and errors: the logger of a worker that is given none. */
export const warnings: FieldLogger = loggerFrom({ level: "warning", json: false }, {});
