/** The ways to wait for several things that must work in a function's body, live and in every replay. */

import { EventEmitter } from "node:events";

import { StepError } from "../../src/index.js";
import type { FunctionContext } from "../../src/index.js";
import { seeded } from "../../src/replay/random.js";
import type { Body } from "./driver.js";

function double(number: number): number {
  return number * 2;
}

function boom(text = "boom"): never {
  throw new TypeError(text);
}

function textOf(error: unknown): string {
  return error instanceof StepError ? `${error.name} ${error.message}` : String(error);
}

async function postPayment({ event, step }: FunctionContext): Promise<unknown> {
  // Neither is awaited here: both run side by side.
  const email = step.run("confirmation-email", async () => {
    await Promise.resolve();
    return `sent for ${event.name}`;
  });
  const user = step.run("update-user", () => ({ id: event.id }));
  const [emailId, updates] = await Promise.all([email, user]);
  return { emailId, updates };
}

async function chunkedSummary({ step }: FunctionContext): Promise<string> {
  const chunks = ["one", "two", "three", "four", "five"];
  const summaries = await Promise.all(chunks.map((chunk) => step.run("Summarize chunk", () => chunk.slice(0, 2))));
  return await step.run("Summarize summaries", () => summaries.join("+"));
}

async function allThatFails({ step }: FunctionContext): Promise<string> {
  try {
    await Promise.all([step.run("a", () => boom()), step.run("b", double, 1), step.run("c", double, 2)]);
  } catch (error) {
    return await step.run("after", () => textOf(error));
  }
  return "no error";
}

async function allSettled({ step }: FunctionContext): Promise<unknown> {
  const ends = await Promise.allSettled([
    step.run("a", () => boom()),
    step.run("b", double, 1),
    step.run("c", double, 2),
  ]);
  return ends.map((end) => (end.status === "fulfilled" ? end.value : textOf(end.reason)));
}

async function race({ step }: FunctionContext): Promise<unknown> {
  const winner = await Promise.race([0, 1, 2, 3].map((n) => step.run("lane", double, n)));
  return [winner, await step.run("after", double, winner)];
}

async function raceAgainstSleep({ step }: FunctionContext): Promise<unknown> {
  const winner = await Promise.race([
    step.run("work", double, 4).then((value) => ({ value })),
    step.sleep("limit", "10s").then(() => "late"),
  ]);
  await step.run("after", () => winner);
  return typeof winner;
}

async function any({ step }: FunctionContext): Promise<unknown> {
  const first = await Promise.any([step.run("a", () => boom()), step.run("b", double, 1), step.run("c", double, 2)]);
  return [first, await step.run("after", double, first)];
}

async function anyOfNone({ step }: FunctionContext): Promise<unknown> {
  try {
    return await Promise.any([step.run("a", boom, "one"), step.run("b", boom, "two")]);
  } catch (error) {
    return error instanceof AggregateError ? error.errors.map(textOf) : "?";
  }
}

async function nestedBranches({ step }: FunctionContext): Promise<unknown> {
  const branch = async (n: number): Promise<number> => {
    const first = await step.run("first", double, n);
    const [left, right] = await Promise.all([step.run("left", double, first), step.run("right", double, first + 1)]);
    return await step.run("last", double, left + right);
  };
  return await Promise.all([1, 2, 3].map(branch));
}

async function branchesOfUnevenLength({ step }: FunctionContext): Promise<unknown> {
  const order: string[] = [];
  const branch = async (name: string, length: number): Promise<void> => {
    for (let n = 0; n < length; n += 1) {
      await step.run("work", double, n);
      for (let turn = 0; turn < n; turn += 1) await Promise.resolve();
      order.push(`${name}${String(n)}`);
      await step.run(`seen ${order.join("")}`, () => null);
    }
  };
  await Promise.all([branch("a", 1), branch("b", 3), branch("c", 2)]);
  return order.length;
}

async function loopWithOneId({ step }: FunctionContext): Promise<unknown> {
  const values = [];
  for (let n = 0; n < 4; n += 1) values.push(await step.run("again", double, n));
  return values;
}

async function asCompleted({ step }: FunctionContext): Promise<unknown> {
  const pending = new Map([0, 1, 2, 3, 4].map((n) => [n, step.run("d", double, n).then((value) => ({ n, value }))]));
  const sum = { of: 0 };
  while (pending.size > 0) {
    const { n, value } = await Promise.race(pending.values());
    pending.delete(n);
    sum.of += value;
    await step.run(`seen ${String(n)} of ${String(pending.size)}`, double, value);
  }
  return sum.of;
}

async function poolOfLanes({ step }: FunctionContext): Promise<unknown> {
  const work = [0, 1, 2, 3, 4, 5, 6];
  const results: number[] = [];
  const lane = async (): Promise<void> => {
    for (let n = work.shift(); n !== undefined; n = work.shift()) results[n] = await step.run("work", double, n);
  };
  await Promise.all([lane(), lane(), lane()]);
  return results;
}

async function errorsInBranches({ step }: FunctionContext): Promise<unknown> {
  const branch = async (n: number): Promise<unknown> => {
    try {
      return await step.run("maybe", () => (n % 2 ? boom(String(n)) : n));
    } catch (error) {
      return await step.run("repair", () => textOf(error));
    } finally {
      await step.run("clean up", () => n);
    }
  };
  return await Promise.all([0, 1, 2, 3].map(branch));
}

