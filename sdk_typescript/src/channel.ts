/** The seam to gRPC: addresses, credentials and options of channels to the executor, and gRPC's errors as ours. */
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { credentials, Metadata, status, type ChannelCredentials, type ChannelOptions } from "./grpc.js";
import { shown } from "./durations.js";
import { ExecutorError, StepwireError } from "./errors.js";
import { isLoopback, type Security } from "./security.js";

const DEFAULT_ADDRESS = "127.0.0.1:8377";
type Environment = Readonly<Record<string, string | undefined>>;
const ADDRESS_VARIABLE = "STEPWIRE_EXECUTOR";

/** The longest delay before another try that an executor can ask for: what it wants later it says again then. */
const LONGEST_WISH_MS = 300_000;

/** Options of every channel to the executor. */
export const CHANNEL_OPTIONS: ChannelOptions = {
  "grpc.max_receive_message_length": 64 * 1024 * 1024,
  "grpc.max_send_message_length": -1,
  // A cut connection is noticed after 12 s; the executor permits these pings.
  "grpc.keepalive_time_ms": 7_000,
  "grpc.keepalive_timeout_ms": 5_000,
  // gRPC's own backoff goes up to 2 min, in which an executor that is back is not seen.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.min_reconnect_backoff_ms": 1_000,
  "grpc.max_reconnect_backoff_ms": 2_000,
  "grpc.enable_retries": 0,
  "grpc.use_local_subchannel_pool": 1,
};

/**
 * Give HOST:PORT of the executor: what was given, else STEPWIRE_EXECUTOR, else 127.0.0.1:8377.
 *
 * May be several, with commas between them, where executors stand by for each other. Throws StepwireError for what is no
 * address.
 */
export function executorAddress(address?: string, environment: Environment = process.env): string {
  const set = environment[ADDRESS_VARIABLE];
  const given = address ?? (set === undefined || set === "" ? DEFAULT_ADDRESS : set);
  if (typeof (given as unknown) !== "string") {
    throw new StepwireError(`${shown(given)} is no address of an executor: give HOST:PORT, like ${DEFAULT_ADDRESS}`);
  }
  const origin = address === undefined ? ` (from ${ADDRESS_VARIABLE})` : "";
  return given
    .split(",")
    .map((each) => checked(each.trim(), origin))
    .join(",");
}

function checked(address: string, origin: string): string {
  if (/^unix:./.test(address)) return address;
  const [, host = "", port] = /^([^/\s]+):(\d{1,5})$/.exec(address) ?? [];
  if (host.split(":").length > 2 && !/^\[.*\]$/.test(host)) {
    throw new StepwireError(
      `${JSON.stringify(address)}${origin} is no address of an executor: write an IPv6 address in brackets, like [::1]:8377`,
    );
  }
  if (port === undefined || Number(port) < 1 || Number(port) > 65_535) {
    throw new StepwireError(
      `${JSON.stringify(address)}${origin} is no address of an executor: give HOST:PORT, like ${DEFAULT_ADDRESS}, ` +
        "with a port from 1 to 65535, or unix:PATH",
    );
  }
  return address;
}

/** Give the options of a channel to an address: no HTTP proxy is asked for what is on this machine. */
export function channelOptions(address: string): ChannelOptions {
  return isLoopback(address) ? { ...CHANNEL_OPTIONS, "grpc.enable_http_proxy": 0 } : CHANNEL_OPTIONS;
}

