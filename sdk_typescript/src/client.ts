/** The client: sends events, looks at runs, waits for them, cancels them. */
import { codecOf, textOf, timeOf } from "./arguments.js";
import { create, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { randomUUID } from "node:crypto";
import { Calls } from "./calls.js";
import { executorAddress } from "./channel.js";
import { milliseconds, shown, type Duration } from "./durations.js";
import { ExecutorError, RunFailedError, StepwireError } from "./errors.js";
import type { Event as EventToSend, EventTypes } from "./events.js";
import {
  AdminService,
  GetStatusRequestSchema,
  ListFunctionsRequestSchema,
  ListWorkersRequestSchema,
} from "./gen/stepwire/v1/admin_pb.js";
import { EventSchema, EventService, SendEventsRequestSchema, type Event } from "./gen/stepwire/v1/event_pb.js";
import {
  CancelRunRequestSchema,
  ExplainRunRequestSchema,
  GetRunRequestSchema,
  ListRunsRequestSchema,
  RunService,
  WaitRunRequestSchema,
  WatchRunRequestSchema,
} from "./gen/stepwire/v1/run_pb.js";
import { checkOptions, needOptions } from "./options.js";
import type { PatienceOptions } from "./patience.js";
import * as records from "./records.js";
import type { Failure } from "./model.js";
import { securityOf, type Security } from "./security.js";
import { Values, type Codec } from "./values.js";
import { toPayload, toTimestamp } from "./wire.js";

const EVENTS_A_CALL = 5_000;
const BYTES_A_CALL = 3 * 1024 * 1024;
const RUNS_A_PAGE = 200;
const STEPS_A_PAGE = 1_000;
const CLIENT_OPTIONS = ["executor", "codec", "timeout", "retryFor", "security"];
const LIST_OPTIONS = ["app", "function", "states", "eventId", "parentRunId", "createdAfter", "createdBefore"];
const EVENT_FIELDS = ["name", "data", "id", "time"];
const DEFAULT_TIMEOUT = "30s";
const DEFAULT_RETRY_FOR = "5s";

/** Options of a client. */
export interface ClientOptions {
  /** HOST:PORT of the executor, or of several that stand by for each other. Default: STEPWIRE_EXECUTOR. */
  readonly executor?: string;
  /** Must be the app's. */
  readonly codec?: Codec;
  /** For each call, but not for waiting; "30s" by default. */
  readonly timeout?: Duration;
  /** For so long a call that finds no executor is made again; "5s" by default. */
  readonly retryFor?: Duration;
  /** The token and TLS; by default what the STEPWIRE_* variables say. */
  readonly security?: Security;
}

/** Filters of `Client.list`; all that are set must hold. */
export interface ListOptions {
  readonly app?: string;
  readonly function?: string;
  /** In one of these states. */
  readonly states?: readonly records.RunState[];
  /** Started by this event. */
  readonly eventId?: string;
  /** Invoked by this run. */
  readonly parentRunId?: string;
  /** Created at this time or later. */
  readonly createdAfter?: Date;
  readonly createdBefore?: Date;
}

/** W3C trace context of whoever sends events: the spans of the runs become children of it. */
export interface SendOptions {
  readonly traceparent?: string;
  readonly tracestate?: string;
}

/** How long to wait for a run; for ever by default, also over restarts of the executor. */
export interface WaitOptions {
  readonly timeout?: Duration;
}

/**
 * A client of the executor; `close` it in the end. `Events` describes the data of events by their names.
 *
 * Every method throws ExecutorError, with the gRPC status as `code`, if the executor refuses or can't be reached.
 */
export class Client<Events extends EventTypes = EventTypes> {
  /** HOST:PORT of the executor, or of several, with commas between them. */
  readonly executor: string;
  readonly #calls: Calls;
  readonly #values: Values;
  readonly #patience: PatienceOptions;

  constructor(options: ClientOptions = {}) {
    checkOptions(options, CLIENT_OPTIONS, "a client", StepwireError);
    this.executor = executorAddress(options.executor);
    this.#calls = new Calls(this.executor, securityOf(options.security));
    this.#values = new Values(codecOf(options.codec));
    this.#patience = {
      waitsFor: "",
      timeout: milliseconds(options.timeout ?? DEFAULT_TIMEOUT, "the client's timeout", StepwireError),
      retryFor: milliseconds(options.retryFor ?? DEFAULT_RETRY_FOR, "the client's retryFor", StepwireError),
    };
  }

  /**
   * Send an event, or several, and return when they and the runs that they start are durable; gives a receipt for each.
   *
   * An `id` makes an event once only for 24 h; without one, this call is still safe against being repeated. More than
   * 5,000 events or 3 MiB go in several calls, each taken whole or not at all. Throws EncodingError too, before anything
   * was sent.
   */
  async send<Name extends keyof Events & string>(
    event: EventToSend<Name, Events[Name]>,
    options?: SendOptions,
  ): Promise<records.EventReceipt>;
  async send<Name extends keyof Events & string>(
    events: readonly EventToSend<Name, Events[Name]>[],
    options?: SendOptions,
  ): Promise<records.EventReceipt[]>;
  async send(
    given: EventToSend | readonly EventToSend[],
    options: SendOptions = {},
  ): Promise<records.EventReceipt | records.EventReceipt[]> {
    checkOptions(options, ["traceparent", "tracestate"], "send", StepwireError);
    const events = Array.isArray(given) ? (given as readonly EventToSend[]) : [given as EventToSend];
    const messages = events.map((event) => this.#event(event, options));
    const receipts: records.EventReceipt[] = [];
    for (const batch of batches(messages)) {
      const request = create(SendEventsRequestSchema, { events: batch });
      const response = await this.#calls.call(EventService.method.sendEvents, request, this.#patience);
      receipts.push(...response.receipts);
    }
    // An id that was made here is new: "seen before" can only be a repetition of our own call.
    const found = receipts.map(({ eventId, runIds, duplicate }, index) => ({
      eventId,
      runIds,
      duplicate: duplicate && Boolean(events[index]?.id),
    }));
    const [first] = found;
    return Array.isArray(given) || first === undefined ? found : first;
  }

  #event(given: EventToSend, options: SendOptions): Event {
    needOptions(given, EVENT_FIELDS, `event ${shown((given as EventToSend | null | undefined)?.name)}`, StepwireError);
    const { id, data, time } = given;
    const name = textOf(given.name, "an event's name");
    return create(EventSchema, {
      id: id === undefined ? randomUUID().replaceAll("-", "") : textOf(id, `the id of event '${name}'`),
      name,
      data: toPayload(this.#values.encode(data, `the data of event '${name}'`, 0)),
      traceparent: options.traceparent ?? "",
      tracestate: options.tracestate ?? "",
      ...(time !== undefined && { time: toTimestamp(timeOf(time, `the time of event '${name}'`)) }),
    });
  }

  /** Get a run. */
  async get(runId: string): Promise<records.Run> {
    const request = create(GetRunRequestSchema, { runId: named(runId) });
    const { run } = await this.#calls.call(RunService.method.getRun, request, this.#patience);
    return readRun(run);
  }

  /** Give a run's steps in the order of discovery; with `outputs` also their outputs and failed attempts. */
  async *steps(runId: string, options: { readonly outputs?: boolean } = {}): AsyncGenerator<records.StepRecord, void> {
    checkOptions(options, ["outputs"], "steps", StepwireError);
    const { outputs = false } = options;
    const request = create(GetRunRequestSchema, { runId: named(runId), includeSteps: true, includeOutputs: outputs });
    request.pageSize = STEPS_A_PAGE;
    do {
      let response;
      try {
        response = await this.#calls.call(RunService.method.getRun, request, this.#patience);
      } catch (error) {
        const isTooLarge = error instanceof ExecutorError && error.code === "RESOURCE_EXHAUSTED";
        if (!isTooLarge || request.pageSize === 1) throw error;
        request.pageSize = Math.max(1, Math.floor(request.pageSize / 8)); // its outputs don't fit: ask in parts
        continue;
      }
      request.pageToken = response.nextPageToken;
      request.pageSize = Math.min(STEPS_A_PAGE, request.pageSize * 2);
      yield* response.steps.map(records.step);
      if (request.pageToken === "") return;
    } while (true as boolean);
  }

  /** Give runs, newest first, without outputs and event data. */
  async *list(options: ListOptions = {}): AsyncGenerator<records.Run, void> {
    checkOptions(options, LIST_OPTIONS, "list", StepwireError);
    const { createdAfter, createdBefore } = options;
    const request = create(ListRunsRequestSchema, {
      pageSize: RUNS_A_PAGE,
      app: textOf(options.app ?? "", "the filter app"),
      functionId: textOf(options.function ?? "", "the filter function"),
      states: (options.states ?? []).map(records.runStateNumber),
      eventId: textOf(options.eventId ?? "", "the filter eventId"),
      parentRunId: textOf(options.parentRunId ?? "", "the filter parentRunId"),
      ...(createdAfter && { createdAfter: toTimestamp(timeOf(createdAfter, "createdAfter")) }),
      ...(createdBefore && { createdBefore: toTimestamp(timeOf(createdBefore, "createdBefore")) }),
    });
    const ask = () => this.#calls.call(RunService.method.listRuns, request, this.#patience);
    for await (const page of pages(request, ask)) yield* page.runs.map(records.run);
  }

  /**
   * Give a run with all its steps, then whatever changes, until it has ended. Losing the executor throws ExecutorError;
   * watching again begins with everything.
   */
  async *watch(runId: string): AsyncGenerator<records.RunUpdate, void> {
    const request = create(WatchRunRequestSchema, { runId: named(runId) });
    for await (const { run, steps } of this.#calls.stream(RunService.method.watchRun, request)) {
      yield { run: readRun(run), steps: steps.map(records.step) };
    }
  }

  /** Wait until a run has ended; gives it. Throws WaitTimeoutError when the time is over. */
  async wait(runId: string, options: WaitOptions = {}): Promise<records.Run> {
    checkOptions(options, ["timeout"], `waiting for run ${runId}`, StepwireError);
    const { timeout } = options;
    const { run } = await this.#calls.call(
      RunService.method.waitRun,
      create(WaitRunRequestSchema, { runId: named(runId) }),
      {
        ...this.#patience,
        waitsFor: `run ${runId}`,
        timeout: timeout === undefined ? Infinity : milliseconds(timeout, "the timeout", StepwireError),
      },
    );
    return readRun(run);
  }

  /** Wait as `wait` does, and give the run's output. Throws RunFailedError if the run failed or was cancelled. */
  async result<Output = unknown>(runId: string, options: WaitOptions = {}): Promise<Output> {
    const run = await this.wait(runId, options);
    if (run.state !== "succeeded") throw new RunFailedError(runId, run.failure ?? endedWithoutFailure(run));
    const output = run.output === undefined ? null : this.#values.decode(run.output, `the output of run ${runId}`);
    return output as Output;
  }

  /** Cancel a run and the runs that it invoked; gives it as it is then. One that has ended stays as it is. */
  async cancel(runId: string, reason = ""): Promise<records.Run> {
    const request = create(CancelRunRequestSchema, { runId: named(runId), reason: textOf(reason, "the reason") });
    const { run } = await this.#calls.call(RunService.method.cancelRun, request, this.#patience);
    return readRun(run);
  }

  /** Ask what a run waits for, the most telling first; of an ended one how it ended. There is always an answer. */
  async why(runId: string): Promise<records.Cause[]> {
    const request = create(ExplainRunRequestSchema, { runId: named(runId) });
    const { causes } = await this.#calls.call(RunService.method.explainRun, request, this.#patience);
    return causes.map(records.cause);
  }

  /** List the workers that are connected or were a moment ago, oldest session first. */
  async workers(options: { readonly app?: string } = {}): Promise<records.WorkerInfo[]> {
    checkOptions(options, ["app"], "workers", StepwireError);
    const { app = "" } = options;
    const request = create(ListWorkersRequestSchema, { app });
    const found: records.WorkerInfo[] = [];
    const ask = () => this.#calls.call(AdminService.method.listWorkers, request, this.#patience);
    for await (const page of pages(request, ask)) found.push(...page.workers.map(records.workerInfo));
    return found;
  }

  /** List the functions that workers have registered, now or before. */
  async functions(options: { readonly app?: string } = {}): Promise<records.FunctionInfo[]> {
    checkOptions(options, ["app"], "functions", StepwireError);
    const { app = "" } = options;
    const request = create(ListFunctionsRequestSchema, { app });
    const found: records.FunctionInfo[] = [];
    const ask = () => this.#calls.call(AdminService.method.listFunctions, request, this.#patience);
    for await (const page of pages(request, ask)) found.push(...page.functions.map(records.functionInfo));
    return found;
  }

  /** Ask how the executor is: its load, how long things take it, and who holds its memory. */
  async status(): Promise<records.ExecutorStatus> {
    const request = create(GetStatusRequestSchema, {});
    return records.executorStatus(await this.#calls.call(AdminService.method.getStatus, request, this.#patience));
  }

  /** End the connection. Calls that are under way fail. */
  close(): void {
    this.#calls.close();
  }
}

/** Give a run's id back. Throws StepwireError for none, as an event that starts no run has none to give. */
function named(runId: unknown): string {
  if (typeof runId === "string" && runId !== "") return textOf(runId, "a run's id");
  throw new StepwireError(
    `${shown(runId)} is no run's id: if it comes from a receipt, the event started no run, as no function that a ` +
      "connected worker serves is triggered by its name",
  );
}

function readRun(message: Parameters<typeof records.run>[0] | undefined): records.Run {
  if (message === undefined) throw new StepwireError("the executor's answer has no run: are the versions compatible?");
  return records.run(message);
}

/** Ask for a list, page by page. */
async function* pages<Page extends { readonly nextPageToken: string }>(
  request: { pageToken: string },
  ask: () => Promise<Page>,
): AsyncGenerator<Page, void> {
  do {
    const page = await ask();
    yield page;
    request.pageToken = page.nextPageToken;
  } while (request.pageToken !== "");
}

function* batches(messages: readonly Event[]): Generator<MessageInitShape<typeof EventSchema>[]> {
  let batch: Event[] = [];
  let size = 0;
  for (const message of messages) {
    const more = toBinary(EventSchema, message).length + 8;
    if (batch.length > 0 && (batch.length >= EVENTS_A_CALL || size + more > BYTES_A_CALL)) {
      yield batch;
      batch = [];
      size = 0;
    }
    batch.push(message);
    size += more;
  }
  if (batch.length > 0) yield batch;
}

function endedWithoutFailure(run: records.Run): Failure {
  const isCancelled = run.state === "cancelled";
  return {
    type: isCancelled ? "RunCancelledError" : "UnknownError",
    message: isCancelled ? run.cancelReason || "the run was cancelled" : `the run is ${run.state}`,
    stack: "",
    retryable: false,
  };
}
