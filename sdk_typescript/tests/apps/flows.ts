/** An app for the tests: a worker process that writes what its steps do to the file FLOWS_LOG. */
import { spawnSync } from "node:child_process";
import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { NonRetriableError, serve, StepError, Stepwire, type FunctionContext, type FunctionOptions } from "stepwire";

const app = new Stepwire({ id: "flows" });
const quickly = { initialInterval: 10, maximumInterval: 20 };

function note(line: string): void {
  appendFileSync(process.env.FLOWS_LOG ?? "/dev/null", `${String(process.pid)} ${line}\n`);
}

function define<Output>(
  id: string,
  body: Parameters<typeof app.createFunction<string, Output>>[2],
  options: Pick<FunctionOptions, "retries" | "timeout"> = {},
): void {
  app.createFunction({ id, ...options }, { event: id }, body);
}

const double = app.task("double", async (value: number) => {
  await sleep(1);
  note(`task ${String(value)}`);
  return value * 2;
});

app.task("hold", async ({ name, ms }: { name: string; ms: number }, attempt) => {
  note(`begin ${name}`);
  try {
    await sleep(ms, undefined, { signal: attempt.signal });
    note(`end ${name}`);
  } catch {
    note(`aborted ${name}`);
  }
});

app.task("block", ({ ms, how }: { ms: number; how: "computes" | "waits" }) => {
  const end = performance.now() + ms;
  if (how === "computes") while (performance.now() < end);
  else spawnSync(process.execPath, ["--eval", `setTimeout(() => {}, ${String(ms)})`]);
  return performance.now() >= end;
});

define("summary", async ({ event, step }) => {
  const chunks = event.data as string[];
  const summaries = await Promise.all(chunks.map((chunk) => step.run("Summarize chunk", () => chunk.slice(0, 3))));
  return await step.run("Combine", () => summaries.join("|"));
});

define("combinators", async ({ step }) => {
  const slow = step.sleep("slow", "20s").then(() => "slow");
  const raced = await Promise.race([slow, step.run("fast", () => "fast")]);
  const failing = step.run({ id: "fails", retries: 0 }, () => {
    throw new Error("as always");
  });
  const any = await Promise.any([failing, step.run("works", () => "works")]);
  const settled = await Promise.allSettled([
    step.run({ id: "fails too", retries: 0 }, () => {
      throw new TypeError("as always, too");
    }),
    step.run("works too", () => 1),
  ]);
  return { raced, any, settled: settled.map((each) => each.status) };
});

define("branches", async ({ step }) => {
  const branch = async (name: string): Promise<string> => {
    const first = await step.run("first", () => `${name}1`);
    const rest = await Promise.all([1, 2].map((part) => step.run(`${name}-rest`, () => part)));
    return first + rest.join("");
  };
  return await Promise.all(["a", "b", "c"].map(branch));
});

define("waits", async ({ event, step }) => {
  await step.sleep("nap", 50);
  const wait = step.waitForEvent("reply", { event: "reply", match: { to: event.data as string }, timeout: "20s" });
  await step.sendEvent("ask", { name: "reply", data: { to: event.data as string, text: "hello" } });
  const none = await step.waitForEvent("never", { event: "never", timeout: 50 });
  const reply = await wait;
  return { none, text: (reply?.data as { text: string } | undefined)?.text };
});

define("approvals", async ({ event, step }) => {
  const got: unknown[] = [];
  for (let n = 0; n < 3; n++) {
    const approval = await step.waitForEvent("approval", {
      event: "approved",
      match: { doc: event.data as string },
      timeout: "20s",
    });
    got.push((approval?.data as { by: string } | undefined)?.by);
  }
  const none = await step.waitForEvent("approval", {
    event: "approved",
    match: { doc: event.data as string },
    timeout: 50,
  });
  const waits = [1, 2].map((n) =>
    step.waitForEvent(`side ${String(n)}`, { event: `side/${event.data as string}`, timeout: "20s" }),
  );
  await step.sendEvent(
    "sides",
    ["left", "right"].map((by) => ({ name: `side/${event.data as string}`, data: { by } })),
  );
  const sides = await Promise.all(waits);
  return { got, none, sides: sides.map((each) => (each?.data as { by: string } | undefined)?.by) };
});

define("parent", async ({ event, step }) => {
  const summary = await step.invoke("child", { function: "summary", data: event.data });
  const doubled = await step.call(double, 21);
  return { summary, doubled };
});

define("retries", async ({ step, attempt }) => {
  const number = await step.run({ id: "flaky", retries: { retries: 4, ...quickly } }, (current) => {
    if (current.number < 3) throw new Error(`attempt ${String(current.number)} fails`);
    return current.number;
  });
  let caught = "";
  try {
    await step.run("hopeless", () => {
      throw new NonRetriableError("hopeless", { cause: new RangeError("the cause") });
    });
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    caught = `${error.name}: ${error.message}, after ${String(error.attempts)}`;
  }
  return { number, caught, attempt };
});

define("fails", async ({ step }) => {
  await step.run("fine", () => 1);
  throw new NonRetriableError("the body gives up");
});

define("large", async ({ event, step }) => {
  const text = await step.run("make", () => "x".repeat(event.data as number));
  const again = await step.run("take", () => `${text}y`);
  return again.length;
});

define("unencodable", async ({ step }) => {
  return await step.run("odd", () => 1n as unknown as number);
});

async function fan({ event, step }: FunctionContext): Promise<number> {
  const { count, ms } = event.data as { count: number; ms: number };
  const parts = await Promise.all(
    Array.from({ length: count }, (_, part) =>
      step.run("part", async () => {
        note(`part ${String(part)}`);
        await sleep(ms);
        return part;
      }),
    ),
  );
  return parts.reduce((sum, part) => sum + part, 0);
}

define("fan", fan, { retries: Number(process.env.FAN_RETRIES ?? 4) });

define("chain", async ({ event, step }) => {
  let last = 0;
  for (let index = 0; index < (event.data as number); index++) last = await step.run("link", () => last + 1);
  return last;
});

define("hold", async ({ event, step }) => {
  await step.call("hold", event.data);
  return "held";
});

define("hold-closure", async ({ event, step }) => {
  const { name, ms } = event.data as { name: string; ms: number };
  await step.run("hold", async () => {
    note(`begin ${name}`);
    await sleep(ms);
    note(`end ${name}`);
  });
  return "held";
});

define("block", async ({ event, step }) => {
  return await step.call("block", event.data);
});

await serve(app, {
  slots: Number(process.env.SLOTS ?? 8),
  maxInvocations: Number(process.env.MAX_INVOCATIONS ?? 1000),
  drainSeconds: Number(process.env.DRAIN_SECONDS ?? 30),
});
