import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { AttemptSchema } from "../src/gen/stepwire/v1/value_pb.js";
import { Outbox } from "../src/worker/outbox.js";

const RESULT = Buffer.from("result");

function outboxWith(...fences: bigint[]): Outbox {
  const outbox = new Outbox();
  for (const fence of fences) outbox.take(create(AttemptSchema, { runId: "r", fence }));
  return outbox;
}

test("a result is kept until it is forgotten", () => {
  const outbox = outboxWith(1n, 2n);
  expect(outbox.keep(1n, RESULT)).toBe(true);
  outbox.holdings(10);
  expect(outbox.reopen([])).toEqual([RESULT]);
  outbox.forget([1n]);
  outbox.holdings(10);
  expect(outbox.reopen([])).toEqual([]);
  expect([outbox.inHand, outbox.holds(1n), outbox.holds(2n)]).toEqual([1, false, true]);
});

test("a result of an attempt that is not in hand is not kept", () => {
  const outbox = outboxWith(1n);
  expect(outbox.keep(2n, RESULT)).toBe(false);
});

test("a Hello names running attempts first, and what it does not name is gone", () => {
  const outbox = outboxWith(1n, 2n, 3n);
  outbox.keep(1n, RESULT);
  expect(outbox.holdings(2).map((attempt) => attempt.fence)).toEqual([2n, 3n]);
  expect(outbox.reopen([])).toEqual([]);
  expect([1n, 2n, 3n].map((fence) => outbox.holds(fence))).toEqual([false, true, true]);
});

test("what the executor no longer wants is forgotten", () => {
  const outbox = outboxWith(1n, 2n);
  outbox.keep(1n, RESULT);
  outbox.holdings(10);
  expect(outbox.reopen([1n])).toEqual([]);
  expect(outbox.inHand).toBe(1);
});
