/** Between two results a body runs dry, whatever its continuations are made of; and bodies move one after the other. */

import { setTimeout as pause } from "node:timers/promises";
import { expect, test } from "vitest";

import type { Invocation } from "../../src/replay/invocation.js";
import { moving } from "../../src/replay/moves.js";
import { type Body, entry, invocation, returned } from "./driver.js";

/** Continue after `depth` turns of the microtask queue. */
function chain(depth: number): Promise<void> {
  let last = Promise.resolve();
  for (let turn = 0; turn < depth; turn += 1) last = last.then(() => undefined);
  return last;
}

async function awaits(depth: number): Promise<void> {
  for (let turn = 0; turn < depth; turn += 1) await Promise.resolve();
}

async function nested(depth: number): Promise<void> {
  if (depth > 0) await nested(depth - 1);
}

async function ticks(depth: number): Promise<void> {
  await new Promise<void>((resolve) => {
    process.nextTick(resolve);
  });
  await chain(depth);
}

async function queued(depth: number): Promise<void> {
  await new Promise<void>((resolve) => {
    const next = (left: number): void => {
      if (left === 0) resolve();
      else
        queueMicrotask(() => {
          next(left - 1);
        });
    };
    next(depth);
  });
}

/** Note what happens after the first result, which takes long, and after the second one, which does not. */
function body(slowly: () => Promise<void>, log: string[]): Body {
  return async ({ step }) => {
    const slow = step
      .run("slow", () => 0)
      .then(async () => {
        log.push("slow is given");
        await slowly();
        log.push("slow has run dry");
      });
    const quick = step.run("quick", () => 0).then(() => log.push("quick is given"));
    await Promise.all([slow, quick]);
  };
}

test.each([
  ["300 thens", () => chain(300)],
  ["5,000 thens", () => chain(5000)],
  ["500 awaits", () => awaits(500)],
  ["400 nested async functions", () => nested(400)],
  ["300 microtasks", () => queued(300)],
  ["a tick and 300 thens", () => ticks(300)],
])("%s run dry before the next result is given", async (_, slowly) => {
  for (const heaps of [[2], [1, 1]]) {
    const log: string[] = [];
    const live = invocation(body(slowly, log));
    await live.start([]);
    const entries = [entry(1, "slow"), entry(2, "quick")];
    for (const size of heaps) await live.resume(entries.splice(0, size));
    expect(log).toEqual(["slow is given", "slow has run dry", "quick is given"]);
  }
});

test("what a body does in any depth of microtasks is in the turn of its result", async () => {
  const live = invocation(async ({ step }) => {
    await chain(300);
    await step.run("first", () => 0);
    await Promise.all([1, 2, 3].map((n) => awaits(n * 100).then(() => step.run("second", () => n))));
  });
  expect((await live.start([])).found).toHaveLength(1);
  expect((await live.resume([entry(1, "first")])).found).toHaveLength(3);
});

test("the moves of bodies do not interleave, and each knows whose it is", async () => {
  const log: string[] = [];
  const lives: Invocation[] = [0, 1, 2].map((n) =>
    invocation(async ({ step }) => {
      const note = async (): Promise<void> => {
        for (let turn = 0; turn < 20; turn += 1) {
          log.push(String(n));
          expect(moving()).toBe(lives[n]);
          await Promise.resolve();
        }
      };
      await note();
      for (let index = 0; index < 3; index += 1) await step.run("work", () => 0).then(note);
    }),
  );
  const journal = [0, 1, 2].map((index) => entry(index + 1, "work", 0, { index }));
  await Promise.all(lives.map((live) => live.start(journal)));
  expect(log.join("").replaceAll(/(.)\1*/g, "$1")).toBe("012");
  expect(log).toHaveLength(240);
  expect(moving()).toBeUndefined();
});

test("turns that are asked for before others have come are given in order", async () => {
  const live = invocation(async ({ step }) => {
    for (let n = 0; n < 3; n += 1) await step.run("work", () => n);
    return "end";
  });
  const turns = await Promise.all([
    live.start([]),
    live.resume([entry(1, "work")]),
    live.resume([entry(2, "work", 0, { index: 1 }), entry(3, "work", 0, { index: 2 })]),
  ]);
  expect(turns.map((turn) => turn.found.length)).toEqual([1, 1, 0]);
  expect(returned(turns[2].outcome)).toBe("end");
});

test("a long replay lets timers have their turn, and no body moves meanwhile", async () => {
  const seen: unknown[] = [];
  const live = invocation(async ({ step }) => {
    for (let n = 0; n < 60; n += 1) {
      await step.run("work", () => n);
      const until = performance.now() + 2;
      while (performance.now() < until); // takes its time
    }
    return "end";
  });
  const timer = setInterval(() => seen.push(moving()), 1);
  const journal = Array.from({ length: 60 }, (_, index) => entry(index + 1, "work", 0, { index }));
  const turn = await live.start(journal);
  clearInterval(timer);
  expect(returned(turn.outcome)).toBe("end");
  expect(seen.length).toBeGreaterThan(1);
  expect(new Set(seen)).toEqual(new Set([undefined]));
});

test("ten thousand steps side by side are found in order, and given in any", async () => {
  const numbers = Array.from({ length: 10_000 }, (_, index) => index);
  const live = invocation(async ({ step }) => {
    const values = await Promise.all(numbers.map((n) => step.run("work", () => n)));
    return values.reduce<number>((sum, value) => sum + value, 0);
  });
  const { found } = await live.start([]);
  expect(found.map((step) => step.key.index)).toEqual(numbers);
  const journal = numbers.map((n, at) => entry(at + 1, "work", 9999 - n, { index: 9999 - n }));
  expect(returned((await live.resume(journal)).outcome)).toBe(49_995_000);
});

test("a body does not move while nothing is given to it", async () => {
  const live = invocation(({ step }) => step.run("work", () => 0));
  await live.start([]);
  await pause(5);
  expect([live.ended, live.sequence]).toEqual([false, 0]);
});
