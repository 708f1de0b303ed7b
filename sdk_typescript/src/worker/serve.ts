/** Running a worker as a process: signals, log lines, exit code. */
import type { App } from "./app.js";
import { ExecutorError } from "../errors.js";
import { ownLines } from "../log_fields.js";
import { createLogger, settled, type LogLevel } from "./logs.js";
import { SIGNALS } from "./signal_source.js";
import { Worker, type WorkerOptions } from "./worker.js";

const REFUSED = 5;

/** Options of a worker that is a process. */
export interface ServeOptions extends WorkerOptions {
  /** From which level on lines go to stderr: `info` by default, or what STEPWIRE_LOG_LEVEL says. */
  readonly logLevel?: LogLevel;
  /** Whether they are JSON objects: not by default, unless STEPWIRE_LOG_JSON says so. */
  readonly logJson?: boolean;
}

/**
 * Serve an app until SIGTERM or SIGINT: then the worker drains, and at a second signal, or at the drain's deadline, ends
 * at once, though its code blocks the main thread. What happens goes to stderr, or to a `logger` of yours. Sets the exit
 * code 5 if the executor refuses the worker, which is no error that is thrown.
 */
export async function serve(app: App, options: ServeOptions = {}): Promise<void> {
  const given = options as ServeOptions | null;
  const { logLevel, logJson, ...rest } = given ?? {};
  const log = settled({
    ...(logLevel !== undefined && { level: logLevel }),
    ...(logJson !== undefined && { json: logJson }),
  });
  const logger = given?.logger ?? createLogger(log);
  const own = ownLines(logger);
  const worker = new Worker(app, given === null ? options : { ...rest, logger });
  worker.endBySignals(log);
  const drain = (): void => {
    worker.drain();
  };
  for (const name of SIGNALS) process.on(name, drain);
  own.info(`worker ${worker.instanceId} serves ${app.id}`);
  try {
    await worker.run();
  } catch (error) {
    if (!(error instanceof ExecutorError)) throw error;
    own.error(error.message);
    process.exitCode = REFUSED;
  } finally {
    for (const name of SIGNALS) process.off(name, drain);
  }
}
