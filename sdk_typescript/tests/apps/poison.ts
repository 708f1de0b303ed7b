/** An app for the tests: bodies that end their process, in the ways in which Node's processes end. */
import { serve, Stepwire } from "stepwire";

const app = new Stepwire({ id: "poison" });

const ENDS: Record<string, () => void> = {
  exit: () => process.exit(9),
  "run-out-of-memory": () => {
    const hoard: unknown[] = [];
    for (;;) hoard.push(new Array<object>(100_000).fill({}));
  },
  "throw-later": () => {
    // Before the body has come to rest: a body that has told what it waits for is not at work, and loses nothing.
    queueMicrotask(() => {
      throw new Error("nobody can catch this");
    });
  },
};

for (const [name, end] of Object.entries(ENDS)) {
  app.createFunction({ id: name }, { event: name }, async ({ step }) => {
    await step.run("before", () => 1);
    end();
    await step.sleep("after", "1h");
  });
}

app.createFunction({ id: "innocent" }, { event: "innocent" }, async ({ step }) => {
  const first = await step.run("first", () => 1);
  const others = await Promise.all([step.run("second", () => 2), step.run("third", () => 3)]);
  return first + others.length;
});

await serve(app, { slots: 8 });
