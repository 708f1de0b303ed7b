/** What people do by mistake, in worker processes on a real executor: nothing is lost without a word. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { all, until } from "../support/processes.js";
import { System } from "../support/system.js";

let system: System;

beforeAll(async () => {
  system = await System.start();
  await system.startWorkers(1, {}, "mistakes");
});

afterAll(async () => {
  await system.destroy(false);
});

/** Wait until the worker has logged a line that matches. */
async function logged(pattern: RegExp): Promise<void> {
  await until(() => pattern.test(system.workers[0]?.output ?? ""), `the worker has logged ${String(pattern)}`);
}

test("a step whose await was forgotten runs, and is told of with its line", async () => {
  const runId = await system.send("forgets");
  expect(await system.result(runId)).toBe("done");
  expect(system.lines().map(({ text }) => text)).toContain("audit is written");
  const steps = await all(system.client.steps(runId));
  expect(steps.map(({ key, state }) => [key.id, state])).toEqual([
    ["first", "succeeded"],
    ["audit", "succeeded"],
  ]);
  await logged(/WARNING .*'audit' \(mistakes\.[jt]s:\d+\) of function 'forgets' was started, but nothing awaits it/);
});

test("code that goes on after its step was given up is told of with its id and line", async () => {
  expect(await system.run("races")).toBe("done");
  await logged(/INFO .*'slow' \(mistakes\.[jt]s:\d+\) of function 'races' was unfinished when the body/);
  await logged(/WARNING .*'slow' \(mistakes\.[jt]s:\d+\) of run \w+ still runs 1 s after it was cancelled/);
});

test.each([false, true])(
  "a rejection that step code leaves floating fails its attempt; after an await: %s",
  async (late) => {
    await system.hasWritten("slow ends"); // what no stack tells is blamed on an attempt only if no other one runs
    const runId = await system.send("floats", late);
    expect(await system.result(runId)).toBe("attempt 2");
    const [step] = await all(system.client.steps(runId, { outputs: true }));
    expect(step?.failedAttempts.map(({ failure }) => failure?.message)).toEqual(["floating 1"]);
    await logged(new RegExp(`ERROR .*step 'floating' of run ${runId} made was rejected, and nothing awaited it`));
    expect(system.workers[0]?.running).toBe(true);
  },
);
