/** One worker: ties the stream, the live invocations and the attempts together, on the loop that runs user code. */
import { create } from "@bufbuild/protobuf";
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import type { App } from "./app.js";
import { executorAddress } from "../channel.js";
import type { Logger } from "../attempt.js";
import { checkApp, checkLabels, loggerOf, textOf } from "../arguments.js";
import { StepwireError } from "../errors.js";
import { FrameError, Framer, Joiner, serialized } from "../frames.js";
import { AttemptSchema, type Attempt } from "../gen/stepwire/v1/value_pb.js";
import {
  Capability,
  type AttemptStart,
  type Cancel,
  type ExecutorMessage,
  type Recorded,
  type Welcome,
} from "../gen/stepwire/v1/worker_pb.js";
import { ownLines } from "../log_fields.js";
import { checkOptions } from "../options.js";
import type { Planned } from "../replay/model.js";
import { guardGlobals } from "../replay/globals.js";
import { guardRejections } from "../rejections.js";
import { securityOf, type Security } from "../security.js";
import { VERSION } from "../version.js";
import { failure, toFunction } from "../wire.js";
import { Attempts, type Code } from "./attempts.js";
import { Invocations, keyOfAttempt, type Shell } from "./invocations.js";
import { Ledger } from "./ledger.js";
import type { Live, Permission } from "./live.js";
import { warnings, type LogOptions } from "./logs.js";
import type { Bytes } from "./messages.js";
import { Outbox, type Plan } from "./outbox.js";
import { Phase } from "./signals.js";
import { Transport } from "./transport.js";

const PROTOCOL = 1;
const DEFAULT_SLOTS = 32;
const MOST_SLOTS = 10_000;
const MOST_INVOCATIONS = 1_000_000;
const DEFAULT_MAX_INVOCATIONS = 1_000;
const DEFAULT_DRAIN_SECONDS = 30;
/** 24 days. A timer of Node's that is to take longer fires at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** A lone step that ends sooner is reported together with its plan. */
const LINGER_MS = 10;

const WORKER_OPTIONS = [
  "executor",
  "slots",
  "maxInvocations",
  "labels",
  "instanceId",
  "drainSeconds",
  "security",
  "logger",
];

/** Options of a worker. */
export interface WorkerOptions {
  /** HOST:PORT, or several that stand by for each other, with commas between them. Default: STEPWIRE_EXECUTOR. */
  readonly executor?: string;
  /** How many attempts run at once: 1 to 10,000; 32 by default. */
  readonly slots?: number;
  /** How many bodies are kept live; 1,000 by default. */
  readonly maxInvocations?: number;
  /** Shown to people, e.g. `{ zone: "a" }`. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Unique to this worker; by default made of the host's name and the process id. */
  readonly instanceId?: string;
  /** How long a drain may take before unfinished attempts are given back; 30 by default. */
  readonly drainSeconds?: number;
  /** The token and TLS; by default what the STEPWIRE_* variables say. Its files are read for each connection. */
  readonly security?: Security;
  /** Takes what happens to the worker; by default warnings and errors go to stderr. */
  readonly logger?: Logger;
}

/**
 * Serves an app until it is drained.
 *
 * The stream has a thread of its own: code that blocks the event loop costs the worker no lease. But a stream that is
 * lost meanwhile is replaced only when the loop goes on. Throws StepwireError for an option that is out of range, an
 * address that is none, and one that the security is not fit for.
 */
export class Worker {
  readonly app: App;
  readonly instanceId: string;
  readonly #executor: string;
  readonly #slots: number;
  readonly #maxInvocations: number;
  readonly #labels: Readonly<Record<string, string>>;
  readonly #drainSeconds: number;
  readonly #security: Security;
  readonly #logger: Logger;
  readonly #ledger: Ledger;
  readonly #outbox: Outbox;
  readonly #attempts: Attempts;
  readonly #invocations: Invocations;
  readonly #welcomed = settleable<undefined>();
  readonly #ended = settleable<Error | undefined>();
  #transport: Transport | undefined;
  #begun = false;
  #session = "";
  #frameBytes: number | undefined;
  /** The stream that is being opened or open, by its number; 0 if there is none. */
  #stream = 0;
  /** Whether its Welcome has come. */
  #open = false;
  #framer = new Framer();
  #joiner = new Joiner();
  /** What this turn of the loop has to say: results with their fence, others with 0. */
  #out: (readonly [fence: bigint, message: Uint8Array])[] = [];
  /** Reports of lone steps that are held back until the step ends or the linger is over, by fence, with their runs. */
  readonly #held = new Map<bigint, readonly [string, Uint8Array]>();
  /** Their fences by run: a lead has one lone step at a time. */
  readonly #heldOf = new Map<string, bigint>();
  #draining = false;
  /** Whether the last word has been said. */
  #closing = false;
  #deadline: NodeJS.Timeout | undefined;
  #process: LogOptions | undefined;

