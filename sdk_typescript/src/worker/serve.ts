/** Running a worker as a process: signals, log lines, exit code. */
import type { App } from "./app.js";
import { ExecutorError } from "../errors.js";
import { everything } from "./logs.js";
import { Worker, type WorkerOptions } from "./worker.js";

const REFUSED = 5;

/**
 * Serve an app until SIGTERM or SIGINT: then the worker drains, and at a second signal ends at once. What happens goes to
 * stderr. Sets the exit code 5 if the executor refuses the worker, which is no error that is thrown.
 */
export async function serve(app: App, options: WorkerOptions = {}): Promise<void> {
  const logger = (options as WorkerOptions | null)?.logger ?? everything;
  const worker = new Worker(app, options === (null as unknown) ? options : { ...options, logger });
  const drain = (): void => {
    worker.drain();
  };
  process.on("SIGTERM", drain);
  process.on("SIGINT", drain);
  logger.info(`worker ${worker.instanceId} serves ${app.id}`);
  try {
    await worker.run();
  } catch (error) {
    if (!(error instanceof ExecutorError)) throw error;
    logger.error(error.message);
    process.exitCode = REFUSED;
  } finally {
    process.off("SIGTERM", drain);
    process.off("SIGINT", drain);
  }
}
