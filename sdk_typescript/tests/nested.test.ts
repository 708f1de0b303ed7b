/** Step code that starts a step fails its attempt, whatever it makes of the error. */

import { fromBinary } from "@bufbuild/protobuf";
import { setTimeout as pause } from "node:timers/promises";
import { expect, test } from "vitest";

import { AttemptSchema } from "../src/gen/stepwire/v1/value_pb.js";
import { WorkerMessageSchema } from "../src/gen/stepwire/v1/worker_pb.js";
import { type Step, Stepwire } from "../src/index.js";
import { Attempts } from "../src/worker/attempts.js";
import { create } from "@bufbuild/protobuf";
import { invocation } from "./replay/driver.js";

const quiet = { debug: ignore, info: ignore, warn: ignore, error: ignore };

function ignore(): void {
  // Nothing to do.
}

/** Run code of steps side by side as a worker does; gives the kind of each step's report, and its failure. */
async function reports(codes: Record<string, (step: Step) => unknown>): Promise<Record<string, string>> {
  const live = invocation(({ step }) =>
    Promise.all(Object.entries(codes).map(([id, code]) => step.run(id, () => code(step)))),
  );
  const { found } = await live.start([]);
  const told: Record<string, string> = {};
  const attempts = new Attempts(new Stepwire({ id: "app" }), quiet, (_, bytes) => {
    const { kind } = fromBinary(WorkerMessageSchema, bytes);
    if (kind.case === "stepRun") told[kind.value.attempt?.key?.id ?? ""] = "succeeded";
    if (kind.case !== "stepFailed") return;
    const { failure, attempt } = kind.value;
    const policy = failure?.retryable ? "retried" : "never retried";
    told[attempt?.key?.id ?? ""] = `${failure?.type ?? ""}, ${policy}: ${failure?.message ?? ""}`;
  });
  for (const [number, { key }] of found.entries()) {
    const attempt = create(AttemptSchema, { runId: "run-1", key, fence: BigInt(number + 1) });
    const code = live.closure(key);
    if (code) attempts.start({ attempt, number: 1, traceparent: "", functionId: "f" }, code);
  }
  await expect.poll(() => Object.keys(told).length, { timeout: 20_000 }).toBe(found.length);
  return told;
}

async function swallows(step: Step): Promise<string> {
  try {
    return await step.run("inner", () => "x");
  } catch {
    return "swallowed";
  }
}

async function afterPauses(step: Step): Promise<string> {
  await pause(1);
  return await Promise.resolve().then(async () => await swallows(step));
}

async function throwsAnother(step: Step): Promise<string> {
  try {
    return await step.run("inner", () => "x");
  } catch {
    throw new RangeError("try again");
  }
}

test("a step that tried to start a step fails whatever its code makes of it, and no other", async () => {
  const told = await reports({ swallows, afterPauses, throwsAnother, good: afterAPause });
  for (const id of ["swallows", "afterPauses", "throwsAnother"]) {
    expect(told[id]).toContain(`NestedStepError, never retried: step 'inner' was started by the code of step '${id}'`);
  }
  expect(told.good).toBe("succeeded");
});

async function afterAPause(): Promise<number> {
  await pause(5);
  return 1;
}
