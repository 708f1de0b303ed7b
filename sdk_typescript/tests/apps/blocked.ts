/** An app for the tests: steps that block the main thread, as BLOCKS says: in JavaScript, outside of it, or not at all. */
import { spawnSync } from "node:child_process";
import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { serve, Stepwire } from "stepwire";

const app = new Stepwire({ id: "blocked" });
const { BLOCKS = "", BLOCK_MS = "600000", DRAIN_SECONDS = "60" } = process.env;

function note(line: string): void {
  appendFileSync(process.env.FLOWS_LOG ?? "/dev/null", `${String(process.pid)} ${line}\n`);
}

function block(): void {
  note("blocks");
  const end = performance.now() + Number(BLOCK_MS);
  if (BLOCKS === "computes") while (performance.now() < end);
  // This child does not outlive the worker.
  if (BLOCKS === "waits") spawnSync("sh", ["-c", "while kill -0 $PPID 2> /dev/null; do sleep 0.1; done"]);
}

app.createFunction({ id: "lone", retries: 0 }, { event: "lone" }, async ({ step }) => {
  return await step.run("lone", () => {
    block();
    return "done";
  });
});

app.createFunction({ id: "sides", retries: 0 }, { event: "sides" }, async ({ step }) => {
  const quick = step.run("quick", () => {
    note("quick");
    return "quick";
  });
  const slow = step.run("slow", async () => {
    if (BLOCKS !== "") await sleep(600_000);
    return "slow";
  });
  const blocking = step.run("blocking", () => {
    block();
    return "blocking";
  });
  return await Promise.all([quick, slow, blocking]);
});

await serve(app, { drainSeconds: Number(DRAIN_SECONDS) });
