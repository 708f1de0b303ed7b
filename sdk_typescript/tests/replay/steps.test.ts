/** What each call plans, what comes back of it, and what is refused. */

import { expect, test } from "vitest";

import { contextOf } from "../../src/body/body_context.js";
import { InvalidStepError, NonRetriableError, RetryAfterError, type Step, StepError } from "../../src/index.js";
import { Invocation } from "../../src/replay/invocation.js";
import { type Planned, StepKind } from "../../src/replay/model.js";
import { Values } from "../../src/values.js";
import {
  attemptAt,
  type Body,
  definitionOf,
  entry,
  failed,
  failureIn,
  invocation,
  returned,
  runInfo,
  START,
  VALUES,
} from "./driver.js";

async function planned(code: (step: Step) => unknown): Promise<Planned> {
  const live = invocation(({ step }) => code(step));
  const [first] = (await live.start([])).found;
  if (!first) throw new Error("nothing was found");
  return first;
}

function decoded(step: Planned): unknown {
  const { target } = step;
  return "input" in target ? VALUES.decode(target.input) : undefined;
}

test("a closure is planned with its options and its line", async () => {
  const options = { id: "work", retries: 7, timeout: "1h", attemptTimeout: 1500 } as const;
  expect(await planned((step) => step.run(options, () => 1))).toEqual({
    key: { id: "work", index: 0 },
    target: { kind: StepKind.closure, run: expect.any(Function) as unknown },
    retry: { retries: 7, initialInterval: 1000, maximumInterval: 300_000, multiplier: 2 },
    stepTimeout: 3_600_000,
    attemptTimeout: 1500,
    source: expect.stringMatching(/^steps\.test\.ts:\d+$/) as unknown,
  });
});

test("the source is the line of the call in the user's code, also in a helper and of every kind", async () => {
  const calls: ((step: Step) => unknown)[] = [
    (step) => step.call("task"),
    (step) => step.sleep("nap", 1),
    (step) => step.sleepUntil("nap", START),
    (step) => step.sendEvent("tell", { name: "a" }),
    (step) => step.waitForEvent("wait", { event: "a" }),
    (step) => step.invoke("child", { function: "other" }),
  ];
  const sources = await Promise.all(calls.map(async (call) => (await planned(call)).source));
  const first = Number(sources[0]?.split(":")[1]);
  expect(first).toBeGreaterThan(1);
  expect(sources).toEqual(calls.map((_, index) => `steps.test.ts:${String(first + index)}`));
});

test("an id that is used in two places is told apart, and one that a loop repeats has the loop's line", async () => {
  const live = invocation(({ step }) => {
    const work = Array.from({ length: 20 }, () => step.run("work", () => 0));
    const once = step.run("twice", () => 0);
    const again = step.run("twice", () => 0);
    return Promise.all([...work, once, again]);
  });
  const lines = (await live.start([])).found.map(({ source }) => Number(source.split(":")[1]));
  const [first = 0] = lines;
  expect(lines).toEqual([...Array.from({ length: 20 }, () => first), first + 1, first + 2]);
});

test("code is called with its arguments, or with its attempt", async () => {
  const seen: unknown[][] = [];
  const code = (...args: unknown[]): number => seen.push(args);
  const live = invocation(({ step }) =>
    Promise.all([
      step.run("a", code, 1, "two"),
      step.run("b", (attempt) => code(attempt)),
      step.run("c", () => code()),
    ]),
  );
  for (const step of (await live.start([])).found) await live.closure(step.key)?.(attemptAt(step));
  expect(seen).toEqual([[1, "two"], [expect.objectContaining({ stepId: "b", number: 1 })], []]);
});

