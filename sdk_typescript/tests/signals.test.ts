/** What the stream's thread does at a signal, by what the main thread does of it; with a clock of its own. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Phase, SignalWatch } from "../src/worker/signals.js";

const DRAIN_MS = 10_000;
let phase: number;
let said: string[];
let watch: SignalWatch;

beforeEach(() => {
  vi.useFakeTimers();
  phase = Phase.serving;
  said = [];
  const say = (what: string) => (): Promise<void> => {
    if (said.at(-1) !== what) said.push(what);
    return Promise.resolve();
  };
  watch = new SignalWatch({
    clock: () => performance.now(),
    drainMs: DRAIN_MS,
    phase: () => phase,
    announce: () => void say("announce")(),
    surrender: say("surrender"),
    exit: say("exit"),
    kill: say("kill"),
  });
});

afterEach(() => {
  vi.useRealTimers();
});

test("a main thread that drains in time is left alone", async () => {
  watch.heard();
  phase = Phase.draining;
  await vi.advanceTimersByTimeAsync(DRAIN_MS - 1_000);
  expect(said).toEqual([]);
});

test("one that does not answer is spoken for, and its process ended at the deadline", async () => {
  watch.heard();
  await vi.advanceTimersByTimeAsync(400);
  expect(said).toEqual([]);
  await vi.advanceTimersByTimeAsync(DRAIN_MS - 500);
  expect(said).toEqual(["announce"]);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(said).toEqual(["announce", "surrender", "exit", "kill"]);
});

test("a second signal ends it at once, but not before the main thread could", async () => {
  watch.heard();
  await vi.advanceTimersByTimeAsync(1_000);
  watch.heard();
  await vi.advanceTimersByTimeAsync(400);
  expect(said).toEqual(["announce"]);
  await vi.advanceTimersByTimeAsync(200);
  expect(said).toEqual(["announce", "surrender", "exit", "kill"]);
});

test("one that is blocked after its last word is ended some seconds later, or at a third signal", async () => {
  watch.heard();
  phase = Phase.closing;
  await vi.advanceTimersByTimeAsync(3_000);
  expect(said).toEqual([]);
  for (let n = 0; n < 2; n += 1) watch.heard();
  await vi.advanceTimersByTimeAsync(200);
  expect(said).toEqual(["surrender", "exit", "kill"]);
});
