/** Errors as data. */

import type { Duration } from "../src/durations.js";
import { expect, test } from "vitest";

import { LONGEST } from "../src/durations.js";
import { NEVER_RETRIED } from "../src/errors.js";
import { failureOf } from "../src/failures.js";
import { NonRetriableError, RetryAfterError, RunFailedError, StepError, StepwireError } from "../src/index.js";
import { Values } from "../src/values.js";

test("a failure tells type, message and stack", () => {
  const failure = failureOf(new TypeError("no text"));
  expect(failure).toMatchObject({ type: "TypeError", message: "no text", retryable: true });
  expect(failure.stack).toMatch(/^TypeError: no text\n +at .*failures\.test\.ts/);
  expect([failure.retryAfter, failure.cause, failure.details]).toEqual([undefined, undefined, undefined]);
});

test("stacks leave out frames of this package", () => {
  try {
    new Values().encode({ amount: 10n }, "the output");
  } catch (error) {
    expect((error as Error).stack).toMatch(/src.json_values/);
    const { stack } = failureOf(error);
    expect(stack).toMatch(/^EncodingError: .*\n +at .*failures\.test\.ts/);
    expect(stack).not.toMatch(/src.json_values/);
  }
  expect.assertions(3);
});

test("the type is the error's name, or its class if it has not named itself", () => {
  class CardDeclined extends Error {}
  class Named extends Error {
    override name = "PaymentError";
  }
  const renamed = new Error("x");
  renamed.name = "AbortError";
  const types = [new CardDeclined("x"), new Named("x"), renamed, new DOMException("x", "TimeoutError"), new Error("x")];
  expect(types.map((error) => failureOf(error).type)).toEqual([
    "CardDeclined",
    "PaymentError",
    "AbortError",
    "TimeoutError",
    "Error",
  ]);
});

test.each(NEVER_RETRIED.map((type) => [type]))("%o is never retried", (type) => {
  expect(failureOf(new type("x" as never))).toMatchObject({ retryable: false, type: type.name });
});

test("a subclass of such an error is not retried either", () => {
  class CardDeclinedError extends NonRetriableError {
    override name = "CardDeclinedError";
  }
  expect(failureOf(new CardDeclinedError("no"))).toMatchObject({ type: "CardDeclinedError", retryable: false });
});

test.each<[number | string | Date, number]>([
  [2500, 2500],
  ["1 minute", 60_000],
  [0, 0],
  [Number.POSITIVE_INFINITY, LONGEST],
  ["400 days", LONGEST],
  [new Date(0), 0],
])("a RetryAfterError of %o has its delay", (delay, expected) => {
  expect(failureOf(new RetryAfterError("busy", delay as Duration | Date))).toMatchObject({
    retryable: true,
    retryAfter: expected,
  });
});

test("a RetryAfterError may name the time", () => {
  const { retryAfter = 0 } = failureOf(new RetryAfterError("busy", new Date(Date.now() + 60_000)));
  expect(retryAfter).toBeGreaterThan(55_000);
  expect(retryAfter).toBeLessThanOrEqual(60_000);
});

test.each([-1, "soon", Number.NaN, new Date(Number.NaN)])("a RetryAfterError of %o is refused", (delay) => {
  expect(() => new RetryAfterError("busy", delay as never)).toThrow(RangeError);
});

test("causes are told, at most 16 deep, and none twice", () => {
  let error = new Error("0");
  for (let depth = 1; depth < 30; depth += 1) error = new Error(String(depth), { cause: error });
  let failure: ReturnType<typeof failureOf> | undefined = failureOf(error);
  const messages = [];
  for (; failure; failure = failure.cause) messages.push(failure.message);
  expect(messages).toEqual(Array.from({ length: 17 }, (_, index) => String(29 - index)));
  const round = new Error("round");
  round.cause = new Error("trip", { cause: round });
  expect(failureOf(round)).toMatchObject({ message: "round", cause: { message: "trip", cause: undefined } });
  expect(failureOf(new Error("a", { cause: "a text" })).cause).toMatchObject({ type: "Error", message: "a text" });
});

test("a step error keeps its origin", () => {
  const origin = { type: "CardError", message: "declined", stack: "there", retryable: false };
  const error = new StepError("charge", 2, origin, 5);
  expect(error).toMatchObject({ name: "CardError", message: "declined", stack: "there", step: "charge", index: 2 });
  expect(error).toBeInstanceOf(StepwireError);
  expect(failureOf(error)).toMatchObject({
    type: "StepError",
    message: "step 'charge:2' failed after 5 attempts: CardError: declined",
    cause: origin,
  });
});

