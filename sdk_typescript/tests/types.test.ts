/** Types that users see: checked by the compiler, and run so that they hold for real. */

import { describe, expect, expectTypeOf, test } from "vitest";

import { type AttemptContext, type Jsonify, type ReceivedEvent, type Step, Stepwire } from "../src/index.js";

interface Charge {
  userId: string;
  amount: number;
}

interface Events {
  "stripe/charge.created": Charge;
  "user/created": { name: string };
  deep: { user: { id: number }; lines: { sku: string }[]; any: Record<string, unknown> };
}

const app = new Stepwire<Events>({ id: "shop" });
const open = new Stepwire({ id: "open" });
const resize = app.task("resize", (input: { width: number }) => ({ at: new Date(input.width), done: true }));
const ping = app.task("ping", () => "pong");

describe("events", () => {
  test("of one trigger have its data", () => {
    app.createFunction({ id: "one" }, { event: "stripe/charge.created" }, ({ event, events }) => {
      expectTypeOf(event).toEqualTypeOf<ReceivedEvent<"stripe/charge.created", Charge>>();
      expectTypeOf(events).toEqualTypeOf<readonly ReceivedEvent<"stripe/charge.created", Charge>[]>();
      expectTypeOf(event.data.userId).toBeString();
    });
  });

  test("of several triggers are told apart by their names", () => {
    app.createFunction({ id: "two" }, [{ event: "stripe/charge.created" }, { event: "user/created" }], ({ event }) => {
      expectTypeOf(event.name).toEqualTypeOf<"stripe/charge.created" | "user/created">();
      if (event.name === "user/created") expectTypeOf(event.data).toEqualTypeOf<{ name: string }>();
      else expectTypeOf(event.data).toEqualTypeOf<Charge>();
    });
  });

  test("of a function that is only invoked, or of an app that describes none, are anything", () => {
    app.createFunction({ id: "invoked" }, [], ({ event }) => {
      expectTypeOf(event.data).toBeAny();
    });
    open.createFunction({ id: "any" }, { event: "whatever" }, ({ event }) => {
      expectTypeOf(event.name).toEqualTypeOf<"whatever">();
      expectTypeOf(event.data).toBeAny();
    });
  });

  test("are those of the triggers among the options, too", () => {
    app.createFunction({ id: "among", triggers: { event: "stripe/charge.created" } }, ({ event }) => {
      expectTypeOf(event).toEqualTypeOf<ReceivedEvent<"stripe/charge.created", Charge>>();
    });
    app.createFunction(
      { id: "both", triggers: [{ event: "stripe/charge.created" }, { event: "user/created" }] },
      ({ event }) => {
        expectTypeOf(event.name).toEqualTypeOf<"stripe/charge.created" | "user/created">();
      },
    );
    app.createFunction({ id: "none", triggers: [] }, ({ event }) => {
      expectTypeOf(event.data).toBeAny();
    });
    // @ts-expect-error -- no such event
    app.createFunction({ id: "other", triggers: { event: "user/deleted" } }, () => 0);
    // @ts-expect-error -- nothing says when it runs
    expect(() => app.createFunction({ id: "silent" }, () => 0)).toThrow(/says nothing of its triggers/);
  });

  test("that nobody has described can't be triggers", () => {
    // @ts-expect-error -- no such event
    app.createFunction({ id: "unknown" }, { event: "user/deleted" }, () => 0);
  });
});