test("the other kinds are planned", async () => {
  const task = await planned((step) => step.call("resize", { width: 3 }));
  expect([task.key.id, task.target, decoded(task)]).toMatchObject([
    "resize",
    { kind: 2, name: "resize" },
    { width: 3 },
  ]);
  const named = await planned((step) => step.call("resize", undefined, { id: "small", retries: 0 }));
  expect([named.key.id, named.retry?.retries, decoded(named)]).toEqual(["small", 0, null]);
  expect((await planned((step) => step.sleep("nap", "1.5s"))).target).toEqual({ kind: 3, delay: 1500 });
  expect((await planned((step) => step.sleepUntil("nap", new Date(START + 5)))).target).toEqual({
    kind: 3,
    until: START + 5,
  });
  expect((await planned((step) => step.sleepUntil({ id: "nap" }, START))).target).toEqual({ kind: 3, until: START });
  const events = [{ name: "a" }, { name: "b", data: [1], id: "once", time: new Date(START) }];
  expect((await planned((step) => step.sendEvent("tell", events))).target).toEqual({
    kind: 5,
    events: [
      { id: "", name: "a", data: VALUES.encode(null), time: undefined },
      { id: "once", name: "b", data: VALUES.encode([1]), time: START },
    ],
  });
  const match = { "user.id": 7, ok: true, gone: null, 'q"': 'a"' };
  expect((await planned((step) => step.waitForEvent("wait", { event: "a", match, timeout: "1 day" }))).target).toEqual({
    kind: 6,
    eventName: "a",
    fields: { "user.id": "7", ok: "true", gone: "null", 'q"': '"a\\""' },
    timeout: 86_400_000,
  });
  const child = await planned((step) => step.invoke("child", { function: "other", data: 4, timeout: "5m" }));
  expect([child.target, child.stepTimeout, decoded(child)]).toMatchObject([
    { kind: 4, app: "", functionId: "other" },
    300_000,
    4,
  ]);
});

test("a function is invoked by its definition, its id, or app/id", async () => {
  const names = [
    definitionOf(function other() {
      return 0;
    }),
    "mine",
    "shop/order",
  ].map(async (definition) => {
    const { target } = await planned((step) => step.invoke("child", { function: definition }));
    return target.kind === StepKind.invoke ? [target.app, target.functionId] : [];
  });
  expect(await Promise.all(names)).toEqual([
    ["app", "other"],
    ["", "mine"],
    ["shop", "order"],
  ]);
});

test("results are those that the journal holds", async () => {
  const kinds: Body = async ({ step }) => {
    const event = await step.waitForEvent("wait", { event: "a" });
    return {
      slept: await step.sleep("nap", 1).then((value) => value === undefined),
      event: { ...event, time: event?.time.getTime() },
      bytes: (await step.run("bytes", () => new Uint8Array())) instanceof Uint8Array,
      nothing: await step.run("nothing", () => undefined),
      ids: await step.sendEvent("tell", { name: "a" }),
    };
  };
  const event = { id: "i", name: "a", data: { n: 1 }, time: "2023-11-14T22:13:20.5Z" };
  const empty = { case: "output", output: { data: new Uint8Array(), encoding: "", metadata: {} } } as const;
  const bytes = { case: "output", output: VALUES.encode(Buffer.from([255, 0])) } as const;
  const turn = await invocation(kinds).start([
    entry(1, "wait", event, { kind: StepKind.waitForEvent }),
    entry(2, "nap", null, { kind: StepKind.sleep, outcome: empty }),
    entry(3, "bytes", null, { outcome: bytes }),
    entry(4, "nothing", null),
    entry(5, "tell", ["x"], { kind: StepKind.sendEvents }),
  ]);
  const end = { slept: true, event: { ...event, time: START + 500 }, bytes: true, nothing: null, ids: ["x"] };
  expect(returned(turn.outcome)).toEqual(end);
});

test("an event that was waited for comes through the codec if it was sent through it", async () => {
  const turned = {
    encode: (payload: { data: Uint8Array; encoding: string }) => ({
      data: payload.data.toReversed(),
      encoding: "turned",
      metadata: {},
    }),
    decode: (payload: { data: Uint8Array }) => ({ data: payload.data.toReversed(), encoding: "json", metadata: {} }),
  };
  const values = new Values(turned);
  const data = Buffer.from(values.encode({ n: 1 }).data).toString("base64");
  const event = {
    id: "i",
    name: "a",
    time: "2023-11-14T22:13:20Z",
    payload: { data, encoding: "turned", metadata: {} },
  };
  const definition = definitionOf(async ({ step }) => (await step.waitForEvent("wait", { event: "a" }))?.data);
  const run = { ...runInfo(definition.id), events: [] };
  const live = new Invocation(definition, run, values, contextOf);
  const { outcome } = await live.start([entry(1, "wait", event, { kind: StepKind.waitForEvent })]);
  expect(outcome?.case === "returned" && values.decode(outcome.output)).toEqual({ n: 1 });
});

