/**
 * The streams to the executor, one after the other: what the thread does.
 *
 * It owns the connection, heartbeats, the watch over silence, and when to connect again; it carries frames as bytes and
 * looks into them only for Welcome and GoAway. Whatever has to do with attempts and invocations is the main thread's,
 * which makes each stream's Hello: while user code blocks it, a lost stream is not replaced.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { Client, status, type ClientDuplexStream, type StatusObject } from "../grpc.js";
import {
  Addresses,
  asBuffer,
  callMetadata,
  channelCredentials,
  channelOptions,
  executorError,
  type CallStatus,
} from "../channel.js";
import { StepwireError } from "../errors.js";
import { WorkerFrameSchema, ExecutorMessageSchema, type ExecutorMessage } from "../gen/stepwire/v1/worker_pb.js";
import { Security } from "../security.js";
import { bounded, milliseconds, toDuration } from "../wire.js";
import { write } from "node:fs";
import { Framer, serialized } from "../frames.js";
import { breakOffMainThread, exitFromMainThread, mainThreadStack, usersLine } from "./blocking.js";
import { Ledger } from "./ledger.js";
import { lineOf } from "./logs.js";
import { Counts, type Bytes, type ErrorData, type FromThread, type ThreadData, type ToThread } from "./messages.js";
import { Pulse } from "./pulse.js";
import { listen } from "./signal_source.js";
import { SignalWatch } from "./signals.js";
import { SpinWatch } from "./spins.js";
import { MoveState } from "../replay/move_state.js";

const METHOD = "/stepwire.v1.WorkerService/Connect";
const WELCOME_MS = 10_000;
const GOODBYE_MS = 3_000;
/** How long the main thread may take to end the process, if it lets itself be stopped. */
const EXIT_MS = 1_500;
/** How long a log line may take. */
const WRITE_MS = 300;
const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 5_000;
/** No delay is longer than one in so many parts of the grace, lest a single failure to connect costs the attempts. */
const GRACE_SHARE = 6;
/** A stream counts as good once it has lived so long after its Welcome: the backoff begins anew. */
const GOOD_MS = 1_000;
/** So many streams in a row that did not are told, and then whenever there are twice as many. */
const TOLD_AFTER = 3;
/** What an executor may say, whatever it says: see GoAway and Welcome in the contract. */
const LONGEST_AWAY_MS = 300_000;
const DEFAULT_HEARTBEAT_MS = 3_000;
const HEARTBEAT_MS = [10, 60_000] as const;
const GRACE_MS = [100, Number.MAX_SAFE_INTEGER] as const;
/** Fields of ExecutorMessage. */
const WELCOME = 1;
const GO_AWAY = 8;

/** Statuses after which a worker must not connect again without a change. */
const FATAL: readonly status[] = [
  status.INVALID_ARGUMENT,
  status.FAILED_PRECONDITION,
  status.PERMISSION_DENIED,
  status.UNAUTHENTICATED,
  status.UNIMPLEMENTED,
];

type Call = ClientDuplexStream<Uint8Array, Bytes>;

/** Keeps a stream open until it is told to stop. */
export class Streams {
  readonly #post: (message: FromThread, transfer?: ArrayBuffer[]) => void;
  readonly #security: Security;
  readonly #addresses: Addresses;
  readonly #counts: Int32Array;
  readonly #pulse: Pulse;
  readonly #spins: SpinWatch;
  readonly #data: ThreadData;
  readonly #ledger: Ledger;
  /** Whether this thread sees signals, and ends the process by them if the main thread does not. */
  readonly watchesSignals: boolean;
  readonly #ended: Promise<void>;
  #end: () => void = () => undefined;
  /** The last stream that was told from here that this worker drains. */
  #announced = 0;
  /** Whether what the main thread has in hand was given back: it has nothing to say any more. */
  #surrendered = false;
  #number = 0;
  #call: Call | undefined;
  #takeHello: ((frames: readonly Bytes[] | undefined) => void) | undefined;
  #wake: (() => void) | undefined;
  #welcomed = false;
  #stopping = false;
  #failures = 0;
  #welcomedAt = 0;
  /** Streams in a row that were cut soon after their Welcome. */
  #short = 0;
  #awayMs = 0;
  #graceMs = LONGEST_DELAY_MS * GRACE_SHARE;
  /** Why this side has given the stream up. */
  #givenUp = "";
  /** What came in this turn of the loop. */
  #frames: Bytes[] = [];
  #maxFrameBytes: number | undefined;

