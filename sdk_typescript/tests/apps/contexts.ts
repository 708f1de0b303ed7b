/** An app for the tests: a body in an AsyncLocalStorage's store, and steps that look for it. */
import { AsyncLocalStorage } from "node:async_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { serve, Stepwire } from "stepwire";

const app = new Stepwire({ id: "contexts" });
const tenant = new AsyncLocalStorage<string>();

const seen = (): string => tenant.getStore() ?? "nobody";
const seenLater = async (): Promise<string> => {
  await sleep(1);
  return seen();
};

app.task("look", seen);

app.createFunction({ id: "looks" }, { event: "looks" }, async ({ step }) => {
  const beginsWith = seen();
  return await tenant.run("acme", async () => {
    const lone = await step.run("lone", seen);
    const later = await step.run("later", seenLater);
    const together = await Promise.all([
      step.run("a", seen),
      step.run("b", seenLater),
      step.call<string>("look", null),
    ]);
    return { beginsWith, lone, later, together, body: seen() };
  });
});

await serve(app);
