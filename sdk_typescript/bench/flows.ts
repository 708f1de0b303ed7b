/** Functions whose steps do nothing, so that what remains is Stepwire's own time; twins of `stepwire.bench.flows`. */
import { serve, Stepwire } from "stepwire";

const app = new Stepwire<Record<"bench/fan" | "bench/chain", { count: number }>>({ id: "bench" });

app.createFunction({ id: "fan" }, { event: "bench/fan" }, async ({ event, step }) => {
  const { count } = event.data;
  const results = await Promise.all(Array.from({ length: count }, (_, n) => step.run("nothing", () => n)));
  return results.length;
});

app.createFunction({ id: "chain" }, { event: "bench/chain" }, async ({ event, step }) => {
  let n = 0;
  for (let link = 0; link < event.data.count; link++) n = await step.run("next", () => n + 1);
  return n;
});

await serve(app, { slots: Number(process.env.SLOTS) });
