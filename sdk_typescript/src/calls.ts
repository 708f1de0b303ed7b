/** Calls to the executor: a channel to each of its addresses, tries again, errors as ours. Knows no request. */
import { fromBinary, toBinary, type DescMessage, type DescMethodUnary, type MessageShape } from "@bufbuild/protobuf";
import type { DescMethodServerStreaming } from "@bufbuild/protobuf";
import { Client as Channel, type ServiceError } from "./grpc.js";
import { setTimeout as sleep } from "node:timers/promises";
import { Addresses, asBuffer, callMetadata, channelCredentials, channelOptions, executorError } from "./channel.js";
import { StepwireError, type ExecutorError } from "./errors.js";
import { Patience, type PatienceOptions } from "./patience.js";
import type { Security } from "./security.js";

/** Makes calls until `close`. */
export class Calls {
  readonly #addresses: Addresses;
  readonly #security: Security;
  readonly #channels = new Map<string, Channel>();
  #closed = false;

  constructor(address: string, security: Security) {
    security.check(address);
    this.#addresses = new Addresses(address);
    this.#security = security;
  }

  /** Make a call, again and again as its patience says. Throws ExecutorError. */
  async call<Input extends DescMessage, Output extends DescMessage>(
    method: DescMethodUnary<Input, Output>,
    request: MessageShape<Input>,
    options: PatienceOptions,
  ): Promise<MessageShape<Output>> {
    const patience = new Patience(options);
    const bytes = toBinary(method.input, request);
    for (;;) {
      const address = this.#addresses.current;
      try {
        return fromBinary(method.output, await this.#once(address, pathOf(method), bytes, patience.tryMs));
      } catch (status) {
        if (!isServiceError(status)) throw status;
        const { error, delay } = executorError(status, address);
        this.#leave(address, error, options.waitsFor !== "");
        await sleep(patience.delayAfter(error, delay));
      }
    }
  }

  /** Make a call that gives a stream of answers, once. Throws ExecutorError. */
  async *stream<Input extends DescMessage, Output extends DescMessage>(
    method: DescMethodServerStreaming<Input, Output>,
    request: MessageShape<Input>,
  ): AsyncGenerator<MessageShape<Output>, void> {
    const address = this.#addresses.current;
    const metadata = callMetadata(this.#security);
    const stream = this.#channel(address).makeServerStreamRequest(
      pathOf(method),
      asBuffer,
      asBuffer,
      toBinary(method.input, request),
      metadata,
    );
    try {
      for await (const bytes of stream) yield fromBinary(method.output, bytes as Uint8Array);
    } catch (status) {
      if (!isServiceError(status)) throw status;
      const { error } = executorError(status, address);
      this.#leave(address, error, true);
      throw error;
    } finally {
      stream.cancel();
    }
  }

  /** End the connections. Calls that are under way fail. */
  close(): void {
    this.#closed = true;
    for (const channel of this.#channels.values()) channel.close();
    this.#channels.clear();
  }

  #channel(address: string): Channel {
    if (this.#closed) throw new StepwireError("this client is closed: make a new one");
    let channel = this.#channels.get(address);
    if (channel === undefined) {
      channel = new Channel(address, channelCredentials(address, this.#security), channelOptions(address));
      this.#channels.set(address, channel);
    }
    return channel;
  }

  #once(address: string, path: string, request: Uint8Array, milliseconds: number): Promise<Uint8Array> {
    const channel = this.#channel(address);
    const metadata = callMetadata(this.#security);
    return new Promise((resolve, reject) => {
      const deadline = milliseconds === Infinity ? Infinity : Date.now() + milliseconds;
      channel.makeUnaryRequest(path, asBuffer, asBuffer, request, metadata, { deadline }, (error, answer) => {
        if (error !== null) reject(error);
        else resolve(answer ?? new Uint8Array(0));
      });
    });
  }

  /** Ask another executor next time, if there are several and this one stands by, is gone or does not answer. */
  #leave(address: string, error: ExecutorError, waits: boolean): void {
    if (error.code === "UNAVAILABLE" || (error.code === "DEADLINE_EXCEEDED" && !waits)) this.#addresses.leave(address);
  }
}

function pathOf(method: { name: string; parent: { typeName: string } }): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}
