/**
 * Measures what carries the worker's stream: `node bench/transport.mjs`, with STEPWIRE_PYTHON naming a Python that has
 * grpcio, else ../.venv/bin/python. The packages that were not chosen are no dependencies: install them beside it first,
 * `npm install --no-save @grpc/grpc-js @connectrpc/connect @connectrpc/connect-node`.
 *
 * Every candidate speaks with the same grpc.aio server: 2,000 messages of 200 bytes one after the other, then 20,000 with
 * 256 under way; the client's CPU time is that of this process. Then it asks for a status and cuts the server.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import http2 from "node:http2";
import { createInterface } from "node:readline";

const ROUND_TRIPS = 2_000;
const MESSAGES = 20_000;
const UNDER_WAY = 256;

async function startServer() {
  const python = process.env.STEPWIRE_PYTHON ?? new URL("../../.venv/bin/python", import.meta.url).pathname;
  const server = spawn(python, [new URL("echo_server.py", import.meta.url).pathname], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const [port] = await once(createInterface(server.stdout), "line");
  return { server, port };
}

/** Each opens a stream and gives { send(bytes), close() }; `take` is called for each message, `end` with the status. */
const candidates = {
  async "@grpc/grpc-js"(port, take, end) {
    const grpc = await import("@grpc/grpc-js");
    const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), {
      "grpc.max_receive_message_length": -1,
    });
    const same = (bytes) => bytes;
    const call = client.makeBidiStreamRequest("/bench.Echo/Stream", same, same, new grpc.Metadata());
    call.on("data", take);
    call.on("error", () => undefined);
    call.on("status", (status) => end(`${status.code} ${status.details} ${status.metadata.get("reason")}`));
    return {
      send: (bytes) => call.write(bytes),
      close: () => {
        call.cancel();
        client.close();
      },
    };
  },
  async "@connectrpc/connect-node"(port, take, end) {
    const { createGrpcTransport } = await import("@connectrpc/connect-node");
    const { createFileRegistry, create } = await import("@bufbuild/protobuf");
    const { FileDescriptorProtoSchema, FileDescriptorSetSchema } = await import("@bufbuild/protobuf/wkt");
    const stream = { name: "Stream", inputType: ".bench.Raw", outputType: ".bench.Raw" };
    const file = create(FileDescriptorProtoSchema, {
      name: "bench.proto",
      syntax: "proto3",
      package: "bench",
      messageType: [{ name: "Raw", field: [{ name: "messages", number: 1, label: 3, type: 12 }] }],
      service: [{ name: "Echo", method: [{ ...stream, clientStreaming: true, serverStreaming: true }] }],
    });
    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: [file] }));
    const method = registry.getService("bench.Echo").method.stream;
    const transport = createGrpcTransport({ baseUrl: `http://127.0.0.1:${port}` });
    const abort = new AbortController();
    const queue = [];
    let wake = () => undefined;
    async function* input() {
      for (;;) {
        while (queue.length > 0) yield create(method.input, { messages: [queue.shift()] });
        await new Promise((resolve) => (wake = resolve));
      }
    }
    const response = transport.stream(method, abort.signal, undefined, undefined, input());
    void (async () => {
      try {
        for await (const message of (await response).message) take(message.messages[0]);
      } catch (error) {
        end(`${error.code} ${error.rawMessage} ${error.metadata?.get("reason")}`);
      }
    })();
    return {
      send: (bytes) => {
        queue.push(bytes.subarray(bytes.length < 128 ? 2 : 3));
        wake();
      },
      close: () => abort.abort(),
    };
  },
  async "node:http2"(port, take, end) {
    const session = http2.connect(`http://127.0.0.1:${port}`);
    session.on("error", () => undefined);
    const call = session.request({
      ":method": "POST",
      ":path": "/bench.Echo/Stream",
      "content-type": "application/grpc",
      te: "trailers",
    });
    let rest = Buffer.alloc(0);
    call.on("data", (chunk) => {
      rest = rest.length ? Buffer.concat([rest, chunk]) : chunk;
      let at = 0;
      while (rest.length - at >= 5) {
        const length = rest.readUInt32BE(at + 1);
        if (rest.length - at < 5 + length) break;
        take(rest.subarray(at + 5, at + 5 + length));
        at += 5 + length;
      }
      rest = rest.subarray(at);
    });
    let status = "no status";
    call.on("trailers", (found) => (status = `${found["grpc-status"]} ${found["grpc-message"]} ${found.reason}`));
    call.on("error", (error) => (status = error.message));
    call.on("close", () => end(status));
    return {
      send: (bytes) => {
        const head = Buffer.alloc(5 + bytes.length);
        head.writeUInt32BE(bytes.length, 1);
        head.set(bytes, 5);
        call.write(head);
      },
      close: () => session.destroy(),
    };
  },
};

async function measure(name, open) {
  const { server, port } = await startServer();
  const message = Buffer.concat([Buffer.from([0x0a, 0xc8, 0x01]), Buffer.alloc(200, 120)]);
  let taken = () => undefined;
  let ended;
  const end = new Promise((resolve) => (ended = resolve));
  const stream = await open(port, () => taken(), ended);

  const times = [];
  for (let index = 0; index < ROUND_TRIPS; index++) {
    const begun = performance.now();
    await new Promise((resolve) => {
      taken = resolve;
      stream.send(message);
    });
    times.push(performance.now() - begun);
  }
  times.sort((left, right) => left - right);

  const cpu = process.cpuUsage();
  const begun = performance.now();
  await new Promise((resolve) => {
    let sent = 0;
    let got = 0;
    const more = () => {
      while (sent < MESSAGES && sent - got < UNDER_WAY) {
        sent += 1;
        stream.send(message);
      }
    };
    taken = () => {
      got += 1;
      if (got === MESSAGES) resolve();
      else if (got % 32 === 0) more();
    };
    more();
  });
  const seconds = (performance.now() - begun) / 1000;
  const used = process.cpuUsage(cpu);

  stream.send(Buffer.from("\x0a\x03end"));
  const status = await end;
  stream.close();

  // The same once more, cut in the middle.
  let cutEnd;
  const cutEnded = new Promise((resolve) => (cutEnd = resolve));
  const second = await open(port, () => taken(), cutEnd);
  await new Promise((resolve) => {
    taken = resolve;
    second.send(message);
  });
  server.kill("SIGKILL");
  const cut = await cutEnded;
  second.close();
  const p = (share) => `${(times[Math.floor(times.length * share)] * 1000).toFixed(0)} µs`;
  console.log(
    `${name}: round trip p50 ${p(0.5)} p99 ${p(0.99)}, ${(MESSAGES / seconds).toFixed(0)} messages/s, ` +
      `CPU ${((used.user + used.system) / MESSAGES).toFixed(1)} µs a message; status: ${status}; cut: ${cut}`,
  );
}

for (const [name, open] of Object.entries(candidates)) {
  for (let round = 0; round < 2; round++) await measure(name, open);
}
process.exit(0);
