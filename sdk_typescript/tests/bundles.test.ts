/** Programs that a bundler has put into one file, as for Lambda or Next.js, with a real executor. */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ManagedProcess } from "./support/processes.js";
import { System } from "./support/system.js";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const run = promisify(execFile);
const FORMATS = [
  { format: "cjs", ending: "cjs" },
  { format: "esm", ending: "mjs" },
] as const;

/** Only a client, and functions as a program declares them that shares them with a worker. */
const CLIENT = `
  import { Client, Stepwire } from "stepwire";
  const app = new Stepwire({ id: "bundled" });
  app.createFunction({ id: "summary" }, { event: "summary" }, async ({ step }) => await step.run("a", () => 1));
  async function main() {
    const client = new Client();
    const { runIds } = await client.send({ name: "summary", data: ["alpha", "beta"] });
    console.log("result:", await client.result(runIds[0], { timeout: "60s" }), [...app.functions.keys()]);
    console.log("left over:", typeof globalThis.require);
    client.close();
  }
  main();
`;
const WORKER = `
  import { serve, Stepwire } from "stepwire";
  const app = new Stepwire({ id: "bundled" });
  app.createFunction({ id: "f" }, { event: "e" }, () => 1);
  serve(app).catch((error) => { console.log("caught", error.name, error.message); });
`;

let system: System;
let folder: string;

beforeAll(async () => {
  system = await System.start();
  await system.startWorkers(1);
  folder = mkdtempSync(join(tmpdir(), "stepwire-"));
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(ROOT, join(folder, "node_modules/stepwire"));
});

afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await system.destroy(false);
});

/** Bundle a program and run it; gives what it and the bundler have written. */
async function bundled(
  name: string,
  source: string,
  { format, ending }: (typeof FORMATS)[number],
  more: string[] = [],
) {
  const [input, file] = [join(folder, `${name}.mjs`), join(folder, `out/${name}.${ending}`)];
  writeFileSync(input, source);
  const options = ["--bundle", "--platform=node", `--format=${format}`, `--outfile=${file}`, "--log-level=warning"];
  const { stderr } = await run(join(ROOT, "node_modules/.bin/esbuild"), [input, ...options, ...more], { cwd: folder });
  const program = new ManagedProcess(file, process.execPath, [file], { STEPWIRE_EXECUTOR: system.executor.address });
  const code = await program.ended();
  return { code, warnings: stderr, output: program.output, text: readFileSync(file, "utf8") };
}

describe.each(FORMATS)("esbuild, $format:", (as) => {
  test("a client and functions import and work, and bring no code of workers", async () => {
    const { code, warnings, output, text } = await bundled("client", CLIENT, as);
    expect(warnings).toBe("");
    expect(output).toContain("result: alp|bet [ 'summary' ]");
    expect(output).toContain("left over: undefined");
    expect(code).toBe(0);
    expect(text).not.toContain("worker_threads");
  });

  test("minified it works as well", async () => {
    const { output } = await bundled("small", CLIENT, as, ["--minify"]);
    expect(output).toContain("result: alp|bet [ 'summary' ]");
  });

  test("a worker says what it misses, and how to have it", async () => {
    const { output } = await bundled("worker", WORKER, as);
    expect(output).toMatch(
      /caught StepwireError a worker needs the file dist\/worker\/thread\.js .*--external:stepwire/,
    );
  });

  test("a worker whose bundle leaves the package out works", async () => {
    const source = WORKER.replace("serve(app)", 'serve(app).then(() => { console.log("drained"); })').replace(
      "() => 1);",
      '() => { process.kill(process.pid, "SIGTERM"); return 1; });',
    );
    // CommonJS gets the package by require, which Node gives ES modules since 20.19.
    const ends = bundled("external", source, as, ["--external:stepwire"]);
    await system.client.send({ name: "e" });
    const sends = setInterval(() => void system.client.send({ name: "e" }), 500);
    try {
      expect((await ends).output).toContain("drained");
    } finally {
      clearInterval(sends);
    }
  });
});
