/**
 * What the worker has in hand and has not yet handed over, in memory that the stream's thread sees too.
 *
 * While user code blocks the main thread, a drain is the other thread's affair: it says here that the worker drains, and
 * takes what it has to tell and to give back. Each side changes the memory under a lock that is held for microseconds.
 */
import { create } from "@bufbuild/protobuf";
import { AttemptSchema, type Attempt } from "../gen/stepwire/v1/value_pb.js";

const PLACES = { lock: 0, announced: 1, entries: 2, said: 3, taken: 4, length: 5 } as const;
const HEAD_BYTES = PLACES.length * Int32Array.BYTES_PER_ELEMENT;
/** Of messages that are not handed over yet; more are handed over at once. */
const SAID_BYTES = 256 * 1024;
const ENTRY_BYTES = 2_560;
const SPARE_BYTES = 64 * 1024;
/** Size, whether it is in hand, fence, bytes of the run's id and of the step's, index, bytes of the plan. */
const FIELDS = 8;
const FIELD_BYTES = FIELDS * Int32Array.BYTES_PER_ELEMENT;
/** A thread that was ended while it held the lock does not stop the other one for ever. */
const LOCK_MS = 100;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

interface Entry {
  readonly attempt: Attempt;
  readonly plan: Uint8Array | undefined;
  readonly fields: Int32Array;
}

/** Kept by the main thread; `announce` and `surrender` are the other's. */
export class Ledger {
  readonly shared: SharedArrayBuffer;
  readonly #places: Int32Array;
  readonly #said: Uint8Array;
  readonly #entries: Uint8Array;
  /** Where attempts in hand stand. */
  readonly #at = new Map<bigint, number>();

  /** Make one for so many slots, or see that of another thread. */
  constructor(shared: SharedArrayBuffer | number) {
    const size = (slots: number): number => HEAD_BYTES + SAID_BYTES + SPARE_BYTES + slots * ENTRY_BYTES;
    this.shared = typeof shared === "number" ? new SharedArrayBuffer(size(shared)) : shared;
    this.#places = new Int32Array(this.shared, 0, PLACES.length);
    this.#said = new Uint8Array(this.shared, HEAD_BYTES, SAID_BYTES);
    this.#entries = new Uint8Array(this.shared, HEAD_BYTES + SAID_BYTES);
  }

  // The main thread's side.

  /**
   * Note an attempt that is about to begin; a lone step with its plan, as a serialized message that is told later. False
   * if the other thread has said on this stream that the worker drains: a lone step must not begin then.
   */
  take(stream: number, attempt: Attempt, plan?: Uint8Array): boolean {
    return this.#locked(() => {
      if (plan !== undefined && this.#places[PLACES.announced] === stream) return false;
      const { runId, key, fence } = attempt;
      const id = key?.id ?? "";
      const most = FIELD_BYTES + 3 * (runId.length + id.length) + (plan?.length ?? 0) + 4;
      if (this.#end + most > this.#entries.length) this.#compact();
      const at = this.#end;
      if (at + most > this.#entries.length) return true; // no room, and no way to give it back from the other thread
      const { fields, rest } = this.#entry(at);
      const runBytes = encoder.encodeInto(runId, rest).written;
      const idBytes = encoder.encodeInto(id, rest.subarray(runBytes)).written;
      if (plan !== undefined) rest.set(plan, runBytes + idBytes);
      const size = FIELD_BYTES + runBytes + idBytes + (plan?.length ?? 0);
      fields[0] = Math.ceil(size / 4) * 4;
      fields[1] = 1;
      fields[2] = Number(BigInt.asIntN(32, fence));
      fields[3] = Number(BigInt.asIntN(32, fence >> 32n));
      fields[4] = runBytes;
      fields[5] = idBytes;
      fields[6] = key?.index ?? 0;
      fields[7] = plan?.length ?? 0;
      this.#end = at + fields[0];
      this.#at.set(fence, at);
      return true;
    });
  }

  /** Note that an attempt has its result, or is no longer wanted. */
  drop(fence: bigint): void {
    const at = this.#at.get(fence);
    if (at === undefined) return;
    this.#at.delete(fence);
    this.#locked(() => {
      this.#entry(at).fields[1] = 0;
      if (this.#at.size === 0) this.#end = 0;
    });
  }

