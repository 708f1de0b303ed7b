/** Bodies that end their worker's process: their own run fails, and no other. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { startProgram } from "../support/processes.js";
import { System } from "../support/system.js";

let system: System;

beforeEach(async () => {
  system = await System.start({ "session-grace": "0.4", "max-lost-invocations": "3" });
});

afterEach(async () => {
  await system.destroy(false);
});

const ENDS = ["exit", "run-out-of-memory", "throw-later"];

test.each(ENDS)(
  "a body that makes its process %s fails alone",
  async (end) => {
    const environment = { NODE_OPTIONS: "--max-old-space-size=64" };
    await system.startWorkers(1, environment, "poison");
    const events = [end, ...Array.from({ length: 5 }, () => "innocent")];
    const runs = await Promise.all(events.map(async (name) => await system.send(name)));
    let over = false;
    const ends = Promise.all(runs.map(async (run) => await system.client.wait(run, { timeout: "90s" }))).finally(() => {
      over = true;
    });
    const restarting = (async (): Promise<void> => {
      for (;;) {
        await Promise.race([system.workers.at(-1)?.ended(), ends]);
        // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- it changes meanwhile
        if (over) return;
        system.workers.push(startProgram("tests/apps/poison", system.executor, environment)); // it may end at once
      }
    })();
    const [poison, ...innocent] = await ends;
    expect(poison).toMatchObject({ state: "failed", failure: { type: "WorkerLostError" } });
    expect(poison?.failure?.message).toContain("--max-lost-invocations=3");
    for (const run of innocent) expect(run).toMatchObject({ state: "succeeded" });
    await restarting;
  },
  120_000,
);
