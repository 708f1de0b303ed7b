/** What the examples share: serve an app, send one event, print the output of the run that it starts, and drain. */
import { Client, Worker, type App, type Event } from "stepwire";

/** The executor is where STEPWIRE_EXECUTOR says, else on 127.0.0.1:8377. */
export async function runOnce(app: App, event: Event): Promise<void> {
  const worker = new Worker(app);
  const served = worker.run();
  await worker.connected();

  const client = new Client();
  const { runIds } = await client.send(event);
  for (const runId of runIds) console.log(JSON.stringify(await client.result(runId, { timeout: "1m" })));
  client.close();

  worker.drain();
  await served;
}