async function unawaited({ step }: FunctionContext): Promise<unknown> {
  step.run("given up", () => boom()).catch(() => undefined);
  void step.run("forgotten too", double, 1);
  return await step.run("awaited", double, 2);
}

async function sleepsAndOthers({ step, now }: FunctionContext): Promise<unknown> {
  const began = now().getTime();
  await Promise.all([step.sleep("long", "2 days"), step.sleep("short", 1500), step.sleepUntil("past", began - 1)]);
  const ids = await step.sendEvent("tell", [{ name: "a" }, { name: "b", data: { n: 1 } }]);
  const event = await step.waitForEvent("wait", { event: "done", match: { "user.id": 7 }, timeout: "1h" });
  const called = await step.call("resize", { width: 3 });
  const invoked = await step.invoke("child", { function: "other", data: 4 });
  return { ids, event, called, invoked, slept: now().getTime() - began > 172_800_000 };
}

async function signals({ step }: FunctionContext): Promise<unknown> {
  const emitter = new EventEmitter();
  const woken = new Promise((resolve) => emitter.once("go", resolve));
  const waker = (async () => {
    emitter.emit("go", await step.run("wake", double, 3));
  })();
  const [value] = await Promise.all([woken, waker]);
  return await step.run("after", () => value);
}

async function* each({ step }: FunctionContext): AsyncGenerator<number> {
  for (let n = 0; n < 3; n += 1) yield await step.run("next", double, n);
}

async function generators(context: FunctionContext): Promise<unknown> {
  const values = [];
  for await (const value of each(context)) values.push(value, await context.step.run("between", double, value));
  return values;
}

async function thenChains({ step }: FunctionContext): Promise<unknown> {
  const long = (value: number): Promise<number> => {
    let chain = Promise.resolve(value);
    for (let n = 0; n < 300; n += 1) chain = chain.then((sum) => sum + 1);
    return chain.then((sum) => step.run(`long ${String(sum)}`, double, sum));
  };
  const short = step.run("a", double, 1).then((value) => step.run("short", double, value));
  return await Promise.all([step.run("b", double, 2).then(long), short, step.run("c", double, 3).then(long)]);
}

async function deferred({ step }: FunctionContext): Promise<unknown> {
  const later = (value: number): Promise<number> =>
    new Promise((resolve) => {
      process.nextTick(resolve, value);
    });
  const branch = async (n: number): Promise<number> => {
    const value = await later(await step.run("before", double, n));
    return await step.run(`after ${String(n)}`, double, value);
  };
  return await Promise.all([0, 1, 2].map(branch));
}

async function seededChoices({ step, random, uuid, now }: FunctionContext): Promise<unknown> {
  const ids = [];
  for (let n = 0; n < 4; n += 1) {
    const id = random() < 0.5 ? "heads" : "tails";
    ids.push(await step.run(`${id} ${uuid()} ${now().toISOString()}`, () => id));
  }
  return ids.length;
}

async function bodyThatFails({ step }: FunctionContext): Promise<unknown> {
  const other = step.run("other", double, 1);
  await step.run("a", double, 1);
  await other;
  throw new RangeError("by itself");
}

/** A body that is made of random parts, from a seed. */
function randomBody(seed: number): Body {
  async function part(context: FunctionContext, draw: () => number, depth: number): Promise<unknown> {
    const { step } = context;
    const several = (): Promise<unknown>[] =>
      Array.from({ length: 2 + Math.floor(draw() * 3) }, () => part(context, seeded(String(draw())), depth - 1));
    const kind = depth === 0 ? 0 : Math.floor(draw() * 8);
    const id = `step ${String(Math.floor(draw() * 3))}`;
    switch (kind) {
      case 0:
        return await step.run(id, () => id);
      case 1:
        return await Promise.all(several());
      case 2:
        return await Promise.race(several());
      case 3:
        return await Promise.any(several()).catch(() => "none");
      case 4:
        return (await Promise.allSettled(several())).map((end) => end.status);
      case 5:
        return await step.run(id, () => boom()).catch(textOf);
      case 6:
        await step.sleep(`sleep ${id}`, Math.floor(draw() * 10_000));
        return await part(context, draw, depth - 1);
      default:
        return [await part(context, draw, depth - 1), await part(context, draw, depth - 1)];
    }
  }
  const body = (context: FunctionContext): Promise<unknown> => part(context, seeded(`body ${String(seed)}`), 4);
  Object.defineProperty(body, "name", { value: `random-${String(seed)}` });
  return body;
}

/** All constructs. */
export const TABLE: readonly Body[] = [
  postPayment,
  chunkedSummary,
  allThatFails,
  allSettled,
  race,
  raceAgainstSleep,
  any,
  anyOfNone,
  nestedBranches,
  branchesOfUnevenLength,
  loopWithOneId,
  asCompleted,
  poolOfLanes,
  errorsInBranches,
  unawaited,
  sleepsAndOthers,
  signals,
  generators,
  thenChains,
  deferred,
  seededChoices,
  bodyThatFails,
];

/** Bodies that nobody has thought of. */
export const RANDOM: readonly Body[] = Array.from({ length: 60 }, (_, seed) => randomBody(seed));
