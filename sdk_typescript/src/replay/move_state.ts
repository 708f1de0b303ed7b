/**
 * What moves now, in memory that the threads of streams see too: they find a body that never comes to rest, since
 * nothing else in its own thread has a turn then. A place holds a number; the text says where the body stood.
 */

const PLACES = { move: 0, progress: 1, brokenOff: 2, textBytes: 3, length: 4 } as const;
const TEXT_BYTES = 1024;

/** One thread's moves, as that thread and others see them. */
export class MoveState {
  readonly shared: SharedArrayBuffer;
  readonly #places: Int32Array;
  readonly #text: Uint8Array;

  constructor(shared = new SharedArrayBuffer(PLACES.length * Int32Array.BYTES_PER_ELEMENT + TEXT_BYTES)) {
    this.shared = shared;
    this.#places = new Int32Array(shared, 0, PLACES.length);
    this.#text = new Uint8Array(shared, PLACES.length * Int32Array.BYTES_PER_ELEMENT);
  }

  /** The number of the move that is being made; 0 between moves. */
  get move(): number {
    return Atomics.load(this.#places, PLACES.move);
  }

  set move(number: number) {
    Atomics.store(this.#places, PLACES.move, number);
  }

  /** A number that changes with each step that a body finds. */
  get progress(): number {
    return Atomics.load(this.#places, PLACES.progress);
  }

  /** Note that a body has found a step. */
  note(): void {
    Atomics.add(this.#places, PLACES.progress, 1);
  }

  /** Say, from another thread, that a move is broken off, and where it stood. */
  breakOff(move: number, place: string): void {
    const { written } = new TextEncoder().encodeInto(place, new Uint8Array(TEXT_BYTES));
    this.#text.set(new TextEncoder().encode(place).subarray(0, written));
    Atomics.store(this.#places, PLACES.textBytes, written);
    Atomics.store(this.#places, PLACES.brokenOff, move);
  }

  /** The move that was broken off last and not yet dealt with; 0 for none. */
  get brokenOff(): number {
    return Atomics.load(this.#places, PLACES.brokenOff);
  }

  /** Give where the move stood that was broken off, and forget that. */
  takePlace(): string {
    Atomics.store(this.#places, PLACES.brokenOff, 0);
    return new TextDecoder().decode(this.#text.slice(0, Atomics.load(this.#places, PLACES.textBytes)));
  }
}
