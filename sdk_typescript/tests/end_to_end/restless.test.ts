/** Bodies that do not come to rest and code that throws anything, in worker processes on a real executor. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { System } from "../support/system.js";

let system: System;

beforeEach(async () => {
  system = await System.start();
  await system.startWorkers(1, {}, "restless");
});

afterEach(async () => {
  await system.destroy(false);
});

test.each(["polls", "polls-later", "calls-wrongly", "computes"])(
  "a body that %s fails with its line, and others go on",
  async (name) => {
    const run = await system.client.wait(await system.send(name), { timeout: "60s" });
    expect(run).toMatchObject({ state: "failed", attempt: 1, failure: { type: "SpinningBodyError" } });
    expect(run.failure?.message).toMatch(/does not come to rest at .*\(.*restless\.[jt]s:\d+:\d+\)/);
    for (let n = 0; n < 3; n += 1) expect(await system.run("plain")).toBe(1);
    const again = await system.client.wait(await system.send(name), { timeout: "60s" });
    expect(again.failure?.type).toBe("SpinningBodyError");
    expect(await system.run("plain")).toBe(1);
    expect(await system.workers[0]?.end()).toBe(0);
  },
  120_000,
);

test("a body that polls in code without a file is found, however often it has to be looked at", async () => {
  const run = await system.client.wait(await system.send("polls-from-text"), { timeout: "60s" });
  expect(run).toMatchObject({ state: "failed", attempt: 1, failure: { type: "SpinningBodyError" } });
  expect(await system.run("plain")).toBe(1);
}, 120_000);

test("whatever is thrown is the failure of its run, and the worker goes on", async () => {
  const all = ["undefined", "null", "text", "number", "symbol", "function", "frozen"];
  all.push("unwilling", "speechless", "aggregate", "circle", "revoked");
  for (const where of ["body at once", "body", "step", "async step"]) {
    const runs = await Promise.all(all.map(async (what) => await system.send("throws", { what, where })));
    for (const runId of runs) {
      const run = await system.client.wait(runId, { timeout: "60s" });
      expect(run.state).toBe("failed");
      const failure = where.endsWith("step") ? run.failure?.cause : run.failure;
      expect(failure?.type).toMatch(/^\w+$|^\(can't be had/);
      expect(failure?.message).not.toBe("");
    }
  }
  expect(await system.run("plain")).toBe(1);
  expect(await system.workers[0]?.end()).toBe(0);
}, 120_000);
