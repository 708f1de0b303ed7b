/** What log lines carry: of which app, function, run, step and attempt they are. */
import type { Logger } from "./context.js";

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
  if (typeof logger.child === "function") return logger.child(fields);
  const prefix = `[${written(fields)}]`;
  return {
    debug: (...line) => {
      logger.debug(prefix, ...line);
    },
    info: (...line) => {
      logger.info(prefix, ...line);
    },
    warn: (...line) => {
      logger.warn(prefix, ...line);
    },
    error: (...line) => {
      logger.error(prefix, ...line);
    },
  };
}

/** Write fields for people: `shop/checkout run 01M… step charge attempt 2`. */
export function written({ app, functionId, runId, stepId, index = 0, attempt }: Fields): string {
  const step = stepId === undefined ? "" : ` step ${stepId}${index > 0 ? `:${String(index)}` : ""}`;
  return `${app}/${functionId} run ${runId}${step} attempt ${String(attempt)}`;
}
