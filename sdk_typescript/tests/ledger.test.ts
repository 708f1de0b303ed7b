/** What one thread keeps and another one takes, over the memory that both see. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { AttemptSchema, type Attempt } from "../src/gen/stepwire/v1/value_pb.js";
import { Ledger } from "../src/worker/ledger.js";

const STREAM = 3;

function attempt(fence: bigint, id = "step é", index = 0): Attempt {
  return create(AttemptSchema, { runId: "run-1", key: { id, index }, fence });
}

function both(slots = 4): { ours: Ledger; theirs: Ledger } {
  const ours = new Ledger(slots);
  return { ours, theirs: new Ledger(ours.shared) };
}

const texts = (messages: Uint8Array[]): string[] => messages.map((message) => Buffer.from(message).toString());

test("what runs is given back whole, and what has its result is not", () => {
  const { ours, theirs } = both();
  const attempts = [attempt(1n), attempt((1n << 63n) + 5n, "b", 7), attempt(3n)];
  for (const each of attempts) ours.take(STREAM, each);
  ours.drop(1n);
  ours.drop(99n);
  expect(theirs.surrender().running).toEqual(attempts.slice(1));
});

test("what was said and not handed over is told once: by the thread that takes it, or by the other", () => {
  const { ours, theirs } = both();
  for (const text of ["a", "b"]) expect(ours.say(Buffer.from(text))).toBe(true);
  expect(texts(theirs.announce(STREAM))).toEqual(["a", "b"]);
  ours.say(Buffer.from("c"));
  expect(ours.handOver()).toBe(2);
  ours.say(Buffer.from("d"));
  expect(texts(theirs.surrender().said)).toEqual(["d"]);
});

test("there is room for many small messages, and none for a large one", () => {
  const { ours } = both();
  expect(ours.say(new Uint8Array(1024 * 1024))).toBe(false);
  for (let n = 0; n < 1_000; n += 1) expect(ours.say(new Uint8Array(100))).toBe(true);
  ours.handOver();
  expect(ours.say(new Uint8Array(200_000))).toBe(true);
});

test("plans of lone steps that have begun are told before Draining, and none begins after it", () => {
  const { ours, theirs } = both();
  expect(ours.take(STREAM, attempt(1n), Buffer.from("plan 1"))).toBe(true);
  expect(ours.take(STREAM, attempt(2n), Buffer.from("plan 2"))).toBe(true);
  expect(ours.tellPlan(2n)).toBe(true);
  expect(ours.isAnnounced(STREAM)).toBe(false);
  expect(texts(theirs.announce(STREAM))).toEqual(["plan 1"]);
  expect(ours.isAnnounced(STREAM)).toBe(true);
  expect(ours.tellPlan(1n)).toBe(false);
  expect(ours.take(STREAM, attempt(3n), Buffer.from("plan 3"))).toBe(false);
  expect(ours.take(STREAM + 1, attempt(4n), Buffer.from("plan 4"))).toBe(true);
  expect(theirs.surrender().running.map(({ fence }) => fence)).toEqual([1n, 2n, 4n]);
});

test("room that attempts have left is used again, with the longest ids too", () => {
  const { ours, theirs } = both(32);
  let fence = 0n;
  const living: bigint[] = [];
  for (let round = 0; round < 2_000; round += 1) {
    fence += 1n;
    ours.take(STREAM, attempt(fence, "é".repeat(round % 512), round), new Uint8Array(round % 300));
    living.push(fence);
    if (living.length === 32) ours.drop(living.splice((round * 7) % 32, 1)[0] ?? 0n);
  }
  const running = new Map(theirs.surrender().running.map((each) => [each.fence, each]));
  expect([...running.keys()]).toEqual(living);
  for (const each of living) expect(running.get(each)?.key?.id).toBe("é".repeat(Number(each - 1n) % 512));
});
