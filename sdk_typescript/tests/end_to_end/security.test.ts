import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Client, Security, Stepwire, Worker, type SecurityOptions } from "stepwire";
import { Executor, python } from "../support/processes.js";

const TOKEN = "sw_a-token-of-the-tests";

let folder: string;
let executor: Executor;
let good: SecurityOptions;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "stepwire-"));
  execFileSync(python(), ["-m", "trustme", "--quiet", "--dir", folder, "-i", "localhost", "127.0.0.1"]);
  const sha256 = createHash("sha256").update(TOKEN).digest("hex");
  writeFileSync(
    join(folder, "tokens.toml"),
    `[[token]]\nname = "tests"\nsha256 = "${sha256}"\napps = ["secured"]\nroles = ["worker", "client"]\n`,
  );
  executor = await Executor.start({
    "tls-certificate": join(folder, "server.pem"),
    "tls-key": join(folder, "server.key"),
    "tokens-file": join(folder, "tokens.toml"),
  });
  good = { token: TOKEN, tlsCa: join(folder, "client.pem") };
});

afterAll(async () => {
  await executor.destroy();
  rmSync(folder, { recursive: true });
});

function clientWith(options: SecurityOptions): Client {
  return new Client({ executor: executor.address, security: new Security(options), retryFor: 0 });
}

test("a worker and a client with the CA and a token", async () => {
  const app = new Stepwire({ id: "secured" });
  app.createFunction({ id: "double" }, { event: "double" }, ({ event, step }) =>
    step.run("double", () => 2 * (event.data as number)),
  );
  const worker = new Worker(app, { executor: executor.address, security: new Security(good) });
  const served = worker.run();
  await worker.connected();
  const client = clientWith(good);
  const { runIds } = await client.send({ name: "double", data: 21 });
  expect(await client.result(runIds[0] ?? "")).toBe(42);
  client.close();
  worker.drain();
  await served;
});

test("without a good token both are refused, and the worker ends", async () => {
  const security = { ...good, token: "wrong" };
  await expect(clientWith(security).workers()).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
  const app = new Stepwire({ id: "secured" });
  app.task("nothing", () => null);
  const worker = new Worker(app, { executor: executor.address, security: new Security(security) });
  const served = worker.run();
  await expect(worker.connected()).rejects.toThrow(/has ended before it was connected/);
  await expect(served).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
});

test("an executor with the certificate of another CA, or a client without TLS, is not spoken with", async () => {
  await expect(clientWith({ token: TOKEN, tls: true }).workers()).rejects.toMatchObject({
    code: "UNAVAILABLE",
    message: expect.stringMatching(/certificate/) as string,
  });
  await expect(clientWith({ token: TOKEN }).workers()).rejects.toMatchObject({ code: "UNAVAILABLE" });
});
