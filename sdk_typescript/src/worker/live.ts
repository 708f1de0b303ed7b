/** A body in this worker, as data; and how what it has found is told. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { StepPlannedSchema } from "../gen/stepwire/v1/opcode_pb.js";
import type { AttemptStart, Invoke } from "../gen/stepwire/v1/worker_pb.js";
import type { Invocation } from "../replay/invocation.js";
import { StepKind, type Entry, type Expected, type Planned, type RunInfo, type Turn } from "../replay/model.js";
import type { Failure } from "../model.js";
import { receivedEvent, toPlanned, unixTime } from "../wire.js";

const PAGE_STEPS = 1_000;
const PAGE_BYTES = 256 * 1024;

/** To run a lone step at once, as the attempt with this fence; there is none if that is 0. */
export interface Permission {
  readonly fence: bigint;
  readonly traceparent: string;
}

/** What a body has still to do, and what is permitted after it. */
interface Move {
  readonly permission: Permission;
  readonly make: () => Promise<Turn>;
}

/** A body in this worker. Until its journal is whole there is no `invocation`. */
export class Live {
  readonly fence: bigint;
  lead: boolean;
  readonly info: RunInfo;
  readonly journalLength: number;
  journal: Entry[] = [];
  expected: Expected[] = [];
  /** What Invoke permits, until the journal is whole. */
  permission: Permission = { fence: 0n, traceparent: "" };
  invocation: Invocation | undefined;
  moves: Move[] = [];
  moving = false;
  dropped = false;
  /** How many steps the body has found whose results it was not given. */
  unfinished = 0;
  /** Attempts that came before their closures were reached. */
  waiting: AttemptStart[] = [];
  /** Why this replica will find nothing more; a lead tells it at once. */
  failure: Failure | undefined;

  constructor(fence: bigint, lead: boolean, info: RunInfo, journalLength: bigint) {
    this.fence = fence;
    this.lead = lead;
    this.info = info;
    this.journalLength = Number(journalLength);
  }

  get runId(): string {
    return this.info.runId;
  }
}

/** Read what a body is told of its run. */
export function runInfo(message: Invoke, app: string): RunInfo {
  return {
    runId: message.runId,
    app,
    functionId: message.functionId,
    attempt: message.attempt,
    events: message.events.map(receivedEvent),
    createdAt: unixTime(message.createdAt),
  };
}

/** Give steps in pages, at least one; a page may hold one step over its size. Throws RangeError for a bad time. */
export function* pagesOf(found: readonly Planned[]): Generator<MessageInitShape<typeof StepPlannedSchema>[]> {
  let page: MessageInitShape<typeof StepPlannedSchema>[] = [];
  let size = 0;
  for (const step of found) {
    page.push(toPlanned(step));
    size += aboutBytes(step);
    if (size <= PAGE_BYTES && page.length < PAGE_STEPS) continue;
    yield page;
    page = [];
    size = 0;
  }
  if (page.length > 0 || found.length === 0) yield page;
}

/** About how many bytes a step takes; frames have their own limit. */
function aboutBytes({ key, target, source }: Planned): number {
  const bytes = 64 + key.id.length + source.length;
  if (target.kind === StepKind.task || target.kind === StepKind.invoke) return bytes + target.input.data.length;
  if (target.kind !== StepKind.sendEvents) return bytes;
  return target.events.reduce((sum, event) => sum + 64 + event.name.length + event.data.data.length, bytes);
}
