/** Log lines for people and for machines. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { StepwireError } from "../src/errors.js";
import { ownLines, withFields } from "../src/log_fields.js";
import { createLogger, lineOf, settled, type LogLevel } from "../src/worker/logs.js";

const FIELDS = { app: "shop", functionId: "checkout", runId: "run-1", stepId: "charge card", index: 0, attempt: 2 };
let written: string[];

beforeEach(() => {
  written = [];
  vi.spyOn(process.stderr, "write").mockImplementation((line) => written.push(String(line)) > 0);
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

test("a line for people has its time in UTC, level, text and fields, and further lines after that", () => {
  withFields(createLogger(), FIELDS).warn("charged %d\nor not", 7, { order: 3, note: "a b", empty: "" });
  expect(written.join("")).toMatch(
    /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z WARNING charged 7 app=shop function=checkout run_id=run-1 step="charge card" attempt=2/,
  );
});

test("a line for machines has the fields of Python's workers", () => {
  const error = new Error("no money");
  withFields(createLogger({ json: true }), FIELDS).error("can't charge", error, { order: 3n, level: "mine" });
  const line = JSON.parse(written.join("")) as Record<string, unknown>;
  expect(line).toMatchObject({
    level: "error",
    logger: "stepwire",
    process: String(process.pid),
    message: "can't charge",
    app: "shop",
    function: "checkout",
    run_id: "run-1",
    step: "charge card",
    index: 0,
    attempt: 2,
    order: "3",
  });
  expect(line.time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  expect(line.error).toContain("Error: no money\n    at ");
  expect(written.join("").match(/\n/g)).toHaveLength(1);
});

test.each<[LogLevel, number]>([
  ["debug", 4],
  ["info", 3],
  ["warning", 2],
  ["error", 1],
])("from level %s on lines are written", (level, count) => {
  const logger = createLogger({ level });
  logger.debug("a");
  logger.info("b");
  logger.child({ app: "c" }).warn("c");
  logger.error("d");
  expect(written.length).toBe(count);
});

test("the environment says what options do not; a level that is none is an error", () => {
  vi.stubEnv("STEPWIRE_LOG_LEVEL", "DEBUG");
  vi.stubEnv("STEPWIRE_LOG_JSON", "1");
  expect(settled({})).toEqual({ level: "debug", json: true });
  expect(settled({ level: "error", json: false })).toEqual({ level: "error", json: false });
  vi.stubEnv("STEPWIRE_LOG_LEVEL", "loud");
  expect(() => createLogger()).toThrow(StepwireError);
  expect(() => createLogger()).toThrow(/'loud': give one of debug, info, warning, error/);
});

test("what can't be written does not cost the line", () => {
  const circle: Record<string, unknown> = {};
  circle.self = circle;
  const hostile = {
    toJSON() {
      throw new Error("no");
    },
  };
  for (const value of [circle, hostile]) {
    const line = JSON.parse(lineOf("info", ["text", { value }], {}, { json: true })) as Record<string, unknown>;
    expect(line).toMatchObject({ message: "text", value: expect.any(String) as string });
  }
  expect(lineOf("info", ["100%", { a: 1 }], {})).toContain("100% { a: 1 }");
  expect(lineOf("info", ["text", { n: NaN }], {}, { json: true })).toContain('"n":"NaN"');
});

const CONTROLS = [
  ...Array.from({ length: 0xa0 }, (_, code) => code).filter((code) => code < 0x20 || code > 0x7e),
  ...[0x61c, 0x200e, 0x200f, 0x2028, 0x2029, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069],
  ...[0xd800, 0xdfff],
].map((code) => String.fromCharCode(code));

test.each(CONTROLS)("no line has the control character %j as it is, and JSON has its value", (control) => {
  const text = `a${control}b`;
  const written = lineOf("info", [text, { [text]: text }], {});
  expect(written.replace(/a\n {2}b\n$|a\n {2}b /, "").replace("\t", " ")).toMatch(/^[\x20-\x7e\n]+$/);
  expect(written.split("\n").filter((each) => !each.startsWith("  "))).toHaveLength(2); // the last one is empty
  const line = lineOf("info", [text, { [text]: [text] }], {}, { json: true });
  expect(line).toMatch(/^[\x20-\x7e]+\n$/);
  expect(JSON.parse(line)).toMatchObject({ message: text, [text]: [text] });
});

test("what is printable is written as it is", () => {
  const text = "é \u{1f469}\u200d\u{1f680} שלום";
  expect(lineOf("info", [text], {})).toContain(text);
  expect(lineOf("info", [text], {}, { json: true })).toContain(text);
});

test("lines of the worker forge none and move no cursor with a logger that makes no children", () => {
  const lines: unknown[][] = [];
  const note = (...line: unknown[]) => lines.push(line);
  const plain = { debug: note, info: note, warn: note, error: note };
  ownLines(plain).warn("step 'a\u001b[2J%s\n[forged]':", new Error("no\r\u202e\nforged"));
  const [[line] = []] = lines;
  expect(line).toMatch(/^step 'a\\u001b\[2J%s\n {2}\[forged\]': Error: no\\u000d\\u202e\n {2}forged\n {6}at /);
  const logger = createLogger();
  expect(ownLines(logger)).toBe(logger);
});

test("no text moves a cursor or forges a line", () => {
  const line = lineOf("info", ["red \u001b[31m\n2026-11-30 00:00:00.000Z ERROR forged", { "a\nb": "c\nd" }], {});
  expect(line).toMatch(/^\S+ \S+Z INFO red \\u001b\[31m "a\\nb"="c\\nd"\n {2}2026-11-30 .* forged\n$/);
});
