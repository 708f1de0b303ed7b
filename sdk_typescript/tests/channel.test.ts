import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { Metadata, status } from "@grpc/grpc-js";
import { describe, expect, test } from "vitest";
import { executorError } from "../src/channel.js";

/** Serialize a google.rpc.Status that holds these details. */
function statusOf(details: Record<string, Uint8Array>): Metadata {
  const writer = new BinaryWriter()
    .tag(1, WireType.Varint)
    .int32(3)
    .tag(2, WireType.LengthDelimited)
    .string("it is wrong");
  for (const [type, value] of Object.entries(details)) {
    const url = `type.googleapis.com/google.rpc.${type}`;
    writer
      .tag(3, WireType.LengthDelimited)
      .fork()
      .tag(1, WireType.LengthDelimited)
      .string(url)
      .tag(2, WireType.LengthDelimited)
      .bytes(value)
      .join();
  }
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(writer.finish()));
  return metadata;
}

describe("errors of the executor", () => {
  test("bring the fields that are wrong", () => {
    const violation = (field: string, text: string): Uint8Array =>
      new BinaryWriter()
        .tag(1, WireType.LengthDelimited)
        .string(field)
        .tag(2, WireType.LengthDelimited)
        .string(text)
        .finish();
    const request = new BinaryWriter();
    for (const field of ["a", "b"])
      request.tag(1, WireType.LengthDelimited).bytes(violation(field, `${field} is missing`));
    const metadata = statusOf({ DebugInfo: new Uint8Array(3), BadRequest: request.finish() });
    const { error, delay } = executorError({ code: status.INVALID_ARGUMENT, details: "it is wrong", metadata }, "x:1");
    expect([error.code, error.message, delay]).toEqual(["INVALID_ARGUMENT", "it is wrong", undefined]);
    expect(error.fields).toEqual([
      ["a", "a is missing"],
      ["b", "b is missing"],
    ]);
  });

  test.each<[seconds: bigint, nanos: number, milliseconds: number]>([
    [2n, 500_000_000, 2500],
    [0n, 0, 0],
    [2n ** 63n - 1n, 2 ** 31 - 1, 300_000],
    [3_000_000n, 0, 300_000], // more milliseconds than a timer of Node's can count
    [-5n, -1, 0],
    [-(2n ** 63n), -(2 ** 31), 0],
  ])("bring the delay that the executor asks for, %d s %d ns: %d ms", (seconds, nanos, milliseconds) => {
    const duration = new BinaryWriter()
      .tag(1, WireType.Varint)
      .int64(seconds)
      .tag(2, WireType.Varint)
      .int32(nanos)
      .finish();
    const metadata = statusOf({
      RetryInfo: new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(duration).finish(),
    });
    const { delay } = executorError({ code: status.RESOURCE_EXHAUSTED, details: "full", metadata }, "x:1");
    expect(delay).toBe(milliseconds);
  });

  test("name the executor where it was not the executor that spoke", () => {
    const said = (code: status, details: string): string =>
      executorError({ code, details, metadata: new Metadata() }, "x:1").error.message;
    expect(said(status.UNAVAILABLE, "connection refused")).toBe("connection refused (executor x:1)");
    expect(said(status.UNKNOWN, "")).toBe("UNKNOWN (executor x:1)");
    expect(said(status.NOT_FOUND, "no such run")).toBe("no such run");
  });

  test("are of a call that was cut off where gRPC says so itself, and not the executor", () => {
    for (const code of [status.CANCELLED, status.INTERNAL]) {
      const { error } = executorError({ code, details: "", metadata: new Metadata() }, "x:1");
      expect([error.code, error.message]).toEqual([
        "UNAVAILABLE",
        `the call was cut off: ${status[code]} (executor x:1)`,
      ]);
    }
  });

  test("are the executor's own where it gives details: a bug of its is no call that was cut off", () => {
    const metadata = statusOf({
      ErrorInfo: new BinaryWriter().tag(1, WireType.LengthDelimited).string("BUG").finish(),
    });
    const { error } = executorError({ code: status.INTERNAL, details: "a bug", metadata }, "x:1");
    expect([error.code, error.message]).toEqual(["INTERNAL", "a bug"]);
  });

  test("are told all the same if their details can't be read", () => {
    const metadata = new Metadata();
    metadata.set("grpc-status-details-bin", Buffer.from([0x1a, 0xff]));
    const { error } = executorError({ code: status.INVALID_ARGUMENT, details: "wrong", metadata }, "x:1");
    expect([error.message, error.fields]).toEqual(["wrong", []]);
  });
});
