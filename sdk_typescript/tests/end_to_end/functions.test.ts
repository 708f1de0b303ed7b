import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RunFailedError } from "stepwire";
import { all } from "../support/processes.js";
import { System } from "../support/system.js";

const LARGE = 2_900_000;

describe("functions in worker processes on a real executor", () => {
  let system: System;

  beforeAll(async () => {
    system = await System.start();
    await system.startWorkers(2);
  });

  afterAll(async () => {
    await system.destroy(false);
  });

  test("a map of steps with one id, then one more", async () => {
    expect(await system.run("summary", ["alpha", "beta", "gamma"])).toBe("alp|bet|gam");
  });

  test("race, any and allSettled", async () => {
    expect(await system.run("combinators")).toEqual({
      raced: "fast",
      any: "works",
      settled: ["rejected", "fulfilled"],
    });
  });

  test("branches that hold several steps each", async () => {
    expect(await system.run("branches")).toEqual(["a112", "b112", "c112"]);
  });

  test("sleep, wait for an event, send one", async () => {
    expect(await system.run("waits", "me")).toEqual({ none: null, text: "hello" });
  });

  test("waits of a run get one event after the other", async () => {
    const runId = await system.send("approvals", "doc");
    for (const by of ["ann", "bob", "cid"]) {
      await system.client.send({ name: "approved", data: { doc: "other", by: "eve" } });
      await system.client.send({ name: "approved", data: { doc: "doc", by } });
    }
    const sides = ["left", "right"];
    expect(await system.result(runId)).toEqual({ got: ["ann", "bob", "cid"], none: null, sides });
  });

  test("invoke another function, call a task", async () => {
    expect(await system.run("parent", ["abcdef"])).toEqual({ summary: "abc", doubled: 42 });
  });

  test("failed attempts are tried again, but not those that no retry can mend", async () => {
    expect(await system.run("retries")).toEqual({
      number: 3,
      caught: "NonRetriableError: hopeless, after 1",
      attempt: 1,
    });
  });

  test("a body that throws fails its run", async () => {
    const failed = system.run("fails");
    await expect(failed).rejects.toThrow(RunFailedError);
    await expect(failed).rejects.toThrow("NonRetriableError: the body gives up");
  });

  test("values of 2.9 MB travel in pieces", async () => {
    expect(await system.run("large", LARGE)).toBe(LARGE + 1);
  });

  test("an output over the limit fails its step at once", async () => {
    await expect(system.run("large", 2 * LARGE)).rejects.toThrow(/OutputTooLargeError/);
  });

  test("an output that can't be encoded fails its step at once", async () => {
    const runId = await system.send("unencodable");
    await expect(system.result(runId)).rejects.toThrow(/EncodingError/);
    const [step] = await all(system.client.steps(runId, { outputs: true }));
    expect(step?.attempt).toBe(1);
  });

  test("a fan-out of 1,000 steps over two processes runs each step once", async () => {
    expect(await system.run("fan", { count: 1000, ms: 0 })).toBe(499_500);
    const parts = system.lines().filter((line) => line.text.startsWith("part"));
    expect(new Set(parts.map((line) => line.text)).size).toBe(1000);
    expect(parts.length).toBe(1000);
    expect(new Set(parts.map((line) => line.pid)).size).toBe(2);
  });

  test("a chain of 100 steps", async () => {
    expect(await system.run("chain", 100)).toBe(100);
  });
});