  constructor(data: ThreadData, post: (message: FromThread, transfer?: ArrayBuffer[]) => void) {
    this.#post = post;
    this.#security = new Security(data.security);
    this.#addresses = new Addresses(data.address);
    this.#counts = new Int32Array(data.counts);
    this.#data = data;
    this.#ledger = new Ledger(data.ledger);
    this.#ended = new Promise((resolve) => (this.#end = resolve));
    this.#spins = new SpinWatch(new MoveState(data.moves), {
      clock: () => performance.now(),
      breakOff: async (isStill, found) => !this.#isDebugged && (await breakOffMainThread(isStill, found)),
      brokenOff: () => {
        post({ kind: "brokenOff" });
      },
    });
    this.#pulse = new Pulse({
      clock: () => performance.now(),
      ping: (number) => {
        post({ kind: "ping", number });
      },
      answered: () => Atomics.load(this.#counts, Counts.answeredPing),
      stack: async () => (this.#isDebugged ? "" : await mainThreadStack()),
      beat: this.#beat.bind(this),
      silent: (silence) => {
        this.#giveUp(`nothing has come for ${(silence / 1000).toFixed(1)} s`);
      },
      warn: (message) => {
        post({ kind: "log", level: "warn", message });
      },
    });
    const signals = new SignalWatch({
      clock: () => performance.now(),
      drainMs: data.drainSeconds * 1000,
      phase: () => Atomics.load(this.#counts, Counts.phase),
      announce: this.#announce.bind(this),
      surrender: this.#surrender.bind(this),
      exit: async () => {
        if (!this.#isDebugged) await exitFromMainThread(EXIT_MS);
      },
      kill: async () => {
        await this.#lastWord("user code outside of JavaScript keeps this process from ending: it is killed (SIGKILL)");
        process.kill(process.pid, "SIGKILL");
      },
    });
    this.watchesSignals = data.process !== undefined && listen(signals.heard.bind(signals));
  }

  /** Whether somebody debugs the main thread: that session is to be left alone. */
  get #isDebugged(): boolean {
    return Atomics.load(this.#counts, Counts.debugged) === 1;
  }

  /** Take what the main thread says. */
  take(message: ToThread): void {
    if (this.#surrendered && message.kind !== "cut") return;
    switch (message.kind) {
      case "hello":
        if (message.stream === this.#number) this.#takeHello?.(message.frames);
        break;
      case "frames":
        if (message.stream === this.#number) for (const frame of message.frames) this.#call?.write(frame);
        break;
      case "abandon":
        if (message.stream === this.#number) this.#giveUp(message.reason);
        break;
      case "windDown":
        this.#stop();
        this.#pulse.expect(GOODBYE_MS);
        break;
      case "stop":
        this.#hangUp();
        break;
      case "cut":
        this.#stop();
        this.#call?.cancel();
        break;
    }
  }

  /** Write what was given, and end the stream; it is cut if the executor does not end it in time. */
  #hangUp(): void {
    this.#stop();
    this.#pulse.expect(GOODBYE_MS);
    this.#call?.end();
  }

  // What this thread does while user code blocks the main thread; see `signals.ts`.

  /** Say on the stream that is open, once for each, that this worker drains. */
  #announce(): void {
    if (!this.#isOpen || this.#announced === this.#number) return;
    this.#announced = this.#number;
    const draining = serialized({ case: "draining", value: {} });
    this.#write([...this.#ledger.announce(this.#number), draining]);
  }

  /** Give back what is in hand, and end the stream; resolves when it has ended. */
  async #surrender(): Promise<void> {
    const place = this.#isDebugged ? "" : usersLine(await mainThreadStack());
    const told = this.#lastWord(`${place || "user code"} keeps this worker from ending: the process ends without it`);
    this.#announce();
    this.#surrendered = true;
    const { said, running } = this.#ledger.surrender();
    if (!this.#isOpen) {
      running.length = 0; // nobody can be told of these: they count as lost
      this.#stop();
      this.#call?.cancel();
    } else {
      const draining = serialized({ case: "draining", value: { returnedAttempts: running, done: true } });
      this.#write([...said, draining]);
      this.#hangUp();
    }
    await this.#ended;
    await told;
    if (running.length > 0) await this.#lastWord(`${String(running.length)} unfinished attempts were given back`);
  }

  get #isOpen(): boolean {
    return this.#welcomed && this.#call !== undefined;
  }

  #write(messages: readonly Uint8Array[]): void {
    const framer = new Framer();
    if (this.#maxFrameBytes !== undefined) framer.maxFrameBytes = this.#maxFrameBytes;
    for (const frame of framer.frames(messages)) this.#call?.write(frame);
  }

  /** Log without the main thread, which may never come to it, and without waiting long for whoever reads that. */
  async #lastWord(message: string): Promise<void> {
    await new Promise<void>((resolve) => {
      setTimeout(resolve, WRITE_MS);
      write(2, lineOf("warning", [message], {}, this.#data.process), () => {
        resolve();
      });
    });
  }

  #stop(): void {
    this.#stopping = true;
    this.#wake?.();
    this.#takeHello?.(undefined);
  }

  /** Connect, and connect again; returns when there will be no more streams. */
  async run(): Promise<void> {
    this.#pulse.start();
    this.#spins.start();
    let error: ErrorData | undefined;
    while (!this.#stopping) {
      error = await this.#connect();
      if (error !== undefined || this.#isStopping()) break;
      const delay = this.#delay();
      this.#log("info", `reconnecting to ${this.#addresses.current} in ${(delay / 1000).toFixed(1)} s`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, delay);
      });
    }
    this.#pulse.stop();
    this.#spins.stop();
    this.#post({ kind: "ended", ...(error && { error }) });
    this.#end();
  }

  /** As a call, since it changes while something is awaited. */
  #isStopping(): boolean {
    return this.#stopping;
  }

  #log(level: "info" | "warn", message: string): void {
    this.#post({ kind: "log", level, message });
  }

  /** Hold one stream until it ends; gives the error if there must be no other. */
  async #connect(): Promise<ErrorData | undefined> {
    const address = this.#addresses.current;
    const stream = ++this.#number;
    this.#givenUp = "";
    this.#welcomed = false;
    const hello = await new Promise<readonly Bytes[] | undefined>((resolve) => {
      this.#takeHello = resolve;
      this.#post({ kind: "connecting", stream });
    });
    this.#takeHello = undefined;
    if (hello === undefined) return undefined;
    let why: string;
    try {
      const found = await this.#hold(address, hello);
      this.#pulse.expect(undefined);
      this.#flush();
      this.#noteLife(address);
      this.#post({ kind: "lost", stream });
      if (this.#stopping) return undefined;
      const { error } = executorError(found, address);
      why = this.#givenUp || `${error.code} ${error.message}`;
      if (FATAL.includes(found.code)) {
        const message = `the executor at ${address} refuses this worker: ${error.message}`;
        return { code: error.code, message, fields: error.fields };
      }
    } catch (unfit) {
      if (!(unfit instanceof StepwireError)) throw unfit;
      why = unfit.message; // a file of ours that was good at the start, and may be again
    }
    this.#addresses.leave(address);
    this.#log("warn", `the stream to ${address} is lost: ${why}`);
    return undefined;
  }

  /** Note how long a stream has lived that had its Welcome. */
  #noteLife(address: string): void {
    if (!this.#welcomed) return;
    if (performance.now() - this.#welcomedAt >= GOOD_MS) {
      this.#failures = this.#short = 0;
    } else if (this.#awayMs === 0) {
      this.#short++;
      if (!Number.isInteger(Math.log2(this.#short / TOLD_AFTER)) || this.#short < TOLD_AFTER) return;
      this.#log(
        "warn",
        `${String(this.#short)} streams to ${address} were cut right after their Welcome: it looks like a proxy that ` +
          "limits the bodies or the time of requests; a stream has neither end nor size (docs/operation.md, behind a proxy)",
      );
    }
  }

  /** Hold a call until its status has come. */
  async #hold(address: string, hello: readonly Bytes[]): Promise<CallStatus> {
    const metadata = callMetadata(this.#security);
    const client = new Client(address, channelCredentials(address, this.#security), channelOptions(address));
    try {
      this.#pulse.expect(WELCOME_MS);
      const call: Call = client.makeBidiStreamRequest(METHOD, asBuffer, owned, metadata);
      this.#call = call;
      return await new Promise<StatusObject>((resolve) => {
        call.on("status", resolve);
        call.on("error", () => undefined); // the status says it
        call.on("data", (frame: Bytes) => {
          this.#receive(address, frame);
        });
        for (const frame of hello) call.write(frame);
        if (this.#isStopping()) call.cancel();
      });
    } finally {
      this.#call = undefined;
      client.close();
    }
  }

  #receive(address: string, frame: Bytes): void {
    if (this.#givenUp) return;
    this.#pulse.hear();
    try {
      for (const bytes of messagesOf(frame)) this.#peek(address, bytes);
    } catch (error) {
      this.#giveUp(`a frame can't be read: ${error instanceof Error ? error.message : String(error)}`);
      return;
    }
    if (this.#frames.length === 0) setImmediate(this.#flush.bind(this));
    this.#frames.push(frame);
  }

  /** Hand over what has come. */
  #flush(): void {
    const frames = this.#frames;
    if (frames.length === 0) return;
    this.#frames = [];
    const buffers = frames.map((each) => each.buffer);
    this.#post({ kind: "frames", stream: this.#number, frames }, buffers);
  }

  #peek(address: string, bytes: Uint8Array): void {
    const [field] = bytes.length > 0 ? new BinaryReader(bytes).tag() : [0];
    if (!this.#welcomed) {
      const kind = field === WELCOME ? parsed(bytes) : undefined;
      const welcome = kind?.case === "welcome" ? kind.value : undefined;
      this.#welcomed = true;
      this.#welcomedAt = performance.now();
      this.#maxFrameBytes = Number(welcome?.limits?.maxFrameBytes ?? 0n) || undefined;
      this.#log("info", `connected to ${address}${welcome?.resumed ? ", session resumed" : ""}`);
      this.#graceMs = positive(welcome?.sessionGrace, GRACE_MS) ?? this.#graceMs;
      // A Welcome in fragments is put together by the main thread only; its interval is taken for the usual one.
      const interval = positive(welcome?.heartbeatInterval, HEARTBEAT_MS) ?? DEFAULT_HEARTBEAT_MS;
      if (!this.#stopping) this.#pulse.welcome(interval);
    } else if (field === GO_AWAY) {
      const kind = parsed(bytes);
      if (kind.case !== "goAway") return;
      this.#log("info", `the executor goes away: ${kind.value.reason}`);
      this.#awayMs = bounded(kind.value.reconnectDelay, 0, LONGEST_AWAY_MS);
    }
  }

  #beat(lag: number, blockingStack: string): void {
    const value = {
      attemptsInHand: Atomics.load(this.#counts, Counts.attemptsInHand),
      liveInvocations: Atomics.load(this.#counts, Counts.liveInvocations),
      ...(lag > 0 && { loopLag: toDuration(lag), blockingStack }),
    };
    const frame = create(WorkerFrameSchema, { messages: [{ kind: { case: "heartbeat", value } }] });
    this.#call?.write(toBinary(WorkerFrameSchema, frame));
  }

  /** Give a stream up from this side. */
  #giveUp(reason: string): void {
    this.#givenUp ||= reason;
    this.#call?.cancel();
  }

  /** Give the milliseconds until the next try to connect: full jitter over a backoff, or what the executor wished. */
  #delay(): number {
    const longest = Math.min(LONGEST_DELAY_MS, this.#graceMs / GRACE_SHARE);
    const ceiling = Math.min(longest, FIRST_DELAY_MS * 2 ** this.#failures);
    const delay = this.#awayMs + Math.random() * ceiling;
    this.#failures = Math.min(this.#failures + 1, 20);
    this.#awayMs = 0;
    return delay;
  }
}

/** Read a duration that the executor has chosen, brought into its bounds; undefined if it is not above 0. */
function positive(duration: Duration | undefined, [least, most]: readonly [number, number]): number | undefined {
  return milliseconds(duration) > 0 ? bounded(duration, least, most) : undefined;
}

/** Give the serialized messages of a serialized frame. */
function* messagesOf(frame: Uint8Array): Generator<Uint8Array> {
  const reader = new BinaryReader(frame);
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (number === 1 && wireType === WireType.LengthDelimited) yield reader.bytes();
    else reader.skip(wireType);
  }
}

function parsed(bytes: Uint8Array): ExecutorMessage["kind"] {
  return fromBinary(ExecutorMessageSchema, bytes).kind;
}

/** Give bytes with memory of their own, which can be transferred to another thread. */
function owned(buffer: Buffer): Bytes {
  return new Uint8Array(buffer);
}
