import { expect, test } from "vitest";
import { ExecutorError, WaitTimeoutError } from "../src/errors.js";
import { Patience } from "../src/patience.js";

const LOST = new ExecutorError("UNAVAILABLE", "nobody there");
const LATE = new ExecutorError("DEADLINE_EXCEEDED", "too late");

function patience(waitsFor: string, timeout: number, retryFor = 5_000) {
  const time = { now: 0 };
  return { time, it: new Patience({ waitsFor, timeout, retryFor, clock: () => time.now, draw: () => 1 }) };
}

test("a call that finds no executor is made again with growing delays, for a while", () => {
  const { time, it } = patience("", 30_000);
  const delays: number[] = [];
  expect(() => {
    for (;;) {
      const delay = it.delayAfter(LOST);
      delays.push(delay);
      time.now += delay;
    }
  }).toThrow(LOST);
  expect(delays).toEqual([120, 220, 420, 820, 1620, 2020]);
});

test("a call that waits goes on until its timeout, and its deadlines are no failures", () => {
  const { time, it } = patience("run r", 100_000);
  expect(it.tryMs).toBe(30_000);
  for (let round = 0; round < 3; round++) {
    time.now += 30_000;
    expect(it.delayAfter(LATE)).toBe(20);
  }
  expect(it.tryMs).toBe(10_000);
  time.now = 99_990;
  expect(() => it.delayAfter(LATE)).toThrow(WaitTimeoutError);
  expect(() => it.delayAfter(LATE)).toThrow(/run r has not ended within 100 s/);
});

test("the executor's own delay is obeyed, other errors are final", () => {
  const { it } = patience("", 30_000);
  const full = new ExecutorError("RESOURCE_EXHAUSTED", "full");
  expect(it.delayAfter(full, 400)).toBe(500);
  expect(() => it.delayAfter(full)).toThrow(full);
  expect(() => it.delayAfter(LATE)).toThrow(LATE);
});
