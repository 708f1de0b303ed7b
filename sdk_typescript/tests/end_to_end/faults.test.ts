import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { setTimeout as sleep } from "node:timers/promises";
import { all, connected, startProgram, until } from "../support/processes.js";
import { System } from "../support/system.js";

const GRACE_SECONDS = 2;
const HEARTBEAT_SECONDS = 0.5;

describe("faults", () => {
  let system: System;

  beforeEach(async () => {
    system = await System.start({
      "session-grace": String(GRACE_SECONDS),
      "heartbeat-interval": String(HEARTBEAT_SECONDS),
    });
  });

  afterEach(async (context) => {
    await system.destroy(context.task.result?.state === "fail");
  });

  test("a worker that is killed in the middle of a fan-out costs nothing but time", async () => {
    const [first] = await system.startWorkers(2);
    const runId = await system.send("fan", { count: 300, ms: 20 });
    await until(() => system.lines().length > 60, "the fan-out is under way");
    await first?.end("SIGKILL");
    expect(await system.result(runId)).toBe(44_850);
    const steps = await all(system.client.steps(runId));
    expect(steps.length).toBe(300);
    expect(steps.every((step) => step.state === "succeeded")).toBe(true);
  });

  test("an executor that is killed goes on with what the workers have in hand", async () => {
    await system.startWorkers(2);
    const runId = await system.send("fan", { count: 300, ms: 20 });
    await until(() => system.lines().length > 60, "the fan-out is under way");
    await system.executor.restart();
    expect(await system.result(runId)).toBe(44_850);
    await connected(system.client, 2);
    // All that was in hand was brought along: no more than what was just being recorded has run twice.
    const parts = system.lines().map((line) => line.text);
    expect(parts.length - new Set(parts).size).toBeLessThanOrEqual(32);
  });

  test("a step that runs while the executor is away is recorded once it is back, and not run again", async () => {
    await system.startWorkers(1);
    const runId = await system.send("hold", { name: "long", ms: 1500 });
    await system.hasWritten("begin long");
    await system.executor.restart();
    expect(await system.result(runId)).toBe("held");
    expect(system.lines().map((line) => line.text)).toEqual(["begin long", "end long"]);
  });

  test.each(["hold", "hold-closure"])("a drain finishes what is in hand: %s", async (name) => {
    const [worker] = await system.startWorkers(1);
    const runId = await system.send(name, { name: "job", ms: 700 });
    await system.hasWritten("begin job");
    expect(await worker?.end("SIGTERM")).toBe(0);
    expect(system.lines().map((line) => line.text)).toEqual(["begin job", "end job"]);
    await system.startWorkers(1);
    expect(await system.result(runId)).toBe("held");
    expect(system.lines().length).toBe(2);
  });

  test("a drain that takes too long gives back what it has not finished, uncharged", async () => {
    const [worker] = await system.startWorkers(1, { DRAIN_SECONDS: "0.3" });
    const runId = await system.send("hold", { name: "job", ms: 1500 });
    await system.hasWritten("begin job");
    expect(await worker?.end("SIGTERM")).toBe(0);
    await system.startWorkers(1);
    expect(await system.result(runId)).toBe("held");
    expect(system.lines().map((line) => line.text)).toEqual(["begin job", "aborted job", "begin job", "end job"]);
    const [step] = await all(system.client.steps(runId, { outputs: true }));
    expect(step?.failedAttempts).toEqual([]);
  });

  test("a second signal ends a drain at once", async () => {
    const [worker] = await system.startWorkers(1);
    const runId = await system.send("hold", { name: "job", ms: 60_000 });
    await system.hasWritten("begin job");
    worker?.child.kill("SIGTERM");
    await sleep(200);
    expect(await worker?.end("SIGTERM")).toBe(0);
    expect((await system.client.get(runId)).state).toBe("running");
  });

  test.each(["computes", "waits"])("code that %s for longer than the lease costs it not", async (how) => {
    const [worker] = await system.startWorkers(1);
    const ms = 1000 * (GRACE_SECONDS + 4 * HEARTBEAT_SECONDS);
    const runId = await system.send("block", { ms, how });
    await until(async () => {
      const [info] = await system.client.workers();
      const isSeen = how === "waits" || (info?.blockingStack ?? "").includes("flows.js"); // not outside of JavaScript
      return (info?.loopLag ?? 0) > 1000 && isSeen;
    }, "the executor is told of the lag, and where the loop is blocked");
    expect(await system.result(runId)).toBe(true);
    const [step] = await all(system.client.steps(runId, { outputs: true }));
    expect([step?.attempt, step?.failedAttempts]).toEqual([1, []]);
    expect(worker?.output).toContain("user code has blocked the event loop");
    expect(worker?.output).not.toContain("is lost");
  });

  test("a run that is cancelled aborts the signal of its attempts", async () => {
    await system.startWorkers(1);
    const runId = await system.send("hold", { name: "job", ms: 60_000 });
    await system.hasWritten("begin job");
    const run = await system.client.cancel(runId, "no longer wanted");
    expect([run.state, run.cancelReason]).toEqual(["cancelled", "no longer wanted"]);
    await system.hasWritten("aborted job");
  });

  test("bodies that are evicted are replayed when they have something to do", async () => {
    await system.startWorkers(1, { MAX_INVOCATIONS: "1" });
    const runIds = await Promise.all(["a", "b", "c"].map((text) => system.send("waits", text)));
    for (const runId of runIds) expect(await system.result(runId)).toMatchObject({ text: "hello" });
  });

  test("hundreds of runs end right while bodies are evicted, a worker dies and the executor is killed", async () => {
    const environment = { MAX_INVOCATIONS: "20", SLOTS: "50" };
    const [first] = await system.startWorkers(2, environment);
    const numbers = Array.from({ length: 600 }, (_, number) => number);
    const events = numbers.map((number) =>
      number % 3 === 0 ? { name: "retries" } : { name: "summary", data: ["alpha", "beta", String(number)] },
    );
    const receipts = await system.client.send(events);
    const results = Promise.all(receipts.map(({ runIds }) => system.result<unknown>(runIds[0] ?? "")));
    await until(async () => (await all(system.client.list({ states: ["succeeded"] }))).length > 50, "some have ended");
    await first?.end("SIGKILL");
    await system.executor.restart();
    await system.startWorkers(1, environment);
    for (const [number, result] of (await results).entries()) {
      if (number % 3 === 0) expect(result).toMatchObject({ caught: expect.stringMatching(/: hopeless,/) as string });
      else expect(result).toBe(`alp|bet|${String(number)}`);
    }
  });

  test("a worker that the executor refuses ends with exit code 5 and says why", async () => {
    const [worker] = await system.startWorkers(1);
    const second = startProgram("tests/apps/flows", system.executor, { FAN_RETRIES: "7" });
    system.workers.push(second);
    expect(await second.ended()).toBe(5);
    expect(second.output).toMatch(/refuses this worker: .*fan/);
    expect(worker?.running).toBe(true);
  });
});
