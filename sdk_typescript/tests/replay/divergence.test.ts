/** A replay that does other things than its journal holds is caught, and told with both sides. */

import { expect, test } from "vitest";

import type { Failure } from "../../src/model.js";
import { StepKind, type Turn } from "../../src/replay/model.js";
import { type Body, Driver, entry, expected, failureIn, invocation, returned } from "./driver.js";

const charge: Body = async ({ step }) => {
  await step.run("reserve", () => 1);
  return await step.run("charge", () => 2);
};
const chargeCard: Body = async ({ step }) => {
  await step.run("reserve", () => 1);
  return await step.run("charge-card", () => 2);
};
const chargeByTask: Body = async ({ step }) => {
  await step.run("reserve", () => 1);
  return await step.call("charge");
};
const chargeNothing: Body = ({ step }) => step.run("reserve", () => 1);

function failure(turn: Turn): Failure {
  const thrown = failureIn(turn);
  expect([thrown.type, thrown.retryable, turn.found]).toEqual(["NonDeterminismError", false, []]);
  return thrown;
}

test("an entry that the body has not found shows both sides with their lines", async () => {
  const changed = invocation(chargeCard);
  const { message } = failure(await changed.start([entry(1, "reserve"), entry(2, "charge")]));
  expect(message).toContain("run run-1: entry 2 of the journal is the result of the closure step 'charge' at old.ts:2");
  expect(message).toMatch(/has not found it and awaits the closure step 'charge-card' at divergence\.test\.ts:15\./);
  expect(message).toContain("give the app a new version");
  expect(changed.ended).toBe(true);
});

test("an entry of another kind shows both kinds", async () => {
  const { message } = failure(await invocation(chargeByTask).start([entry(1, "reserve"), entry(2, "charge")]));
  expect(message).toContain("closure step 'charge' at old.ts:2");
  expect(message).toMatch(/found the task step 'charge' at divergence\.test\.ts:\d+ under that key/);
});

const targets: [kind: StepKind, recorded: string, same: Body, other: Body][] = [
  [
    StepKind.task,
    "old",
    ({ step }) => step.call("old", 0, { id: "x" }),
    ({ step }) => step.call("new", 0, { id: "x" }),
  ],
  [
    StepKind.invoke,
    "app/old",
    ({ step }) => step.invoke("x", { function: "old" }),
    ({ step }) => step.invoke("x", { function: "new" }),
  ],
  [
    StepKind.invoke,
    "app/f",
    ({ step }) => step.invoke("x", { function: "app/f" }),
    ({ step }) => step.invoke("x", { function: "other/f" }),
  ],
  [
    StepKind.waitForEvent,
    "old",
    ({ step }) => step.waitForEvent("x", { event: "old" }),
    ({ step }) => step.waitForEvent("x", { event: "new" }),
  ],
];

test.each(targets)(
  "another target of kind %i under the same key is caught: not %s",
  async (kind, target, same, other) => {
    const outcome = { case: "timedOut" } as const;
    const recorded = entry(1, "x", null, { kind, target, outcome });
    const planned = { key: { id: "x", index: 0 }, kind, source: "old.ts:1", target };
    expect(returned((await invocation(same).start([recorded])).outcome)).toBe(null);
    expect((await invocation(same).start([], [planned])).outcome).toBe(undefined);
    for (const turn of [await invocation(other).start([recorded]), await invocation(other).start([], [planned])]) {
      const [now, then] = failure(turn).message.split("but the body").reverse();
      expect(then).toContain(`step 'x' of '${target}' at old.ts:1`);
      expect(now).toMatch(/step 'x' of '[^']*' at divergence\.test\.ts:\d+ under that key/);
    }
    const unsaid = entry(1, "x", null, { kind, outcome });
    expect(returned((await invocation(other).start([unsaid])).outcome)).toBe(null);
  },
);

test("long ids are cut in the message", async () => {
  const long = "long".repeat(200);
  const wide = invocation(({ step }) =>
    Promise.all(Array.from("123456789", (digit) => step.run(digit + long, () => 0))),
  );
  const { message } = failure(await wide.start([entry(1, long)]));
  expect(message).toContain(`'1${long.slice(0, 50)}`);
  expect(message.length).toBeLessThan(2_000);
});

