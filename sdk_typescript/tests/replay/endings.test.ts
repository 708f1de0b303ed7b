/** What is left of a body that has ended or was dropped, and of promises that it never awaited. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { setTimeout as pause } from "node:timers/promises";

import { guardRejections } from "../../src/rejections.js";
import { type Body, entry, failed, failureIn, invocation, returned } from "./driver.js";

let others: NodeJS.UnhandledRejectionListener[] = [];
const seen = vi.fn();

beforeEach(() => {
  // The runner's own listeners would fail the tests that reject on purpose.
  others = process.listeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection");
  seen.mockClear();
});

afterEach(() => {
  process.removeAllListeners("unhandledRejection");
  for (const listener of others) process.on("unhandledRejection", listener);
});

test("the failure of a step that nothing awaits fails the run, and not the process", async () => {
  process.on("unhandledRejection", seen);
  const live = invocation(async ({ step }) => {
    void step.run("forgotten", () => 0);
    return await step.run("work", () => 0);
  });
  await live.start([]);
  await live.resume([failed(1, "forgotten", new Error("boom"))]);
  await pause(2);
  const { message, retryable } = failureIn(await live.resume([entry(2, "work", 1)]));
  expect([message, retryable]).toEqual(["step 'forgotten' failed after 1 attempt: Error: boom", false]);
  await pause(2);
  expect(seen).not.toHaveBeenCalled();
});

test("a failure is ignored where the body says so, though nothing else awaits it", async () => {
  const live = invocation(async ({ step }) => {
    step.run("best effort", () => 0).catch(() => undefined);
    return await step.run("work", () => 0);
  });
  await live.start([]);
  await live.resume([failed(1, "best effort", new Error("boom"))]);
  expect(returned((await live.resume([entry(2, "work", 1)])).outcome)).toBe(1);
});

test("a step that fails before it is awaited is caught where it is awaited", async () => {
  process.on("unhandledRejection", seen);
  const live = invocation(async ({ step }) => {
    const early = step.run("early", () => 0);
    await step.run("work", () => 0);
    return await early.catch((error: unknown) => String(error));
  });
  await live.start([]);
  await live.resume([failed(1, "early", new TypeError("boom"))]);
  await pause(2);
  expect(returned((await live.resume([entry(2, "work")])).outcome)).toBe("TypeError: boom");
  expect(seen).not.toHaveBeenCalled();
});

const branchThatFails: Body = async ({ step }) => {
  const branch = async (): Promise<void> => {
    await step.run("early", () => 0);
    throw new RangeError("a branch's own");
  };
  const stepsOwn = async (): Promise<number> => await step.run("step's own", () => 0);
  const branches = [branch(), stepsOwn()];
  await step.run("work", () => 0);
  return (await Promise.allSettled(branches)).map((end) => String(end.status === "rejected" && end.reason));
};

test("branches of a body that fail while nobody awaits them are logged, and caught where they are awaited", async () => {
  const error = vi.fn();
  const release = guardRejections({ ...console, error });
  const live = invocation(branchThatFails);
  await live.start([]);
  await live.resume([entry(1, "early"), failed(2, "step's own", new TypeError("boom"))]);
  await pause(2);
  expect(error.mock.calls.map((line) => String(line[1]))).toEqual(["RangeError: a branch's own", "TypeError: boom"]);
  const end = await live.resume([entry(3, "work")]);
  expect(returned(end.outcome)).toEqual(["RangeError: a branch's own", "TypeError: boom"]);
  release();
  expect(process.listenerCount("unhandledRejection")).toBe(0);
});

test("a step that a timer of a body starts fails the run, and not the process", async () => {
  const error = vi.fn();
  const release = guardRejections({ ...console, error });
  const onFault = vi.fn();
  const live = invocation(
    ({ step }) => {
      setTimeout(() => void step.run("late", () => 0), 1);
      return step.run("work", () => 0);
    },
    { onFault },
  );
  await live.start([]);
  await vi.waitFor(() => {
    expect(error).toHaveBeenCalledTimes(1);
  });
  expect(onFault).toHaveBeenCalledTimes(1);
  expect(failureIn(await live.resume([entry(1, "work")])).type).toBe("ForeignAwaitError");
  release();
});

test("rejections of others go where they would have gone", async () => {
  const error = vi.fn();
  const release = guardRejections({ ...console, error });
  const again = guardRejections({ ...console, error });
  again();
  process.on("unhandledRejection", seen);
  await pause(2);
  void Promise.reject(new Error("not a body's"));
  await pause(2);
  expect(error).not.toHaveBeenCalled();
  expect(seen).toHaveBeenCalledTimes(1);
  process.off("unhandledRejection", seen);
  const fatal = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.once("uncaughtException", seen);
  void Promise.reject(new Error("fatal"));
  await pause(2);
  for (const listener of fatal) process.on("uncaughtException", listener);
  expect(String(seen.mock.calls[1]?.[0])).toBe("Error: fatal");
  release();
});

test("a body that has returned starts nothing more, though branches of it go on in the same turn", async () => {
  const live = invocation(async ({ step }) => {
    const first = step.run("first", () => 0);
    void first.then(() => Promise.resolve()).then(() => step.run("more", () => 0));
    await first;
    return "end";
  });
  await live.start([]);
  const turn = await live.resume([entry(1, "first")]);
  expect(returned(turn.outcome)).toBe("end");
  expect(turn.found).toEqual([]);
});

test("a dropped body never goes on, and a turn that is awaited ends without an outcome", async () => {
  const went = vi.fn();
  const live = invocation(async ({ step }) => {
    try {
      await step.run("work", () => 0);
    } finally {
      went();
    }
  });
  const [first] = (await live.start([])).found;
  const turn = live.resume([entry(1, "work")]);
  live.close();
  expect(await turn).toEqual({ found: [], outcome: undefined });
  expect(went).not.toHaveBeenCalled();
  expect(first && live.closure(first.key)).toBeUndefined();
});

test("a body that throws at once, or throws what is no Error, has failed", async () => {
  const bodies: Body[] = [
    () => {
      throw new SyntaxError("at once");
    },
    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- people do
    () => Promise.reject("only a text"),
    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- people do
    () => Promise.reject({ code: 7 }),
    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- people do
    () => Promise.reject(undefined),
  ];
  const failures = await Promise.all(bodies.map(async (body) => failureIn(await invocation(body).start([]))));
  expect(failures.map(({ type, message, retryable }) => [type, message, retryable])).toEqual([
    ["SyntaxError", "at once", true],
    ["Error", "only a text", true],
    ["Error", '{"code":7} was thrown, which is no Error', true],
    ["Error", "undefined was thrown, which is no Error", true],
  ]);
});

test("a body may return without a step, and may be no async function", async () => {
  expect(returned((await invocation(() => 7).start([])).outcome)).toBe(7);
  expect(returned((await invocation(() => undefined).start([])).outcome)).toBeNull();
});
