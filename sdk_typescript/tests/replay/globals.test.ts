/** Clocks and random numbers of the language in bodies: the same in every replay, and real everywhere else. */

import crypto, { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { contextOf } from "../../src/body/body_context.js";
import { guardGlobals } from "../../src/replay/globals.js";
import { type Body, START, entry, invocation, returned } from "./driver.js";

const RealDate = globalThis.Date;
const realRandom = Math.random;
let release: () => void;

beforeAll(() => {
  release = guardGlobals();
});

afterAll(() => {
  release();
  expect([globalThis.Date, Math.random]).toEqual([RealDate, realRandom]);
  expect(new Date().constructor).toBe(RealDate);
});

const chance = (): unknown[] => [Math.random(), crypto.randomUUID(), globalThis.crypto.randomUUID(), randomUUID()];
const clocks = (): number[] => [Date.now(), new Date().getTime(), +new Date(), new RealDate(Date()).getTime()];

const asks: Body = async ({ step, now, random, uuid }) => {
  const before = { clocks: clocks(), chance: chance(), own: [now().getTime(), random(), uuid()] };
  await step.run("a", () => 0);
  await Promise.resolve();
  return { before, after: { clocks: clocks(), chance: chance(), own: [now().getTime(), random(), uuid()] } };
};

test("a body gets the same time, numbers and UUIDs in every replay", async () => {
  const recorded = [entry(1, "a", 0, { recordedAt: START + 5_000 })];
  const live = invocation(asks);
  await live.start([]);
  const first = returned((await live.resume(recorded)).outcome) as Record<"before" | "after", { clocks: number[] }>;
  expect(first.before.clocks).toEqual([START, START, START, START]);
  expect(first.after.clocks).toEqual([START, START, START, START].map((time) => time + 5_000));
  for (let again = 0; again < 2; again += 1) {
    expect(returned((await invocation(asks).start(recorded)).outcome)).toEqual(first);
  }
});

test("a step's code, in what it awaits too, has the real ones, as has everybody else", async () => {
  const seen: number[] = [];
  const live = invocation(({ step }) =>
    step.run("a", async () => {
      seen.push(...clocks().slice(0, 3));
      await new Promise((resolve) => setTimeout(resolve, 2));
      seen.push(...clocks().slice(0, 3), Number(chance()[0] !== chance()[0]));
    }),
  );
  const [step] = (await live.start([])).found;
  const run = step?.target.kind === 1 ? step.target.run : undefined;
  await run?.({} as never);
  const [last, ...times] = [seen.pop(), ...seen];
  expect(last).toBe(1);
  for (const time of times) expect(time).toBeGreaterThan(START + 1_000_000_000);
  expect(Date.now()).toBeGreaterThan(START + 1_000_000_000);
});

describe("dates stay what they are:", () => {
  const body: Body = () => {
    class Day extends Date {
      readonly kind = "day";
    }
    const day = new Day();
    const copy: unknown = structuredClone(new Date(5));
    return [
      new Date(5).getTime(),
      new Date("2020-01-01T00:00:00Z").getTime(),
      new Date(2020, 1, 1) instanceof RealDate,
      new RealDate(1) instanceof Date,
      new Date() instanceof Date && new Date().constructor === Date,
      [day.kind, day instanceof Day, day.getTime()],
      [Date.UTC(2020, 0), Date.parse("2020-01-01T00:00:00Z"), Date.name, Date.length],
      copy instanceof Date,
    ];
  };

  test("with arguments, as a class to extend, for instanceof, and its functions", async () => {
    const outcome = returned((await invocation(body).start([])).outcome);
    const start = 1_577_836_800_000;
    expect(outcome).toEqual([5, start, true, true, true, ["day", true, START], [start, start, "Date", 7], true]);
  });
});

test("a line of the context's logger is written with the real time", async () => {
  const times: number[] = [];
  const note = (): void => void times.push(Date.now());
  const { definitionOf, runInfo, VALUES } = await import("./driver.js");
  const { Invocation } = await import("../../src/replay/invocation.js");
  const logger = { debug: note, info: note, warn: note, error: note };
  const definition = definitionOf(({ logger: log }) => {
    log.info("a line");
  }, logger);
  await new Invocation(definition, runInfo(definition.id), VALUES, contextOf).start([]);
  expect(times[0]).toBeGreaterThan(START + 1_000_000_000);
});