test("a step that was found in another worker only is told beside what is found here", async () => {
  const live = invocation(charge);
  await live.start([]);
  const { message } = live.notFound({ id: "charge-card", index: 0 });
  expect(message).toContain("has not found step 'charge-card'");
  expect(message).toMatch(/awaits the closure step 'reserve' at divergence\.test\.ts:\d+/);
});

test("an entry that comes too early is caught", async () => {
  failure(await invocation(charge).start([entry(1, "charge"), entry(2, "reserve")]));
});

test("an entry for a body that has ended without its step is caught", async () => {
  const { message } = failure(await invocation(chargeNothing).start([entry(1, "reserve"), entry(2, "charge")]));
  expect(message).toContain("has not found it and has ended");
});

test("at most five of the steps that a body awaits are shown", async () => {
  const wide = invocation(({ step }) => Promise.all(Array.from("abcdefgh", (id) => step.run(id, () => 0))));
  const { message } = failure(await wide.start([entry(1, "other")]));
  expect(message).toMatch(/'e' at [^,]+, …\. A function/);
  expect(message).not.toContain("'f'");
});

test.each([chargeCard, chargeByTask, chargeNothing])("an expected step that is not found is caught", async (body) => {
  const unfinished = { key: { id: "charge", index: 0 }, kind: StepKind.closure, source: "old.ts:7" };
  const { message } = failure(await invocation(body).start([entry(1, "reserve")], [unfinished]));
  expect(message).toContain("the journal ends with the closure step 'charge' at old.ts:7 unfinished");
});

test("an expected step that is found is not told again", async () => {
  const unfinished = { key: { id: "charge", index: 0 }, kind: StepKind.closure, source: "old.ts:7" };
  const live = invocation(charge);
  expect(await live.start([entry(1, "reserve")], [unfinished])).toEqual({ found: [], outcome: undefined });
  expect(returned((await live.resume([entry(2, "charge", 5)])).outcome)).toBe(5);
});

test("results that come after the end change nothing", async () => {
  const live = invocation(({ step }) => Promise.race([step.run("slow", () => 0), step.run("quick", () => 1)]));
  await live.start([]);
  const first = await live.resume([entry(1, "quick", 1)]);
  expect(returned(first.outcome)).toBe(1);
  expect(await live.resume([entry(2, "slow")])).toEqual({ found: [], outcome: first.outcome });
  expect([live.ended, live.sequence]).toEqual([true, 2]);
});

test("nothing moves after a divergence", async () => {
  const changed = invocation(chargeCard);
  const end = await changed.start([entry(1, "reserve"), entry(2, "charge")]);
  expect(await changed.resume([entry(3, "charge-card")])).toEqual({ found: [], outcome: end.outcome });
});

test("a gap in the journal is the shell's mistake", async () => {
  await expect(invocation(charge).start([entry(1, "reserve"), entry(3, "charge")])).rejects.toThrow(
    "entry 3 follows 1",
  );
});

test("a replica that becomes the lead reports what is unfinished", async () => {
  const branches: Body = async ({ step }) => {
    const branch = async (n: number): Promise<number> => {
      await step.run("first", () => n);
      return await step.run("second", () => n);
    };
    return await Promise.all([0, 1, 2].map(branch));
  };
  for (const size of [1, 3]) {
    const driver = new Driver(branches, size);
    await driver.run();
    const replica = invocation(branches, { lead: false });
    await replica.start(driver.journal.slice(0, size));
    await replica.resume(driver.journal.slice(size, size + 1));
    const turn = replica.promote();
    expect(replica.lead).toBe(true);
    expect(expected(turn.found)).toEqual(expected(driver.openAfter(size + 1)));
    expect((await replica.resume(driver.journal.slice(size + 1))).outcome).toEqual(driver.outcome);
  }
});

test("a replica whose body has ended gives its outcome when it becomes the lead", async () => {
  const driver = new Driver(charge);
  await driver.run();
  const replica = invocation(charge, { lead: false });
  await replica.start([]);
  await replica.resume(driver.journal);
  expect(replica.promote()).toEqual({ found: [], outcome: driver.outcome });
});

test("a replica can't be promoted while it moves", async () => {
  const replica = invocation(charge, { lead: false });
  const turn = replica.start([]);
  expect(() => replica.promote()).toThrow("must be awaited");
  await turn;
  expect(replica.promote().found).toHaveLength(1);
});