test("a result that can't be read is a StepError, which the body may catch", async () => {
  const live = invocation(async ({ step }) => {
    try {
      await step.run("a", () => 0);
    } catch (error) {
      if (!(error instanceof StepError)) throw error;
      return [error.step, error.name, error.unread, error.summary];
    }
  });
  const output = { data: Buffer.from("{"), encoding: "json", metadata: {} };
  const turn = await live.start([entry(1, "a", null, { outcome: { case: "output", output } })]);
  expect(returned(turn.outcome)).toEqual([
    "a",
    "EncodingError",
    true,
    expect.stringContaining("step 'a' succeeded, but its result can't be read: EncodingError: the output of step 'a'"),
  ]);
});

test("a failed step throws all that is known", async () => {
  const live = invocation(async ({ step }) => {
    try {
      await step.run("charge", () => 0);
    } catch (error) {
      if (!(error instanceof StepError)) throw error;
      const { step: id, index, name, message, attempts, cause, stack, summary } = error;
      return { id, index, name, message, attempts, cause: String(cause), stack, summary };
    }
  });
  const failure = { type: "CardError", message: "declined", stack: "at card.py:3", retryable: false };
  const cause = { ...failure, type: "HTTPError", message: "402" };
  const outcome = { case: "failure", failure: { ...failure, cause } } as const;
  const turn = await live.start([entry(1, "charge", null, { attempts: 5, outcome })]);
  expect(returned(turn.outcome)).toEqual({
    id: "charge",
    index: 0,
    name: "CardError",
    message: "declined",
    attempts: 5,
    cause: "HTTPError: 402",
    stack: "at card.py:3",
    summary: "step 'charge' failed after 5 attempts: CardError: declined",
  });
});

test("a step error that the body lets through is not retried, and keeps its origin", async () => {
  const bodies: Body[] = [
    ({ step }) => step.run("a", () => 0),
    ({ step }) => Promise.any([step.run("a", () => 0)]),
    ({ step }) =>
      step
        .run("a", () => 0)
        .catch((error: unknown) => {
          throw new Error("no luck", { cause: error });
        }),
  ];
  const ends = bodies.map(async (body) =>
    failureIn(await invocation(body).start([failed(1, "a", new TypeError("boom"))])),
  );
  const [plain, group, wrapped] = await Promise.all(ends);
  expect(plain).toMatchObject({
    type: "StepError",
    message: "step 'a' failed after 1 attempt: TypeError: boom",
    retryable: false,
    cause: { type: "TypeError", message: "boom" },
  });
  expect(group).toMatchObject({ type: "AggregateError", retryable: false });
  expect(group?.stack).toContain("step 'a' failed after 1 attempt: TypeError: boom");
  expect(wrapped).toMatchObject({
    type: "Error",
    retryable: true,
    cause: { type: "StepError", cause: { type: "TypeError" } },
  });
});

test("errors of a body say whether and when it is tried again", async () => {
  const throwing = async (error: Error): Promise<unknown> => {
    const { retryable, retryAfter } = failureIn(await invocation(() => Promise.reject(error)).start([]));
    return [retryable, retryAfter];
  };
  expect(await throwing(new Error("flaky"))).toEqual([true, undefined]);
  expect(await throwing(new NonRetriableError("no"))).toEqual([false, undefined]);
  expect(await throwing(new RetryAfterError("busy", "30s"))).toEqual([true, 30_000]);
});

const wrong = (value: unknown): never => value as never;

function fieldsUpTo(count: number): Record<string, number> {
  return Object.fromEntries(Array.from({ length: count }, (_, number) => [`f${String(number)}`, number]));
}

