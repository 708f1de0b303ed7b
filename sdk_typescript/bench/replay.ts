/** What replaying costs: microseconds a step for finding 10,000 steps, and for delivering their results. */

import { contextOf } from "../src/body/body_context.js";
import { Stepwire } from "../src/index.js";
import { Invocation } from "../src/replay/invocation.js";
import { type Entry, type Planned, StepKind } from "../src/replay/model.js";
import { Values } from "../src/values.js";

const STEPS = 10_000;
const ROUNDS = 7;
const values = new Values();
const app = new Stepwire({ id: "bench" });
const numbers = Array.from({ length: STEPS }, (_, index) => index);

const oneId = app.createFunction({ id: "one-id" }, { event: "go" }, async ({ step }) => {
  const results = await Promise.all(numbers.map((n) => step.run("work", (m: number) => m, n)));
  return results.length;
});
const manyIds = app.createFunction({ id: "many-ids" }, { event: "go" }, async ({ step }) => {
  const results = await Promise.all(numbers.map((n) => step.run(`work ${String(n)}`, () => n)));
  return results.length;
});
const chain = app.createFunction({ id: "chain" }, { event: "go" }, async ({ step }) => {
  for (const n of numbers) await step.run("work", () => n);
});

function entryOf(planned: Pick<Planned, "key">, index: number): Entry {
  const output = { case: "output", output: values.encode(index) } as const;
  return {
    sequence: index + 1,
    key: planned.key,
    kind: StepKind.closure,
    outcome: output,
    recordedAt: 0,
    attempts: 1,
    source: "",
  };
}

function invocationOf(definition: typeof oneId | typeof chain): Invocation {
  const run = { runId: "r", app: "bench", functionId: definition.id, attempt: 1, events: [], createdAt: 0 };
  return new Invocation(definition, run, values, contextOf);
}

async function timed(what: string, rounds: number, once: () => Promise<number>): Promise<void> {
  const times = [];
  for (let round = 0; round < rounds; round += 1) times.push(await once());
  const best = Math.min(...times);
  const middle = times.sort((left, right) => left - right)[Math.floor(rounds / 2)] ?? best;
  console.log(
    `${what}: ${((best * 1000) / STEPS).toFixed(2)} µs a step at best, ${((middle * 1000) / STEPS).toFixed(2)} in the middle`,
  );
}

for (const definition of [oneId, manyIds]) {
  await timed(`find, ${definition.id}`, ROUNDS, async () => {
    const began = performance.now();
    await invocationOf(definition).start([]);
    return performance.now() - began;
  });
  await timed(`deliver in one heap, ${definition.id}`, ROUNDS, async () => {
    const invocation = invocationOf(definition);
    const { found } = await invocation.start([]);
    const entries = found.map(entryOf);
    const began = performance.now();
    await invocation.resume(entries);
    return performance.now() - began;
  });
}
await timed("deliver singly, one-id", ROUNDS, async () => {
  const invocation = invocationOf(oneId);
  const { found } = await invocation.start([]);
  const entries = found.map(entryOf);
  const began = performance.now();
  for (const entry of entries) await invocation.resume([entry]);
  return performance.now() - began;
});
await timed("replay a chain", ROUNDS, async () => {
  const entries = numbers.map((index) => entryOf({ key: { id: "work", index } }, index));
  const began = performance.now();
  await invocationOf(chain).start(entries);
  return performance.now() - began;
});
