/** The app of the conformance kit (docs/conformance.md), and the worker that serves it as the kit wants it. */
import { setTimeout as sleep } from "node:timers/promises";
import {
  NonRetriableError,
  RetryAfterError,
  serve,
  StepError,
  Stepwire,
  type EventTypes,
  type FunctionContext,
  type ReceivedEvent,
} from "stepwire";

interface Data {
  value: number;
  n: number;
  bytes: number;
  seconds: number;
  how: "retryable" | "final" | "later";
  what: "unencodable" | "large";
  id: string;
  a: number;
  b: number;
}
type Given = FunctionContext<EventTypes, ReceivedEvent<string, Data>>;

const app = new Stepwire({ id: "conformance" });
let begun = 0;

function define(id: string, body: (context: Given) => unknown): void {
  app.createFunction({ id }, { event: `conformance/${id}` }, body as Parameters<typeof app.createFunction>[2]);
}

function failing(how: Data["how"]): never {
  if (how === "final") throw new NonRetriableError("never");
  if (how === "later") throw new RetryAfterError("later", "7s");
  throw new Error("not now");
}

function returned({ what, bytes }: Data): unknown {
  return what === "unencodable" ? 1n : "x".repeat(bytes);
}

function block(seconds: number): string {
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end); // that is what it is for
  return "blocked";
}

function echoed(step: Given["step"], id: string): Promise<string> {
  return step.run(id, () => id);
}

define("one-step", async ({ event, step }) => await step.run("a", () => event.data.value));

define("no-step", ({ event }) => event.data.value);

define("chain", async ({ step }) => {
  const a = await step.run("a", () => 1);
  const b = await step.run("b", () => a + 1);
  return await step.run("c", () => b + 1);
});

define("fan", async ({ event, step }) => {
  const parts = await Promise.all(Array.from({ length: event.data.n }, (_, i) => step.run("part", () => i)));
  return parts.reduce((sum, part) => sum + part, 0);
});

define("repeat", async ({ step }) => {
  const found: number[] = [];
  for (let i = 0; i < 3; i++) found.push(await step.run("again", () => i));
  return found;
});

define("two-branches", async ({ step }) => {
  const branch = async (side: string): Promise<string> => {
    await echoed(step, `${side}-1`);
    return await echoed(step, `${side}-2`);
  };
  return await Promise.all([branch("left"), branch("right")]);
});

define("nested-branches", async ({ step }) => {
  const outer = async (): Promise<string[]> => {
    await echoed(step, "a");
    return await Promise.all([echoed(step, "a-1"), echoed(step, "a-2")]);
  };
  const [inner, b] = await Promise.all([outer(), echoed(step, "b")]);
  return [...inner, b, await echoed(step, "last")];
});

define("order", async ({ step }) => {
  const came: string[] = [];
  const branch = async (id: string): Promise<void> => {
    came.push(await echoed(step, id));
  };
  await Promise.all([branch("x"), branch("y"), branch("z")]);
  await echoed(step, ["after", ...came].join("-"));
  return came;
});

define("race", async ({ step }) => {
  const first = await Promise.race([echoed(step, "one"), echoed(step, "two")]);
  await echoed(step, `won-${first}`);
  return first;
});

define("first-exception", async ({ step }) => {
  const bad = (): never => {
    throw new Error("bad");
  };
  try {
    await Promise.all([step.run("good", () => "good"), step.run("bad", bad)]);
  } catch {
    return await step.run("handle", () => "handled");
  }
  return "unharmed";
});

define("catches", async ({ step }) => {
  try {
    await step.run("a", () => failing("retryable"));
  } catch (error) {
    if (error instanceof StepError) return { caught: error.message, attempts: error.attempts };
    throw error;
  }
  return null;
});

define("fails", async ({ event, step }) => {
  await step.run("a", () => failing(event.data.how));
  return null;
});

define("body-fails", ({ event }) => failing(event.data.how));

define("nested", ({ step }) =>
  step.run("outer", async () => {
    try {
      await step.run("inner", () => 1);
    } catch {
      // Swallowed: the step fails all the same.
    }
    return "swallowed";
  }),
);

define("returns", async ({ event, step }) => {
  await step.run("a", () => returned(event.data));
  return null;
});

define("body-returns", ({ event }) => returned(event.data));

app.createFunction(
  {
    id: "options",
    retries: { retries: 3, initialInterval: "2s", maximumInterval: "60s", multiplier: 3 },
    timeout: "1h",
  },
  [{ event: "conformance/options" }, { event: "conformance/options-too" }],
  async ({ step }) => await step.run({ id: "a", retries: 1, attemptTimeout: "5s", timeout: "50s" }, () => 1),
);

define("sleeper", async ({ event, step }) => {
  await step.sleep("nap", event.data.seconds * 1000);
  return await step.run("awake", () => "awake");
});

define("waiter", async ({ event, step }) => {
  const match = { id: event.data.id };
  const answer = await step.waitForEvent("answer", { event: "conformance/answered", match, timeout: "60s" });
  return answer === null ? null : (answer.data as unknown);
});

define("caller", async ({ event, step }) => {
  return await step.call("add", { a: event.data.a, b: event.data.b }, { id: "sum" });
});

define("calls", async ({ event, step }) => {
  const text = "x".repeat(event.data.bytes);
  await Promise.all(Array.from({ length: event.data.n }, () => step.call("echo", text, { id: "call" })));
  return event.data.n;
});

define("sender", async ({ step }) => {
  await step.sendEvent("send", { name: "conformance/sent", data: { n: 1 } });
  return "sent";
});

define("invoker", async ({ event, step }) => {
  return await step.invoke("child", { function: "one-step", data: { value: event.data.value } });
});

define("slow", async ({ event, step }) => {
  return await step.run("slow", (attempt) => sleep(event.data.seconds * 1000, "slow", { signal: attempt.signal }));
});

define("blocker", async ({ event, step }) => await step.run("block", () => block(event.data.seconds)));

define("blocking-body", async ({ event, step }) => {
  block(event.data.seconds);
  return await step.run("a", () => 1);
});

define("never-yields", () => {
  for (;;); // that is what it is for
});

app.task("echo", (value: unknown) => value);
app.task("add", ({ a, b }: Data) => a + b);
app.task("length", (text: string) => Array.from(text).length);
app.task("big", ({ bytes }: Data) => "x".repeat(bytes));
app.task("unencodable", () => 1n);
app.task("fail", ({ how }: Data) => failing(how));
app.task("sleep", ({ seconds }: Data, attempt) => sleep(seconds * 1000, "slept", { signal: attempt.signal }));
app.task("block", ({ seconds }: Data) => block(seconds));
app.task("count", () => ++begun);

await serve(app, { slots: 4, maxInvocations: 3, drainSeconds: 10 });
