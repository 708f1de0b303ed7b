import { execFile } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { VERSION } from "stepwire";
import { Executor, ManagedProcess } from "./support/processes.js";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const EXAMPLE = ["post_payment.ts", "run_once.ts"];
const run = promisify(execFile);

interface Packed {
  filename: string;
  version: string;
  files: { path: string }[];
}

let folder: string;
let packed: Packed;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "stepwire-"));
  // Without its scripts: `npm test` has built what is packed.
  const { stdout } = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], {
    cwd: ROOT,
  });
  [packed] = JSON.parse(stdout) as [Packed];
}, 60_000);

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

test("the package holds the built code with its types, README and LICENSE, and nothing else", () => {
  const paths = packed.files.map(({ path }) => path);
  for (const path of [
    "README.md",
    "LICENSE",
    "package.json",
    "dist/index.js",
    "dist/index.d.ts",
    "dist/worker/thread.js",
  ]) {
    expect(paths).toContain(path);
  }
  const others = paths.filter(
    (path) => !/^(README\.md|LICENSE|package\.json|dist\/.+\.(js|d\.ts|js\.map))$/.test(path),
  );
  expect(others).toEqual([]);
  for (const path of paths.filter((each) => each.endsWith(".js"))) {
    expect(paths).toContain(path.replace(/\.js$/, ".d.ts"));
    expect(existsSync(join(ROOT, path.replace(/^dist\/(.*)\.js$/, "src/$1.ts"))), path).toBe(true);
  }
});

test("maps hold the sources that the package leaves out", () => {
  const map = JSON.parse(readFileSync(join(ROOT, "dist/index.js.map"), "utf8")) as { sourcesContent?: string[] };
  expect(map.sourcesContent?.[0]).toContain("export");
});

test("version and licence are those that are told elsewhere", () => {
  expect(packed.version).toBe(VERSION);
  expect(readFileSync(join(ROOT, "LICENSE"))).toEqual(readFileSync(join(ROOT, "../LICENSE")));
});

test("the lock holds no download addresses", () => {
  expect(readFileSync(join(ROOT, "package-lock.json"), "utf8")).not.toContain('"resolved"');
});

test("it installs into an empty folder, where an example type-checks and runs", async () => {
  const project = { type: "module", private: true };
  writeFileSync(join(folder, "package.json"), JSON.stringify(project));
  const options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"];
  await run("npm", ["install", ...options, `./${packed.filename}`], { cwd: folder });
  expect(existsSync(join(folder, "node_modules/stepwire/dist/index.js"))).toBe(true);

  for (const file of EXAMPLE) copyFileSync(join(ROOT, "examples", file), join(folder, file));
  const flags = ["--module", "nodenext", "--target", "es2022", "--strict", "--types", "node"];
  const types = ["--typeRoots", join(ROOT, "node_modules/@types")];
  const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
  await run(process.execPath, [tsc, ...flags, ...types, ...EXAMPLE], { cwd: folder });

  const executor = await Executor.start();
  try {
    const file = join(folder, "post_payment.js");
    const program = new ManagedProcess("the example", process.execPath, [file], {
      STEPWIRE_EXECUTOR: executor.address,
    });
    expect(await program.ended(), program.output).toBe(0);
    expect(program.output).toContain("receipt of 25 to u-1");
  } finally {
    await executor.destroy();
  }
}, 180_000);
