/** What log lines carry: of which app, function, run, step and attempt they are. */
import type { Logger } from "./context.js";

/** What moves a terminal's cursor, colours it, or turns the order of what is written round; newlines and tabs do not. */
const CONTROLS = /[^\P{Cc}\n\t]|\p{Cs}|[\u2028-\u202e\u2066-\u2069]/gu;

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

/**
 * Write a text of others as a logger without children may: control characters are escaped, and no line of it looks like
 * one of the log.
 */
export function visible(text: string): string {
  return text.replaceAll(CONTROLS, escaped).replaceAll(/\n(?=\d{4}-\d\d-\d\d|\[)/g, "\n  ");
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
