/** What a body can't await, and how that is told. */

import { EventEmitter } from "node:events";
import { readFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { expect, test, vi } from "vitest";

import { type FunctionContext, NestedStepError, type Step } from "../../src/index.js";
import type { Invocation } from "../../src/replay/invocation.js";
import type { Outcome } from "../../src/replay/model.js";
import { attemptAt, type Body, entry, failureIn, invocation, really, returned } from "./driver.js";

async function ticks(count: number): Promise<void> {
  for (let tick = 0; tick < count; tick += 1) {
    await new Promise<void>((resolve) => {
      process.nextTick(resolve);
    });
  }
}

test.each<[string, (step: Step) => unknown]>([
  ["a timer", () => pause(1)],
  ["a file", () => readFile(new URL(import.meta.url))],
  ["a promise that nobody settles", () => new Promise(() => undefined)],
  ["an event that nobody emits", () => EventEmitter.once(new EventEmitter(), "never")],
  ["a request", () => fetch("http://127.0.0.1:65533").catch(() => 0)],
  ["a long chain of ticks", () => ticks(5)],
  ["a timer after a step that has ended", (step) => step.run("work", () => 0).then(() => pause(1))],
])("%s is refused with advice", async (_, code) => {
  const live = invocation(({ step }) => code(step));
  const turn = await live.start([]);
  const last = turn.found.length > 0 ? await live.resume([entry(1, "work")]) : turn;
  const failure = failureIn(last);
  expect([failure.type, failure.retryable]).toEqual(["ForeignAwaitError", false]);
  expect(failure.message).toContain("waits for something that no step will bring");
  expect(failure.message).toMatch(
    /after step 'work' at foreign\.test\.ts:\d+|declared at driver\.ts:\d+, before its first/,
  );
  expect(failure.message).toContain("step.run(...)");
  await pause(3);
  expect(live.ended).toBe(true);
});

test("a step after something foreign is refused at once, though other steps are open", async () => {
  const faults: Outcome[] = [];
  const live = invocation(
    async ({ step }) => {
      const other = step.run("other", () => 0);
      await pause(1);
      await step.run("late", () => 0);
      return await other;
    },
    { onFault: (outcome) => faults.push(outcome) },
  );
  expect((await live.start([])).found).toHaveLength(1);
  await vi.waitFor(() => {
    expect(faults).toHaveLength(1);
  });
  const turn = await live.resume([entry(1, "other")]);
  const failure = failureIn(turn);
  expect(turn.outcome).toEqual(faults[0]);
  expect([failure.type, failure.retryable]).toEqual(["ForeignAwaitError", false]);
  expect(failure.message).toMatch(
    /step 'late' at foreign\.test\.ts:\d+ was started while the body of 'body' should stand still/,
  );
  expect(failure.message).toContain("awaited something that is no step");
  expect(failure.message).toContain("inside another step");
});

test.each<[string, (step: Step) => unknown]>([
  ["the body", (step) => setTimeout(() => void step.run("late", () => 0).catch(() => 0), 1)],
  [
    "another step's code",
    (step) => step.run("work", () => setTimeout(() => void step.run("late", () => 0).catch(() => 0), 1)),
  ],
])("a step that a timer of %s starts is refused with its line and advice", async (_, starts) => {
  const faults: Outcome[] = [];
  const live = invocation(
    async ({ step }) => {
      void starts(step);
      await step.sleep("long", "1h");
    },
    { onFault: (outcome) => faults.push(outcome) },
  );
  await live.start([]);
  void live.closure({ id: "work", index: 0 })?.(attemptAt({ key: { id: "work", index: 0 } }));
  await vi.waitFor(() => {
    expect(faults).toHaveLength(1);
  });
  const [fault] = faults;
  expect(fault).toMatchObject({ case: "thrown", failure: { type: "ForeignAwaitError", retryable: false } });
  const { message } = (fault as Extract<Outcome, { case: "thrown" }>).failure;
  expect(message).toMatch(
    /^step 'late' at foreign\.test\.ts:\d+ was started while the body of 'body' should stand still/,
  );
  expect(message).toContain(
    "a callback, of setTimeout say, started it (start it in the body itself, after step.sleep(...)",
  );
});

test("a step after a long chain of ticks is refused, alone or beside others, live or in a heap", async () => {
  const body: Body = async ({ step }) => {
    const others = [step.run("a", () => 0), step.run("b", () => 0)];
    await ticks(20);
    await step.run("late", () => 0);
    await Promise.all(others);
  };
  for (const heaps of [[2], [1, 1]]) {
    const live = invocation(body);
    await live.start([]);
    const entries = [entry(1, "a"), entry(2, "b")];
    let last = await live.resume([]);
    for (const size of heaps) last = await live.resume(entries.splice(0, size));
    expect(failureIn(last).type).toBe("ForeignAwaitError");
  }
});

test("a body that ends after something foreign has failed", async () => {
  const faults: Outcome[] = [];
  const live = invocation(({ step }) => Promise.race([step.sleep("long", "30 days"), pause(1)]), {
    onFault: (outcome) => faults.push(outcome),
  });
  await live.start([]);
  await vi.waitFor(() => {
    expect(faults).toHaveLength(1);
  });
  expect(failureIn({ found: [], outcome: faults[0] }).message).toContain(
    "ended after awaiting something that is no step",
  );
});

test("a replica keeps such a fault to itself until it is promoted", async () => {
  const onFault = vi.fn();
  const live = invocation(({ step }) => Promise.race([step.sleep("long", "30 days"), pause(1)]), {
    lead: false,
    onFault,
  });
  await live.start([]);
  await pause(5);
  expect(onFault).not.toHaveBeenCalled();
  expect(failureIn(live.promote()).type).toBe("ForeignAwaitError");
});

test("a body that waits for a step may wait for other things that the step brings", async () => {
  const live = invocation(async ({ step }) => {
    const emitter = new EventEmitter();
    const woken = EventEmitter.once(emitter, "go");
    void step.run("wake", () => 0).then(() => emitter.emit("go", 7));
    return (await woken)[0] as number;
  });
  await live.start([]);
  expect(returned((await live.resume([entry(1, "wake")])).outcome)).toBe(7);
});

async function startedBy(inner: (context: FunctionContext) => Promise<unknown>): Promise<[string, boolean, string]> {
  const live = invocation((context) => context.step.run("outer", () => inner(context)));
  const [outer] = (await live.start([])).found;
  if (!outer) throw new Error("nothing was found");
  const run = live.closure(outer.key);
  const outcome = await really(outer, (attempt) => run?.(attempt));
  expect(live.ended).toBe(false);
  const end = failureIn(await live.resume([entry(1, "outer", 0, { outcome })]));
  expect(end.cause?.type).toBe("NestedStepError");
  if (outcome.case !== "failure") throw new Error("the step has not failed");
  return [outcome.failure.type, outcome.failure.retryable, outcome.failure.message];
}

async function helper({ step }: FunctionContext): Promise<unknown> {
  await pause(1);
  return await step.run("inner", () => 0);
}

test.each<[string, (context: FunctionContext) => Promise<unknown>]>([
  ["at once", ({ step }) => step.run("inner", () => 0)],
  ["after a pause", helper],
  ["deep inside", async (context) => await Promise.resolve().then(async () => [await helper(context)])],
  ["side by side", async (context) => await Promise.all([helper(context), pause(5)])],
])("a step that a step's code starts %s is refused as such", async (_, inner) => {
  const [type, retryable, message] = await startedBy(inner);
  expect([type, retryable]).toEqual(["NestedStepError", false]);
  expect(message).toContain("step 'inner' was started by the code of step 'outer'");
});

test("a step's code that begins while its body moves is no part of the body", async () => {
  const errors: unknown[] = [];
  const live: Invocation = invocation(async ({ step }) => {
    const outer = step.run("outer", () => step.run("inner", () => 0));
    const key = { id: "outer", index: 0 };
    await Promise.resolve(live.closure(key)?.(attemptAt({ key }))).catch((error: unknown) => errors.push(error));
    return await outer;
  });
  expect((await live.start([])).found.map((step) => step.key.id)).toEqual(["outer"]);
  expect(errors).toEqual([expect.any(NestedStepError)]);
});

test("what an ended or dropped body still asks for never comes, and harms nobody", async () => {
  const steps: Step[] = [];
  const live = invocation(({ step }) => {
    steps.push(step);
    return Promise.race([step.run("quick", () => 0), step.run("slow", () => 0).then(() => step.run("more", () => 0))]);
  });
  await live.start([]);
  const end = await live.resume([entry(1, "quick")]);
  await expect(steps[0]?.run("late", () => 0)).rejects.toThrow("should stand still");
  expect((await live.resume([entry(2, "slow")])).outcome).toEqual(end.outcome);
  live.close();
  await expect(steps[0]?.run("later", () => 0)).rejects.toThrow("should stand still");
});
