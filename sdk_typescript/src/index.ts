/** Stepwire: durable functions made of parallel steps. */

export { type AppOptions, type FunctionOptions, Stepwire, type Trigger } from "./app.js";
export type { FunctionDefinition, TaskDefinition } from "./definitions.js";
export type { RetryOptions } from "./retries.js";
export { Client, type ClientOptions, type ListOptions, type SendOptions } from "./client.js";
export type { AttemptContext, Logger } from "./attempt.js";
export type { FunctionContext } from "./body/context.js";
export type { Duration } from "./durations.js";
export {
  EncodingError,
  ExecutorError,
  ForeignAwaitError,
  InvalidStepError,
  NestedStepError,
  NonDeterminismError,
  NonRetriableError,
  OutputTooLargeError,
  RegistrationError,
  RetryAfterError,
  RunFailedError,
  SpinningBodyError,
  StepError,
  StepwireError,
  WaitTimeoutError,
} from "./errors.js";
export type { Event, EventOf, EventToSend, EventTypes, ReceivedEvent, WaitOptions } from "./events.js";
export type { Jsonify } from "./jsonify.js";
export type {
  Cause,
  CauseKind,
  EventReceipt,
  EventRecord,
  FailedAttempt,
  FunctionInfo,
  Run,
  RunState,
  RunUpdate,
  StepKindName,
  StepRecord,
  StepState,
  WorkerInfo,
  ExecutorStatus,
  ExecutorState,
  Holder,
  HolderKind,
  Times,
  WorkerState,
} from "./records.js";
export type { Failure, Payload, Retry, StepKey } from "./model.js";
export { Security, type SecurityOptions } from "./security.js";
export type { InvokeOptions, Step, StepId, StepOptions } from "./body/step.js";
export type { Codec } from "./values.js";
export { VERSION } from "./version.js";
export type { App } from "./worker/app.js";
export { createLogger, type FieldLogger, type LogLevel, type LogOptions } from "./worker/logs.js";
export { serve, type ServeOptions } from "./worker/serve.js";
export { Worker, type WorkerOptions } from "./worker/worker.js";
