/** Encoding: from JavaScript values to payloads and back. */

import { Buffer } from "node:buffer";

import { EncodingError, OutputTooLargeError } from "./errors.js";
import { failureOf } from "./failures.js";
import { fromJson, isBytes, toJson } from "./json_values.js";
import type { Failure, Payload } from "./model.js";

/** The encoding of UTF-8 JSON. */
const JSON_ENCODING = "json";
/** The encoding of bytes as they are. */
const BINARY_ENCODING = "binary";
/** The executor's default limit for outputs. */
const DEFAULT_MAX_OUTPUT_BYTES = 3_000_000;

/**
 * Turns payloads into something else on their way out of the process, and back: encryption, compression.
 *
 * `encode` is given a payload with encoding "json" or "binary"; what it gives names an encoding of its own, or is the
 * same payload. `decode` undoes it; it gives a payload of another encoding back as it is. What a codec throws is an
 * error like any other: it is retried.
 */
export interface Codec {
  encode(payload: Payload): Payload;
  decode(payload: Payload): Payload;
}

/** Encodes and decodes values. `maxOutputBytes` is the executor's limit; 0 means none. */
export class Values {
  readonly codec: Codec | undefined;
  maxOutputBytes: number;

  constructor(codec?: Codec, maxOutputBytes = DEFAULT_MAX_OUTPUT_BYTES) {
    this.codec = codec;
    this.maxOutputBytes = maxOutputBytes;
  }

  /**
   * Encode a value as JSON; bytes as they are. `what` names it in errors.
   *
   * Throws EncodingError, and OutputTooLargeError if it takes more than `limit` bytes (0: no limit).
   */
  encode(value: unknown, what = "a value", limit = this.maxOutputBytes): Payload {
    const bytes = bytesOf(value);
    let payload: Payload = bytes
      ? { data: bytes, encoding: BINARY_ENCODING, metadata: {} }
      : { data: Buffer.from(toJson(value, what)), encoding: JSON_ENCODING, metadata: {} };
    if (this.codec) payload = wrapped(this.codec, payload, what);
    const size = payload.data.byteLength;
    if (limit !== 0 && size > limit) {
      const setting = limit === this.maxOutputBytes ? "--max-output-bytes" : "the limit";
      throw new OutputTooLargeError(
        `${what} has ${size.toLocaleString("en")} bytes, over ${setting}=${String(limit)}: return less, or a reference to it`,
      );
    }
    return payload;
  }

  /** Decode a payload; an empty one without an encoding is null. Throws EncodingError. */
  decode(payload: Payload, what = "a value"): unknown {
    if (payload.encoding === "" && payload.data.byteLength === 0) return null;
    let plain = payload;
    if (this.codec && !isPlain(payload.encoding)) {
      const given: unknown = this.codec.decode(payload);
      if (!isPayload(given)) {
        throw new EncodingError(`${what}: the codec gave no payload: give { data, encoding, metadata }`);
      }
      plain = given;
    }
    if (plain.encoding === BINARY_ENCODING) return plain.data;
    if (isPlain(plain.encoding)) return plain.data.byteLength === 0 ? null : fromJson(plain.data, what);
    throw new EncodingError(
      `${what} has the encoding '${plain.encoding}', which nothing here can decode: ` +
        "give the app or client the codec that it was encoded with",
    );
  }

  /** Describe whatever was thrown as data, with its stack, a note of ours below that, and its causes. */
  failure(error: unknown, note = ""): Failure {
    return failureOf(error, note);
  }
}

function isPlain(encoding: string): boolean {
  return encoding === JSON_ENCODING || encoding === BINARY_ENCODING || encoding === "";
}

/** Give a copy of a value that is bytes: its owner may change them. */
function bytesOf(value: unknown): Uint8Array | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  try {
    if (value instanceof ArrayBuffer) return new Uint8Array(value.slice(0));
    return isBytes(value) ? new Uint8Array(value) : undefined;
  } catch {
    return undefined; // a proxy that can't be looked at: what is wrong with it is told next
  }
}

function wrapped(codec: Codec, payload: Payload, what: string): Payload {
  const given: unknown = codec.encode(payload);
  if (!isPayload(given)) {
    throw new EncodingError(`${what}: the codec gave no payload: give { data, encoding, metadata }`);
  }
  if (isPlain(given.encoding) && given !== payload) {
    throw new EncodingError(
      `${what}: the codec changed a payload but left its encoding '${given.encoding}', so that nothing would decode ` +
        "it: name an encoding of its own",
    );
  }
  return given;
}

function isText(value: unknown): boolean {
  return typeof value === "string" && !/\p{Surrogate}/u.test(value);
}

function isPayload(value: unknown): value is Payload {
  if (typeof value !== "object" || value === null) return false;
  const { data, encoding, metadata } = value as Partial<Payload>;
  if (!(data instanceof Uint8Array) || typeof encoding !== "string") return false;
  if (typeof metadata !== "object" || (metadata as unknown) === null) return false;
  const entries: [string, unknown][] = Object.entries(metadata);
  return isText(encoding) && entries.every(([name, text]) => isText(name) && isText(text));
}
