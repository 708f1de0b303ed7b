import { expect, test } from "vitest";
import { Pulse } from "../src/worker/pulse.js";

/** A pulse by hand: time stands still until `pass`. */
function pulseByHand() {
  let now = 0;
  let asked = 0;
  let answered = 0;
  const beats: { at: number; lag: number; stack: string }[] = [];
  const silences: number[] = [];
  const warnings: string[] = [];
  const pulse = new Pulse({
    clock: () => now,
    ping: (number) => (asked = number),
    answered: () => answered,
    stack: () => Promise.resolve("    at work (work.js:1:1)"),
    beat: (lag, stack) => beats.push({ at: now, lag, stack }),
    silent: (milliseconds) => silences.push(milliseconds),
    warn: (message) => warnings.push(message),
  });
  const state = { blocked: false, hears: true };
  const pass = async (milliseconds: number, step = 100): Promise<void> => {
    for (let passed = 0; passed < milliseconds; passed += step) {
      pulse.start(); // notes when the wait began
      pulse.stop();
      now += step;
      if (state.hears) pulse.hear();
      if (!state.blocked) answered = asked;
      pulse.tick();
      await Promise.resolve();
    }
  };
  return { pulse, pass, state, beats, silences, warnings };
}

test("it beats at once, and then three times in an interval", async () => {
  const { pulse, pass, beats } = pulseByHand();
  await pass(1000);
  expect(beats).toEqual([]); // nobody is there
  pulse.welcome(3000);
  await pass(3000);
  expect(beats.map((beat) => beat.at - 1000)).toEqual([0, 1000, 2000, 3000]);
  expect(beats.every((beat) => beat.lag === 0)).toBe(true);
});

test("a silence of more than two intervals is told once", async () => {
  const { pulse, pass, state, silences, beats } = pulseByHand();
  pulse.welcome(300);
  await pass(1000);
  expect(silences).toEqual([]);
  state.hears = false;
  await pass(2000, 50);
  expect(silences).toEqual([650]);
  expect(beats.length).toBeLessThan(25); // it does not beat into the void
});

test("silence while the process stood still does not count", async () => {
  const { pulse, pass, state, silences } = pulseByHand();
  pulse.welcome(300);
  state.hears = false;
  await pass(5000, 5000);
  expect(silences).toEqual([]);
});

test("a blocked loop is told with its lag and stack, until it goes on", async () => {
  const { pulse, pass, state, beats, warnings } = pulseByHand();
  pulse.welcome(300);
  state.blocked = true;
  await pass(3000);
  expect(warnings.length).toBe(1);
  expect(warnings[0]).toMatch(/blocked the event loop for 1\.\d s.*\n {4}at work/);
  expect(beats.at(-1)?.lag).toBeGreaterThan(2500);
  expect(beats.at(-1)?.stack).toContain("at work");
  state.blocked = false;
  await pass(500);
  expect(beats.at(-1)).toMatchObject({ lag: 0, stack: "" });
});
