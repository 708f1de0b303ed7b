/** One half of an app that Python workers serve too (tests/polyglot/fleet.py): a function of its own, a task of both. */
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { serve, Stepwire } from "stepwire";

interface Asked {
  n: number;
  /** A file without which it does not go on; none if empty. */
  gate: string;
}

interface Squared {
  square: number;
  by: string;
}

const app = new Stepwire<{ "fleet/from-typescript": { count: number; gate: string } }>({ id: "fleet" });

app.task("square", async ({ n, gate }: Asked): Promise<Squared> => {
  await sleep(5);
  while (gate !== "" && !existsSync(gate)) await sleep(10);
  return { square: n * n, by: "typescript" };
});

app.createFunction({ id: "from-typescript" }, { event: "fleet/from-typescript" }, async ({ event, step }) => {
  const { count, gate } = event.data;
  const asked = Array.from({ length: count }, (_, n): Asked => ({ n, gate: n >= count / 2 ? gate : "" }));
  const squares = await Promise.all(asked.map((each) => step.call<Squared>("square", each)));
  const sum = await step.run("sum", () => squares.reduce((total, { square }) => total + square, 0));
  return { sum, by: squares.map(({ by }) => by) };
});

await serve(app, { slots: 16 });
