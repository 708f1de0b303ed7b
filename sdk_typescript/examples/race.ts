/** Who comes first, who comes at all, and who does not: `race`, `any` and `allSettled` replay the same way every time. */
import { setTimeout as delay } from "node:timers/promises";
import { Stepwire } from "stepwire";
import { runOnce } from "./run_once.js";

const app = new Stepwire<{ "quote/requested": { from: string; to: string } }>({ id: "quotes" });

async function ask(carrier: string, answersAfter: number): Promise<string> {
  await delay(answersAfter); // ask the carrier
  if (carrier === "closed") throw new Error("nobody is in the office");
  return `${carrier} takes it`;
}

app.createFunction({ id: "find-carrier" }, { event: "quote/requested" }, async ({ step }) => {
  const fast = step.run("ask-fast", () => ask("fast", 10));
  const slow = step.run("ask-slow", () => ask("slow", 300));
  const closed = step.run({ id: "ask-closed", retries: 0 }, () => ask("closed", 1));

  const inTime = await Promise.race([slow, step.sleep("deadline", 100).then(() => "too late")]);
  const first = await Promise.any([closed, fast]);
  const settled = await Promise.allSettled([fast, slow, closed]);
  return { inTime, first, answers: settled.filter((each) => each.status === "fulfilled").length };
});

await runOnce(app, { name: "quote/requested", data: { from: "Bern", to: "Oslo" } });
