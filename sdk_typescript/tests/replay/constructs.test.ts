/** Every construct, live, in cold replay from every prefix of the journal, and on a replica that becomes the lead. */

import { describe, expect, test } from "vitest";

import type { Outcome, Planned, Turn } from "../../src/replay/model.js";
import { keyText } from "../../src/model.js";
import { RANDOM, TABLE } from "./constructs.js";
import { type Body, Driver, expected, invocation, really, returned } from "./driver.js";

const SEEDS = [0, 1, 2, 3, 4, 5];
const CASES = [
  ...TABLE.map((body) => ({ body, seeds: SEEDS })),
  ...RANDOM.map((body) => ({ body, seeds: [0, 1] })),
].map((each) => ({ ...each, name: each.body.name }));

async function live(body: Body, seed: number): Promise<Driver> {
  const driver = new Driver(body, seed);
  await driver.run();
  return driver;
}

function keys(steps: readonly Planned[]): string[] {
  return steps.map((step) => keyText(step.key));
}

function keysOf(turns: readonly Turn[]): string[][] {
  return turns.map((turn) => keys(turn.found));
}

/** What of an outcome must be the same: stacks may differ. */
function essence(outcome: Outcome | undefined): unknown {
  if (outcome?.case === "returned") return returned(outcome);
  return outcome && [outcome.failure.type, outcome.failure.message, outcome.failure.retryable];
}

describe.each(CASES)("$name", ({ body, seeds }) => {
  test.each(seeds)("ends, with results in the order of seed %i", async (seed) => {
    const { outcome } = await live(body, seed);
    expect(outcome?.case).toBe(body.name === "bodyThatFails" ? "thrown" : "returned");
  });

  test.each(seeds)("finds the same in a cold replay from every prefix, seed %i", async (seed) => {
    const driver = await live(body, seed);
    const { journal } = driver;
    for (let length = 0; length <= journal.length; length += 1) {
      const again = invocation(body);
      const turns = [await again.start(journal.slice(0, length), expected(driver.openAfter(length)))];
      for (const entry of journal.slice(length)) turns.push(await again.resume([entry]));
      expect(keysOf(turns)).toEqual([[], ...keysOf(driver.turns.slice(length + 1))]);
      expect(essence(turns.at(-1)?.outcome)).toEqual(essence(driver.outcome));
      again.close();
    }
  });

  test.each(seeds)("tells a lead that knows nothing all that is unfinished, seed %i", async (seed) => {
    const driver = await live(body, seed);
    for (let length = 0; length < driver.journal.length; length += 1) {
      const turn = await invocation(body).start(driver.journal.slice(0, length));
      expect(keys(turn.found)).toEqual(keys(driver.openAfter(length)));
    }
  });

  test.each(seeds)("ends the same way when it is fed in heaps, seed %i", async (seed) => {
    const driver = await live(body, seed);
    for (const size of [1, 2, 3, 1000]) {
      const replica = invocation(body, { lead: false });
      let last = await replica.start([]);
      for (let at = 0; at < driver.journal.length; at += size) {
        last = await replica.resume(driver.journal.slice(at, at + size));
      }
      expect(essence(last.outcome)).toEqual(essence(driver.outcome));
      expect(replica.sequence).toBe(driver.journal.length);
      expect(replica.promote()).toEqual({ found: [], outcome: last.outcome });
    }
  });

  test("has the same code under the same key in every replica", async () => {
    const driver = await live(body, 0);
    const replica = invocation(body, { lead: false });
    await replica.start([]);
    for (const entry of driver.journal) {
      const run = replica.closure(entry.key);
      if (run) {
        const again = await really(entry, run);
        if (again.case === "output") expect(again).toEqual(entry.outcome);
        else expect(entry.outcome.case).toBe("failure");
      }
      await replica.resume([entry]);
    }
    expect(replica.ended).toBe(true);
  });
});

test("bodies that are replayed at the same time do not disturb each other", async () => {
  const drivers = await Promise.all(CASES.map(({ body }) => live(body, 1)));
  const turns = await Promise.all(drivers.map(({ body, journal }) => invocation(body).start(journal)));
  expect(turns.map((turn) => essence(turn.outcome))).toEqual(drivers.map((driver) => essence(driver.outcome)));
});

test.each(CASES.filter(({ seeds }) => seeds === SEEDS))("$name is tried in different orders", async ({ body }) => {
  const drivers = await Promise.all(SEEDS.map((seed) => live(body, seed)));
  const orders = new Set(drivers.map((driver) => driver.journal.map((entry) => keyText(entry.key)).join(" ")));
  const widest = Math.max(...(drivers[0]?.turns.map((turn) => turn.found.length) ?? []));
  expect(orders.size > 1 || widest < 3 || body.name === "sleepsAndOthers").toBe(true);
});

test("the values are those that plain promises give", async () => {
  const outcomes = await Promise.all(TABLE.map(async (body) => [body.name, (await live(body, 0)).outcome] as const));
  const values = Object.fromEntries(
    outcomes.flatMap(([name, end]) => (end?.case === "returned" ? [[name, returned(end)]] : [])),
  );
  expect(values).toMatchObject({
    postPayment: { emailId: "sent for go", updates: { id: "e" } },
    chunkedSummary: "on+tw+th+fo+fi",
    allThatFails: "TypeError boom",
    allSettled: ["TypeError boom", 2, 4],
    anyOfNone: ["TypeError one", "TypeError two"],
    nestedBranches: [20, 36, 52],
    branchesOfUnevenLength: 6,
    loopWithOneId: [0, 2, 4, 6],
    asCompleted: 20,
    poolOfLanes: [0, 2, 4, 6, 8, 10, 12],
    errorsInBranches: [0, "TypeError 1", 2, "TypeError 3"],
    unawaited: 4,
    sleepsAndOthers: {
      ids: ["id-0", "id-1"],
      event: null,
      called: "result of resize",
      invoked: "result of child",
      slept: true,
    },
    signals: 6,
    generators: [0, 0, 2, 4, 4, 8],
    thenChains: [608, 4, 612],
    deferred: [0, 4, 8],
  });
});
