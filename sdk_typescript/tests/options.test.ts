/** Options that nobody knows, as plain JavaScript gives them: each is refused with the name that may have been meant. */

import { describe, expect, test } from "vitest";

import { Client, RegistrationError, Security, Stepwire, Worker } from "../src/index.js";
import { checkOptions } from "../src/options.js";
import { failureIn, invocation } from "./replay/driver.js";
import type { Step } from "../src/index.js";

const wrong = (value: unknown): never => value as never;
const body = (): number => 0;
const app = (): Stepwire => new Stepwire({ id: "shop" });

describe("a declaration refuses", () => {
  test.each<[string, () => unknown]>([
    [
      "an app: nobody knows the option 'verson': did you mean 'version'?",
      () => new Stepwire(wrong({ id: "a", verson: "1" })),
    ],
    [
      "function \"f\": nobody knows the option 'retry': did you mean 'retries'?",
      () => app().createFunction(wrong({ id: "f", retry: 1 }), [], body),
    ],
    [
      "function \"f\": nobody knows the option 'concurrency'; use id, retries, timeout, triggers",
      () => app().createFunction(wrong({ id: "f", concurrency: 1 }), [], body),
    ],
    [
      "its retries: nobody knows the option 'initial_interval': did you mean 'initialInterval'?",
      () => app().createFunction(wrong({ id: "f", retries: { retries: 1, initial_interval: 2 } }), [], body),
    ],
    [
      "a trigger of function 'f': nobody knows the option 'if'; use event",
      () => app().createFunction({ id: "f" }, wrong({ event: "a", if: "x" }), body),
    ],
    ['"go" is no trigger: use { event: "name" }', () => app().createFunction(wrong({ id: "f", triggers: "go" }), body)],
    [
      "both 'triggers' among its options and a trigger apart",
      () => app().createFunction(wrong({ id: "f", triggers: [] }), [], body),
    ],
    ["says nothing of its triggers", () => app().createFunction(wrong({ id: "f" }), wrong(body))],
    ["function undefined: 7 was given as options", () => app().createFunction(wrong(7), [], body)],
  ])("%s", (message, declare) => {
    expect(declare).toThrow(RegistrationError);
    expect(declare).toThrow(message);
  });
});

test("a function says its triggers among its options, one or several or none", () => {
  const shop = app();
  const one = shop.createFunction({ id: "one", triggers: { event: "a" }, retries: 2 }, body);
  const two = shop.createFunction({ id: "two", triggers: [{ event: "a" }, { event: "b" }] }, body);
  const none = shop.createFunction({ id: "none", triggers: [] }, body);
  expect([one, two, none].map(({ triggers }) => triggers)).toEqual([["a"], ["a", "b"], []]);
  expect([one.retry?.retries, one.body]).toEqual([2, body]);
});

describe("a client, a worker or their security refuses", () => {
  const client = new Client({ executor: "127.0.0.1:1" });
  test.each<[string, () => unknown]>([
    ["a client: nobody knows the option 'timeOut': did you mean 'timeout'?", () => new Client(wrong({ timeOut: 1 }))],
    ["a client: nobody knows the option 'url'; use executor", () => new Client(wrong({ url: "x" }))],
    ["is no Security: give new Security(", () => new Client(wrong({ security: { token: "x" } }))],
    [
      "Security: nobody knows the option 'tlsCert': did you mean 'tlsCertificate'?",
      () => new Security(wrong({ tlsCert: "x" })),
    ],
    ["a worker: nobody knows the option 'slot': did you mean 'slots'?", () => new Worker(app(), wrong({ slot: 1 }))],
    [
      "send: nobody knows the option 'traceParent': did you mean 'traceparent'?",
      () => client.send({ name: "a" }, wrong({ traceParent: "" })),
    ],
    [
      "event \"a\": nobody knows the option 'dta': did you mean 'data'?",
      () => client.send(wrong({ name: "a", dta: 1 })),
    ],
    ["waiting for run r: nobody knows the option 'time'", () => client.result("r", wrong({ time: 1 }))],
    ["list: nobody knows the option 'state': did you mean 'states'?", () => client.list(wrong({ state: 1 })).next()],
    [
      "steps: nobody knows the option 'output': did you mean 'outputs'?",
      () => client.steps("r", wrong({ output: 1 })).next(),
    ],
    ["workers: nobody knows the option 'id'; use app", () => client.workers(wrong({ id: "a" }))],
    ["functions: nobody knows the option 'id'; use app", () => client.functions(wrong({ id: "a" }))],
  ])("%s", async (message, use) => {
    // eslint-disable-next-line @typescript-eslint/require-await -- so that what is thrown at once rejects, too
    await expect(async () => use()).rejects.toThrow(message);
  });
});

describe("a step refuses", () => {
  test.each<[string, (step: Step) => unknown]>([
    [
      "step 'a': nobody knows the option 'attempt_timeout': did you mean 'attemptTimeout'?",
      (step) => step.run(wrong({ id: "a", attempt_timeout: 1 }), body),
    ],
    ["step 'a': nobody knows the option 'name'; use id", (step) => step.run(wrong({ id: "a", name: "A" }), body)],
    [
      "step 'a': its retries: nobody knows the option 'retrys': did you mean 'retries'?",
      (step) => step.run(wrong({ id: "a", retries: { retries: 1, retrys: 1 } }), body),
    ],
    [
      "step 'task': nobody knows the option 'retry': did you mean 'retries'?",
      (step) => step.call("task", 1, wrong({ retry: 1 })),
    ],
    ["step 'a': nobody knows the option 'retries'; use id", (step) => step.sleep(wrong({ id: "a", retries: 1 }), 1)],
    [
      "wait 'a': nobody knows the option 'if'; use event, match, timeout",
      (step) => step.waitForEvent("a", wrong({ event: "e", if: "x" })),
    ],
    [
      "invoke 'a': nobody knows the option 'func': did you mean 'function'?",
      (step) => step.invoke("a", wrong({ func: "f" })),
    ],
    [
      "an event that step 'a' sends: nobody knows the option 'ts'",
      (step) => step.sendEvent("a", wrong({ name: "e", ts: 1 })),
    ],
  ])("%s", async (message, use) => {
    const turn = await invocation(({ step }) => use(step)).start([]);
    expect(failureIn(turn)).toMatchObject({ type: "InvalidStepError", retryable: false });
    expect(failureIn(turn).message).toContain(message);
  });
});

test("options that are known, or left out, are taken", () => {
  checkOptions(undefined, ["a"], "it", RangeError);
  checkOptions({ a: undefined }, ["a"], "it", RangeError);
  expect(() => {
    checkOptions([], ["a"], "it", RangeError);
  }).toThrow("it: [] was given as options, but must be an object of a");
});

test.each(["get", "wait", "result", "cancel", "why"] as const)(
  "%s of no run says what no run means",
  async (method) => {
    const client = new Client({ executor: "127.0.0.1:1" });
    for (const none of ["", undefined, 7]) {
      await expect(client[method](wrong(none))).rejects.toThrow(/ is no run's id: .* the event started no run/);
    }
    await expect(client.steps("").next()).rejects.toThrow(/the event started no run/);
    await expect(client.watch("").next()).rejects.toThrow(/the event started no run/);
  },
);
