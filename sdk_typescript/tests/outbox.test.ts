import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { AttemptSchema } from "../src/gen/stepwire/v1/value_pb.js";
import { Ledger } from "../src/worker/ledger.js";
import { Outbox } from "../src/worker/outbox.js";

const RESULT = Buffer.from("result");

function outboxWith(...fences: bigint[]): Outbox {
  const outbox = new Outbox(new Ledger(4));
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
  expect(outbox.holdings(2).attempts.map((attempt) => attempt.fence)).toEqual([2n, 3n]);
  expect(outbox.reopen([])).toEqual([]);
  expect([1n, 2n, 3n].map((fence) => outbox.holds(fence))).toEqual([false, true, true]);
});

test("a Hello names the newest results, which the executor is the least likely to have read", () => {
  const outbox = outboxWith(1n, 2n, 3n);
  for (const fence of [3n, 1n, 2n]) outbox.keep(fence, RESULT);
  expect(outbox.holdings(2).attempts.map((attempt) => attempt.fence)).toEqual([2n, 1n]);
});

test("a Hello brings the plan of a lone step as long as the step is in hand", () => {
  const outbox = outboxWith(1n);
  const plan = { runId: "r", steps: [{ eagerFence: 2n }], quiescent: true };
  outbox.take(create(AttemptSchema, { runId: "r", fence: 2n }), plan);
  expect(outbox.holdings(10).plans).toEqual([plan]);
  outbox.keep(2n, RESULT);
  expect(outbox.holdings(10).plans).toEqual([plan]);
  outbox.forget([2n]);
  expect(outbox.holdings(10).plans).toEqual([]);
});

test("what the executor no longer wants is forgotten", () => {
  const outbox = outboxWith(1n, 2n);
  outbox.keep(1n, RESULT);
  outbox.holdings(10);
  expect(outbox.reopen([1n])).toEqual([]);
  expect(outbox.inHand).toBe(1);
});