test("a run that failed says why", () => {
  const cause = { type: "CardError", message: "declined", stack: "there", retryable: false };
  const error = new RunFailedError("r1", {
    type: "StepError",
    message: "step 'charge' failed",
    stack: "",
    retryable: false,
    cause,
  });
  expect(error.message).toBe("run r1 failed: StepError: step 'charge' failed");
  expect(error.cause).toMatchObject({ name: "StepError", cause: { name: "CardError", message: "declined" } });
});

test("the members of an AggregateError are in its stack", () => {
  const failure = failureOf(new AggregateError([new TypeError("one"), "two"], "none"));
  expect(failure.stack).toMatch(/\[errors 0\] TypeError: one\n[^]*\[errors 1\] two/);
});

test("long texts are cut: messages at their end, stacks at their beginning", () => {
  const error = new Error("é".repeat(40_000));
  error.stack = `begin${"é".repeat(40_000)}end`;
  const { message, stack } = failureOf(error);
  expect([Buffer.byteLength(message) <= 65_536, Buffer.byteLength(stack) <= 65_536]).toEqual([true, true]);
  expect([message.endsWith("é[…]"), stack.startsWith("[…]é"), stack.endsWith("end")]).toEqual([true, true, true]);
  expect(failureOf(new Error("a\ud800b")).message).toBe("a\ufffdb");
});

test.each<[string, () => unknown, string]>([
  ["a text", () => "only a text", "only a text"],
  ["nothing", () => undefined, "undefined was thrown, which is no Error"],
  ["an object", () => ({ code: 7 }), '{"code":7} was thrown, which is no Error'],
  ["what looks like an error", () => ({ name: "E", message: "like one" }), "like one"],
  ["a symbol", () => Symbol("s"), "Symbol(s) was thrown, which is no Error"],
  ["a BigInt", () => 7n, "7 was thrown, which is no Error"],
  ["an object without a prototype", () => Object.create(null) as unknown, "{} was thrown, which is no Error"],
  [
    "an error whose message throws",
    () =>
      Object.defineProperty(new Error("x"), "message", {
        get: () => {
          throw new Error("no");
        },
      }),
    "(can't be had: reading it throws)",
  ],
  ["an error whose message is no text", () => Object.assign(new Error("x"), { message: { a: 1 } }), "[object Object]"],
  [
    "a proxy that was revoked",
    () => {
      const { proxy, revoke } = Proxy.revocable({}, {});
      revoke();
      return proxy;
    },
    "what was thrown can't be described",
  ],
])("%s can be thrown", (_, thrown, message) => {
  expect(failureOf(thrown())).toMatchObject({ message, retryable: true });
});

/** Chain errors by their causes. */
function chain(...errors: Error[]): Error {
  errors.forEach((error, index) => {
    if (errors[index + 1] !== undefined) error.cause = errors[index + 1];
  });
  const [first] = errors;
  if (!first) throw new Error("no errors");
  return first;
}

const says = (error: unknown): [boolean, number | undefined] => {
  const { retryable, retryAfter } = failureOf(error);
  return [retryable, retryAfter];
};

test("a delay in the chain of causes counts", () => {
  expect(says(chain(new Error("x"), new TypeError("y"), new RetryAfterError("busy", 7000)))).toEqual([true, 7000]);
});

test("a cause that is not to be retried stays so", () => {
  expect(says(chain(new Error("x"), new NonRetriableError("no")))).toEqual([false, undefined]);
  const failure = { type: "NonRetriableError", message: "no", stack: "", retryable: false };
  expect(says(chain(new Error("x"), new StepError("a", 0, failure, 1)))[0]).toBe(false);
  const retried = new StepError("a", 0, { ...failure, type: "Error", retryable: true }, 5);
  expect(says(chain(new Error("x"), retried))[0]).toBe(true);
});

test("the outermost error that says something decides", () => {
  expect(says(chain(new RetryAfterError("busy", 7000), new NonRetriableError("no")))).toEqual([true, 7000]);
  expect(says(chain(new NonRetriableError("no"), new RetryAfterError("busy", 7000)))).toEqual([false, undefined]);
});

test("an AggregateError says what its members say", () => {
  const delays = [
    new RetryAfterError("a", 3000),
    new Error("x"),
    chain(new Error("y"), new RetryAfterError("b", 9000)),
  ];
  expect(says(new AggregateError(delays))).toEqual([true, 9000]);
  expect(says(new AggregateError([...delays, new AggregateError([new NonRetriableError("no")])]))[0]).toBe(false);
});

test("causes that go in a circle end", () => {
  const [first, second] = [new Error("a"), new Error("b")];
  first.cause = second;
  second.cause = first;
  expect(says(first)).toEqual([true, undefined]);
});

test("a note of ours stands below the stack", () => {
  expect(failureOf(new Error("x"), "in a replay").stack).toMatch(/failures\.test\.ts:[^\n]*\n(.*\n)*in a replay$/);
});
