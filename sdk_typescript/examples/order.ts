/** Branches that hold several steps each, beside a wait for an event, another function and a task. */
import { createHash } from "node:crypto";
import { Stepwire } from "stepwire";
import { runOnce } from "./run_once.js";

interface Events {
  "order/placed": { order: string; items: string[] };
  "order/packed": { order: string };
}

const app = new Stepwire<Events>({ id: "orders" });

const checksum = app.task("checksum", (text: string) => createHash("sha256").update(text).digest("hex").slice(0, 8));

const ship = app.createFunction({ id: "ship" }, [], async ({ event, step }) => {
  const { order } = event.data as { order: string };
  await step.sleep("wait-for-pickup", "100ms");
  return await step.run("hand-over", () => `${order} is on its way`);
});

app.createFunction({ id: "fulfil", timeout: "1h" }, { event: "order/placed" }, async ({ event, step }) => {
  const { order, items } = event.data;

  const packed = step.waitForEvent("packed", { event: "order/packed", match: { order }, timeout: "10m" });
  const reserve = async (item: string): Promise<number> => {
    const shelf = await step.run("find-shelf", () => item.length);
    return await step.run("reserve", () => shelf * 10);
  };
  const [prices, label] = await Promise.all([
    Promise.all(items.map(reserve)),
    step.call(checksum, `${order}: ${items.join(", ")}`),
  ]);
  await step.sendEvent("tell-packers", { name: "order/packed", data: { order } }); // they are quick
  if ((await packed) === null) throw new Error(`order ${order} was not packed in time`);

  const shipped = await step.invoke("ship", { function: ship, data: { order } });
  return { label, shipped, total: prices.reduce((sum, price) => sum + price, 0) };
});

await runOnce(app, { name: "order/placed", data: { order: "o-7", items: ["tea", "honey"] } });
