/** What a body is told of its run: the same in every replay. */

import { expect, test, vi } from "vitest";

import { contextOf } from "../../src/body/body_context.js";
import { EncodingError, type Logger } from "../../src/index.js";
import { Invocation } from "../../src/replay/invocation.js";
import {
  attemptAt,
  type Body,
  definitionOf,
  entry,
  failureIn,
  invocation,
  returned,
  runInfo,
  START,
  VALUES,
} from "./driver.js";

function silent(): { [Level in keyof Logger]: ReturnType<typeof vi.fn<Logger["info"]>> } {
  return { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };
}

test("the context tells of the run", async () => {
  const body: Body = ({ event, events, runId, attempt }) => ({
    event: [event.id, event.name, event.data, event.time.getTime()],
    events: events.length,
    runId,
    attempt,
  });
  const turn = await invocation(body, {}, { userId: 7 }).start([]);
  expect(returned(turn.outcome)).toEqual({
    event: ["e", "go", { userId: 7 }, START],
    events: 1,
    runId: "run-1",
    attempt: 1,
  });
});

test("an event that can't be decoded fails the body that asks for it", async () => {
  const definition = definitionOf(({ event }) => event.name);
  const data = { data: Buffer.from("{"), encoding: "json", metadata: {} };
  const run = { ...runInfo("body"), events: [{ id: "e", name: "go", data, time: START }] };
  const failure = failureIn(await new Invocation(definition, run, VALUES, contextOf).start([]));
  expect(failure).toMatchObject({ type: EncodingError.name, retryable: false });
  expect(failure.message).toContain("data of event 'go' can't be read as JSON");
});

test("the clock stands at the last result and never goes back", async () => {
  const body: Body = async ({ step, now }) => {
    const times = [now().getTime() - START];
    for (let n = 0; n < 3; n += 1) {
      await step.run("work", () => n);
      times.push(now().getTime() - START);
    }
    return times;
  };
  const times = [1000, 500, 3000];
  const journal = times.map((time, index) => entry(index + 1, "work", 0, { index, recordedAt: START + time }));
  expect(returned((await invocation(body).start(journal)).outcome)).toEqual([0, 1000, 1000, 3000]);
});

test("random numbers and UUIDs are the same in every replay, and others in another run", async () => {
  const body: Body = async ({ step, random, uuid }) => {
    const first = [random(), uuid()];
    await step.run("work", () => [random(), uuid()]);
    return [...first, random(), uuid()];
  };
  const draw = async (runId: string, really: boolean): Promise<unknown> => {
    const definition = definitionOf(body);
    const live = new Invocation(definition, { ...runInfo("body"), runId }, VALUES, contextOf);
    const [step] = (await live.start([])).found;
    if (step && really) live.closure(step.key)?.(attemptAt(step));
    return returned((await live.resume([entry(1, "work")])).outcome);
  };
  const once = await draw("a", false);
  expect(await draw("a", true)).toEqual(once);
  expect(await draw("b", true)).not.toEqual(once);
  const [number, uuid, other, otherUuid] = once as [number, string, number, string];
  expect([number, other].every((each) => each >= 0 && each < 1)).toBe(true);
  expect(uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect([number, uuid]).not.toEqual([other, otherUuid]);
});

test("random numbers are spread evenly", async () => {
  const { outcome } = await invocation(({ random }) => {
    const counts = new Array<number>(10).fill(0);
    for (let n = 0; n < 10_000; n += 1) {
      const tenth = Math.floor(random() * 10);
      counts[tenth] = (counts[tenth] ?? 0) + 1;
    }
    return counts;
  }).start([]);
  for (const count of returned(outcome) as number[]) expect(Math.abs(count - 1000)).toBeLessThan(150);
});

test.each([true, false])("the logger speaks only live and only in the lead (%s)", async (lead) => {
  const logger = silent();
  const body: Body = async ({ step, logger }) => {
    for (let n = 0; n < 3; n += 1) {
      logger.info("before %d", n);
      await step.run("work", () => {
        logger.warn("in the step");
      });
    }
    logger.error("end");
  };
  const definition = definitionOf(body, logger);
  const live = new Invocation(definition, runInfo("body"), VALUES, contextOf, { lead });
  const turn = await live.start([0, 1].map((index) => entry(index + 1, "work", 0, { index })));
  const lines = (): unknown[] => logger.info.mock.calls;
  expect(lines()).toEqual(lead ? [["[app/body run run-1 attempt 1] before %d", 2]] : []);
  // Code of a step runs once, wherever it is.
  const key = { id: "work", index: 2 };
  await live.closure(key)?.(attemptAt({ key }));
  expect(logger.warn).toHaveBeenCalledExactlyOnceWith("[app/body run run-1 attempt 1]", "in the step");
  expect(turn.outcome).toBeUndefined();
  await live.resume([entry(3, "work", 0, { index: 2 })]);
  expect(logger.error).toHaveBeenCalledTimes(lead ? 1 : 0);
});

test("a logger that makes children is given the run as fields", async () => {
  const child = silent();
  const parent = { ...silent(), child: vi.fn(() => child) };
  const definition = definitionOf(({ logger }) => {
    logger.debug({ n: 1 }, "line");
  }, parent);
  await new Invocation(definition, runInfo("body"), VALUES, contextOf).start([]);
  expect(parent.child).toHaveBeenCalledExactlyOnceWith({ app: "app", run_id: "run-1", function: "body", attempt: 1 });
  expect(child.debug).toHaveBeenCalledExactlyOnceWith({ n: 1 }, "line");
});
