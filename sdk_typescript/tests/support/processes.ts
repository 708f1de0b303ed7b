/** Real processes for tests: an executor on a free port with a store of its own, and programs that connect to it. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Client, type WorkerInfo } from "stepwire";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const PATIENCE_MS = 60_000;
const living = new Set<ChildProcess>();

process.on("exit", () => {
  for (const child of living) child.kill("SIGKILL");
});

/** A child process that a test owns. */
export class ManagedProcess {
  readonly name: string;
  readonly child: ChildProcess;
  /** All that it has written, and what of that went to stdout. */
  output = "";
  stdout = "";

  constructor(name: string, command: string, args: readonly string[], environment: Record<string, string> = {}) {
    this.name = name;
    const kept = Object.entries(process.env).filter(([key]) => !/^(STEPWIRE_|VITEST|NODE_OPTIONS)/.test(key));
    this.child = spawn(command, args, {
      env: { ...Object.fromEntries(kept), PYTHONUNBUFFERED: "1", ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    living.add(this.child);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.on("data", (chunk: Buffer) => (this.output += chunk.toString()));
    }
    this.child.stdout?.on("data", (chunk: Buffer) => (this.stdout += chunk.toString()));
    this.child.once("exit", () => living.delete(this.child));
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Send a signal and wait for the end; gives the exit code, null if the signal ended it. */
  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<number | null> {
    if (this.running) {
      const ended = once(this.child, "exit");
      this.child.kill(signal);
      await ended;
    }
    return this.child.exitCode;
  }

  /** Wait for the end; gives the exit code. */
  async ended(): Promise<number | null> {
    if (this.running) await once(this.child, "exit");
    return this.child.exitCode;
  }

  async until(reached: () => boolean, what: string): Promise<void> {
    await until(() => {
      if (!this.running && !reached()) throw new Error(`${this.name} ended before ${what}:\n${this.output}`);
      return reached();
    }, what);
  }
}

/** `python -m stepwire_executor`: port and store stay the same over `kill` and `restart`. */
export class Executor {
  readonly folder = mkdtempSync(join(tmpdir(), "stepwire-"));
  readonly settings: Record<string, string>;
  process: ManagedProcess | undefined;
  #port = 0;

  private constructor(settings: Record<string, string>) {
    this.settings = settings;
  }

  /** Start one; `settings` are its flags: `{ "session-grace": "2" }`. */
  static async start(settings: Record<string, string> = {}): Promise<Executor> {
    const executor = new Executor(settings);
    await executor.restart();
    return executor;
  }

  get address(): string {
    return `127.0.0.1:${String(this.#port)}`;
  }

  /** Kill it if it runs, and start it again as it was. */
  async restart(): Promise<void> {
    await this.process?.end("SIGKILL");
    const ready = join(this.folder, "ready");
    rmSync(ready, { force: true });
    const flags = {
      store: `sqlite:///${join(this.folder, "stepwire.db")}`,
      host: "127.0.0.1",
      port: String(this.#port),
      "ready-file": ready,
      ...this.settings,
    };
    const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
    this.process = new ManagedProcess("executor", python(), ["-m", "stepwire_executor", ...args]);
    await this.process.until(() => existsSync(ready) && readFileSync(ready, "utf8") !== "", "it takes calls");
    this.#port = Number(readFileSync(ready, "utf8").split(":").at(-1));
  }

  /** Kill it and remove its files. */
  async destroy(): Promise<void> {
    await this.process?.end("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Start a program of `examples` or `tests/apps`, by its path without an ending; `npm test` has built it. */
export function startProgram(
  path: string,
  executor: Executor,
  environment: Record<string, string> = {},
): ManagedProcess {
  const file = join(ROOT, "build", `${path}.js`);
  return new ManagedProcess(path, process.execPath, [file], { STEPWIRE_EXECUTOR: executor.address, ...environment });
}

/** Wait until so many workers are connected; gives them. */
export async function connected(client: Client, count: number): Promise<WorkerInfo[]> {
  let found: WorkerInfo[] = [];
  await until(
    async () => {
      found = (await client.workers()).filter((worker) => worker.state === "connected");
      return found.length === count;
    },
    `${String(count)} workers are connected`,
  );
  return found;
}

/** Poll until something is so. */
export async function until(
  reached: () => boolean | Promise<boolean>,
  what: string,
  patience = PATIENCE_MS,
): Promise<void> {
  const end = performance.now() + patience;
  while (!(await reached())) {
    if (performance.now() > end) throw new Error(`after ${String(patience / 1000)} s it is still not so that ${what}`);
    await sleep(20);
  }
}

/** The Python that has the executor. */
export function python(): string {
  return process.env.STEPWIRE_PYTHON ?? join(ROOT, "../.venv/bin/python");
}

/** Give all that an iteration brings. */
export async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const item of items) found.push(item);
  return found;
}
