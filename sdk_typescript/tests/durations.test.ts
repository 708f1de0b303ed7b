/** Durations as users write them. */

import { expect, test } from "vitest";

import { LONGEST, milliseconds } from "../src/durations.js";
import { InvalidStepError } from "../src/index.js";

test.each<[number | string, number]>([
  [0, 0],
  [1500, 1500],
  [0.5, 0.5],
  ["250ms", 250],
  ["10s", 10_000],
  ["10 s", 10_000],
  ["1 sec", 1000],
  ["2 seconds", 2000],
  ["1m", 60_000],
  ["5 mins", 300_000],
  ["1.5h", 5_400_000],
  ["2 hrs", 7_200_000],
  ["1h 30m", 5_400_000],
  ["1h30m15s", 5_415_000],
  ["1 day", 86_400_000],
  ["2 Days", 172_800_000],
  ["1w", 604_800_000],
  ["3 weeks", 1_814_400_000],
  [" 1 d ", 86_400_000],
  [LONGEST, LONGEST],
])("%j is %d ms", (duration, expected) => {
  expect(milliseconds(duration, "it", InvalidStepError)).toBe(expected);
});

test.each<[unknown, string]>([
  ["", 'it is "", but must be a number of milliseconds or a text like "10s" or "1 day"'],
  ["10", 'it is "10", but must be'],
  ["s", 'it is "s", but must be'],
  ["10 fortnights", 'it is "10 fortnights", but must be'],
  ["-5s", 'it is "-5s", but must be'],
  ["5s and more", 'it is "5s and more", but must be'],
  ["5s, 3m", 'it is "5s, 3m", but must be'],
  [Number.NaN, "it is NaN, but must be"],
  [true, "it is true, but must be"],
  [null, "it is null, but must be"],
  [undefined, "it is undefined, but must be"],
  [10n, "it is 10, but must be"],
  [{ days: 1 }, 'it is {"days":1}, but must be'],
  [new Date(0), 'it is "1970-01-01T00:00:00.000Z", but must be'],
  [-1, "it is -1, but must not be negative"],
  [Number.POSITIVE_INFINITY, "it is Infinity, over the limit of 366 days (--max-sleep)"],
  [LONGEST + 1, "over the limit of 366 days (--max-sleep)"],
  ["53 weeks", 'it is "53 weeks", over the limit of 366 days'],
])("what is no duration is refused: case %#", (duration, words) => {
  expect(() => milliseconds(duration, "it", InvalidStepError)).toThrow(words);
  expect(() => milliseconds(duration, "it", InvalidStepError)).toThrow(InvalidStepError);
});