  constructor(app: App, options: WorkerOptions = {}) {
    checkApp(app);
    checkOptions(options, WORKER_OPTIONS, "a worker", StepwireError);
    checkLabels(options.labels);
    this.app = app;
    this.instanceId =
      instanceIdOf(options.instanceId) ??
      `${hostname().slice(0, 64)}-${String(process.pid)}-${randomBytes(2).toString("hex")}`;
    this.#executor = executorAddress(options.executor);
    this.#security = securityOf(options.security);
    this.#security.check(this.#executor);
    this.#slots = checked("slots", options.slots ?? DEFAULT_SLOTS, 1, MOST_SLOTS);
    this.#maxInvocations = checked("maxInvocations", options.maxInvocations ?? DEFAULT_MAX_INVOCATIONS, 1);
    this.#labels = { ...options.labels };
    this.#drainSeconds = options.drainSeconds ?? DEFAULT_DRAIN_SECONDS;
    if (!(this.#drainSeconds >= 0 && Number.isFinite(this.#drainSeconds)))
      throw new StepwireError(`drainSeconds is ${String(this.#drainSeconds)}: give 0 or more`);
    const logger = loggerOf(options.logger) ?? warnings;
    this.#logger = ownLines(logger);
    this.#ledger = new Ledger(this.#slots);
    this.#outbox = new Outbox(this.#ledger);
    this.#attempts = new Attempts(app, logger, (fence, message) => {
      this.#tellHeld(fence);
      this.#queue(fence, message);
    });
    const shell: Shell = {
      say: (runId, message) => {
        const held = this.#heldOf.get(runId);
        if (held !== undefined) this.#tellHeld(held);
        this.#queue(0n, message);
      },
      runLone: this.#runLone.bind(this),
      runClosure: this.#runClosure.bind(this),
      isBusy: (runId) => this.#attempts.hasRun(runId),
    };
    this.#invocations = new Invocations(
      app,
      this.#maxInvocations,
      shell,
      this.#logger,
      this.#attempts.failures,
      options.logger,
    );
  }

  /**
   * Have signals end this worker and its process, though user code blocks the main thread. The program calls `drain` for
   * each signal itself, too.
   *
   * @internal
   */
  endBySignals(log: LogOptions): void {
    this.#process = log;
  }

  /** Serve until `drain` is through; once only. Throws ExecutorError if the executor refuses this worker. */
  async run(): Promise<void> {
    if (this.#begun) throw new StepwireError(`worker ${this.instanceId} has run already: make a new Worker`);
    if (this.app.functions.size + this.app.tasks.size === 0) {
      const error = new StepwireError(
        `app '${this.app.id}' has nothing to serve: create a function or a task, and import the modules that do`,
      );
      this.#ended.resolve(error); // whoever waits until it is connected is told, too
      throw error;
    }
    this.#begun = true;
    if (this.#draining) {
      this.#ended.resolve(undefined);
      return;
    }
    const transport = new Transport(
      {
        address: this.#executor,
        security: this.#security,
        ledger: this.#ledger,
        drainSeconds: this.#drainSeconds,
        process: this.#process,
      },
      this.#logger,
      {
        hello: this.#hello.bind(this),
        received: this.#received.bind(this),
        lost: this.#lost.bind(this),
        ended: this.#ended.resolve,
      },
    );
    this.#transport = transport;
    const guards = [guardRejections(this.#logger), guardGlobals()];
    const error = await this.#ended.promise;
    for (const release of guards) release();
    clearTimeout(this.#deadline);
    this.#forgetStream();
    this.#attempts.giveUp("the worker ends");
    this.#attempts.failures.close();
    await transport.close();
    if (error !== undefined) throw error;
    this.#logger.info("drained");
  }

  /** Wait until the executor has welcomed this worker for the first time: events trigger its functions from then on. */
  async connected(): Promise<void> {
    await Promise.race([this.#welcomed.promise, this.#ended.promise]);
    if (this.#session === "") throw new StepwireError(`worker ${this.instanceId} has ended before it was connected`);
  }

  /** Take nothing new, finish what is in hand, and end. A second call ends at once. */
  drain(): void {
    const again = this.#draining;
    this.#draining = true;
    if (!this.#begun) return;
    if (again) {
      this.#giveBack();
      return;
    }
    this.#transport?.enter(Phase.draining);
    this.#logger.info(`draining: ${String(this.#outbox.inHand)} attempts in hand`);
    this.#invocations.eager = false;
    this.#deadline = setTimeout(this.#giveBack.bind(this), Math.min(this.#drainSeconds * 1000, LONGEST_TIMER_MS));
    if (this.#open) {
      for (const fence of [...this.#held.keys()]) this.#tellHeld(fence);
      const unbegun = this.#invocations.takeWaiting();
      this.#invocations.dropAll();
      this.#sayDraining(unbegun);
    }
    this.#endIfDrained();
  }

  // The transport's side.

  #hello(stream: number): Bytes[] {
    this.#stream = stream;
    this.#framer = new Framer();
    this.#joiner = new Joiner();
    if (this.#frameBytes !== undefined) this.#framer.maxFrameBytes = this.#frameBytes;
    const { attempts, plans } = this.#outbox.holdings(this.#slots);
    const value = {
      minProtocol: PROTOCOL,
      maxProtocol: PROTOCOL,
      capabilities: [Capability.EAGER],
      sdkName: "stepwire-typescript",
      sdkVersion: VERSION,
      instanceId: this.instanceId,
      app: this.app.id,
      appVersion: this.app.version,
      functions: [...this.app.functions.values()].map(toFunction),
      tasks: [...this.app.tasks.keys()].sort(),
      labels: this.#labels,
      slots: this.#slots,
      maxInvocations: this.#maxInvocations,
      resumeSession: this.#session,
      attemptsInHand: attempts,
      draining: this.#draining,
      eagerPlans: plans,
    };
    return [...this.#framer.frames([serialized({ case: "hello", value })])];
  }

  #received(stream: number, frames: readonly Bytes[]): void {
    for (const frame of frames) {
      if (stream !== this.#stream) return;
      let messages;
      try {
        messages = this.#joiner.messages(frame);
      } catch (error) {
        if (!(error instanceof FrameError)) throw error;
        this.#lost(stream);
        this.#transport?.abandon(stream, error.message);
        return;
      }
      for (const message of messages) this.#handle(message);
    }
    this.#count();
  }

  #handle({ kind }: ExecutorMessage): void {
    if (kind.case === "welcome" && !this.#open) this.#welcome(kind.value);
    if (!this.#open) return;
    switch (kind.case) {
      case "runSteps":
        this.#runSteps(kind.value.attempts);
        break;
      case "recorded":
        this.#recorded(kind.value);
        break;
      case "resume":
        this.#invocations.resume(kind.value);
        break;
      case "invoke":
        this.#invocations.invoke(kind.value);
        break;
      case "journalChunk":
        this.#invocations.chunk(kind.value);
        break;
      case "cancel":
        this.#cancel(kind.value);
        break;
      default: // GoAway is the thread's; what is not known is ignored
    }
  }

  #welcome(welcome: Welcome): void {
    const { limits } = welcome;
    this.#open = true;
    this.#session = welcome.sessionId;
    this.#welcomed.resolve(undefined);
    this.#frameBytes = Number(limits?.maxFrameBytes ?? 0n) || this.#framer.maxFrameBytes;
    this.#framer.maxFrameBytes = this.#frameBytes;
    const outputBytes = Number(limits?.maxOutputBytes ?? 0n);
    this.#attempts.values.maxOutputBytes = this.#invocations.values.maxOutputBytes = outputBytes;
    this.#invocations.limits = limits;
    const kept = this.#outbox.reopen(welcome.unwantedAttempts.map((attempt) => attempt.fence));
    for (const fence of this.#attempts.fences) {
      if (!this.#outbox.holds(fence)) this.#attempts.cancel(fence, "the executor no longer wants it");
    }
    this.#dropSaid(); // results among it are kept, too
    this.#attempts.failures.forget((fence) => this.#outbox.holds(fence));
    this.#send(kept);
    if (this.#draining) {
      this.#sayDraining([]);
      this.#endIfDrained();
    }
  }

  #lost(stream: number): void {
    if (stream === this.#stream) this.#forgetStream();
  }

  /** Drop what does not outlive a stream: bodies, and whatever was to be said of them. */
  #forgetStream(): void {
    this.#stream = 0;
    this.#open = false;
    this.#dropSaid(); // results among it are kept
    for (const fence of this.#held.keys()) this.#ledger.tellPlan(fence); // the next Hello brings it
    this.#held.clear();
    this.#heldOf.clear();
    this.#invocations.dropAll();
    this.#count();
  }

  // What the executor asks for.

  #runSteps(starts: readonly AttemptStart[]): void {
    const all = starts.flatMap((start) => (start.attempt === undefined ? [] : [{ start, attempt: start.attempt }]));
    if (this.#draining || this.#ledger.isAnnounced(this.#stream)) {
      this.#sayDraining(all.map(({ attempt }) => attempt)); // they were sent before that was known
      return;
    }
    for (const { start, attempt } of all) {
      if (start.work.case === "closure") {
        this.#runClosure(start, attempt, start.work.value.invocation);
      } else if (start.work.case === "task") {
        this.#take(attempt);
        this.#attempts.startTask({ ...start, attempt }, start.work.value);
      }
    }
  }

  /** Run a closure now, or when its body has moved as far as it was told to. It is in hand from its begin only. */
  #runClosure(start: AttemptStart, attempt: Attempt, invocation: bigint): void {
    const live = this.#invocations.get(attempt.runId, invocation);
    if (live === undefined) {
      this.#invocations.needJournal(attempt.runId, invocation, [attempt]);
      return;
    }
    if (this.#invocations.wait(live, start)) return;
    const key = keyOfAttempt(attempt);
    const code = live.invocation?.closure(key);
    if (code === undefined) {
      this.#invocations.notFound(live, start);
    } else {
      this.#take(attempt);
      const { number, traceparent } = start;
      const { functionId } = live.info;
      const source = live.invocation?.source(key) ?? "";
      this.#attempts.start({ attempt, number, traceparent, functionId, source }, code);
    }
  }

  /** Run a lone step at once; its plan is told together with its result, or when it takes longer. */
  #runLone(live: Live, step: Planned, code: Code, permission: Permission, plan: Plan): void {
    const { fence, traceparent } = permission;
    const attempt = create(AttemptSchema, { runId: live.runId, key: step.key, fence });
    const report = serialized({ case: "stepsFound", value: plan });
    if (!this.#ledger.take(this.#stream, attempt, report)) {
      this.#invocations.drop(live.runId); // its stream has been told that this worker drains: it goes on elsewhere
      return;
    }
    this.#outbox.take(attempt, plan);
    this.#held.set(fence, [live.runId, report]);
    this.#heldOf.set(live.runId, fence);
    setTimeout(() => {
      this.#tellHeld(fence);
    }, LINGER_MS);
    const { functionId } = live.info;
    this.#attempts.start({ attempt, number: 1, traceparent, functionId, source: step.source }, code);
  }

  #take(attempt: Attempt): void {
    this.#ledger.take(this.#stream, attempt);
    this.#outbox.take(attempt);
  }

  #tellHeld(fence: bigint): void {
    const held = this.#held.get(fence);
    if (held === undefined) return;
    const [runId, report] = held;
    this.#held.delete(fence);
    this.#heldOf.delete(runId);
    if (this.#ledger.tellPlan(fence)) this.#queue(0n, report);
  }

  #recorded(message: Recorded): void {
    const fences = message.attempts.map((attempt) => attempt.fence);
    this.#outbox.forget(fences);
    this.#attempts.failures.confirmed(fences, message.failedSteps);
    for (const { attempt, reason } of message.refusals) {
      this.#logger.info(`a result of step '${attempt?.key?.id ?? ""}' was refused: ${reason}`);
      if (attempt === undefined) continue;
      this.#outbox.forget([attempt.fence]);
      this.#attempts.failures.confirmed([attempt.fence]);
    }
    this.#endIfDrained();
  }

  #cancel({ target, reason, failure: message, retried }: Cancel): void {
    const failed = message === undefined ? undefined : failure(message);
    if (target.case === "attempt") {
      const { fence } = target.value;
      this.#invocations.takeWaiting(fence);
      if (failed === undefined) this.#attempts.cancel(fence, reason);
      else this.#attempts.timeOut(fence, reason, failed, retried);
      this.#outbox.forget([fence]);
      this.#attempts.failures.confirmed([fence]);
    } else if (target.case === "runId") {
      if (failed !== undefined) this.#invocations.runFailed(target.value, failed);
      this.#outbox.forget(this.#attempts.cancelRun(target.value, reason));
      this.#invocations.drop(target.value);
    }
    this.#endIfDrained();
  }

  // What the executor is told.

  #queue(fence: bigint, message: Uint8Array): void {
    if (fence !== 0n && !this.#outbox.keep(fence, message)) return;
    if (!this.#open) return;
    if (this.#out.length === 0) setImmediate(this.#flush.bind(this));
    this.#out.push([fence, message]);
    const isSmall = message.length < (this.#framer.maxFrameBytes || Infinity) / 2;
    if (!isSmall || !this.#ledger.say(message)) this.#flush();
  }

  /** Forget what was to be said; gives that, but for what the stream's thread has told already. */
  #dropSaid(): (readonly [fence: bigint, message: Uint8Array])[] {
    const out = this.#out.slice(this.#ledger.handOver());
    this.#out = [];
    return out;
  }

  /** Hand over what this turn has had to say so far, in its order, in as few frames as possible. */
  #flush(): void {
    const out = this.#dropSaid();
    this.#send(out.flatMap(([fence, message]) => (fence === 0n || this.#outbox.holds(fence) ? [message] : [])));
    this.#count();
  }

  #send(messages: readonly Uint8Array[]): void {
    if (messages.length > 0 && this.#open) this.#transport?.send(this.#stream, [...this.#framer.frames(messages)]);
  }

  #count(): void {
    this.#transport?.count(this.#outbox.inHand, this.#invocations.size);
  }

  #sayDraining(returnedAttempts: Attempt[], done = false): void {
    this.#queue(0n, serialized({ case: "draining", value: { returnedAttempts, done } }));
  }

  /** End the drain: what still runs is given back. */
  #giveBack(): void {
    const returned = this.#attempts.giveUp("the worker is stopped");
    if (returned.length > 0) {
      this.#logger.warn(`giving back ${String(returned.length)} attempts that have not finished`);
      this.#outbox.forget(returned.map((attempt) => attempt.fence));
    }
    this.#hangUp(returned);
  }

  /** End once everything in hand is recorded and everything said is on its way. */
  #endIfDrained(): void {
    if (!this.#draining || this.#outbox.inHand > 0 || this.#closing) return;
    if (this.#open) this.#hangUp();
    else this.#transport?.windDown(); // should a stream just open, the executor is told there
  }

  /** End the stream with the last word; at once if there is none. */
  #hangUp(returned: Attempt[] = []): void {
    this.#transport?.enter(Phase.closing);
    this.#sayDraining(returned, true);
    this.#flush();
    if (this.#open) {
      this.#closing = true;
      this.#transport?.stop();
    } else {
      this.#transport?.cut();
    }
  }
}

function instanceIdOf(given: unknown): string | undefined {
  return given === undefined ? undefined : textOf(given, "a worker's instanceId");
}

function checked(name: string, value: number, least: number, most = MOST_INVOCATIONS): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new StepwireError(`${name} is ${String(value)}: give a whole number from ${String(least)} to ${String(most)}`);
}

/** A promise, and how it is resolved. */
function settleable<T>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((take) => (resolve = take));
  return { promise, resolve };
}
