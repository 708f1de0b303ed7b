/** Checks of what users give to apps, workers and clients: what would be sent changed, or fail late, is refused. */

import type { Logger } from "./attempt.js";
import { shown } from "./durations.js";
import { StepwireError } from "./errors.js";
import type { Codec } from "./values.js";

type ErrorType = new (message: string) => Error;

/** Give a text back if it can be sent; it may be empty. */
export function textOf(value: unknown, what: string, Error: ErrorType = StepwireError): string {
  if (typeof value !== "string") throw new Error(`${what} is ${shown(value)}, but must be a text`);
  if (/\p{Surrogate}/u.test(value)) {
    throw new Error(`${what} is ${shown(value)}, which is not valid Unicode: it holds a lone surrogate`);
  }
  return value;
}

/** Check a text that can be sent and is not empty. */
export function checkText(value: unknown, what: string, Error: ErrorType): asserts value is string {
  if (typeof value !== "string" || value === "") {
    throw new Error(`${what} is ${shown(value)}, but must be a text that is not empty`);
  }
  textOf(value, what, Error);
}

/** Give a point in time in Unix milliseconds. */
export function timeOf(value: unknown, what: string): number {
  const time = value instanceof Date ? value.getTime() : value;
  if (typeof time !== "number" || !Number.isFinite(time)) {
    throw new StepwireError(`${what} is ${String(value)}, but must be a Date, or Unix milliseconds`);
  }
  return time;
}

/** Give a codec back, if it can be one. */
export function codecOf(codec: unknown, Error: ErrorType = StepwireError): Codec | undefined {
  checkMethods(codec, "codec", ["encode", "decode"], Error);
  return codec as Codec | undefined;
}

/** Give a logger back, if it can be one. */
export function loggerOf(logger: unknown, Error: ErrorType = StepwireError): Logger | undefined {
  checkMethods(logger, "logger", ["debug", "info", "warn", "error"], Error);
  return logger as Logger | undefined;
}

/** Refuse what a worker can't serve. */
export function checkApp(app: unknown): void {
  const { functions, tasks } = (app ?? {}) as { functions?: unknown; tasks?: unknown };
  if (!(functions instanceof Map && tasks instanceof Map)) {
    throw new StepwireError(`a worker serves an app, made by new Stepwire({ id }), not ${shown(app)}`);
  }
}

/** Refuse labels that are no texts. */
export function checkLabels(labels: unknown): void {
  if (labels === undefined) return;
  if (typeof labels !== "object" || labels === null || Array.isArray(labels)) {
    throw new StepwireError(`labels is ${shown(labels)}, but must be names and their texts, like { zone: "a" }`);
  }
  for (const [name, value] of Object.entries(labels)) textOf(value, `the label ${shown(textOf(name, "a label"))}`);
}

function checkMethods(value: unknown, what: string, methods: readonly string[], Error: ErrorType): void {
  if (value === undefined) return;
  for (const method of methods) {
    if (typeof (value as Record<string, unknown> | null)?.[method] !== "function") {
      throw new Error(`${shown(value)} is no ${what}: it has no method '${method}'`);
    }
  }
}
