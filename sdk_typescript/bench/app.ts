/** The functions of `stepwire bench`, whose steps do nothing, so that what remains is Stepwire's own time. */
import { serve, Stepwire } from "stepwire";

interface Size {
  count: number;
}

const app = new Stepwire<{ "bench/fan": Size; "bench/chain": Size }>({ id: "bench" });

app.createFunction({ id: "fan" }, { event: "bench/fan" }, async ({ event, step }) => {
  const numbers = Array.from({ length: event.data.count }, (_, n) => n);
  const results = await Promise.all(numbers.map((n) => step.run("nothing", () => n)));
  return results.length;
});

app.createFunction({ id: "chain" }, { event: "bench/chain" }, async ({ event, step }) => {
  let last = 0;
  for (let n = 1; n <= event.data.count; n++) last = await step.run("next", () => n);
  return last;
});

await serve(app, { slots: 100 });
