import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { DurationSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { JournalEntrySchema, StepKind as StepKinds, StepPlannedSchema } from "../src/gen/stepwire/v1/opcode_pb.js";
import { FailureSchema, PayloadSchema } from "../src/gen/stepwire/v1/value_pb.js";
import { StepKind, type Planned } from "../src/replay/model.js";
import type { Failure } from "../src/model.js";
import * as wire from "../src/wire.js";

const PAYLOAD = { data: Buffer.from("1"), encoding: "json", metadata: { "x-key": "k" } };

describe("times", () => {
  test.each([0, 1, -1, 0.25, 1_700_000_000_123.5, -1500, 999.9999996])("%d ms come back", (time) => {
    const { seconds, nanos } = wire.toTimestamp(time);
    expect(nanos).toBeGreaterThanOrEqual(0);
    expect(nanos).toBeLessThan(1e9);
    expect(Number(seconds) * 1000 + nanos / 1e6).toBeCloseTo(time, 3);
  });

  test("what no timestamp or duration can hold is refused", () => {
    for (const time of [NaN, Infinity, -62_135_596_800_001, 253_402_300_800_000]) {
      expect(() => wire.toTimestamp(time)).toThrow(RangeError);
    }
    for (const duration of [NaN, Infinity, -1]) expect(() => wire.toDuration(duration)).toThrow(RangeError);
  });
});

describe("what makes no sense", () => {
  const [most, nanos] = [2n ** 63n - 1n, 2 ** 31 - 1];

  test.each([
    [{ seconds: most, nanos }, 253_402_300_799_999],
    [{ seconds: 253_402_300_800n }, 253_402_300_799_999],
    [{ seconds: -most, nanos: -nanos }, -62_135_596_800_000],
    [{ seconds: -62_135_596_801n }, -62_135_596_800_000],
    [{ seconds: -62_135_596_800n }, -62_135_596_800_000],
    [{ seconds: 1n, nanos: 500_000_000 }, 1500],
  ])("a time %o is the nearest that there is", (init, time) => {
    const message = create(TimestampSchema, init);
    expect(wire.unixTime(message)).toBe(time);
    expect(new Date(wire.unixTime(message)).toISOString()).toMatch(/^\d{4}-/);
    expect(wire.toTimestamp(wire.unixTime(message)).nanos).toBeLessThan(1e9);
  });

  test.each([
    [{ seconds: most, nanos }, 60_000],
    [{ seconds: -most, nanos: -nanos }, 10],
    [{ nanos: 1 }, 10],
    [{ seconds: 3n }, 3000],
  ])("a duration %o is brought into its bounds", (init, time) => {
    expect(wire.bounded(create(DurationSchema, init), 10, 60_000)).toBe(time);
  });
});

describe("values", () => {
  test("a payload without an encoding is JSON, but nothing is nothing", () => {
    expect(wire.payload(create(PayloadSchema, { data: Buffer.from("1") })).encoding).toBe("json");
    expect(wire.payload(create(PayloadSchema, {})).encoding).toBe("");
    expect(wire.payload(undefined)).toEqual({ data: new Uint8Array(0), encoding: "", metadata: {} });
  });

  test("a failure comes back with its causes, 16 deep", () => {
    const nested = (depth: number): Failure => ({
      type: `Error${String(depth)}`,
      message: "m",
      stack: "s",
      retryable: false,
      retryAfter: 1500,
      details: PAYLOAD,
      cause: depth < 30 ? nested(depth + 1) : undefined,
    });
    const bytes = toBinary(FailureSchema, create(FailureSchema, wire.toFailure(nested(0))));
    const read = wire.failure(fromBinary(FailureSchema, bytes));
    expect(read).toMatchObject({ type: "Error0", message: "m", stack: "s", retryable: false, retryAfter: 1500 });
    let depth = 0;
    for (let cause = read.cause; cause; cause = cause.cause) depth += 1;
    expect(depth).toBe(16);
  });

  test("a delay that no duration can hold is cut, as a failure must always be told", () => {
    const failure = { type: "E", message: "", stack: "", retryable: true, retryAfter: Infinity };
    expect(wire.toFailure(failure).retryAfter?.seconds).toBe(315_576_000_000n);
  });
});

describe("steps", () => {
  const planned = (target: Planned["target"], source = "flow.ts:1"): Planned => ({
    key: { id: "a", index: 2 },
    target,
    source,
  });

  test.each<[string, Planned["target"], object]>([
    ["closure", { kind: StepKind.closure, run: () => 1 }, { case: "closure" }],
    ["task", { kind: StepKind.task, name: "t", input: PAYLOAD }, { case: "task", value: { name: "t" } }],
    [
      "sleep",
      { kind: StepKind.sleep, delay: 1500 },
      { case: "sleep", value: { end: { case: "delay", value: { seconds: 1n, nanos: 5e8 } } } },
    ],
    [
      "sleep until",
      { kind: StepKind.sleep, until: 2000 },
      { case: "sleep", value: { end: { case: "until", value: { seconds: 2n } } } },
    ],
    [
      "invoke",
      { kind: StepKind.invoke, app: "", functionId: "f", input: PAYLOAD },
      { case: "invoke", value: { functionId: "f" } },
    ],
    [
      "send",
      { kind: StepKind.sendEvents, events: [{ id: "", name: "e", data: PAYLOAD, time: 1000 }] },
      { case: "sendEvents", value: { events: [{ name: "e", time: { seconds: 1n } }] } },
    ],
    [
      "wait",
      { kind: StepKind.waitForEvent, eventName: "e", fields: { "a.b": "1" }, timeout: 1000 },
      { case: "waitForEvent", value: { eventName: "e", fields: [{ path: "a.b", jsonValue: "1" }] } },
    ],
  ])("%s", (_, target, expected) => {
    const message = wire.toPlanned(planned(target), 7n);
    const found = fromBinary(StepPlannedSchema, toBinary(StepPlannedSchema, create(StepPlannedSchema, message)));
    expect(found).toMatchObject({ key: { id: "a", index: 2 }, eagerFence: 7n, source: "flow.ts:1", target: expected });
  });

  test("a long source keeps its end, at most 256 bytes and no half characters", () => {
    const source = `${"ä".repeat(300)}.ts:42`;
    const message = wire.toPlanned(planned({ kind: StepKind.sleep, delay: 1 }, source));
    expect(Buffer.byteLength(message.source ?? "")).toBeLessThanOrEqual(256);
    expect(message.source).toMatch(/^ä+\.ts:42$/);
  });

  test("options are there only if they were given", () => {
    const bare = wire.toPlanned(planned({ kind: StepKind.sleep, delay: 1 }));
    expect([bare.retry, bare.attemptTimeout, bare.stepTimeout]).toEqual([undefined, undefined, undefined]);
  });

  test("an entry of a kind or outcome that is not known is refused", () => {
    const outcome = { case: "timedOut", value: {} } as const;
    expect(
      wire.entry(create(JournalEntrySchema, { sequence: 3n, kind: StepKinds.WAIT_FOR_EVENT, outcome })).outcome.case,
    ).toBe("timedOut");
    const unknown = fromBinary(JournalEntrySchema, Buffer.from([0x18, 99])); // field 3, the kind
    expect(() => wire.entry(unknown)).toThrow(/update the stepwire package/);
    expect(() => wire.entry(create(JournalEntrySchema, { kind: StepKinds.CLOSURE }))).toThrow(/no outcome/);
  });
});
