import { create, toBinary } from "@bufbuild/protobuf";
import { Server, ServerCredentials, status, type ServerDuplexStream } from "@grpc/grpc-js";
import { describe, expect, test } from "vitest";
import { ExecutorFrameSchema } from "../src/gen/stepwire/v1/worker_pb.js";
import { Stepwire, Worker, type WorkerOptions } from "stepwire";

const app = new Stepwire({ id: "shop" });
app.task("nothing", () => undefined);

describe("a worker's options", () => {
  test.each<[WorkerOptions, RegExp]>([
    [{ slots: 0 }, /slots is 0: give a whole number from 1 to 10000/],
    [{ slots: 10_001 }, /slots/],
    [{ slots: 1.5 }, /slots/],
    [{ maxInvocations: 0 }, /maxInvocations/],
    [{ drainSeconds: -1 }, /drainSeconds/],
    [{ executor: "nowhere" }, /is no address of an executor/],
  ])("%j is refused", (options, message) => {
    expect(() => new Worker(app, options)).toThrow(message);
  });

  test("its id names host and process, and differs from the next worker's", () => {
    const [one, two] = [new Worker(app), new Worker(app)];
    expect(one.instanceId).toContain(`-${String(process.pid)}-`);
    expect(one.instanceId).not.toBe(two.instanceId);
    expect(new Worker(app, { instanceId: "mine" }).instanceId).toBe("mine");
  });
});

test("a worker that finds no executor goes on trying until it is drained; then it has run", async () => {
  const lines: string[] = [];
  const note = (...line: unknown[]): void => void lines.push(line.join(" "));
  const logger = { debug: note, info: note, warn: note, error: note };
  const worker = new Worker(app, { executor: "127.0.0.1:1,127.0.0.1:2", logger });
  const served = worker.run();
  await expect
    .poll(() => lines.filter((line) => line.includes("is lost: UNAVAILABLE")).length, { timeout: 30_000 })
    .toBeGreaterThanOrEqual(3);
  worker.drain();
  await served;
  const lost = lines.filter((line) => line.includes("is lost")).map((line) => /to (\S+) is lost/.exec(line)?.[1]);
  expect(lost.slice(0, 3)).toEqual(["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1"]);
  await expect(worker.run()).rejects.toThrow(/has run already/);
  await expect(worker.connected()).rejects.toThrow(/has ended before it was connected/);
});

test("an app with nothing to serve is refused", async () => {
  const worker = new Worker(new Stepwire({ id: "bare" }));
  await expect(worker.run()).rejects.toThrow(/app 'bare' has nothing to serve/);
  await expect(worker.connected()).rejects.toThrow(/has ended before it was connected/);
});

test("streams that are cut right after each Welcome back off, and the log says what it looks like", async () => {
  const welcome = { kind: { case: "welcome", value: { sessionId: "s" } } } as const;
  const frame = Buffer.from(toBinary(ExecutorFrameSchema, create(ExecutorFrameSchema, { messages: [welcome] })));
  const server = new Server();
  const same = (data: Buffer): Buffer => data;
  const codec = {
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
  const method = { path: "/stepwire.v1.WorkerService/Connect", requestStream: true, responseStream: true, ...codec };
  server.addService(
    { connect: method },
    {
      connect: (call: ServerDuplexStream<Buffer, Buffer>) => {
        call.once("data", () => {
          call.write(frame);
          call.emit("error", { code: status.UNAVAILABLE, details: "the body is too large" });
        });
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, found) => {
      if (error) reject(error);
      else resolve(found);
    });
  });
  const lines: string[] = [];
  const note = (...line: unknown[]): void => void lines.push(line.join(" "));
  const logger = { debug: note, info: note, warn: note, error: note };
  const worker = new Worker(app, { executor: `127.0.0.1:${String(port)}`, logger });
  const served = worker.run();
  const told = (): string[] => lines.filter((line) => line.includes("right after their Welcome"));
  await expect.poll(told, { timeout: 60_000 }).not.toEqual([]);
  expect(told()[0]).toMatch(/^3 streams to .* a proxy that limits the bodies/);
  worker.drain();
  await served;
  server.forceShutdown();
});
