/** What log lines carry: of which app, function, run, step and attempt they are. */
import { format } from "node:util";
import type { Logger } from "./attempt.js";

/**
 * What moves a terminal's cursor, colours it, ends a line, or turns the order of what is written; and lone surrogates.
 * Newlines and tabs are none of these. The executor and Python's workers have the same ones.
 */
const CONTROLS = /[^\P{Cc}\n\t]|\p{Cs}|\p{Bidi_Control}|[\u2028\u2029]/gu;

/** The fields of a line, those that are not known left out. */
export interface Fields {
  readonly app: string;
  readonly functionId: string;
  readonly runId: string;
  readonly stepId?: string;
  readonly index?: number;
  readonly attempt: number;
}

/** Make a logger whose lines carry fields: as a child of one that makes children, like pino's, else as a text before. */
export function withFields(logger: Logger & { child?: (fields: object) => Logger }, fields: Fields): Logger {
  if (typeof logger.child === "function") return logger.child(named(fields));
  const prefix = `[${written(fields)}]`;
  return {
    debug: (...line) => {
      logger.debug(...prefixed(prefix, line));
    },
    info: (...line) => {
      logger.info(...prefixed(prefix, line));
    },
    warn: (...line) => {
      logger.warn(...prefixed(prefix, line));
    },
    error: (...line) => {
      logger.error(...prefixed(prefix, line));
    },
  };
}

/** Put a text before what is logged; a format (`"%s is late", name`) stays the first argument. */
function prefixed(prefix: string, line: readonly unknown[]): readonly unknown[] {
  const [first, ...rest] = line;
  const isFormat = typeof first === "string" && first.includes("%") && rest.length > 0;
  if (isFormat) return [`${prefix.replaceAll("%", "%%")} ${first}`, ...rest];
  return line.length > 0 && prefix.includes("%") ? [prefix.replaceAll("%", "%%"), ...line] : [prefix, ...line];
}

/** Make a logger for lines of the worker, which hold texts of others. One that makes children writes them as it likes. */
export function ownLines(logger: Logger): Logger {
  if ("child" in logger && typeof logger.child === "function") return logger;
  const writer =
    (level: keyof Logger) =>
    (...line: unknown[]): void => {
      logger[level](visible(line.map((each) => (typeof each === "string" ? each : format(each))).join(" ")));
    };
  return { debug: writer("debug"), info: writer("info"), warn: writer("warn"), error: writer("error") };
}

/** Escape control characters in a text of others, and indent its lines but the first: none looks like one of the log. */
export function visible(text: string): string {
  return text.replaceAll(CONTROLS, escaped).replaceAll("\n", "\n  ");
}

/** Write control characters in JSON text as JSON's escapes: it holds the same value, and is safe to show. */
export function escapedJson(text: string): string {
  return text.replaceAll(CONTROLS, escaped);
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** Give fields by the names that they have in the logs of all workers. */
function named({ app, functionId, runId, stepId, index, attempt }: Fields): object {
  return { app, function: functionId, run_id: runId, ...(stepId !== undefined && { step: stepId, index }), attempt };
}

/** Write fields for people: `shop/checkout run 01M… step charge attempt 2`. */
export function written({ app, functionId, runId, stepId, index = 0, attempt }: Fields): string {
  const step = stepId === undefined ? "" : ` step ${stepId}${index > 0 ? `:${String(index)}` : ""}`;
  return oneLine(`${app}/${functionId} run ${runId}${step} attempt ${String(attempt)}`);
}

/** Write ids on one line. */
export function oneLine(text: string): string {
  return visible(text).replaceAll(/\n */g, "\\n");
}
