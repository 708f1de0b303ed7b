/** The stream's thread: user code that blocks the event loop of the main thread costs the worker no lease. */
import { parentPort, workerData } from "node:worker_threads";
import type { FromThread, ThreadData, ToThread } from "./messages.js";
import { Streams } from "./streams.js";

if (parentPort === null) throw new Error("this file is the stream's thread of a worker: it is no program of its own");
const port = parentPort;
const streams = new Streams(workerData as ThreadData, (message: FromThread, transfer: ArrayBuffer[] = []) => {
  port.postMessage(message, transfer);
});
port.on("message", (message: ToThread) => {
  streams.take(message);
});
await streams.run();
// While signals are watched, the main thread ends this one, or this one the process.
if (!streams.watchesSignals) port.close();