test.each<[string, (step: Step) => unknown]>([
  ["a step's id is 7, but must be a text", (step) => step.run(wrong(7), () => 0)],
  ["a step's id is undefined", (step) => step.run(wrong({ retries: 1 }), () => 0)],
  ["a step's id is empty: give each step a name", (step) => step.run("", () => 0)],
  ["ids that start with 'stepwire.' are Stepwire's own", (step) => step.run("stepwire.timer", () => 0)],
  ["not valid Unicode", (step) => step.run("a\ud800", () => 0)],
  [
    "step id 'éééééééééééééééééééééééééééééééééééééééé'… has 1,026 bytes".replace(",", ""),
    (step) => step.run("é".repeat(513), () => 0),
  ],
  ["step 'a' is to run 7, which can't be called: give the function, not its result", (step) => step.run("a", wrong(7))],
  [
    "step 'a': retries is -1, but must be a whole number from 0 to 100",
    (step) => step.run({ id: "a", retries: -1 }, () => 0),
  ],
  ["step 'a': retries is 101", (step) => step.run({ id: "a", retries: 101 }, () => 0)],
  ["step 'a': retries is 1.5", (step) => step.run({ id: "a", retries: 1.5 }, () => 0)],
  [
    "the multiplier of its retries is 0.5",
    (step) => step.run({ id: "a", retries: { retries: 1, multiplier: 0.5 } }, () => 0),
  ],
  [
    'initialInterval of its retries is "soon"',
    (step) => step.run({ id: "a", retries: { retries: 1, initialInterval: "soon" as never } }, () => 0),
  ],
  [
    "the timeout of step 'a' is \"2 fortnights\", but must be a number",
    (step) => step.run({ id: "a", timeout: "2 fortnights" as never }, () => 0),
  ],
  [
    "the attemptTimeout of step 'a' is -5, but must not be negative",
    (step) => step.run({ id: "a", attemptTimeout: -5 }, () => 0),
  ],
  ["the timeout of step 'a' is 0 ms, but must be more", (step) => step.run({ id: "a", timeout: 0 }, () => 0)],
  ["the attemptTimeout of step 'a' is 0 ms", (step) => step.run({ id: "a", attemptTimeout: "0s" }, () => 0)],
  ["the timeout of step 'c' is 0 ms", (step) => step.invoke("c", { function: "f", timeout: 0 })],
  ["the timeout of step 'a' is true", (step) => step.run({ id: "a", timeout: wrong(true) }, () => 0)],
  ["step 'a': retries is null", (step) => step.run({ id: "a", retries: wrong(null) }, () => 0)],
  ["sleep 'nap' is until -1e+300, which is before the year 1", (step) => step.sleepUntil("nap", -1e300)],
  ["wait 'w' is given undefined", (step) => step.waitForEvent("w", wrong(undefined))],
  ["step 'c' invokes null: use", (step) => step.invoke("c", wrong(null))],
  ["the duration of sleep 'nap' is NaN", (step) => step.sleep("nap", Number.NaN)],
  [
    "the duration of sleep 'nap' is \"367 days\", over the limit of 366 days (--max-sleep)",
    (step) => step.sleep("nap", "367 days"),
  ],
  ["sleep 'nap' is until", (step) => step.sleepUntil("nap", new Date(Number.NaN))],
  ["367 days ahead, over the limit of 366 days", (step) => step.sleepUntil("nap", START + 367 * 86_400_000)],
  ["step 'tell' sends no events: give it at least one", (step) => step.sendEvent("tell", [])],
  ["step 'tell' sends \"a\", which is no event: use { name, data }", (step) => step.sendEvent("tell", wrong("a"))],
  ["the name of an event that step 'tell' sends is \"\"", (step) => step.sendEvent("tell", { name: "" })],
  ["the name of the event that wait 'w' is for is undefined", (step) => step.waitForEvent("w", wrong({}))],
  ["wait 'w' matches 'a' with {}", (step) => step.waitForEvent("w", { event: "a", match: wrong({ a: {} }) })],
  ["wait 'w' matches 'a' with Infinity", (step) => step.waitForEvent("w", { event: "a", match: { a: 1 / 0 } })],
  [
    "wait 'w' matches 17 fields, but at most 16 are allowed",
    (step) => step.waitForEvent("w", { event: "a", match: fieldsUpTo(17) }),
  ],
  [
    "wait 'w' matches a path of 258 bytes and 1 names, but at most 256 bytes and 16 names",
    (step) => step.waitForEvent("w", { event: "a", match: { ["é".repeat(129)]: 1 } }),
  ],
  [
    "wait 'w' matches a path of 16 bytes and 17 names, but at most 256 bytes and 16 names",
    (step) => step.waitForEvent("w", { event: "a", match: { [".".repeat(16)]: 1 } }),
  ],
  [
    "1025 bytes as JSON in ASCII, but at most 1024 together are allowed: compare less",
    (step) => step.waitForEvent("w", { event: "a", match: { a: "x".repeat(1_016) } }),
  ],
  [
    "1209 bytes as JSON in ASCII, but at most 1024",
    (step) => step.waitForEvent("w", { event: "a", match: { a: "é".repeat(200) } }),
  ],
  ["wait 'w' matches [], but must be given paths", (step) => step.waitForEvent("w", { event: "a", match: wrong([]) })],
  ["a task's name is undefined", (step) => step.call(wrong(undefined))],
  ["the function that step 'c' invokes is undefined", (step) => step.invoke("c", wrong({}))],
  ["step 'c' invokes 'app/': give a function's id, or app/id", (step) => step.invoke("c", { function: "app/" })],
])("%s is refused at the call", async (words, code) => {
  let caught: unknown;
  const turn = await invocation(({ step }) => {
    try {
      void code(step);
    } catch (error) {
      caught = error;
      throw error;
    }
  }).start([]);
  expect(caught).toBeInstanceOf(InvalidStepError);
  expect(failureIn(turn)).toMatchObject({
    type: "InvalidStepError",
    retryable: false,
    message: expect.stringContaining(words) as unknown,
  });
  expect(turn.found).toEqual([]);
});

