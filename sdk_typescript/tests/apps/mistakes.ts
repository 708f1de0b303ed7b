/** An app for the tests: functions with the mistakes that people make. Its worker writes what step code does to FLOWS_LOG. */
import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { serve, Stepwire } from "stepwire";

const app = new Stepwire({ id: "mistakes" });

function note(line: string): void {
  appendFileSync(process.env.FLOWS_LOG ?? "/dev/null", `${String(process.pid)} ${line}\n`);
}

app.createFunction({ id: "forgets" }, { event: "forgets" }, async ({ step }) => {
  await step.run("first", () => 0);
  void step.run("audit", async () => {
    await sleep(300);
    note("audit is written");
  });
  return "done";
});

app.createFunction({ id: "races" }, { event: "races" }, async ({ step }) => {
  const slow = step.run("slow", async () => {
    note("slow begins");
    await sleep(4_000); // without a look at its signal
    note("slow ends");
  });
  const quick = async (): Promise<void> => {
    await step.run("quick", () => 0);
    await step.sleep("a moment", 500);
  };
  await Promise.race([slow, quick()]);
  return "done";
});

app.createFunction({ id: "floats", triggers: { event: "floats" } }, async ({ event, step }) => {
  const late = event.data as boolean;
  return await step.run({ id: "floating", retries: { retries: 1, initialInterval: 1 } }, async ({ number }) => {
    const fails = async (): Promise<void> => {
      if (late) await sleep(20);
      throw new RangeError(`floating ${String(number)}`);
    };
    if (number === 1) void fails();
    await sleep(200);
    return `attempt ${String(number)}`;
  });
});

await serve(app, { slots: 8 });
