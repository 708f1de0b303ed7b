/** Stepwire: durable functions made of parallel steps. */

export {
  type AppOptions,
  type FunctionDefinition,
  type FunctionOptions,
  type RetryOptions,
  Stepwire,
  type TaskDefinition,
  type Trigger,
} from "./app.js";
export type { AttemptContext, FunctionContext, Logger } from "./context.js";
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
  StepError,
  StepwireError,
  WaitTimeoutError,
} from "./errors.js";
export type { Event, EventOf, EventToSend, EventTypes, ReceivedEvent, WaitOptions } from "./events.js";
export type { Jsonify } from "./jsonify.js";
export type { Failure, Payload } from "./replay/model.js";
export type { InvokeOptions, Step, StepId, StepOptions } from "./step.js";
export type { Codec } from "./values.js";
