import { create, fromBinary, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { Server, ServerCredentials, status, type ServerDuplexStream } from "@grpc/grpc-js";
import { describe, expect, test } from "vitest";
import { ExecutorFrameSchema, WorkerFrameSchema, type WorkerMessage } from "../src/gen/stepwire/v1/worker_pb.js";
import { Stepwire, Worker, type WorkerOptions } from "stepwire";

const app = new Stepwire({ id: "shop" });
app.task("nothing", () => undefined);
let napping = false;
app.task("naps", async () => {
  napping = true;
  await new Promise((resolve) => setTimeout(resolve, 500));
});

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

const same = (data: Buffer): Buffer => data;
const codec = { requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same };
const method = { path: "/stepwire.v1.WorkerService/Connect", requestStream: true, responseStream: true, ...codec };

type Messages = NonNullable<MessageInitShape<typeof ExecutorFrameSchema>["messages"]>;

function frameOf(...messages: Messages): Buffer {
  return Buffer.from(toBinary(ExecutorFrameSchema, create(ExecutorFrameSchema, { messages })));
}

/** Run a worker with an executor that answers each stream's first frame by `answer`; it is drained afterwards. */
async function servedBy(
  answer: (call: ServerDuplexStream<Buffer, Buffer>, stream: number) => void,
  check: (lines: readonly string[], streams: () => number, worker: Worker) => Promise<void>,
  options: WorkerOptions = {},
): Promise<void> {
  const server = new Server();
  let streams = 0;
  const connect = (call: ServerDuplexStream<Buffer, Buffer>): void => {
    const number = ++streams;
    call.once("data", () => {
      answer(call, number);
    });
    call.on("end", () => {
      call.end();
    });
  };
  server.addService({ connect: method }, { connect });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, found) => {
      if (error) reject(error);
      else resolve(found);
    });
  });
  const lines: string[] = [];
  const note = (...line: unknown[]): void => void lines.push(line.join(" "));
  const logger = { debug: note, info: note, warn: note, error: note };
  const worker = new Worker(app, { executor: `127.0.0.1:${String(port)}`, logger, ...options });
  const served = worker.run();
  try {
    await check(lines, () => streams, worker);
  } finally {
    worker.drain();
    await served;
    server.forceShutdown();
  }
}

function cut(call: ServerDuplexStream<Buffer, Buffer>, details: string): void {
  call.emit("error", { code: status.UNAVAILABLE, details });
}

test("streams that are cut right after each Welcome back off, and the log says what it looks like", async () => {
  const welcome = { kind: { case: "welcome", value: { sessionId: "s" } } } as const;
  await servedBy(
    (call) => {
      call.write(frameOf(welcome));
      cut(call, "the body is too large");
    },
    async (lines) => {
      const told = (): string[] => lines.filter((line) => line.includes("right after their Welcome"));
      await expect.poll(told, { timeout: 60_000 }).not.toEqual([]);
      expect(told()[0]).toMatch(/^3 streams to .* a proxy that limits the bodies/);
    },
  );
});

const LARGEST = { seconds: 2n ** 63n - 1n, nanos: 2 ** 31 - 1 };
const LEAST = { seconds: -(2n ** 63n), nanos: -(2 ** 31) };
const MONTHS = { seconds: 5_000_000n }; // more milliseconds than a timer of Node's can count

describe("an executor's durations that make no sense", () => {
  test.each([LARGEST, MONTHS])(
    "a GoAway for %o keeps the worker away, and it can be drained",
    async (reconnectDelay) => {
      const welcome = { kind: { case: "welcome", value: { sessionId: "s" } } } as const;
      const goAway = { kind: { case: "goAway", value: { reason: "for ever", reconnectDelay } } } as const;
      await servedBy(
        (call) => {
          call.write(frameOf(welcome, goAway));
          cut(call, "gone");
        },
        async (lines, streams) => {
          await expect.poll(() => lines.join("\n"), { timeout: 30_000 }).toMatch(/reconnecting to \S+ in 30\d\.\d s/);
          await new Promise((resolve) => setTimeout(resolve, 1_000));
          expect(streams()).toBe(1);
        },
      );
    },
  );

  test("a GoAway for a negative time is one for none, and a Welcome without sense carries heartbeats", async () => {
    let beats = 0;
    const welcome = (value: object) => ({ kind: { case: "welcome", value: { sessionId: "s", ...value } } }) as const;
    await servedBy(
      (call, stream) => {
        if (stream === 1) {
          const goAway = { kind: { case: "goAway", value: { reconnectDelay: LEAST } } } as const;
          call.write(frameOf(welcome({ heartbeatInterval: LEAST, sessionGrace: LEAST }), goAway));
          cut(call, "gone");
        } else {
          call.on("data", () => {
            beats++;
            call.write(frameOf({ kind: { case: "recorded", value: {} } }));
          });
          const heartbeatInterval = stream === 2 ? LARGEST : { nanos: 1 };
          call.write(frameOf(welcome({ heartbeatInterval, sessionGrace: { nanos: 1 } })));
          if (stream === 2) setTimeout(cut, 1_000, call, "once more");
        }
      },
      async (_, streams, worker) => {
        await expect.poll(streams, { timeout: 30_000 }).toBe(3);
        beats = 0;
        await new Promise((resolve) => setTimeout(resolve, 1_000));
        expect(beats).toBeGreaterThan(5);
        expect(beats).toBeLessThan(1_000);
        await worker.connected();
      },
    );
  });
});

test("a drain that may take longer than a timer of Node's can count gives nothing back at once", async () => {
  const said: WorkerMessage["kind"][] = [];
  const key = { runId: "r", key: { id: "s" }, fence: 1n };
  const work = { case: "task", value: { name: "naps" } } as const;
  const welcome = { kind: { case: "welcome", value: { sessionId: "s" } } } as const;
  const attempts = [{ attempt: key, number: 1, work }];
  await servedBy(
    (call) => {
      call.on("data", (frame: Buffer) => {
        for (const { kind } of fromBinary(WorkerFrameSchema, frame).messages) {
          said.push(kind);
          if (kind.case === "stepRun") {
            call.write(frameOf({ kind: { case: "recorded", value: { attempts: [key] } } }));
          }
        }
      });
      call.write(frameOf(welcome, { kind: { case: "runSteps", value: { attempts } } }));
    },
    async (_, __, worker) => {
      await expect.poll(() => napping, { timeout: 10_000 }).toBe(true);
      worker.drain();
      await expect.poll(() => said.some((kind) => kind.case === "stepRun"), { timeout: 10_000 }).toBe(true);
    },
    { drainSeconds: 5_000_000 },
  );
  const returned = said.flatMap((kind) => (kind.case === "draining" ? kind.value.returnedAttempts : []));
  expect(returned).toEqual([]);
});
