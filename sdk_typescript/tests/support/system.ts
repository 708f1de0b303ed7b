/** A whole system for a test: an executor, worker processes of `tests/apps` and a client. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Client } from "stepwire";
import { connected, Executor, startProgram, until, type ManagedProcess } from "./processes.js";

const PATIENCE = "60s";

export class System {
  readonly executor: Executor;
  readonly client: Client;
  readonly workers: ManagedProcess[] = [];

  private constructor(executor: Executor) {
    this.executor = executor;
    this.client = new Client({ executor: executor.address, retryFor: PATIENCE });
  }

  static async start(settings: Record<string, string> = {}): Promise<System> {
    return new System(await Executor.start(settings));
  }

  /** Start worker processes of a program of `tests/apps` and wait until all that run are connected. */
  async startWorkers(
    count: number,
    environment: Record<string, string> = {},
    program = "flows",
  ): Promise<ManagedProcess[]> {
    const started = Array.from({ length: count }, () =>
      startProgram(`tests/apps/${program}`, this.executor, { FLOWS_LOG: this.#log, ...environment }),
    );
    this.workers.push(...started);
    await connected(this.client, this.workers.filter((worker) => worker.running).length);
    return started;
  }

  /** Send an event that starts one run; gives its id. */
  async send(name: string, data: unknown = null): Promise<string> {
    const { runIds } = await this.client.send({ name, data });
    const [runId = ""] = runIds;
    return runId;
  }

  /** Send an event and give the result of its run. */
  async run<Output>(name: string, data: unknown = null): Promise<Output> {
    return await this.client.result<Output>(await this.send(name, data), { timeout: PATIENCE });
  }

  async result<Output>(runId: string): Promise<Output> {
    return await this.client.result<Output>(runId, { timeout: PATIENCE });
  }

  /** What step code has written so far: the process, and what it did. */
  lines(): { pid: number; text: string }[] {
    if (!existsSync(this.#log)) return [];
    const lines = readFileSync(this.#log, "utf8").trimEnd().split("\n");
    return lines.map((line) => ({ pid: Number(line.split(" ", 1)[0]), text: line.slice(line.indexOf(" ") + 1) }));
  }

  async hasWritten(text: string): Promise<void> {
    await until(() => this.lines().some((line) => line.text === text), `a step has written ${JSON.stringify(text)}`);
  }

  /** End everything; what the processes said is shown if the test has failed. */
  async destroy(show: boolean): Promise<void> {
    this.client.close();
    for (const worker of this.workers) await worker.end("SIGKILL");
    if (show) {
      for (const each of [this.executor.process, ...this.workers]) {
        console.log(`--- ${String(each?.name)}\n${each?.output.slice(-3000) ?? ""}`);
      }
    }
    await this.executor.destroy();
  }

  get #log(): string {
    return join(this.executor.folder, "flows.log");
  }
}
