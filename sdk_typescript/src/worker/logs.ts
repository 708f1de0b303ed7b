/** Where a worker says what happens to it, unless it is given something else: lines on stderr. */
import { format } from "node:util";
import type { Logger } from "../context.js";

function writer(level: string): (...line: unknown[]) => void {
  return (...line) => {
    process.stderr.write(`${new Date().toISOString()} ${level} stepwire: ${format(...line)}\n`);
  };
}

const nothing = (): void => undefined;

/** Writes warnings and errors. */
export const warnings: Logger = { debug: nothing, info: nothing, warn: writer("WARN"), error: writer("ERROR") };

/** Writes what happens, too. */
export const everything: Logger = { ...warnings, info: writer("INFO") };
