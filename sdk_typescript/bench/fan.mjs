/**
 * Measures a fan-out of 1,000 steps and a chain of 100: `npm run build && node bench/fan.mjs [python] [option…]`, with an
 * executor process and two worker processes of 100 slots, which serve `bench/flows.ts` or, with `python`, its twin.
 * Options are given to the workers' node, for example --cpu-prof. Gives medians, and CPU time.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Client } from "stepwire";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const ROUNDS = 20;
const WORKERS = 2;

const folder = mkdtempSync(join(tmpdir(), "stepwire-bench-"));
const ready = join(folder, "ready");
const python = process.env.STEPWIRE_PYTHON ?? join(ROOT, "../.venv/bin/python");
const flags = ["--store", `sqlite:///${join(folder, "bench.db")}`, "--host", "127.0.0.1", "--port", "0"];
const executor = spawn(python, ["-m", "stepwire_executor", ...flags, "--ready-file", ready], { stdio: "ignore" });
while (!existsSync(ready) || !readFileSync(ready, "utf8")) await sleep(50);
const address = `127.0.0.1:${readFileSync(ready, "utf8").split(":").at(-1)}`;

const options = process.argv.slice(2);
const isPython = options[0] === "python";
const [command, ...words] = isPython
  ? [python, "-m", "stepwire.worker", "stepwire.bench.flows:app", "--slots", "100"]
  : [process.execPath, ...options, join(ROOT, "build/bench/flows.js")];
const workers = Array.from({ length: WORKERS }, () =>
  spawn(command, words, { env: { ...process.env, STEPWIRE_EXECUTOR: address, SLOTS: "100" }, stdio: "ignore" }),
);
const client = new Client({ executor: address });
while ((await client.workers()).length < WORKERS) await sleep(50);

async function median(name, data) {
  const times = [];
  for (let round = 0; round < ROUNDS + 2; round++) {
    const begun = performance.now();
    const { runIds } = await client.send({ name, data });
    await client.result(runIds[0]);
    times.push(performance.now() - begun);
  }
  const sorted = times.slice(2).sort((left, right) => left - right);
  return sorted[Math.floor(sorted.length / 2)];
}

/** CPU seconds of a process so far, where there is /proc. */
function cpuSeconds(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const [user, system] = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .slice(11, 13);
  return (Number(user) + Number(system)) / 100;
}

const processes = [executor, ...workers];
const before = processes.map((each) => cpuSeconds(each.pid));
const fan = await median("bench/fan", { count: 1000 });
const used = processes.map((each, index) => (cpuSeconds(each.pid) - before[index]) / (ROUNDS + 2));
const chain = await median("bench/chain", { count: 100 });
console.log(
  `fan-out of 1,000: ${fan.toFixed(0)} ms, ${fan.toFixed(0)} µs a step; ` +
    `CPU of executor ${(used[0] * 1000).toFixed(0)} ms, workers ${used
      .slice(1)
      .map((each) => (each * 1000).toFixed(0))
      .join(" and ")} ms a run; chain of 100: ${(chain / 100).toFixed(2)} ms a step`,
);
client.close();
for (const each of [...workers, executor]) {
  const ended = once(each, "exit");
  each.kill("SIGTERM");
  await ended;
}
rmSync(folder, { recursive: true, force: true });
