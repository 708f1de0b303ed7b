/** Declarations: what is held of them, and what is refused. */

import { expect, test } from "vitest";

import { type FunctionOptions, RegistrationError, Stepwire, type Trigger } from "../src/index.js";

const wrong = (value: unknown): never => value as never;
const body = (): number => 0;

function shop(): Stepwire {
  return new Stepwire({ id: "shop" });
}

test("a function is held with its options", () => {
  const app = new Stepwire({ id: "shop", version: "7" });
  const retries = { retries: 2, initialInterval: "2s", maximumInterval: "1m", multiplier: 3 } as const;
  const order = app.createFunction({ id: "order", retries, timeout: "1 day" }, { event: "order/placed" }, body);
  expect(app.functions.get("order")).toBe(order);
  expect([app.id, app.version]).toEqual(["shop", "7"]);
  expect(order).toMatchObject({
    app: "shop",
    id: "order",
    triggers: ["order/placed"],
    retry: { retries: 2, initialInterval: 2000, maximumInterval: 60_000, multiplier: 3 },
    runTimeout: 86_400_000,
    body,
  });
});

test("what is left out stays open", () => {
  const order = shop().createFunction({ id: "order" }, { event: "a" }, body);
  expect([order.retry, order.runTimeout]).toEqual([undefined, undefined]);
  expect(shop().version).toBe("");
});

test("retries are a number or a policy", () => {
  const { retry } = shop().createFunction({ id: "order", retries: 0 }, { event: "a" }, body);
  expect(retry).toEqual({ retries: 0, initialInterval: 1000, maximumInterval: 300_000, multiplier: 2 });
});

test.each<[Trigger | Trigger[], string[]]>([
  [{ event: "a" }, ["a"]],
  [
    [{ event: "a" }, { event: "b" }],
    ["a", "b"],
  ],
  [[], []],
])("the triggers %j are one, several or none", (trigger, names) => {
  expect(shop().createFunction({ id: "order" }, trigger, body).triggers).toEqual(names);
});

test("a task is held with its code, which is given the input and the attempt", () => {
  const app = shop();
  const attempt = {
    runId: "r",
    stepId: "s",
    index: 0,
    number: 2,
    signal: new AbortController().signal,
    traceparent: "",
    app: "app",
    functionId: "f",
    logger: console,
  };
  const double = app.task("double", (input: number, { number }) => input * number);
  expect(app.tasks.get("double")).toBe(double);
  expect(double.run(3, attempt)).toBe(6);
});

function declared(options: unknown, trigger: unknown = { event: "a" }, code: unknown = body): () => unknown {
  return () => shop().createFunction(options as FunctionOptions, wrong(trigger), wrong(code));
}

test.each<[string, () => unknown]>([
  ['an app\'s id is "", but must be a text that is not empty', () => new Stepwire({ id: "" })],
  ["an app's id is undefined", () => new Stepwire(wrong({}))],
  [
    "an app's id has 129 bytes, but at most 128 are allowed: choose a shorter one",
    () => new Stepwire({ id: "x".repeat(129) }),
  ],
  ["an app's id is \"a/b\", but '/' separates the app from the id: choose another", () => new Stepwire({ id: "a/b" })],
  ["a function's id is 7, but must be a text", declared({ id: 7 })],
  ["a function's id has 258 bytes, but at most 256", declared({ id: "é".repeat(129) })],
  ['a function\'s id is "a\\ud800", which is not valid Unicode', declared({ id: "a\ud800" })],
  ["a function's id is \"a/b\", but '/' separates the app from the id", declared({ id: "a/b" })],
  ["function 'f': retries is 101, but must be a whole number from 0 to 100", declared({ id: "f", retries: 101 })],
  ["function 'f': retries is NaN", declared({ id: "f", retries: Number.NaN })],
  ["function 'f': retries is \"4\"", declared({ id: "f", retries: "4" })],
  ["function 'f': the multiplier of its retries is 0", declared({ id: "f", retries: { retries: 1, multiplier: 0 } })],
  [
    "function 'f': the maximumInterval of its retries is \"400 days\", over the limit of 366 days",
    declared({ id: "f", retries: { retries: 1, maximumInterval: "400 days" } }),
  ],
  ["the timeout of function 'f' is 0 ms: give it more, or leave it out", declared({ id: "f", timeout: 0 })],
  ["the timeout of function 'f' is \"soon\", but must be a number", declared({ id: "f", timeout: "soon" })],
  ['function \'f\': "a" is no trigger: use { event: "name" }', declared({ id: "f" }, "a")],
  ['function \'f\': {"cron":"* * * * *"} is no trigger', declared({ id: "f" }, { cron: "* * * * *" })],
  ["function 'f': null is no trigger", declared({ id: "f" }, null)],
  ["the event name that triggers function 'f' is \"\"", declared({ id: "f" }, [{ event: "" }])],
  ["function 'f': 7 is no function: give it one", declared({ id: "f" }, { event: "a" }, 7)],
  ["task 't': undefined is no function", () => shop().task("t", wrong(undefined))],
  ['a task\'s name is ""', () => shop().task("", body)],
])("%s is refused", (words, declare) => {
  expect(declare).toThrow(words);
  expect(declare).toThrow(RegistrationError);
});

test("an id is declared once", () => {
  const app = shop();
  app.createFunction({ id: "order" }, { event: "a" }, body);
  app.task("order", body);
  expect(() => app.createFunction({ id: "order" }, { event: "b" }, body)).toThrow(
    "app 'shop' has two functions with the id 'order': choose another id",
  );
  expect(() => app.task("order", body)).toThrow("app 'shop' has two tasks named 'order': choose another name");
});
