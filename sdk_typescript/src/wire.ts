/**
 * Between the contract's Protobuf and the SDK's data. Knows no stream and no state of a run.
 *
 * `x(message)` reads, `toX(data)` gives what a message is made from. Times are Unix times in milliseconds, durations are
 * milliseconds, on the SDK's side.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import type { Event, EventSchema } from "./gen/stepwire/v1/event_pb.js";
import type { JournalEntry, StepPlannedSchema } from "./gen/stepwire/v1/opcode_pb.js";
import type {
  Failure as FailureMessage,
  FailureSchema,
  Payload as PayloadMessage,
  PayloadSchema,
  RetryPolicy,
  RetryPolicySchema,
  StepKey as StepKeyMessage,
} from "./gen/stepwire/v1/value_pb.js";
import type { FunctionOptionsSchema, PlannedStep } from "./gen/stepwire/v1/worker_pb.js";
import {
  StepKind,
  type Entry,
  type Expected,
  type OutgoingEvent,
  type Planned,
  type ReceivedEvent,
  type StepOutcome,
  type Target,
} from "./replay/model.js";
import type { Failure, Payload, Retry, StepKey } from "./model.js";

const DEEPEST_CAUSE = 16;
const LONGEST_SOURCE_BYTES = 256;
const LONGEST_DURATION = 315_576_000_000_000;
const FIRST_TIME = -62_135_596_800_000;
const LAST_TIME = 253_402_300_800_000;
const KNOWN_KINDS: ReadonlySet<number> = new Set(Object.values(StepKind));

interface Split {
  seconds: bigint;
  nanos: number;
}

// Times.

function split(milliseconds: number): Split {
  let seconds = Math.floor(milliseconds / 1000);
  let nanos = Math.round((milliseconds - seconds * 1000) * 1e6);
  if (nanos === 1e9) [seconds, nanos] = [seconds + 1, 0];
  return { seconds: BigInt(seconds), nanos };
}

/** Make a timestamp of a Unix time. Throws RangeError outside of the years 1 to 9999. */
export function toTimestamp(time: number): Split {
  if (!(time >= FIRST_TIME && time < LAST_TIME)) {
    throw new RangeError(`the time ${String(time)} (Unix milliseconds) lies outside of the years 1 to 9999`);
  }
  return split(time);
}

/** Make a duration. Throws RangeError for less than 0 and over 10,000 years. */
export function toDuration(milliseconds: number): Split {
  if (!(milliseconds >= 0 && milliseconds <= LONGEST_DURATION)) {
    throw new RangeError(`the duration ${String(milliseconds)} ms is not between 0 and 10,000 years`);
  }
  return split(milliseconds);
}

/**
 * Read a timestamp as a Unix time; 0 for none. What lies outside of the years 1 to 9999 counts as their begin or end:
 * nothing that the executor sends may end a worker, and a `Date` can't hold every other time.
 */
export function unixTime(message: Timestamp | undefined): number {
  if (message === undefined) return 0;
  const time = Number(message.seconds) * 1000 + message.nanos / 1e6;
  return time >= LAST_TIME ? LAST_TIME - 1 : Math.max(time, FIRST_TIME);
}

/** Read a duration; 0 for none. */
export function milliseconds(message: Duration | undefined): number {
  return message === undefined ? 0 : Number(message.seconds) * 1000 + message.nanos / 1e6;
}

/** Read a duration; what is out of range counts as the nearest that is not. */
export function bounded(message: Duration | undefined, least: number, most: number): number {
  return Math.min(Math.max(milliseconds(message), least), most);
}

// Values.

const NOTHING: Payload = { data: new Uint8Array(0), encoding: "", metadata: {} };

/** Read a payload; one without an encoding is JSON, unless it is empty: that is an absent value. */
export function payload(message: PayloadMessage | undefined): Payload {
  if (message === undefined) return NOTHING;
  const { data, metadata } = message;
  return { data, encoding: message.encoding || (data.length > 0 ? "json" : ""), metadata };
}

/** Make a payload. */
export function toPayload(data: Payload): MessageInitShape<typeof PayloadSchema> {
  return { data: data.data, encoding: data.encoding, metadata: { ...data.metadata } };
}

/** Read a failure; causes below `depth` are cut off. */
export function failure(message: FailureMessage, depth = DEEPEST_CAUSE): Failure {
  return {
    type: message.type,
    message: message.message,
    stack: message.stack,
    retryable: message.retryable,
    retryAfter: message.retryAfter && milliseconds(message.retryAfter),
    cause: message.cause && depth > 0 ? failure(message.cause, depth - 1) : undefined,
    details: message.details && payload(message.details),
  };
}

/** Make a failure; causes below `depth` are cut off. */
export function toFailure(data: Failure, depth = DEEPEST_CAUSE): MessageInitShape<typeof FailureSchema> {
  return {
    type: data.type,
    message: data.message,
    stack: data.stack,
    retryable: data.retryable,
    ...(data.retryAfter !== undefined && {
      retryAfter: split(Math.min(Math.max(data.retryAfter, 0), LONGEST_DURATION)),
    }),
    ...(data.cause && depth > 0 && { cause: toFailure(data.cause, depth - 1) }),
    ...(data.details && { details: toPayload(data.details) }),
  };
}

/** Read a step's key. */
export function key(message: StepKeyMessage | undefined): StepKey {
  return { id: message?.id ?? "", index: message?.index ?? 0 };
}