// The bodies below are never run: their types are what is looked at.
app.createFunction({ id: "results" }, { event: "user/created" }, async ({ step, now, random, uuid }) => {
  expectTypeOf(await step.run("number", () => 7)).toEqualTypeOf<number>();
  expectTypeOf(await step.run("promise", () => Promise.resolve("a"))).toEqualTypeOf<string>();
  expectTypeOf(await step.run("date", () => ({ at: new Date() }))).toEqualTypeOf<{ at: string }>();
  expectTypeOf(await step.run("nothing", () => undefined)).toEqualTypeOf<null>();
  expectTypeOf(await step.run("void", noop)).toEqualTypeOf<null>();
  expectTypeOf(await step.run("args", power, 2, 3)).toEqualTypeOf<number>();
  expectTypeOf(await step.run("optional", power, 2)).toEqualTypeOf<number>();
  expectTypeOf(await step.run({ id: "attempt", retries: 1 }, ({ number }) => number)).toEqualTypeOf<number>();
  // @ts-expect-error -- a text is no number
  void step.run("args", power, "2");
  // @ts-expect-error -- the argument is missing
  void step.run("args", power);
  // @ts-expect-error -- it would be given the attempt
  void step.run("defaults", withDefault);

  const pair = await Promise.all([step.run("a", () => 1), step.run("b", () => "two")]);
  expectTypeOf(pair).toEqualTypeOf<[number, string]>();

  expectTypeOf(await step.call(resize, { width: 1 })).toEqualTypeOf<{ at: string; done: boolean }>();
  expectTypeOf(await step.call(ping)).toEqualTypeOf<string>();
  expectTypeOf(await step.call("by name", 1)).toBeUnknown();
  expectTypeOf(await step.call<number>("by name")).toEqualTypeOf<number>();
  // @ts-expect-error -- its input is an object
  void step.call(resize, 3);
  // @ts-expect-error -- it needs its input
  void step.call(resize);

  const child = open.createFunction({ id: "child" }, { event: "x" }, () => Promise.resolve(new Map([[1, "a"]]).size));
  expectTypeOf(await step.invoke("child", { function: child, data: 1 })).toEqualTypeOf<number>();
  expectTypeOf(await step.invoke("named", { function: "child" })).toBeUnknown();
  const typed = app.createFunction({ id: "typed" }, { event: "user/created" }, () => Promise.resolve([new Date()]));
  expectTypeOf(await step.invoke("typed", { function: typed, data: { name: "a" } })).toEqualTypeOf<string[]>();
  // @ts-expect-error -- a name is missing
  void step.invoke("typed", { function: typed, data: {} });

  const nap = step.sleep("nap", "1 day");
  expectTypeOf(nap).toEqualTypeOf<Promise<void>>();
  await nap;
  expectTypeOf(await step.sendEvent("tell", { name: "user/created", data: { name: "a" } })).toEqualTypeOf<string[]>();
  // @ts-expect-error -- no such event
  void step.sendEvent("tell", { name: "user/deleted" });
  // @ts-expect-error -- its data are others
  void step.sendEvent("tell", { name: "user/created", data: { userId: 7 } });

  const event = await step.waitForEvent("wait", {
    event: "stripe/charge.created",
    timeout: "1h",
    match: { userId: "7" },
  });
  expectTypeOf(event).toEqualTypeOf<ReceivedEvent<"stripe/charge.created", Charge> | null>();

  // @ts-expect-error -- the data have no such field
  void step.waitForEvent("wait", { event: "stripe/charge.created", match: { user: "7" } });
  // @ts-expect-error -- nor such a path
  void step.waitForEvent("wait", { event: "user/created", match: { "name.first": "a" } });
  void step.waitForEvent("wait", { event: "deep", match: { "user.id": 7, "lines.0.sku": "a", "any.thing": null } });
  // @ts-expect-error -- a user has no size
  void step.waitForEvent("wait", { event: "deep", match: { "user.size": 7 } });

  // @ts-expect-error -- no duration
  void step.sleep("nap", "soon");
  // @ts-expect-error -- no unit of time
  void step.run({ id: "a", timeout: "2 fortnights" }, () => 0);
  // @ts-expect-error -- a number of what?
  void step.run({ id: "a", retries: { retries: 1, initialInterval: "5" } }, () => 0);
  void step.sleep("nap", "1h 30m");
  void step.sleep("nap", "1.5 hours");
  // @ts-expect-error -- nobody knows this option
  void step.run({ id: "a", retry: 2 }, () => 0);

  // @ts-expect-error -- JSON would lose the map
  void step.run("map", () => new Map([[1, 2]]));
  // @ts-expect-error -- JSON would lose the set
  void step.run("set", () => Promise.resolve({ found: { all: new Set([1]) } }));
  // @ts-expect-error -- JSON has no such numbers
  void step.run("bigint", () => [1n]);
  // @ts-expect-error -- the same with arguments
  void step.run("map of", mapOf, 1);
  void step.run("class", () => new Order());
  void step.run("any", () => JSON.parse("1") as unknown);

  expectTypeOf([now(), random(), uuid()] as const).toEqualTypeOf<readonly [Date, number, string]>();
});

function mapOf(key: number): Map<number, number> {
  return new Map([[key, 1]]);
}

class Order {
  at = new Date();
  lines: { sku: string; sizes?: number[] }[] = [];
  total(): number {
    return this.lines.length;
  }
}

function noop(): void {
  // Nothing.
}

function power(base: number, exponent = 2): number {
  return base ** exponent;
}

function withDefault(base = 2): number {
  return base;
}

test("functions and tasks know what they give", () => {
  const declared = app.createFunction({ id: "declared" }, { event: "user/created" }, () => Promise.resolve(7));
  expectTypeOf(declared.types).toEqualTypeOf<
    { readonly data: { name: string }; readonly output: number } | undefined
  >();
  expectTypeOf(resize.run).parameter(1).toEqualTypeOf<AttemptContext>();
  expectTypeOf<Step>().toHaveProperty("run");
});

test("JSON changes types", () => {
  class Point {
    x = 1;
    label?: string;
    length(): number {
      return this.x;
    }
  }
  expectTypeOf<Jsonify<Point>>().toEqualTypeOf<{ x: number; label?: string }>();
  expectTypeOf<Jsonify<Uint8Array>>().toEqualTypeOf<Uint8Array>();
  expectTypeOf<Jsonify<{ raw: Uint8Array }>>().toEqualTypeOf<{ raw: string }>();
  expectTypeOf<Jsonify<Date | null>>().toEqualTypeOf<string | null>();
  expectTypeOf<Jsonify<number | undefined>>().toEqualTypeOf<number | null>();
  expectTypeOf<Jsonify<[1, { when: Date }]>>().toEqualTypeOf<[1, { when: string }]>();
  expectTypeOf<Jsonify<readonly Date[]>>().toEqualTypeOf<string[]>();
  expectTypeOf<Jsonify<{ a: number | undefined }>>().toEqualTypeOf<{ a?: number }>();
  expectTypeOf<Jsonify<"a" | "b">>().toEqualTypeOf<"a" | "b">();
  expectTypeOf<Jsonify<unknown>>().toBeUnknown();
  expectTypeOf<Jsonify<Record<string, Date>>>().toEqualTypeOf<Record<string, string>>();
  expectTypeOf<Jsonify<{ self: { toJSON(): number } }>>().toEqualTypeOf<{ self: number }>();
});
