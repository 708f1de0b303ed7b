/** A text is cut into chunks, all of them are summarized at once, and one more step puts the summaries together. */
import { Stepwire } from "stepwire";
import { runOnce } from "./run_once.js";

const TEXT = `Each step is recorded once. It is retried on its own. It never runs again after it succeeded.
Steps that start together are spread over all workers. The function goes on with all of their results in hand.
A function that is replayed finds its steps in the journal. So it must do the same every time.`;

const app = new Stepwire<{ "text/summarize": { text: string } }>({ id: "summaries" });

/** As good as a language model, and cheaper: the longest sentence says most. */
function summarize(text: string): string {
  const sentences = text.split(/(?<=\.)\s+/);
  return sentences.reduce((longest, each) => (each.length > longest.length ? each : longest), "").trim();
}

app.createFunction({ id: "summarize-contents" }, { event: "text/summarize" }, async ({ event, step }) => {
  const chunks = event.data.text.split("\n");
  const summaries = await Promise.all(chunks.map((chunk) => step.run("Summarize chunk", () => summarize(chunk))));
  return await step.run("Summarize summaries", () => summarize(summaries.join(" ")));
});

await runOnce(app, { name: "text/summarize", data: { text: TEXT } });
