/**
 * What a client is told of runs, steps, workers and functions, as data; and how it is read from the contract.
 *
 * Durations are milliseconds. Outputs and events' data stay encoded: `Client.result` decodes.
 */
import { shown } from "./durations.js";
import { StepwireError } from "./errors.js";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import {
  ExecutorState as ExecutorStates,
  HolderKind as HolderKinds,
  WorkerState as WorkerStates,
  type Function as FunctionMessage,
  type GetStatusResponse,
  type Times as TimesMessage,
  type Worker as WorkerMessage,
} from "./gen/stepwire/v1/admin_pb.js";
import { StepKind as StepKinds } from "./gen/stepwire/v1/opcode_pb.js";
import {
  CauseKind as CauseKinds,
  RunState as RunStates,
  StepState as StepStates,
  type Cause as CauseMessage,
  type Run as RunMessage,
  type Step as StepMessage,
} from "./gen/stepwire/v1/run_pb.js";
import type { Failure, Payload, Retry, StepKey } from "./model.js";
import { failure, key, milliseconds, payload, retry, unixTime } from "./wire.js";

type Name<Enum> = Lowercase<Exclude<keyof Enum & string, "UNSPECIFIED">> | "unknown";

/** Where a run stands; "unknown" is a state that this version of the SDK does not know. */
export type RunState = Name<typeof RunStates>;
/** Where a step stands: waits for a slot, runs, waits for something, waits for its next attempt, or has ended. */
export type StepState = Name<typeof StepStates>;
/** What a step does. */
export type StepKindName = Name<typeof StepKinds>;
/** Where a worker stands. */
export type WorkerState = Name<typeof WorkerStates>;
/** Whether an executor takes work. On standby another one has the store. */
export type ExecutorState = Name<typeof ExecutorStates>;
/** What somebody holds memory by. */
export type HolderKind = Name<typeof HolderKinds>;
/** What kind of thing a run waits for; `proto/stepwire/v1/run.proto` explains each. */
export type CauseKind = Name<typeof CauseKinds>;

/** What an event has led to. */
export interface EventReceipt {
  readonly eventId: string;
  /** The runs that it started. */
  readonly runIds: readonly string[];
  /** An event with its id had been taken before. */
  readonly duplicate: boolean;
}

/** The event that started a run; its data is still encoded, and left out where runs are listed. */
export interface EventRecord {
  readonly id: string;
  readonly name: string;
  readonly data: Payload;
  readonly time: Date | undefined;
}

/** A run. */
export interface Run {
  readonly id: string;
  readonly app: string;
  readonly function: string;
  readonly state: RunState;
  readonly event: EventRecord | undefined;
  readonly createdAt: Date | undefined;
  readonly startedAt: Date | undefined;
  readonly endedAt: Date | undefined;
  readonly output: Payload | undefined;
  /** That of a failed run, or the last error of a body that is tried again. */
  readonly failure: Failure | undefined;
  /** The try at the body, from 1. */
  readonly attempt: number;
  /** How many workers were lost that held its lead. */
  readonly lostInvocations: number;
  /** The run that invoked it, and its step there. */
  readonly parentRunId: string;
  readonly parentStep: StepKey | undefined;
  /** How many steps are in each state. */
  readonly stepCounts: Readonly<Partial<Record<StepState, number>>>;
  readonly traceparent: string;
  readonly cancelReason: string;
  /** The instance id of the worker that holds its lead. */
  readonly leadWorker: string;
  /**
   * Whether the output and the event's data are left out, though there may be some: as in a list, and in all but the first
   * and the last update of a large run.
   */
  readonly payloadsOmitted: boolean;
}

/** An attempt that did not succeed. */
export interface FailedAttempt {
  /** From 1. */
  readonly number: number;
  /** The worker's instance id. */
  readonly worker: string;
  readonly startedAt: Date | undefined;
  readonly endedAt: Date | undefined;
  readonly failure: Failure | undefined;
}

/** A step of a run. */
export interface StepRecord {
  readonly key: StepKey;
  readonly kind: StepKindName;
  readonly state: StepState;
  /** Its place in the order of discovery, from 1. */
  readonly number: number;
  /** Its place in the journal; 0 before it has one. */
  readonly sequence: number;
  /** The newest attempt, from 1; 0 before the first. */
  readonly attempt: number;
  /** The instance id of the worker of that attempt. */
  readonly worker: string;
  readonly plannedAt: Date | undefined;
  readonly startedAt: Date | undefined;
  readonly endedAt: Date | undefined;
  /** The end of a sleep, a wait or a backoff. */
  readonly dueAt: Date | undefined;
  /** If it was asked for. */
  readonly output: Payload | undefined;
  readonly failure: Failure | undefined;
  /** If they were asked for. */
  readonly failedAttempts: readonly FailedAttempt[];
  /** The task, event or function that it names. */
  readonly target: string;
  readonly childRunId: string;
}

/** A run as it is now, and those of its steps that are new or have changed, without outputs. */
export interface RunUpdate {
  readonly run: Run;
  readonly steps: readonly StepRecord[];
}

