import { describe, expect, test } from "vitest";
import { Stepwire, Worker, type WorkerOptions } from "stepwire";

const app = new Stepwire({ id: "shop" });

describe("a worker's options", () => {
  test.each<[WorkerOptions, RegExp]>([
    [{ slots: 0 }, /slots is 0: give a whole number from 1 to 10000/],
    [{ slots: 10_001 }, /slots/],
    [{ slots: 1.5 }, /slots/],
    [{ maxInvocations: 0 }, /maxInvocations/],
    [{ drainSeconds: -1 }, /drainSeconds/],
    [{ executor: "nowhere" }, /is no address of an executor/],
  ])("%j is refused", (options, message) => {
    expect(() => new Worker(app, options)).toThrow(message);
  });

  test("its id names host and process, and differs from the next worker's", () => {
    const [one, two] = [new Worker(app), new Worker(app)];
    expect(one.instanceId).toContain(`-${String(process.pid)}-`);
    expect(one.instanceId).not.toBe(two.instanceId);
    expect(new Worker(app, { instanceId: "mine" }).instanceId).toBe("mine");
  });
});

test("a worker that finds no executor goes on trying until it is drained; then it has run", async () => {
  const lines: string[] = [];
  const note = (...line: unknown[]): void => void lines.push(line.join(" "));
  const logger = { debug: note, info: note, warn: note, error: note };
  const worker = new Worker(app, { executor: "127.0.0.1:1,127.0.0.1:2", logger });
  const served = worker.run();
  await expect
    .poll(() => lines.filter((line) => line.includes("is lost: UNAVAILABLE")).length, { timeout: 30_000 })
    .toBeGreaterThanOrEqual(3);
  worker.drain();
  await served;
  const lost = lines.filter((line) => line.includes("is lost")).map((line) => /to (\S+) is lost/.exec(line)?.[1]);
  expect(lost.slice(0, 3)).toEqual(["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1"]);
  await expect(worker.run()).rejects.toThrow(/has run already/);
  await expect(worker.connected()).rejects.toThrow(/has ended before it was connected/);
});
