/** Functions and tasks as they were declared. */

import type { AttemptContext, Logger } from "./attempt.js";
import type { Retry } from "./model.js";

/** A declared function, as workers and replays see it. `Data` and `Output` are types only. */
export interface FunctionDefinition<Data = unknown, Output = unknown> {
  /** The name of the app that it belongs to. */
  readonly app: string;
  readonly id: string;
  /** Names of the events that start it. */
  readonly triggers: readonly string[];
  readonly retry?: Retry | undefined;
  /** In milliseconds. */
  readonly runTimeout?: number | undefined;
  readonly logger: Logger | undefined;
  /** It is given a FunctionContext, which whoever calls it makes. */
  readonly body: (context: never) => unknown;
  /** Where it is declared, like "flow.ts:42". */
  readonly source?: string;
  /** Never there: carries the types of what `step.invoke` takes and gives. */
  readonly types?: { readonly data: Data; readonly output: Output };
}

/** A declared task, as workers see it. `Input` and `Output` are types only. */
export interface TaskDefinition<Input = unknown, Output = unknown> {
  readonly name: string;
  readonly run: (input: unknown, attempt: AttemptContext) => unknown;
  /** Never there: carries the types of what `step.call` takes and gives. */
  readonly types?: { readonly input: Input; readonly output: Output };
}
