/**
 * Messages into frames and back: batching, and fragments of what is too large for a frame.
 *
 * A frame is a repeated field of messages, whose serialized form is, for each message, a tag, its length and its bytes.
 * So frames are joined from serialized messages, and the thread that carries them looks into them without parsing.
 */
import { create, fromBinary, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { StepwireError } from "./errors.js";
import {
  ExecutorFrameSchema,
  ExecutorMessageSchema,
  WorkerMessageSchema,
  type ExecutorMessage,
  type Fragment,
} from "./gen/stepwire/v1/worker_pb.js";

const DEFAULT_MAX_FRAME_BYTES = 1024 * 1024;
const LARGEST_MESSAGE_BYTES = 64 * 1024 * 1024;
const LEAST_FRAME_BYTES = 1024;
/** Bytes that frame, message and fragment add to a piece, at the most. */
const FRAGMENT_OVERHEAD = 64;
/** Field 1, length-delimited: `messages` of WorkerFrame and ExecutorFrame. */
const TAG = 0x0a;

/** The executor has sent frames or fragments that break the contract: the stream can't go on. */
export class FrameError extends StepwireError {}

/** The kind of a message to the executor, with what it says. */
export type Said = NonNullable<MessageInitShape<typeof WorkerMessageSchema>["kind"]>;

/** Serialize a message to the executor. */
export function serialized(kind: Said): Uint8Array {
  return toBinary(WorkerMessageSchema, create(WorkerMessageSchema, { kind }));
}

function lengthBytes(size: number): number {
  let bytes = 1;
  for (let rest = size; rest > 127; rest = Math.floor(rest / 128)) bytes += 1;
  return bytes;
}

function joined(messages: readonly Uint8Array[], size: number): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(size);
  let at = 0;
  for (const message of messages) {
    frame[at++] = TAG;
    let rest = message.length;
    for (; rest > 127; rest = Math.floor(rest / 128)) frame[at++] = (rest % 128) + 128;
    frame[at++] = rest;
    frame.set(message, at);
    at += message.length;
  }
  return frame;
}

/** Makes the frames of one stream. `maxFrameBytes` may be changed in between; 0 means that there is no limit. */
export class Framer {
  maxFrameBytes = DEFAULT_MAX_FRAME_BYTES;
  #fragmented = 0n;

  /**
   * Give serialized frames that hold the serialized WorkerMessages in their order, as few as possible. A message that is
   * too large for a frame becomes fragments, each in a frame of its own.
   */
  *frames(messages: Iterable<Uint8Array>): Generator<Uint8Array<ArrayBuffer>> {
    const limit = this.maxFrameBytes > 0 ? Math.max(this.maxFrameBytes, LEAST_FRAME_BYTES) : Infinity;
    let parts: Uint8Array[] = [];
    let size = 0;
    for (const message of messages) {
      const whole = 1 + lengthBytes(message.length) + message.length;
      if (size + whole > limit) {
        if (parts.length > 0) yield joined(parts, size);
        parts = [];
        size = 0;
        if (whole > limit) {
          yield* this.#fragments(message, limit - FRAGMENT_OVERHEAD);
          continue;
        }
      }
      parts.push(message);
      size += whole;
    }
    if (parts.length > 0) yield joined(parts, size);
  }

  *#fragments(message: Uint8Array, most: number): Generator<Uint8Array<ArrayBuffer>> {
    const id = ++this.#fragmented;
    for (let begin = 0; begin < message.length; begin += most) {
      const value = { id, data: message.slice(begin, begin + most), last: begin + most >= message.length };
      const piece = toBinary(WorkerMessageSchema, create(WorkerMessageSchema, { kind: { case: "fragment", value } }));
      yield joined([piece], 1 + lengthBytes(piece.length) + piece.length);
    }
  }
}

/** Reads the frames of one stream; puts fragments together, of at most `mostBytes` a message. */
export class Joiner {
  readonly #mostBytes: number;
  /** What has come of a message, with room for more: pieces may be of a few bytes each, too many to keep one by one. */
  #joined = new Uint8Array(0);
  #size = 0;
  /** Of the last fragment. */
  #id = 0n;
  #open = false;

  constructor(mostBytes = LARGEST_MESSAGE_BYTES) {
    this.#mostBytes = mostBytes;
  }

  /** Give the messages of a serialized frame, with those that it completes. Throws FrameError. */
  messages(frame: Uint8Array): ExecutorMessage[] {
    const found: ExecutorMessage[] = [];
    for (const message of parsed("ExecutorFrame", frame, () => fromBinary(ExecutorFrameSchema, frame)).messages) {
      if (message.kind.case !== "fragment") {
        found.push(message);
        continue;
      }
      const whole = this.#add(message.kind.value);
      if (whole === undefined) continue;
      const complete = parsed("ExecutorMessage", whole, () => fromBinary(ExecutorMessageSchema, whole));
      if (complete.kind.case === "fragment") throw new FrameError("fragments hold another fragment");
      found.push(complete);
    }
    return found;
  }

  #add(fragment: Fragment): Uint8Array | undefined {
    if (this.#open ? fragment.id !== this.#id : fragment.id <= this.#id) {
      throw new FrameError(
        `fragment ${String(fragment.id)} came ${this.#open ? "before" : "after"} the last one of ${String(this.#id)}`,
      );
    }
    this.#id = fragment.id;
    const size = this.#size + fragment.data.length;
    if (size > this.#mostBytes) {
      throw new FrameError(
        `the fragments ${String(fragment.id)} have more than ${String(this.#mostBytes)} bytes, the most that is taken`,
      );
    }
    if (size > this.#joined.length) {
      const more = new Uint8Array(Math.max(size, 2 * this.#joined.length));
      more.set(this.#joined.subarray(0, this.#size));
      this.#joined = more;
    }
    this.#joined.set(fragment.data, this.#size);
    this.#size = size;
    this.#open = !fragment.last;
    if (this.#open) return undefined;
    const whole = this.#joined.subarray(0, size);
    this.#joined = new Uint8Array(0);
    this.#size = 0;
    return whole;
  }
}

function parsed<T>(name: string, bytes: Uint8Array, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new FrameError(`${String(bytes.length)} bytes can't be read as ${name}: ${why}`);
  }
}
