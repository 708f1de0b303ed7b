/**
 * What the replay machine takes and gives, as data. Mirrors the opcodes of the contract, without Protobuf.
 *
 * Times are Unix times in milliseconds (fractions allowed), durations are milliseconds, unless a name says otherwise.
 */

import type { AttemptContext } from "../attempt.js";
import type { Failure, Payload, Retry, StepKey } from "../model.js";

/** What a step does; the numbers are the contract's. */
export const StepKind = { closure: 1, task: 2, sleep: 3, invoke: 4, sendEvents: 5, waitForEvent: 6 } as const;
export type StepKind = (typeof StepKind)[keyof typeof StepKind];

/** An event to send. An empty id lets the executor make a stable one; without a time it is sent now. */
export interface OutgoingEvent {
  readonly id: string;
  readonly name: string;
  readonly data: Payload;
  readonly time?: number | undefined;
}

/** What a step does, with what it needs. `run` of a closure is called in a worker, with the attempt that it is. */
export type Target =
  | { readonly kind: typeof StepKind.closure; readonly run: (attempt: AttemptContext) => unknown }
  | { readonly kind: typeof StepKind.task; readonly name: string; readonly input: Payload }
  | { readonly kind: typeof StepKind.sleep; readonly until?: number; readonly delay?: number }
  | {
      readonly kind: typeof StepKind.invoke;
      /** Empty for the run's own app. */
      readonly app: string;
      readonly functionId: string;
      readonly input: Payload;
    }
  | { readonly kind: typeof StepKind.sendEvents; readonly events: readonly OutgoingEvent[] }
  | {
      readonly kind: typeof StepKind.waitForEvent;
      readonly eventName: string;
      /** Dotted paths in the event's data, and the JSON text that each must equal. */
      readonly fields: Readonly<Record<string, string>>;
      readonly timeout?: number;
    };

/**
 * Give what identifies a target beside its kind: the task, "app/function", or the event's name; else "".
 *
 * `app` is the run's. Inputs, times, options and what a wait matches do not identify a step: they may change.
 */
export function targetName(target: Target, app: string): string {
  switch (target.kind) {
    case StepKind.task:
      return target.name;
    case StepKind.invoke:
      return `${target.app || app}/${target.functionId}`;
    case StepKind.waitForEvent:
      return target.eventName;
    default:
      return "";
  }
}

/** A step that the body has started. `source` is like "flow.ts:42". */
export interface Planned {
  readonly key: StepKey;
  readonly target: Target;
  readonly retry?: Retry | undefined;
  readonly attemptTimeout?: number | undefined;
  readonly stepTimeout?: number | undefined;
  readonly source: string;
}

/** A step that the executor knows as planned and unfinished: after the journal the body must have found it. */
export interface Expected {
  readonly key: StepKey;
  readonly kind: StepKind;
  readonly source: string;
  /** See `targetName`; empty or left out if the executor does not say it. */
  readonly target?: string;
}

/** How a step ended. */
export type StepOutcome =
  | { readonly case: "output"; readonly output: Payload }
  | { readonly case: "failure"; readonly failure: Failure }
  | { readonly case: "timedOut" };

/** One journal entry. */
export interface Entry {
  readonly sequence: number;
  readonly key: StepKey;
  readonly kind: StepKind;
  readonly outcome: StepOutcome;
  readonly recordedAt: number;
  readonly attempts: number;
  readonly source: string;
  /** That of `Expected`. */
  readonly target?: string;
}

/** A received event with its data still encoded. */
export interface ReceivedEvent {
  readonly id: string;
  readonly name: string;
  readonly data: Payload;
  readonly time: number;
}

/** What an invocation is told of its run. `attempt` counts tries at the body from 1. */
export interface RunInfo {
  readonly runId: string;
  readonly app: string;
  readonly functionId: string;
  readonly attempt: number;
  readonly events: readonly ReceivedEvent[];
  readonly createdAt: number;
}

/** How a body ended: it returned, or it threw or diverged from its journal. */
export type Outcome =
  { readonly case: "returned"; readonly output: Payload } | { readonly case: "thrown"; readonly failure: Failure };

/**
 * What a body did since the last turn, in order.
 *
 * `found`: new steps, neither in the journal nor expected. `outcome`: set once the body has ended, in every turn from
 * then on. A promise can't be cancelled, so that a body gives steps up only by ending.
 */
export interface Turn {
  readonly found: readonly Planned[];
  readonly outcome?: Outcome | undefined;
}
