/** Steps that nothing awaits, as by a forgotten `await`: they are not lost, and are told of with their lines. */

import { describe, expect, test } from "vitest";

import type { Left } from "../../src/replay/invocation.js";
import { keyText } from "../../src/model.js";
import { type Body, Driver, entry, failed, failureIn, invocation, returned } from "./driver.js";

/** Start a body; gives it with what it has told to be left. */
function started(body: Body, lead = true): { live: ReturnType<typeof invocation>; left: Left[] } {
  const left: Left[] = [];
  return { live: invocation(body, { lead, onLeft: (each) => left.push(each) }), left };
}

const names = (steps: Left["forgotten"]): string[] => steps.map(({ key }) => keyText(key));

test("a run ends only once the steps that its body forgot to await have ended", async () => {
  const { live, left } = started(({ step }) => {
    void step.run("a", () => 0);
    void step.sleep("b", "1s");
    return "end";
  });
  const turn = await live.start([]);
  expect(turn.found.map(({ key }) => key.id)).toEqual(["a", "b"]);
  expect(turn.outcome).toBeUndefined();
  expect((await live.resume([entry(1, "a")])).outcome).toBeUndefined();
  expect(returned((await live.resume([entry(2, "b", null, { kind: 3 })])).outcome)).toBe("end");
  expect(left.map((each) => names(each.forgotten))).toEqual([["a", "b"]]);
  expect(left[0]?.forgotten[0]?.source).toMatch(/^forgotten\.test\.ts:\d+$/);
});

test("one that fails for good after the body's end fails the run", async () => {
  const { live } = started(({ step }) => void step.run("a", () => 0));
  await live.start([]);
  expect(failureIn(await live.resume([failed(1, "a", new TypeError("boom"))])).message).toContain("TypeError: boom");
});

test("one that has ended before the body is told of, too", async () => {
  const { live, left } = started(async ({ step }) => {
    void step.run("a", () => 0);
    await step.run("b", () => 0);
  });
  await live.start([]);
  await live.resume([entry(1, "a")]);
  expect((await live.resume([entry(2, "b")])).outcome?.case).toBe("returned");
  expect(left.map((each) => names(each.forgotten))).toEqual([["a"]]);
});

test("a forgotten step of a branch that is awaited, and one in a branch that is not, are found", async () => {
  const { live, left } = started(async ({ step }) => {
    const branch = async (): Promise<void> => {
      void step.run("inner", () => 0);
      await step.run("awaited", () => 0);
    };
    await branch();
    void branch();
  });
  await live.start([]);
  await live.resume([entry(1, "awaited")]);
  expect(left.map((each) => names(each.forgotten))).toEqual([["inner", "inner:1"]]);
});

describe("what something has awaited is given up at the end:", () => {
  const waysToAsk: Record<string, Body> = {
    "the loser of a race": ({ step }) => Promise.race([step.run("quick", () => 0), step.run("slow", () => 0)]),
    "one of any": ({ step }) => Promise.any([step.run("quick", () => 0), step.run("slow", () => 0)]),
    "one of three in a race": ({ step }) =>
      Promise.race([new Promise(() => 0), step.run("quick", () => 0), step.run("slow", () => 0)]),
    "one that a branch has beaten": ({ step }) =>
      Promise.race([(async () => await step.run("quick", () => 0))(), step.run("slow", () => 0)]),
    "one that has lost two": ({ step }) => {
      const slow = step.run("slow", () => 0);
      return Promise.race([Promise.any([slow, step.run("quick", () => 0)]), slow]);
    },
    "a timer that a branch has beaten": ({ step }) =>
      Promise.race([(async () => await step.run("quick", () => 0))(), step.sleep("slow", "1h")]),
    "one with a catch": async ({ step }) => {
      step.run("slow", () => 0).catch(() => 0);
      return await step.run("quick", () => 0);
    },
    "one that a branch returns": async ({ step }) => {
      void (async () => step.run("slow", () => 0))();
      return await step.run("quick", () => 0);
    },
    "one that resolves another": async ({ step }) => {
      void new Promise((resolve) => {
        resolve(step.run("slow", () => 0));
      });
      return await step.run("quick", () => 0);
    },
  };

  test.each(Object.entries(waysToAsk))("%s", async (_, body) => {
    const { live, left } = started(body);
    await live.start([]);
    expect((await live.resume([entry(1, "quick", 7)])).outcome?.case).toBe("returned");
    expect(left).toMatchObject([{ forgotten: [], givenUp: [{ key: { id: "slow" } }] }]);
  });
});

