/** A body that throws in a replay is reported with what it threw, and with where in the journal that was. */

import { afterEach, expect, test } from "vitest";

import { NonRetriableError } from "../../src/index.js";
import type { Failure } from "../../src/model.js";
import type { Turn } from "../../src/replay/model.js";
import { type Body, entry, expected, failureIn, invocation, returned } from "./driver.js";

/** What is missing on this machine. */
const broken = new Set<string>();

afterEach(() => {
  broken.clear();
});

function check(what: string): void {
  if (broken.has(what)) throw new RangeError(what);
}

const copies: Body = async ({ step }) => {
  check("first");
  await step.run("a", () => "a");
  check("second");
  await step.run("b", () => "b");
  check("third");
  return await step.run("c", () => "c");
};

function thrown(turn: Turn, type = "RangeError"): Failure {
  const failure = failureIn(turn);
  expect([failure.type, turn.found]).toEqual([type, []]);
  return failure;
}

test.each([
  ["first", 0],
  ["second", 1],
])("an error before the end of the journal is reported with its place: %s", async (what, after) => {
  broken.add(what);
  const failure = thrown(await invocation(copies).start([entry(1, "a"), entry(2, "b")]));
  expect([failure.message, failure.retryable]).toEqual([what, true]);
  expect(failure.stack).toContain("raising.test.ts");
  expect(failure.stack).toContain(`Raised in a replay, after entry ${String(after)} of 2 of the run's journal.`);
});

test("an error before a planned step is reported with its place", async () => {
  const found = await invocation(copies).start([entry(1, "a"), entry(2, "b")]);
  broken.add("third");
  const again = await invocation(copies).start([entry(1, "a"), entry(2, "b")], expected(found.found));
  expect(thrown(again).stack).toContain("after entry 2 of 2");
});

test("an error at the end of the journal happens for the first time", async () => {
  broken.add("third");
  const failure = thrown(await invocation(copies).start([entry(1, "a"), entry(2, "b")]));
  expect(failure.stack).not.toContain("in a replay");
});

test("a body that is tried again goes on from its journal", async () => {
  broken.add("second");
  thrown(await invocation(copies).start([entry(1, "a"), entry(2, "b")]));
  broken.clear();
  const again = invocation(copies);
  const turn = await again.start([entry(1, "a"), entry(2, "b")]);
  expect(turn.found.map((step) => step.key.id)).toEqual(["c"]);
  expect(returned((await again.resume([entry(3, "c", "c")])).outcome)).toBe("c");
});

test("an error that no retry mends stays one in a replay", async () => {
  const body = invocation(() => {
    throw new NonRetriableError("no");
  });
  expect(thrown(await body.start([entry(1, "a")]), "NonRetriableError").retryable).toBe(false);
});

test("a body that throws after it has found another step has diverged, and says what it threw", async () => {
  const body = invocation(async ({ step }) => {
    void step.sleep("b", 5);
    await step.run("a", () => "a");
    throw new RangeError("gone");
  });
  const failure = thrown(await body.start([entry(1, "a"), entry(2, "b")]), "NonDeterminismError");
  expect(failure.cause).toMatchObject({ type: "RangeError", message: "gone" });
});

test("a replica keeps what its body has thrown until it is promoted", async () => {
  broken.add("second");
  const replica = invocation(copies, { lead: false });
  await replica.start([]);
  thrown(await replica.resume([entry(1, "a")]));
  expect(thrown(await replica.resume([entry(2, "b")])).message).toBe("second");
  expect(thrown(replica.promote()).message).toBe("second");
});