test("waits up to the limits of what they match are fine", async () => {
  const matches = [fieldsUpTo(16), { ["p".repeat(256)]: 1 }, { [".".repeat(15)]: 1 }, { a: "x".repeat(1_015) }];
  const live = invocation(({ step }) =>
    Promise.all(matches.map((match) => step.waitForEvent("w", { event: "a", match }))),
  );
  expect((await live.start([])).found).toHaveLength(matches.length);
});

test("an input that can't be encoded is refused at the call, and names where", async () => {
  const failure = failureIn(await invocation(({ step }) => step.call("task", { a: [1n] })).start([]));
  expect(failure).toMatchObject({ type: "EncodingError", retryable: false });
  expect(failure.message).toBe(
    "input of task 'task' can't be encoded as JSON: at .a[0]: 1 is a BigInt: use a number or a text",
  );
});

test("an output that can't be encoded fails the body for good", async () => {
  const failure = failureIn(await invocation(() => ({ n: Number.NaN })).start([]));
  expect(failure).toMatchObject({ type: "EncodingError", retryable: false });
  expect(failure.message).toBe("output of 'body' can't be encoded as JSON: at .n: NaN is no number that JSON knows");
});

test.each(["a", "x".repeat(1024), "nul\0", "🙂/:%\n", "__proto__", "constructor"])("the id %j is fine", async (id) => {
  const live = invocation(({ step }) => Promise.all([step.run(id, () => 0), step.run(id, () => 1)]));
  const { found } = await live.start([]);
  expect(found.map((step) => step.key)).toEqual([0, 1].map((index) => ({ id, index })));
  const journal = [entry(1, id, 2, { index: 1 }), entry(2, id, 1)];
  expect(returned((await live.resume(journal)).outcome)).toEqual([1, 2]);
});

test.each<Body>([
  ({ step }) => Promise.all([0, 1, 2, 3].map(() => step.run("a", () => 0))),
  async ({ step }) => {
    try {
      await Promise.all([0, 1, 2, 3].map((n) => step.run(String(n), () => 0)));
    } finally {
      await step.run("clean up", () => 0);
    }
  },
])("too many steps end the body and name the limit", async (body) => {
  const turn = await invocation(body, { maxSteps: 3 }).start([]);
  const failure = failureIn(turn);
  expect(failure).toMatchObject({ type: "TooManyStepsError", retryable: false });
  expect(failure.message).toContain("run run-1 found step 4, over --max-steps=3");
  expect(turn.found).toEqual([]);
});