  /** Note that the plan of a lone step is about to be told by `say`; false if the other thread has told it. */
  tellPlan(fence: bigint): boolean {
    const at = this.#at.get(fence);
    if (at === undefined) return true;
    return this.#locked(() => {
      const { fields } = this.#entry(at);
      const isUntold = fields[7] !== 0;
      fields[7] = 0;
      return isUntold;
    });
  }

  /** Note a message that will be handed over; false if there is no room for it: it must be handed over at once. */
  say(message: Uint8Array): boolean {
    return this.#locked(() => {
      const at = this.#places[PLACES.said] ?? 0;
      if (at + 4 + message.length > SAID_BYTES) return false;
      new DataView(this.shared, HEAD_BYTES + at).setInt32(0, message.length);
      this.#said.set(message, at + 4);
      this.#places[PLACES.said] = at + 4 + message.length;
      return true;
    });
  }

  /** Note that all messages are handed over, or are none any more; gives how many the other thread has taken. */
  handOver(): number {
    return this.#locked(() => {
      const taken = this.#places[PLACES.taken] ?? 0;
      this.#places[PLACES.said] = this.#places[PLACES.taken] = 0;
      return taken;
    });
  }

  /** Whether the other thread has said on this stream that the worker drains. */
  isAnnounced(stream: number): boolean {
    return Atomics.load(this.#places, PLACES.announced) === stream;
  }

  // The other thread's side.

  /** Note that this stream is told that the worker drains; gives what must be told before that: last the plans. */
  announce(stream: number): Uint8Array[] {
    return this.#locked(() => {
      this.#places[PLACES.announced] = stream;
      const plans: Uint8Array[] = [];
      for (const { plan, fields } of this.#all()) {
        if (plan !== undefined) plans.push(plan);
        fields[7] = 0;
      }
      return [...this.#takeSaid(), ...plans];
    });
  }

  /** Give what is still to be told, and what runs: none of that is the main thread's any more. */
  surrender(): { readonly said: Uint8Array[]; readonly running: Attempt[] } {
    return this.#locked(() => ({
      said: this.#takeSaid(),
      running: [...this.#all()].map(({ attempt }) => attempt),
    }));
  }

  // How it works inside.

  get #end(): number {
    return this.#places[PLACES.entries] ?? 0;
  }

  set #end(end: number) {
    this.#places[PLACES.entries] = end;
  }

  #locked<T>(change: () => T): T {
    const until = performance.now() + LOCK_MS;
    while (Atomics.compareExchange(this.#places, PLACES.lock, 0, 1) !== 0) if (performance.now() > until) break;
    try {
      return change();
    } finally {
      Atomics.store(this.#places, PLACES.lock, 0);
    }
  }

  #entry(at: number): { readonly fields: Int32Array; readonly rest: Uint8Array } {
    const offset = this.#entries.byteOffset + at;
    return {
      fields: new Int32Array(this.shared, offset, FIELDS),
      rest: new Uint8Array(this.shared, offset + FIELD_BYTES),
    };
  }

  /** Give the attempts in hand. */
  *#all(): Generator<Entry> {
    let at = 0;
    while (at < this.#end) {
      const { fields, rest } = this.#entry(at);
      const [whole = 0, isInHand, low = 0, high = 0, runBytes = 0, idBytes = 0, index = 0, planBytes = 0] = fields;
      if (whole <= 0) return;
      at += whole;
      if (isInHand !== 1) continue;
      const text = (from: number, bytes: number): string => decoder.decode(rest.slice(from, from + bytes));
      const fence = (BigInt.asUintN(32, BigInt(high)) << 32n) | BigInt.asUintN(32, BigInt(low));
      const key = { id: text(runBytes, idBytes), index };
      const attempt = create(AttemptSchema, { runId: text(0, runBytes), key, fence });
      const from = runBytes + idBytes;
      yield { attempt, plan: planBytes > 0 ? rest.slice(from, from + planBytes) : undefined, fields };
    }
  }

  /** Make room. */
  #compact(): void {
    let end = 0;
    for (const [fence, at] of this.#at) {
      const size = this.#entry(at).fields[0] ?? 0;
      this.#entries.copyWithin(end, at, at + size);
      this.#at.set(fence, end);
      end += size;
    }
    this.#end = end;
  }

  #takeSaid(): Uint8Array[] {
    const messages: Uint8Array[] = [];
    const end = this.#places[PLACES.said] ?? 0;
    for (let at = 0; at < end;) {
      const size = new DataView(this.shared, HEAD_BYTES + at).getInt32(0);
      messages.push(this.#said.slice(at + 4, at + 4 + size));
      at += 4 + size;
    }
    this.#places[PLACES.said] = 0;
    this.#places[PLACES.taken] = (this.#places[PLACES.taken] ?? 0) + messages.length;
    return messages;
  }
}
