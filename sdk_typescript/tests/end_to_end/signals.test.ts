/** Signals to worker processes whose main thread is blocked by user code, with a real executor. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { all, until } from "../support/processes.js";
import { System } from "../support/system.js";

/** How soon a process has to end: answers, the stream's end and the exit have their own times. */
const SOON_MS = 12_000;

let system: System;

beforeEach(async () => {
  system = await System.start({ "session-grace": "60" });
});

afterEach(async (context) => {
  await system.destroy(context.task.result?.state === "fail");
});

async function isDraining(): Promise<void> {
  await until(async () => (await system.client.workers()).some(({ state }) => state === "draining"), "it drains");
}

async function timed<T>(ends: Promise<T>): Promise<T> {
  const begun = performance.now();
  const value = await ends;
  expect(performance.now() - begun).toBeLessThan(SOON_MS);
  return value;
}

/** The steps of a run as they ended: each was given back uncharged, or had its result. */
async function steps(runId: string): Promise<unknown[]> {
  const found = await all(system.client.steps(runId, { outputs: true }));
  return found.map(({ key, state, attempt, failedAttempts }) => [key.id, state, attempt, failedAttempts.length]);
}

describe.each(["computes", "waits"])("while code that %s blocks the main thread,", (how) => {
  // Code outside of JavaScript can't be stopped, but for the whole process.
  const isEnd = how === "computes" ? [0, null] : [null, "SIGKILL"];

  test.each(["SIGTERM", "SIGINT"] as const)(
    "a second %s ends it, and what is in hand is given back",
    async (signal) => {
      const [worker] = await system.startWorkers(1, { BLOCKS: how }, "blocked");
      const runId = await system.send("sides");
      await system.hasWritten("blocks");
      worker?.child.kill(signal);
      await isDraining();
      expect(worker?.running).toBe(true);
      await timed(worker?.end(signal) ?? Promise.resolve(null));
      expect([worker?.child.exitCode, worker?.child.signalCode]).toEqual(isEnd);
      expect(worker?.output).toMatch(
        how === "computes"
          ? /WARNING block \(.*blocked\.js:\d+:\d+\) keeps this worker from ending: the process ends without it/
          : /WARNING user code keeps this worker from ending.*\n.*given back\n.*\(SIGKILL\)\n/,
      );
      expect(worker?.output).toContain("WARNING 2 unfinished attempts were given back");
      expect(
        (await system.client.workers()).filter(({ state }) => state === "connected" || state === "draining"),
      ).toEqual([]);
      await system.startWorkers(1, {}, "blocked");
      expect(await system.result(runId)).toEqual(["quick", "slow", "blocking"]);
      expect(await steps(runId)).toEqual(["quick", "slow", "blocking"].map((id) => [id, "succeeded", 1, 0]));
      expect(system.lines().map(({ text }) => text)).toEqual(["quick", "blocks", "blocks"]);
    },
  );

  test("the drain's deadline ends it, and a lone step is given back uncharged", async () => {
    const [worker] = await system.startWorkers(1, { BLOCKS: how, DRAIN_SECONDS: "1.5" }, "blocked");
    const runId = await system.send("lone");
    await system.hasWritten("blocks");
    await timed(worker?.end("SIGTERM") ?? Promise.resolve(null));
    expect([worker?.child.exitCode, worker?.child.signalCode]).toEqual(isEnd);
    await system.startWorkers(1, {}, "blocked");
    expect(await system.result(runId)).toBe("done");
    expect(await steps(runId)).toEqual([["lone", "succeeded", 1, 0]]);
  });
});

test("a worker that is blocked for a while drains in order: its steps end, and are recorded", async () => {
  const [worker] = await system.startWorkers(1, { BLOCKS: "computes", BLOCK_MS: "3000" }, "blocked");
  const runId = await system.send("lone");
  await system.hasWritten("blocks");
  worker?.child.kill("SIGTERM");
  await isDraining();
  expect(await timed(worker?.ended() ?? Promise.resolve(null))).toBe(0);
  expect(worker?.output).toContain("INFO drained");
  await system.startWorkers(1, {}, "blocked");
  expect(await system.result(runId)).toBe("done");
  expect(await steps(runId)).toEqual([["lone", "succeeded", 1, 0]]);
  expect(system.lines().map(({ text }) => text)).toEqual(["blocks"]);
});
