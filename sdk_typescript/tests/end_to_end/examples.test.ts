import { readdirSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Client, Stepwire, Worker } from "stepwire";
import { connected, Executor, startProgram } from "../support/processes.js";

const OUTPUTS: Record<string, unknown> = {
  chunked_summary: "A function that is replayed finds its steps in the journal.",
  order: { label: "f951bdc4", shipped: "o-7 is on its way", total: 80 },
  post_payment: { user: { userId: "u-1", paid: true }, sent: "receipt of 25 to u-1" },
  race: { inTime: "too late", first: "fast takes it", answers: 2 },
};

let executor: Executor;

beforeAll(async () => {
  executor = await Executor.start();
});

afterAll(async () => {
  await executor.destroy();
});

test("every example has a test", () => {
  const files = readdirSync(new URL("../../examples", import.meta.url)).map((file) => file.replace(/\.ts$/, ""));
  expect(files.sort()).toEqual([...Object.keys(OUTPUTS), "run_once", "task_worker"].sort());
});

test.each(Object.entries(OUTPUTS))("example %s", async (name, output) => {
  const program = startProgram(`examples/${name}`, executor);
  const code = await program.ended();
  expect(code, program.output).toBe(0);
  expect(JSON.parse(program.stdout)).toEqual(output);
});

test("example task_worker", async () => {
  const tasks = startProgram("examples/task_worker", executor);
  const app = new Stepwire({ id: "text-tools" });
  app.createFunction({ id: "there-and-back" }, { event: "text" }, async ({ event, step }) => {
    const shrunk = await step.call<string>("shrink", event.data);
    return await step.call<string>("grow", shrunk);
  });
  const worker = new Worker(app, { executor: executor.address });
  const served = worker.run();
  const client = new Client({ executor: executor.address });
  await connected(client, 2);
  const { runIds } = await client.send({ name: "text", data: "la ".repeat(1000) });
  expect(await client.result(runIds[0] ?? "")).toBe("la ".repeat(1000));
  client.close();
  worker.drain();
  await served;
  expect(await tasks.end()).toBe(0);
});