/** One thing that a run waits for; `text` says it in a sentence. Steps that wait for the same thing share one. */
export interface Cause {
  readonly kind: CauseKind;
  readonly text: string;
  /** One of `stepCount` steps. */
  readonly step: StepKey | undefined;
  readonly stepCount: number;
  /** The function, task or event that is wanted. */
  readonly target: string;
  /** A worker's instance id. */
  readonly worker: string;
  /** Another run that it is about. */
  readonly runId: string;
  /** The attempt that runs or is to come, and the most that there will be. */
  readonly attempt: number;
  readonly maxAttempts: number;
  readonly since: Date | undefined;
  /** When it ends at the latest. */
  readonly dueAt: Date | undefined;
  readonly failure: Failure | undefined;
  readonly detail: string;
  /** Why that is so. */
  readonly causes: readonly Cause[];
}

/** A worker that is connected, or was a moment ago. */
export interface WorkerInfo {
  readonly instanceId: string;
  readonly sessionId: string;
  readonly state: WorkerState;
  readonly app: string;
  readonly appVersion: string;
  readonly sdkName: string;
  readonly sdkVersion: string;
  readonly slots: number;
  readonly slotsTaken: number;
  readonly liveInvocations: number;
  readonly functionIds: readonly string[];
  readonly tasks: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly connectedAt: Date | undefined;
  /** How long nothing has come from it, and how late the loop is that runs user code. */
  readonly idle: number;
  readonly loopLag: number;
  /** What blocks that loop. */
  readonly blockingStack: string;
}

/** How long something took that happens again and again, in the last one to two minutes. In milliseconds. */
export interface Times {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  /** 999 of 1,000 took no longer. */
  readonly p999: number;
  readonly longest: number;
}

/** Somebody by whom memory is held: so many bytes, of so many runs or messages. */
export interface Holder {
  readonly app: string;
  readonly worker: string;
  readonly kind: HolderKind;
  readonly bytes: number;
  readonly count: number;
}

/** How an executor is; numbers are of its process, since it started where nothing else is said. */
export interface ExecutorStatus {
  readonly version: string;
  readonly state: ExecutorState;
  /** Why it takes no work; empty while it does. */
  readonly reason: string;
  readonly startedAt: Date | undefined;
  readonly epoch: number;
  /** What could not be decided by a bug of the executor. */
  readonly faults: number;
  /** How often it has dropped what was not durable, and begun anew. */
  readonly begunAnew: number;
  /** Pieces of work on its loop: so long everybody else waits. */
  readonly pieces: Times;
  /** How long inputs waited until they were decided. */
  readonly waits: Times;
  readonly commits: Times;
  readonly queuedInputs: number;
  /** How long the first of them has waited. In milliseconds. */
  readonly oldestInput: number;
  readonly memoryBytes: number;
  readonly workers: number;
  readonly slots: number;
  readonly slotsTaken: number;
  /** Runs in memory, and those of them that want a worker, which none of them has. */
  readonly runs: number;
  readonly queuedRuns: number;
  readonly maxQueuedRuns: number;
  readonly queuedBytes: number;
  readonly maxQueuedBytes: number;
  /** Runs that are waited for or watched, once for each call that does so. */
  readonly watches: number;
  /** By whom memory is held, the largest first. */
  readonly holders: readonly Holder[];
}

/** A function that workers have registered, now or before. */
export interface FunctionInfo {
  readonly app: string;
  readonly id: string;
  /** Names of events. */
  readonly triggers: readonly string[];
  readonly retry: Retry | undefined;
  readonly runTimeout: number | undefined;
  readonly appVersion: string;
  /** How many workers serve it now. */
  readonly workers: number;
  readonly registeredAt: Date | undefined;
  /** Since when no worker has served it, by the day or better; undefined while one does. */
  readonly unservedSince: Date | undefined;
}

function nameOf<Enum extends object>(names: Enum, number: number): Name<Enum> {
  const name = (names as Record<number, string | undefined>)[number];
  return (number === 0 || name === undefined ? "unknown" : name.toLowerCase()) as Name<Enum>;
}

/** Give the contract's number of a state. */
export function runStateNumber(state: RunState): RunStates {
  const number = RunStates[shown(state).replaceAll('"', "").toUpperCase() as keyof typeof RunStates] as
    RunStates | undefined;
  if (typeof number !== "number" || number === RunStates.UNSPECIFIED) {
    throw new StepwireError(`${shown(state)} is no state of a run`);
  }
  return number;
}

function date(stamp: Timestamp | undefined): Date | undefined {
  return stamp && new Date(unixTime(stamp));
}

