import { format } from "node:util";
import { expect, test, vi } from "vitest";
import type { Logger } from "../src/attempt.js";
import { withFields } from "../src/log_fields.js";
import type { Failure } from "../src/model.js";
import { FailureLog } from "../src/worker/failure_log.js";

const BROKEN: Failure = {
  type: "TypeError",
  message: "no such customer",
  stack: "at charge (flow.ts:7:1)",
  retryable: true,
};
const RUN = { runId: "run-1", app: "shop", functionId: "checkout", attempt: 1, events: [], createdAt: 0 };

function made(): { readonly log: FailureLog; readonly lines: string[] } {
  const lines: string[] = [];
  const note =
    (level: string) =>
    (...line: unknown[]) =>
      lines.push([level, ...line].join(" "));
  const logger: Logger = { debug: note("debug"), info: note("info"), warn: note("warn"), error: note("error") };
  return { log: new FailureLog(logger), lines };
}

function attempt(stepId: string, number = 1) {
  return { app: "shop", functionId: "checkout", runId: "run-1", stepId, index: 0, attempt: number };
}

test("an attempt that fails leaves a line with its ids and its stack, and its step an error when it is for good", () => {
  const { log, lines } = made();
  log.attemptFailed(7n, attempt("look-up", 3), BROKEN);
  log.attemptFailed(8n, attempt("goes-on"), BROKEN);
  log.confirmed([7n, 8n], [7n]);
  log.confirmed([7n, 8n], [7n, 8n]);
  expect(lines).toEqual([
    "warn [shop/checkout run run-1 step look-up attempt 3] attempt 3 of step 'look-up' failed: " +
      "TypeError: no such customer\n  at charge (flow.ts:7:1)",
    expect.stringContaining("step 'goes-on' failed"),
    "error [shop/checkout run run-1 step look-up attempt 3] step 'look-up' has failed for good after 3 attempts: " +
      "TypeError: no such customer",
  ]);
});

test("a failure's text forges no line of the log and moves no cursor", () => {
  const { log, lines } = made();
  const message = "no\u001b[31m\r\n2026-01-01 ERROR forged\n[shop/checkout run 2] forged\u202e";
  log.attemptFailed(7n, attempt("look\u001b[2Jup\n[forged]"), { ...BROKEN, message, stack: "" });
  expect(lines.join("\n")).toBe(
    "warn [shop/checkout run run-1 step look\\u001b[2Jup\\n[forged] attempt 1] " +
      "attempt 1 of step 'look\\u001b[2Jup\\n[forged]' failed: TypeError: no\\u001b[31m\\u000d\n" +
      "  2026-01-01 ERROR forged\n  [shop/checkout run 2] forged\\u202e",
  );
});

test.each([
  [1, true, "warn"],
  [5, true, "error"],
  [1, false, "error"],
])("a body at attempt %d that fails (retryable: %s) is logged as %s", (number, retryable, level) => {
  const { log, lines } = made();
  log.bodyFailed({ ...RUN, attempt: number }, undefined, { ...BROKEN, retryable });
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(new RegExp(`^${level} \\[shop/checkout run run-1 attempt ${String(number)}\\]`));
});

test("a fan-out that fails ten thousand times leaves a log that can be read", () => {
  vi.useFakeTimers();
  try {
    const { log, lines } = made();
    for (let n = 0; n < 10_000; n++) log.attemptFailed(BigInt(n), attempt(`page-${String(n)}`), BROKEN);
    log.attemptFailed(10_000n, attempt("other"), BROKEN);
    expect(lines).toHaveLength(51);
    vi.advanceTimersByTime(10_000);
    expect(lines.at(-1)).toBe("warn … and 9,950 more like it within 10 s: step 'page-*' of shop/checkout: TypeError");
    log.attemptFailed(10_001n, attempt("page-1"), BROKEN);
    expect(lines).toHaveLength(53);
  } finally {
    vi.useRealTimers();
  }
});

test("a logger that makes children is given the ids as fields", () => {
  const warn = vi.fn();
  const child = vi.fn(() => ({ warn }));
  new FailureLog({ child, warn: vi.fn() } as unknown as Logger).attemptFailed(1n, attempt("charge"), BROKEN);
  expect(child).toHaveBeenCalledExactlyOnceWith({
    app: "shop",
    function: "checkout",
    run_id: "run-1",
    step: "charge",
    index: 0,
    attempt: 1,
  });
  expect(warn).toHaveBeenCalledOnce();
});

test("a line with a format stays one, whatever is written before it", () => {
  const lines: string[] = [];
  const note = (...line: unknown[]): void => {
    lines.push(format(...line));
  };
  const logger = withFields({ debug: note, info: note, warn: note, error: note }, attempt("50%s\nx"));
  logger.info("%s is %d", "a", 7);
  logger.info("100%");
  logger.info({ a: 1 }, "b");
  logger.info();
  const prefix = "[shop/checkout run run-1 step 50%s\\nx attempt 1]";
  expect(lines).toEqual([`${prefix} a is 7`, `${prefix} 100%`, `${prefix} { a: 1 } b`, prefix]);
});
