import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { FrameError, Framer, Joiner } from "../src/frames.js";
import {
  ExecutorFrameSchema,
  ExecutorMessageSchema,
  WorkerFrameSchema,
  WorkerMessageSchema,
} from "../src/gen/stepwire/v1/worker_pb.js";

function evicted(runId: string): Uint8Array {
  return toBinary(WorkerMessageSchema, create(WorkerMessageSchema, { kind: { case: "evicted", value: { runId } } }));
}

function fragment(id: bigint, data: Uint8Array, last: boolean): Uint8Array {
  const messages = [{ kind: { case: "fragment" as const, value: { id, data, last } } }];
  return toBinary(ExecutorFrameSchema, create(ExecutorFrameSchema, { messages }));
}

describe("frames of a worker", () => {
  test.each([1, 127, 128, 5000, 100_000])("hold messages of %d bytes as Protobuf does", (size) => {
    const framer = new Framer();
    const frames = [...framer.frames([evicted("a".repeat(size)), evicted("b")])];
    expect(frames.length).toBe(1);
    const found = fromBinary(WorkerFrameSchema, frames[0] ?? new Uint8Array());
    expect(found.messages.map(({ kind }) => (kind.case === "evicted" ? kind.value.runId.length : 0))).toEqual([
      size,
      1,
    ]);
  });

  test("are as few as fit, and none is larger than allowed", () => {
    const framer = new Framer();
    framer.maxFrameBytes = 2000;
    const messages = Array.from({ length: 50 }, (_, index) => evicted(String(index).repeat(100)));
    const frames = [...framer.frames(messages)];
    expect(Math.max(...frames.map((frame) => frame.length))).toBeLessThanOrEqual(2000);
    expect(frames.length).toBe(5);
    const found = frames.flatMap((frame) => fromBinary(WorkerFrameSchema, frame).messages);
    expect(found.map((each) => toBinary(WorkerMessageSchema, each))).toEqual(
      messages.map((each) => new Uint8Array(each)),
    );
  });

  test("a message that is too large becomes fragments with growing ids", () => {
    const framer = new Framer();
    framer.maxFrameBytes = 2000;
    const large = evicted("x".repeat(10_000));
    const ids = new Set<bigint>();
    for (const round of [1n, 2n]) {
      const frames = [...framer.frames([evicted("before"), large, evicted("after")])];
      expect(Math.max(...frames.map((frame) => frame.length))).toBeLessThanOrEqual(2000);
      const pieces = frames
        .flatMap((frame) => fromBinary(WorkerFrameSchema, frame).messages)
        .flatMap(({ kind }) => (kind.case === "fragment" ? [kind.value] : []));
      expect(pieces.map((piece) => piece.last)).toEqual([...pieces.slice(1).map(() => false), true]);
      expect(Buffer.concat(pieces.map((piece) => piece.data)).equals(large)).toBe(true);
      for (const piece of pieces) ids.add(piece.id);
      expect(ids.size).toBe(Number(round));
    }
    expect([...ids]).toEqual([1n, 2n]);
  });
});

describe("frames of the executor", () => {
  const whole = toBinary(
    ExecutorMessageSchema,
    create(ExecutorMessageSchema, { kind: { case: "goAway", value: { reason: "r".repeat(3000) } } }),
  );

  test("fragments are put together, with other messages in between", () => {
    const joiner = new Joiner();
    expect(joiner.messages(fragment(1n, whole.slice(0, 1000), false))).toEqual([]);
    const between = create(ExecutorFrameSchema, { messages: [{ kind: { case: "recorded", value: {} } }] });
    expect(joiner.messages(toBinary(ExecutorFrameSchema, between)).length).toBe(1);
    const [message] = joiner.messages(fragment(1n, whole.slice(1000), true));
    expect(message?.kind.case).toBe("goAway");
  });

  test("fragments that break the contract are refused", () => {
    const half = new Joiner();
    half.messages(fragment(1n, whole.slice(0, 10), false));
    expect(() => half.messages(fragment(2n, whole, true))).toThrow(FrameError);

    const again = new Joiner();
    again.messages(fragment(2n, whole, true));
    expect(() => again.messages(fragment(2n, whole, true))).toThrow(/after the last one/);

    expect(() => new Joiner(100).messages(fragment(1n, whole, true))).toThrow(/more than 100 bytes/);
    expect(() => new Joiner().messages(fragment(1n, Buffer.from([0xff]), true))).toThrow(/can't be read/);
    expect(() => new Joiner().messages(Buffer.from([0x0a, 0x7f, 1]))).toThrow(/ExecutorFrame/);
  });

  test("a kind of message that is not known is given without a kind", () => {
    const [message] = new Joiner().messages(Buffer.from([0x0a, 0x03, 0xfa, 0x3f, 0x00]));
    expect(message?.kind.case).toBeUndefined();
  });
});
