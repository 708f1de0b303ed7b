/**
 * Keeps rejected promises of functions' bodies from ending the process.
 *
 * A body may leave promises unawaited: a branch that failed while another one was awaited, or after a race was won. Node
 * ends a process for that, and with it the runs of everybody else. Rejections of bodies are logged instead. Those of a
 * step's code fail its attempt, where it can be told whose they are. All others go where they would have gone.
 */

import type { Logger } from "./attempt.js";
import { StepwireError } from "./errors.js";
import { movedLately } from "./replay/moves.js";
import { blame } from "./replay/outside.js";

const loggers = new Set<Logger>();

/** Log rejections in bodies that nobody has seen, until the function that this gives is called. */
export function guardRejections(logger: Logger): () => void {
  const own: Logger = Object.create(logger) as Logger; // so that each guard is another member
  if (loggers.size === 0) process.on("unhandledRejection", onRejection);
  loggers.add(own);
  return () => {
    loggers.delete(own);
    if (loggers.size === 0) process.off("unhandledRejection", onRejection);
  };
}

function onRejection(reason: unknown): void {
  const [logger] = loggers;
  const isOfBody = movedLately() || isOurs(reason);
  const attempt = isOfBody ? undefined : blame(reason);
  if (logger && attempt) {
    logger.error(
      `a promise that step '${attempt.stepId}' of run ${attempt.runId} made was rejected, and nothing awaited it: the ` +
        "attempt fails with that",
      reason,
    );
  } else if (logger && isOfBody) {
    logger.error("a promise of a function's body was rejected, and nothing awaited it:", reason);
  } else if (process.listenerCount("unhandledRejection") === 1) {
    logger?.error("a promise was rejected, and nothing awaited it, which ends the process, as always in Node:", reason);
    throw reason;
  }
}

function isOurs(reason: unknown): boolean {
  try {
    return reason instanceof StepwireError;
  } catch {
    return false; // it does not let itself be looked at
  }
}