/** Say which HTTP proxy is between us and HOST:PORT, for the end of an error; empty if none is. */
export function proxyNote(address: string, environment: Environment = process.env): string {
  const set = (names: readonly string[]): string | undefined => names.find((name) => environment[name]);
  const name = set(["grpc_proxy", "https_proxy", "http_proxy"]);
  if (name === undefined || isLoopback(address)) return "";
  const host = address.slice(0, address.lastIndexOf(":")).replace(/^\[|\]$/g, "");
  const exceptions = environment[set(["no_grpc_proxy", "no_proxy"]) ?? ""] ?? "";
  if (exceptions.split(",").some((each) => each.trim() !== "" && (each.trim() === "*" || host.endsWith(each.trim())))) {
    return "";
  }
  const proxy = (environment[name] ?? "").replace(/^\w+:\/\//, "").replace(/^.*@/, "");
  return `, through the proxy ${proxy} of ${name}: set no_proxy=${host} to go there directly`;
}

/** Where an executor may be: one of several addresses, the next one when that is of no use. */
export class Addresses {
  readonly all: readonly string[];
  #at = 0;

  constructor(address: string) {
    this.all = address.split(",");
  }

  /** The one to try. */
  get current(): string {
    return this.all[this.#at] ?? DEFAULT_ADDRESS;
  }

  /** Go on to the next one, if this is still the one to try. */
  leave(address: string): void {
    if (this.current === address) this.#at = (this.#at + 1) % this.all.length;
  }
}

/** Make the credentials of a channel to HOST:PORT. Throws StepwireError. */
export function channelCredentials(address: string, security: Security): ChannelCredentials {
  security.check(address);
  if (!security.usesTls) return credentials.createInsecure();
  const { ca, key, certificate } = security.readTls();
  return credentials.createSsl(ca, key, certificate);
}

/** Give what each call brings along. Throws StepwireError. */
export function callMetadata(security: Security): Metadata {
  const metadata = new Metadata();
  const token = security.readToken();
  if (token) metadata.set("authorization", `Bearer ${token}`);
  return metadata;
}

/** What gRPC says at the end of a call. */
export interface CallStatus {
  readonly code: status;
  readonly details: string;
  readonly metadata: Metadata;
}

/**
 * What gRPC says by itself of a call that was cut off: CANCELLED as a server stops, INTERNAL when its stream is reset. The
 * executor ends a call with INTERNAL too, when a bug of its own keeps it from answering, and then gives details.
 */
const CUT_OFF = [status.CANCELLED, status.INTERNAL];

/**
 * Turn an error of gRPC into ours; and give the delay in milliseconds that the executor asks for.
 *
 * Reads google.rpc's details: BadRequest becomes `fields`, RetryInfo the delay. A call that was cut off is UNAVAILABLE.
 */
export function executorError(found: CallStatus, address: string): { error: ExecutorError; delay?: number } {
  const [serialized] = found.metadata.get("grpc-status-details-bin");
  const isCutOff = CUT_OFF.includes(found.code) && serialized === undefined;
  const code = status[isCutOff ? status.UNAVAILABLE : found.code];
  const [name, given] = [status[found.code], found.details.trim()];
  const reason = given === name ? name : `${name} ${given}`.trim();
  const said = isCutOff ? `the call was cut off: ${reason}` : given;
  const isOfTheWay = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"].includes(code);
  const note = code === "UNAVAILABLE" ? proxyNote(address) : "";
  const message = isOfTheWay || said === "" ? `${said || code} (executor ${address}${note})` : said;
  const { fields, delay } = serialized instanceof Buffer ? statusDetails(serialized) : { fields: [] };
  return { error: new ExecutorError(code, message, fields), ...(delay !== undefined && { delay }) };
}

interface Details {
  fields: [field: string, description: string][];
  /** Milliseconds. */
  delay?: number;
}

/** Read a google.rpc.Status: `details` is its field 3, a list of Any. */
function statusDetails(serialized: Uint8Array): Details {
  const found: Details = { fields: [] };
  try {
    for (const any of fieldsOf(serialized).filter((each) => each.number === 3)) {
      const [url, value] = [1, 2].map((number) => fieldsOf(any.bytes).find((each) => each.number === number)?.bytes);
      const type = text(url).replace(/^.*\//, "");
      if (type === "google.rpc.BadRequest") {
        for (const violation of fieldsOf(value)) {
          const parts = fieldsOf(violation.bytes);
          const [field, description] = [1, 2].map((number) =>
            text(parts.find((each) => each.number === number)?.bytes),
          );
          found.fields.push([field ?? "", description ?? ""]);
        }
      } else if (type === "google.rpc.RetryInfo") {
        const duration = fieldsOf(fieldsOf(value)[0]?.bytes);
        const [seconds, nanos] = [1, 2].map((number) => duration.find((each) => each.number === number)?.value ?? 0);
        found.delay = Math.min(Math.max(0, (seconds ?? 0) * 1000 + (nanos ?? 0) / 1e6), LONGEST_WISH_MS);
      }
    }
  } catch {
    return found; // details that can't be read: the status itself will do
  }
  return found;
}

interface Field {
  number: number;
  bytes: Uint8Array;
  value: number;
}

const NO_BYTES = new Uint8Array(0);

function fieldsOf(serialized: Uint8Array = NO_BYTES): Field[] {
  const reader = new BinaryReader(serialized);
  const found: Field[] = [];
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (wireType === WireType.LengthDelimited) found.push({ number, bytes: reader.bytes(), value: 0 });
    else if (wireType === WireType.Varint) found.push({ number, bytes: NO_BYTES, value: Number(reader.int64()) });
    else reader.skip(wireType);
  }
  return found;
}

function text(bytes: Uint8Array = NO_BYTES): string {
  return Buffer.from(bytes).toString();
}

/** Give bytes as gRPC wants to have them, without a copy: what it calls to serialize and to parse. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
