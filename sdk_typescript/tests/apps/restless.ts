/** An app for the tests: bodies that do not come to rest, and bodies and steps that throw what nobody expects. */
import { setTimeout as sleep } from "node:timers/promises";
import { serve, Stepwire } from "stepwire";

const app = new Stepwire({ id: "restless" });

async function work(): Promise<number> {
  await sleep(100);
  return 1;
}

app.createFunction({ id: "polls", retries: 0 }, { event: "polls" }, async ({ step }) => {
  let done = false;
  void step.run("work", work).then(() => (done = true));
  // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- this is the point
  while (!done) await Promise.resolve();
});

app.createFunction({ id: "polls-later", retries: 0 }, { event: "polls-later" }, async ({ step }) => {
  await step.run("first", work);
  const again = (): void => {
    queueMicrotask(again);
  };
  again();
  await step.run("second", work);
});

app.createFunction({ id: "polls-from-text", retries: 0 }, { event: "polls-from-text" }, async () => {
  // eslint-disable-next-line @typescript-eslint/no-implied-eval -- code that is in no file
  const poll = new Function("return (async () => { for (;;) await null; })()") as () => Promise<void>;
  await poll();
});

app.createFunction({ id: "calls-wrongly", retries: 0 }, { event: "calls-wrongly" }, async ({ step }) => {
  for (;;) {
    try {
      await step.run("", work);
    } catch {
      continue;
    }
  }
});

app.createFunction({ id: "computes", retries: 0 }, { event: "computes" }, () => {
  let last = 0;
  for (const n of endless()) last = n;
  return last;
});

app.createFunction({ id: "plain" }, { event: "plain" }, async ({ step }) => await step.run("work", work));

function* endless(): Generator<number> {
  for (let n = 0; n >= 0; n = (n + 1) % 1000) yield n;
}

/** An object that throws whatever is asked of it. */
function unwilling(): object {
  const refuse = (): never => {
    throw new Error("nothing is told");
  };
  return new Proxy({}, { get: refuse, getPrototypeOf: refuse, has: refuse, ownKeys: refuse });
}

class SpeechlessError extends Error {
  override get message(): string {
    throw new Error("no message");
  }
  override get name(): string {
    throw new Error("no name");
  }
  override get stack(): string {
    throw new Error("no stack");
  }
}

function circle(): Error {
  const error = new AggregateError([], "circle");
  error.errors.push(error, error, error, new Error("inside"));
  error.cause = error;
  return error;
}

const odd: Record<string, () => unknown> = {
  undefined: () => undefined,
  null: () => null,
  text: () => "a text",
  number: () => 0,
  symbol: () => Symbol("odd"),
  function: () => work,
  frozen: () => Object.freeze({ message: "frozen" }),
  unwilling,
  speechless: () => new SpeechlessError(),
  aggregate: () => new AggregateError([new Error("a"), "b", null], "several"),
  circle,
  revoked: () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  },
};

app.createFunction({ id: "throws", retries: 0 }, { event: "throws" }, async ({ event, step }) => {
  const { what, where } = event.data as { what: string; where: string };
  const fail = (): never => {
    throw odd[what]?.();
  };
  if (where === "body at once") fail();
  await step.run("work", work);
  if (where === "step") await step.run("fails", fail, { retries: 0 });
  if (where === "async step") {
    const failLater = async (): Promise<void> => {
      await sleep(1);
      fail();
    };
    await step.run("fails", failLater, { retries: 0 });
  }
  fail();
});

await serve(app, { slots: 4 });