/** Read a retry policy, with the contract's defaults. */
export function retry(message: RetryPolicy): Retry {
  return {
    retries: message.retries,
    initialInterval: message.initialInterval ? milliseconds(message.initialInterval) : 1000,
    maximumInterval: message.maximumInterval ? milliseconds(message.maximumInterval) : 300_000,
    multiplier: message.multiplier || 2,
  };
}

/** Make a retry policy. */
function toRetry(data: Retry): MessageInitShape<typeof RetryPolicySchema> {
  return {
    retries: data.retries,
    initialInterval: toDuration(data.initialInterval),
    maximumInterval: toDuration(data.maximumInterval),
    multiplier: data.multiplier,
  };
}

// Events and the journal.

/** Read a received event. */
export function receivedEvent(message: Event): ReceivedEvent {
  return { id: message.id, name: message.name, data: payload(message.data), time: unixTime(message.time) };
}

/** Make an event to send. */
function toEvent(data: OutgoingEvent): MessageInitShape<typeof EventSchema> {
  return {
    id: data.id,
    name: data.name,
    data: toPayload(data.data),
    ...(data.time !== undefined && { time: toTimestamp(data.time) }),
  };
}

function kind(number: number): StepKind {
  if (KNOWN_KINDS.has(number)) return number as StepKind;
  throw new RangeError(
    `step kind ${String(number)} is not known to this version of the SDK: update the stepwire package`,
  );
}

/** Read a journal entry. Throws RangeError if its kind is not known or it has no outcome. */
export function entry(message: JournalEntry): Entry {
  return {
    sequence: Number(message.sequence),
    key: key(message.key),
    kind: kind(message.kind),
    outcome: stepOutcome(message),
    recordedAt: unixTime(message.recordedAt),
    attempts: message.attempts,
    source: message.source,
    target: message.target,
  };
}

function stepOutcome(message: JournalEntry): StepOutcome {
  const outcome = message.outcome;
  switch (outcome.case) {
    case "output":
      return { case: "output", output: payload(outcome.value) };
    case "failure":
      return { case: "failure", failure: failure(outcome.value) };
    case "timedOut":
      return { case: "timedOut" };
    default:
      throw new RangeError(
        `journal entry ${String(message.sequence)} has no outcome that this version of the SDK knows`,
      );
  }
}

/** Read an unfinished step. Throws RangeError if its kind is not known. */
export function expected(message: PlannedStep): Expected {
  return { key: key(message.key), kind: kind(message.kind), source: message.source, target: message.target };
}

// Steps that a body has found.

/** Make the message of a step that a body has started. Throws RangeError for a time out of range. */
export function toPlanned(data: Planned, eagerFence = 0n): MessageInitShape<typeof StepPlannedSchema> {
  return {
    key: data.key,
    source: cut(data.source),
    eagerFence,
    target: toTarget(data.target),
    ...(data.retry && { retry: toRetry(data.retry) }),
    ...(data.attemptTimeout !== undefined && { attemptTimeout: toDuration(data.attemptTimeout) }),
    ...(data.stepTimeout !== undefined && { stepTimeout: toDuration(data.stepTimeout) }),
  };
}

/** Keep the end of a source that is too long: there the line stands. */
function cut(source: string): string {
  if (source.length * 3 <= LONGEST_SOURCE_BYTES) return source;
  const encoded = Buffer.from(source);
  if (encoded.length <= LONGEST_SOURCE_BYTES) return source;
  let begin = encoded.length - LONGEST_SOURCE_BYTES;
  while (((encoded[begin] ?? 0) & 0xc0) === 0x80) begin += 1; // not in the middle of a character
  return encoded.toString("utf8", begin);
}

type TargetMessage = NonNullable<MessageInitShape<typeof StepPlannedSchema>["target"]>;

function toTarget(target: Target): TargetMessage {
  switch (target.kind) {
    case StepKind.closure:
      return { case: "closure", value: {} };
    case StepKind.task:
      return { case: "task", value: { name: target.name, input: toPayload(target.input) } };
    case StepKind.sleep:
      return {
        case: "sleep",
        value: {
          end:
            target.until !== undefined
              ? { case: "until", value: toTimestamp(target.until) }
              : { case: "delay", value: toDuration(target.delay ?? 0) },
        },
      };
    case StepKind.invoke:
      return {
        case: "invoke",
        value: { app: target.app, functionId: target.functionId, input: toPayload(target.input) },
      };
    case StepKind.sendEvents:
      return { case: "sendEvents", value: { events: target.events.map(toEvent) } };
    case StepKind.waitForEvent:
      return {
        case: "waitForEvent",
        value: {
          eventName: target.eventName,
          fields: Object.entries(target.fields).map(([path, jsonValue]) => ({ path, jsonValue })),
          ...(target.timeout !== undefined && { timeout: toDuration(target.timeout) }),
        },
      };
  }
}

/** Make a function's options; `runTimeout` is in milliseconds. */
export function toFunction(data: {
  readonly id: string;
  readonly triggers: readonly string[];
  readonly retry?: Retry | undefined;
  readonly runTimeout?: number | undefined;
}): MessageInitShape<typeof FunctionOptionsSchema> {
  return {
    id: data.id,
    triggers: data.triggers.map((eventName) => ({ kind: { case: "eventName", value: eventName } })),
    ...(data.retry && { retry: toRetry(data.retry) }),
    ...(data.runTimeout !== undefined && { runTimeout: toDuration(data.runTimeout) }),
  };
}