/** Read a run. */
export function run(message: RunMessage): Run {
  const { event } = message;
  return {
    id: message.id,
    app: message.app,
    function: message.functionId,
    state: nameOf(RunStates, message.state),
    event: event && { id: event.id, name: event.name, data: payload(event.data), time: date(event.time) },
    createdAt: date(message.createdAt),
    startedAt: date(message.startedAt),
    endedAt: date(message.endedAt),
    output: message.output && payload(message.output),
    failure: message.failure && failure(message.failure),
    attempt: message.attempt,
    lostInvocations: message.lostInvocations,
    parentRunId: message.parentRunId,
    parentStep: message.parentStep && key(message.parentStep),
    stepCounts: Object.fromEntries(message.stepCounts.map((each) => [nameOf(StepStates, each.state), each.count])),
    traceparent: message.traceparent,
    cancelReason: message.cancelReason,
    leadWorker: message.leadWorker,
    payloadsOmitted: message.payloadsOmitted,
  };
}

/** Read a step. */
export function step(message: StepMessage): StepRecord {
  return {
    key: key(message.key),
    kind: nameOf(StepKinds, message.kind),
    state: nameOf(StepStates, message.state),
    number: message.number,
    sequence: Number(message.sequence),
    attempt: message.attempt,
    worker: message.worker,
    plannedAt: date(message.plannedAt),
    startedAt: date(message.startedAt),
    endedAt: date(message.endedAt),
    dueAt: date(message.dueAt),
    output: message.output && payload(message.output),
    failure: message.failure && failure(message.failure),
    failedAttempts: message.failedAttempts.map((each) => ({
      number: each.number,
      worker: each.worker,
      startedAt: date(each.startedAt),
      endedAt: date(each.endedAt),
      failure: each.failure && failure(each.failure),
    })),
    target: message.target,
    childRunId: message.childRunId,
  };
}

/** Read a cause, and those under it. */
export function cause(message: CauseMessage): Cause {
  return {
    kind: nameOf(CauseKinds, message.kind),
    text: message.text,
    step: message.step && key(message.step),
    stepCount: message.stepCount,
    target: message.target,
    worker: message.worker,
    runId: message.runId,
    attempt: message.attempt,
    maxAttempts: message.maxAttempts,
    since: date(message.since),
    dueAt: date(message.dueAt),
    failure: message.failure && failure(message.failure),
    detail: message.detail,
    causes: message.causes.map(cause),
  };
}

/** Read a worker. */
export function workerInfo(message: WorkerMessage): WorkerInfo {
  return {
    instanceId: message.instanceId,
    sessionId: message.sessionId,
    state: nameOf(WorkerStates, message.state),
    app: message.app,
    appVersion: message.appVersion,
    sdkName: message.sdkName,
    sdkVersion: message.sdkVersion,
    slots: message.slots,
    slotsTaken: message.slotsTaken,
    liveInvocations: message.liveInvocations,
    functionIds: message.functionIds,
    tasks: message.tasks,
    labels: message.labels,
    connectedAt: date(message.connectedAt),
    idle: milliseconds(message.idle),
    loopLag: milliseconds(message.loopLag),
    blockingStack: message.blockingStack,
  };
}

/** Read a status. */
export function executorStatus(message: GetStatusResponse): ExecutorStatus {
  return {
    version: message.version,
    state: nameOf(ExecutorStates, message.state),
    reason: message.reason,
    startedAt: date(message.startedAt),
    epoch: Number(message.epoch),
    faults: Number(message.faults),
    begunAnew: Number(message.begunAnew),
    pieces: times(message.pieces),
    waits: times(message.waits),
    commits: times(message.commits),
    queuedInputs: Number(message.queuedInputs),
    oldestInput: milliseconds(message.oldestInput),
    memoryBytes: Number(message.memoryBytes),
    workers: message.workers,
    slots: Number(message.slots),
    slotsTaken: Number(message.slotsTaken),
    runs: Number(message.runs),
    queuedRuns: Number(message.queuedRuns),
    maxQueuedRuns: Number(message.maxQueuedRuns),
    queuedBytes: Number(message.queuedBytes),
    maxQueuedBytes: Number(message.maxQueuedBytes),
    watches: Number(message.watches),
    holders: message.holders.map((each) => ({
      app: each.app,
      worker: each.worker,
      kind: nameOf(HolderKinds, each.kind),
      bytes: Number(each.bytes),
      count: Number(each.count),
    })),
  };
}

function times(message: TimesMessage | undefined): Times {
  return {
    count: Number(message?.count ?? 0),
    p50: milliseconds(message?.p50),
    p99: milliseconds(message?.p99),
    p999: milliseconds(message?.p999),
    longest: milliseconds(message?.longest),
  };
}

/** Read a function. */
export function functionInfo(message: FunctionMessage): FunctionInfo {
  const { options } = message;
  return {
    app: message.app,
    id: options?.id ?? "",
    triggers: (options?.triggers ?? []).flatMap(({ kind }) => (kind.case === "eventName" ? [kind.value] : [])),
    retry: options?.retry && retry(options.retry),
    runTimeout: options?.runTimeout && milliseconds(options.runTimeout),
    appVersion: message.appVersion,
    workers: message.workers,
    registeredAt: date(message.registeredAt),
    unservedSince: date(message.unservedSince),
  };
}
