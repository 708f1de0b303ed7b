// A client in TypeScript: it sends an event, waits for the run that it starts, and prints the run's output.
//
//   node dist/src/client.js 127.0.0.1:8377 files/arrived '{"contents": ["a", "b"]}'
//
// It shows what is made from the contract alone; the package in sdk_typescript has a client with more comfort.
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { EventService } from "../gen/typescript/stepwire/v1/event_pb.js";
import { RunService, RunState } from "../gen/typescript/stepwire/v1/run_pb.js";

const patience = { timeoutMs: 60_000 };
/** Whoever raises --max-output-bytes over its 3 MB gets messages over the 4 MiB that many libraries take. */
const maxReceivedBytes = 64 * 1024 * 1024;

async function send(address: string, name: string, data: string): Promise<string> {
  // Plain text: with TLS and a token, use https and an interceptor that sets the header "authorization".
  const transport = createGrpcTransport({ baseUrl: `http://${address}`, readMaxBytes: maxReceivedBytes });
  const event = { name, data: { data: new TextEncoder().encode(data), encoding: "json" } };
  const sent = await createClient(EventService, transport).sendEvents({ events: [event] }, patience);
  const runId = sent.receipts[0]?.runIds[0];
  if (runId === undefined) {
    throw new Error(`no function takes the event ${name}: has its worker been connected?`);
  }
  const { run } = await createClient(RunService, transport).waitRun({ runId }, patience);
  if (run?.state !== RunState.SUCCEEDED) {
    throw new Error(`run ${runId} has not succeeded: ${run?.failure?.type}: ${run?.failure?.message}`);
  }
  return new TextDecoder().decode(run.output?.data);
}

const [address, name, data] = process.argv.slice(2);
if (address === undefined || name === undefined || data === undefined) {
  console.error("usage: client HOST:PORT EVENT JSON");
  process.exit(1);
}
try {
  console.log(await send(address, name, data));
} catch (error) {
  const words = error instanceof ConnectError ? `${Code[error.code]}: ${error.rawMessage}` : String((error as Error).message);
  console.error(error instanceof ConnectError ? `the executor at ${address}: ${words}` : words);
  process.exit(1);
}
