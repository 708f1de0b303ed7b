/**
 * A worker that only runs tasks. Functions of the same app call them by name, in whatever language they are written:
 * `step.call("shrink", …)`. It serves until SIGTERM, and then finishes what it has begun.
 */
import { gunzipSync, gzipSync } from "node:zlib";
import { serve, Stepwire } from "stepwire";

const app = new Stepwire({ id: "text-tools" });

app.task("shrink", (text: string) => gzipSync(text).toString("base64"));

app.task("grow", (shrunk: string, attempt) => {
  if (attempt.signal.aborted) throw new Error("not wanted any more");
  return gunzipSync(Buffer.from(shrunk, "base64")).toString();
});

await serve(app, { slots: 16, labels: { language: "typescript" } });