describe("code that awaits a step when the body returns never goes on, which is told of:", () => {
  const waysToForget: Record<string, (step: Parameters<Body>[0]["step"]) => Promise<unknown>> = {
    "an await": async (step) => {
      await step.run("slow", () => 0);
      await step.run("never started", () => 0);
    },
    "an await of a timer": async (step) => {
      await step.sleep("slow", "1h");
      await step.run("never started", () => 0);
    },
    "an await of all": async (step) => {
      await Promise.all([step.run("slow", () => 0)]);
      await step.run("never started", () => 0);
    },
    "a then": (step) => step.run("slow", () => 0).then(() => step.run("never started", () => 0)),
    "a finally": (step) => step.run("slow", () => 0).finally(() => 0),
    "an await beside a race": async (step) => {
      const slow = step.run("slow", () => 0);
      await Promise.all([Promise.race([slow, Promise.resolve(0)]), slow]);
      await step.run("never started", () => 0);
    },
  };

  test.each(Object.entries(waysToForget))("%s", async (_, forgets) => {
    const { live, left } = started(async ({ step }) => {
      void forgets(step);
      return await step.run("quick", () => 0);
    });
    await live.start([]);
    expect((await live.resume([entry(1, "quick", 7)])).outcome?.case).toBe("returned");
    expect(left).toMatchObject([{ forgotten: [], cutOff: [{ key: { id: "slow" } }], givenUp: [] }]);
    expect(left[0]?.cutOff[0]?.source).toMatch(/^forgotten\.test\.ts:\d+$/);
  });

  test("a step that is begun after the body has returned, while the run waits for another one", async () => {
    const { live, left } = started(({ step }) => {
      void (async () => {
        await step.run("first", () => 0);
        await step.run("second", () => 0);
      })();
      void step.run("held", () => 0);
      return "end";
    });
    await live.start([]);
    expect((await live.resume([entry(1, "first")])).outcome).toBeUndefined();
    expect(returned((await live.resume([entry(2, "held")])).outcome)).toBe("end");
    expect(left.map((each) => [names(each.forgotten), names(each.cutOff)])).toEqual([
      [["held"], []],
      [[], ["second"]],
    ]);
  });
});

test("a body that awaits all of its steps leaves nothing to tell, nor does one that throws", async () => {
  for (const body of [
    async ({ step }: Parameters<Body>[0]) => {
      const early = step.run("a", () => 0);
      await step.run("b", () => 0);
      await early;
    },
    ({ step }: Parameters<Body>[0]) => {
      void step.run("a", () => 0);
      void step.run("b", () => 0);
      throw new Error("boom");
    },
  ]) {
    const { live, left } = started(body);
    await live.start([]);
    const end = await live.resume([entry(1, "a"), entry(2, "b")]);
    expect(end.outcome).toBeDefined();
    expect(left).toEqual([]);
  }
});

test("a replay holds and ends as the first run did, and a replica tells nobody", async () => {
  const body: Body = async ({ step }) => {
    void step.run("a", () => 0);
    await step.run("b", () => 0);
    void step.run("c", () => 0);
    return "end";
  };
  const driver = new Driver(body, 3);
  const outcome = await driver.run();
  expect(driver.journal.map(({ key }) => key.id).sort()).toEqual(["a", "b", "c"]);
  for (const lead of [true, false]) {
    const { live, left } = started(body, lead);
    expect((await live.start(driver.journal)).outcome).toEqual(outcome);
    expect(left.length).toBe(lead ? 1 : 0);
  }
});

test("many forgotten steps cost no more than so many that are awaited", async () => {
  const { live } = started(({ step }) => {
    for (let index = 0; index < 20_000; index += 1) void step.run("many", () => 0);
  });
  const turn = await live.start([]);
  const entries = turn.found.map(({ key }, index) => entry(index + 1, "many", 0, { index: key.index }));
  expect((await live.resume(entries)).outcome?.case).toBe("returned");
});

test("promises of steps are promises like any other", async () => {
  const { live } = started(async ({ step }) => {
    const promise = step.run("a", () => 0);
    const isPromise = promise instanceof Promise && Promise.resolve(promise) === promise;
    return [isPromise, promise.then(() => 0).constructor === Promise, await promise];
  });
  await live.start([]);
  expect(returned((await live.resume([entry(1, "a", 7)])).outcome)).toEqual([true, true, 7]);
});
