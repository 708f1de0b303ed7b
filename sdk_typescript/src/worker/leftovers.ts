/** Tells of steps that bodies leave behind when they return: once for each line of code, as every run does the same. */
import type { Logger } from "../attempt.js";
import type { Left } from "../replay/invocation.js";
import { keyText } from "../model.js";
import type { Planned, RunInfo } from "../replay/model.js";

/** Lines that are remembered. */
const MOST_LINES = 10_000;

/** Remembers what it has told. */
export class Leftovers {
  readonly #logger: Logger;
  readonly #told = new Set<string>();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Tell what the body of a run has left behind. */
  tell({ runId, functionId }: RunInfo, { forgotten, cutOff, givenUp }: Left): void {
    for (const step of this.#new(functionId, "forgotten", forgotten)) {
      this.#logger.warn(
        `step ${named(step)} of function '${functionId}' was started, but nothing awaits it: await it. Run ${runId} ends ` +
          "only once it has ended, and fails if it fails (this is told once for each line)",
      );
    }
    for (const step of this.#new(functionId, "cut off", cutOff)) {
      this.#logger.warn(
        `step ${named(step)} of function '${functionId}' was unfinished when the body of run ${runId} returned: it is given ` +
          "up, and the code that awaits it never goes on, so that the steps after it are never started. Await the promise of " +
          "that code, an async function say, in the body (this is told once for each line)",
      );
    }
    for (const step of this.#new(functionId, "given up", givenUp)) {
      this.#logger.info(
        `step ${named(step)} of function '${functionId}' was unfinished when the body of run ${runId} returned, and is given ` +
          "up: right for the loser of a race; await it if its work must be done (this is told once for each line)",
      );
    }
  }

  #new(functionId: string, what: string, steps: readonly Planned[]): Planned[] {
    return steps.filter((step) => {
      const line = `${functionId} ${what} ${step.source || step.key.id}`;
      if (this.#told.has(line) || this.#told.size >= MOST_LINES) return false;
      this.#told.add(line);
      return true;
    });
  }
}

function named({ key, source }: Planned): string {
  return `'${keyText(key)}' (${source || "at an unknown line"})`;
}
