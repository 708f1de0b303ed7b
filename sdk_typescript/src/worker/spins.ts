/** Breaks off a body that never comes to rest. Lives in the stream's thread: the body's own has no turn for it. */
import type { MoveState } from "../replay/move_state.js";

/** How long a move may take without finding a step. */
export const LONGEST_MOVE_MS = 5_000;
const TICK_MS = 250;
/** A tick that is so late tells that the process stood still: the body has not been moving. */
const LATE_MS = 1_000;

/** What the watch needs. */
export interface SpinHandlers {
  /** Milliseconds since any beginning, never going back. */
  readonly clock: () => number;
  /**
   * Stop the other thread, ask `isStill`, and if so tell `found` where it stands and end what it does; says whether that
   * was done.
   */
  readonly breakOff: (isStill: () => boolean, found: (place: string) => void) => Promise<boolean>;
  /** A move was broken off: the other thread is to deal with that. */
  readonly brokenOff: () => void;
}

/** Watches one thread's moves from `start` to `stop`. */
export class SpinWatch {
  readonly #state: MoveState;
  readonly #handlers: SpinHandlers;
  #timer: NodeJS.Timeout | undefined;
  #seen = { move: 0, progress: 0 };
  #since = 0;
  #ticked = 0;
  #busy = false;

  constructor(state: MoveState, handlers: SpinHandlers) {
    this.#state = state;
    this.#handlers = handlers;
  }

  /** Begin to watch. */
  start(): void {
    this.#timer = setInterval(() => void this.tick(), TICK_MS);
  }

  /** End. */
  stop(): void {
    clearInterval(this.#timer);
  }

  /** Look at the move that is being made. */
  async tick(): Promise<void> {
    const now = this.#handlers.clock();
    const { move, progress } = this.#state;
    const stoodStill = now - this.#ticked > LATE_MS;
    this.#ticked = now;
    if (move === 0 || stoodStill || move !== this.#seen.move || progress !== this.#seen.progress) {
      this.#seen = { move, progress };
      this.#since = now;
    } else if (now - this.#since > LONGEST_MOVE_MS && !this.#busy) {
      this.#busy = true;
      const isStill = (): boolean => this.#state.move === move && this.#state.brokenOff !== move;
      const done = await this.#handlers.breakOff(isStill, (place) => {
        this.#state.breakOff(move, place);
      });
      this.#since = now;
      this.#busy = false;
      if (done) this.#handlers.brokenOff();
    }
  }
}
