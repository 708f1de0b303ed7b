import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Client, ExecutorError, WaitTimeoutError, type RunUpdate } from "stepwire";
import { all, until } from "../support/processes.js";
import { System } from "../support/system.js";

describe("the client", () => {
  let system: System;
  let client: Client;

  beforeAll(async () => {
    system = await System.start();
    await system.startWorkers(1);
    client = system.client;
  });

  afterAll(async () => {
    await system.destroy(false);
  });

  test("sends many events in one call, each with its receipt", async () => {
    const names = ["chain", "nobody", "chain"];
    const receipts = await client.send(names.map((name) => ({ name, data: 1 })));
    expect(receipts.map((receipt) => receipt.runIds.length)).toEqual([1, 0, 1]);
    expect(new Set(receipts.map((receipt) => receipt.eventId)).size).toBe(3);
    for (const { runIds } of receipts) for (const id of runIds) expect(await client.result(id)).toBe(1);
  });

  test("more events than a call may hold go in several", async () => {
    const receipts = await client.send(Array.from({ length: 5001 }, (_, data) => ({ name: "nobody", data })));
    expect(receipts.length).toBe(5001);
  });

  test("an event with an id is taken once, and never with other data", async () => {
    const event = { name: "chain", data: 2, id: "only-once", time: new Date("2026-01-02T03:04:05Z") };
    const first = await client.send(event);
    const second = await client.send(event);
    expect([first.duplicate, second.duplicate]).toEqual([false, true]);
    expect(second.runIds).toEqual(first.runIds);
    await expect(client.send({ ...event, data: 3 })).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
    const run = await client.wait(first.runIds[0] ?? "");
    expect(run.event).toMatchObject({ id: "only-once", name: "chain", time: event.time });
  });

  test("gets a run and its steps", async () => {
    const runId = await system.send("chain", 3);
    const run = await client.wait(runId);
    expect(run).toMatchObject({
      id: runId,
      app: "flows",
      function: "chain",
      state: "succeeded",
      attempt: 1,
      payloadsOmitted: false,
    });
    expect(run.stepCounts).toEqual({ succeeded: 3 });
    expect((run.endedAt?.getTime() ?? 0) >= (run.createdAt?.getTime() ?? Infinity)).toBe(true);
    expect(await client.get(runId)).toMatchObject({ id: runId, state: "succeeded" });
    const steps = await all(client.steps(runId, { outputs: true }));
    expect(steps.map((step) => [step.key.id, step.key.index, step.kind, step.sequence])).toEqual([
      ["link", 0, "closure", 1],
      ["link", 1, "closure", 2],
      ["link", 2, "closure", 3],
    ]);
    expect(Buffer.from(steps[2]?.output?.data ?? []).toString()).toBe("3");
  });

  test("lists runs over several pages, by filters", async () => {
    const before = new Date();
    await client.send(Array.from({ length: 450 }, () => ({ name: "chain", data: 0 })));
    const runs = await all(client.list({ app: "flows", function: "chain", createdAfter: before }));
    expect(runs.length).toBe(450);
    expect(runs.every((run) => run.payloadsOmitted)).toBe(true);
    await until(async () => {
      const ended = await all(client.list({ createdAfter: before, states: ["succeeded"] }));
      return ended.length === 450;
    }, "all of them have ended");
    expect(await all(client.list({ createdAfter: before, states: ["failed", "cancelled"] }))).toEqual([]);
  });

  test("watches a run to its end", async () => {
    const updates: RunUpdate[] = await all(client.watch(await system.send("waits", "watched")));
    expect(updates.at(-1)?.run.state).toBe("succeeded");
    expect(new Set(updates.flatMap(({ steps }) => steps.map((step) => step.key.id)))).toEqual(
      new Set(["nap", "ask", "never", "reply"]),
    );
  });

  test("waits no longer than it is told to, and says why a run has not ended", async () => {
    const runId = await system.send("hold", { name: "x", ms: 60_000 });
    await system.hasWritten("begin x");
    await expect(client.result(runId, { timeout: 300 })).rejects.toThrow(WaitTimeoutError);
    const [cause] = await client.why(runId);
    expect(cause).toMatchObject({ kind: "step_running", step: { id: "hold", index: 0 } });
    await client.cancel(runId, "enough");
    await expect(client.result(runId)).rejects.toThrow(/RunCancelledError: .* was cancelled: enough/);
    expect((await client.why(runId))[0]).toMatchObject({ kind: "ended", target: "cancelled" });
  });

  test("shows workers and functions", async () => {
    const [worker] = await client.workers({ app: "flows" });
    expect(worker).toMatchObject({ state: "connected", sdkName: "stepwire-typescript", slots: 8, loopLag: 0 });
    expect(worker?.tasks).toContain("double");
    expect(await client.workers({ app: "other" })).toEqual([]);
    const status = await client.status();
    expect(status).toMatchObject({ state: "serving", reason: "", workers: 1, faults: 0, begunAnew: 0 });
    expect(status.slots).toBe(worker?.slots);
    expect(status.pieces.count).toBeGreaterThan(0);
    expect(status.pieces.longest).toBeGreaterThanOrEqual(status.pieces.p50);
    const functions = await client.functions();
    expect(functions.find((each) => each.id === "fan")).toMatchObject({ triggers: ["fan"], workers: 1 });
  });

  test("errors of the executor have its code and the fields that are wrong", async () => {
    await expect(client.get("no-such-run")).rejects.toMatchObject({ name: "ExecutorError", code: "NOT_FOUND" });
    const refused = await client.send({ name: "", data: 1 }).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(ExecutorError);
    expect(refused).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect((refused as ExecutorError).fields[0]?.[0]).toBe("events[0].name");
    await expect(client.send({ name: "x", data: 1n })).rejects.toThrow(/the data of event 'x'/);
  });

  test("an executor that is away is waited for, but not for ever", async () => {
    const nobody = new Client({ executor: "127.0.0.1:1", retryFor: 200 });
    const begun = performance.now();
    await expect(nobody.get("x")).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(performance.now() - begun).toBeGreaterThan(150);
    nobody.close();
    await expect(nobody.get("x")).rejects.toThrow(/this client is closed/);
  });

  test("one of several addresses is enough, for clients and for workers", async () => {
    const executor = `127.0.0.1:1,${system.executor.address}`;
    const several = new Client({ executor });
    expect((await several.workers()).length).toBe(1);
    several.close();
    await system.startWorkers(1, { STEPWIRE_EXECUTOR: executor });
  });

  test("a wait outlives the executor", async () => {
    const runId = await system.send("hold", { name: "y", ms: 1500 });
    await system.hasWritten("begin y");
    const result = client.result(runId);
    await system.executor.restart();
    expect(await result).toBe("held");
  });
});
