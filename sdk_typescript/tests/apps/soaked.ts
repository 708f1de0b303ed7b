/** The TypeScript half of what a soak asks for: functions of its own, and a task of both (tests/faults/apps/soaked.py). */
import { setTimeout as sleep } from "node:timers/promises";
import { serve, Stepwire, type FunctionOptions } from "stepwire";

const app = new Stepwire({ id: "flows" });
const soon = { retries: 4, initialInterval: 50 };

function define<Output>(
  id: string,
  body: Parameters<typeof app.createFunction<string, Output>>[2],
  options: Pick<FunctionOptions, "retries"> = {},
): void {
  app.createFunction({ id, ...options }, { event: `flows/${id}` }, body);
}

async function work(n: number, seconds = 0): Promise<number> {
  await sleep(seconds * 1000);
  return n * 2;
}

const double = app.task("double", (n: number) => n * 2);

define("ts-fan-out", async ({ event, step }) => {
  const data = event.data as { count: number; seconds: number };
  const count = await step.run("count", () => work(data.count / 2));
  const parts = await Promise.all(
    Array.from({ length: count }, (_, n) => step.run("part", () => work(n, data.seconds))),
  );
  const total = await step.run("total", () => work(parts.reduce((sum, part) => sum + part, 0)));
  return { count, total };
});

define("ts-approvals", async ({ event: { data }, step }) => {
  const { doc, count } = data as { doc: string; count: number };
  const wait = { event: "flows/approved", match: { doc } };
  const got: (number | null)[] = [];
  for (let n = 0; n <= count; n++) {
    const event = await step.waitForEvent("approval", { ...wait, timeout: n < count ? "60s" : "300ms" });
    got.push((event?.data as { by: number } | undefined)?.by ?? null);
  }
  return got;
});

define("ts-child", async ({ event, step }) => {
  const { n } = event.data as { n: number };
  return (await step.run("work", () => work(n))) + 2;
});

define("ts-row", async ({ event, step }) => {
  const { count } = event.data as { count: number };
  const got: number[] = [];
  for (let n = 0; n < count; n++) {
    const given = await step.invoke("child", { function: n % 2 ? "ts-child" : "child", data: { n } });
    got.push(await step.call(double, given as number));
  }
  return got;
});

const odd: Record<string, () => unknown> = {
  undefined: () => undefined,
  text: () => "a text",
  frozen: () => Object.freeze({ message: "frozen" }),
  aggregate: () => new AggregateError([new Error("a"), "b", null], "several"),
};

define(
  "ts-odd",
  async ({ event, step, attempt }) => {
    const { kind } = event.data as { kind: string };
    await step.run({ id: "odd", retries: soon }, (current) => {
      if (current.number === 1) throw odd[kind]?.();
      return 1;
    });
    if (attempt === 1) throw odd[kind]?.();
    return kind;
  },
  { retries: soon },
);

define(
  "ts-polls",
  async ({ step }) => {
    let done = false;
    void step.run("work", () => work(1)).then(() => (done = true));
    // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- this is the point
    while (!done) await Promise.resolve();
  },
  { retries: 0 },
);

await serve(app, { slots: 8, drainSeconds: 0.5 });
