/** One half of an app that Python workers serve too (tests/polyglot/fleet.py): a function of its own, a task of both. */
import { setTimeout as sleep } from "node:timers/promises";
import { serve, Stepwire } from "stepwire";

interface Squared {
  square: number;
  by: string;
}

const app = new Stepwire<{ "fleet/from-typescript": { count: number } }>({ id: "fleet" });

app.task("square", async (n: number): Promise<Squared> => {
  await sleep(5);
  return { square: n * n, by: "typescript" };
});

app.createFunction({ id: "from-typescript" }, { event: "fleet/from-typescript" }, async ({ event, step }) => {
  const numbers = Array.from({ length: event.data.count }, (_, n) => n);
  const squares = await Promise.all(numbers.map((n) => step.call<Squared>("square", n)));
  const sum = await step.run("sum", () => squares.reduce((total, { square }) => total + square, 0));
  return { sum, by: squares.map(({ by }) => by) };
});

await serve(app, { slots: 16 });
