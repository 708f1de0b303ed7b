/**
 * A worker process ends when it is told to, though user code blocks the main thread. Lives in the stream's thread.
 *
 * The first signal drains; the drain ends at its deadline or at the second signal. The main thread does all of that if it
 * comes to it. If not, this thread does without it: it says Draining, gives back what is in hand, closes the stream and
 * ends the process.
 */

const TICK_MS = 100;
/** How long the main thread may take to answer; after that this thread acts without it. */
const ANSWER_MS = 500;
/** How long the end of the process may take after the drain: the stream's end, and what the program does then. */
const EXIT_MS = 4_000;
/** How long this thread's own end of things may take. */
const LAST_RESORT_MS = 8_000;

/** How far the main thread has got: it does not drain, it drains, its last word is said. */
export const Phase = { serving: 0, draining: 1, closing: 2 } as const;

/** What the watch needs. */
export interface SignalHandlers {
  /** Milliseconds since any beginning, never going back. */
  readonly clock: () => number;
  /** How long a drain may take, in milliseconds. */
  readonly drainMs: number;
  /** One of `Phase`. */
  readonly phase: () => number;
  /** Say on the stream that is open, once for each, that this worker drains. */
  readonly announce: () => void;
  /** Give back what is in hand and end the stream; resolves when it has ended, or after some seconds. */
  readonly surrender: () => Promise<void>;
  /** End the process in order, if the main thread lets itself be stopped; resolves if it does not. */
  readonly exit: () => Promise<void>;
  /** End the process at once. */
  readonly kill: () => Promise<void>;
}

/** Acts on signals, each of which `heard` is told. */
export class SignalWatch {
  readonly #handlers: SignalHandlers;
  #count = 0;
  #wake: (() => void) | undefined;

  constructor(handlers: SignalHandlers) {
    this.#handlers = handlers;
  }

  /** Note a signal. */
  heard(): void {
    this.#count += 1;
    if (this.#count === 1) void this.#run();
    else this.#wake?.();
  }

  async #run(): Promise<void> {
    const { clock, drainMs, phase, announce } = this.#handlers;
    const deadline = clock() + drainMs;
    await this.#wait(ANSWER_MS, () => phase() !== Phase.serving || this.#count > 1);
    while (phase() !== Phase.closing) {
      if (phase() === Phase.serving) announce();
      const left = deadline - clock();
      if (this.#count > 1 || left <= 0) break;
      await this.#tick(Math.min(left, TICK_MS));
    }
    const count = this.#count;
    if (await this.#wait(ANSWER_MS, () => phase() === Phase.closing)) {
      await this.#wait(EXIT_MS, () => this.#count > Math.max(count, 2)); // the main thread ends this one meanwhile
    }
    await this.#end();
  }

  /** End the process from here, since the main thread does not. */
  async #end(): Promise<void> {
    const { surrender, exit, kill } = this.#handlers;
    setTimeout(() => void kill(), LAST_RESORT_MS);
    try {
      await surrender();
      await exit();
    } finally {
      await kill();
    }
  }

  /** Wait until something is reached; false if it is not after so many milliseconds. */
  async #wait(milliseconds: number, reached: () => boolean): Promise<boolean> {
    const end = this.#handlers.clock() + milliseconds;
    while (!reached()) {
      const left = end - this.#handlers.clock();
      if (left <= 0) return false;
      await this.#tick(Math.min(left, TICK_MS));
    }
    return true;
  }

  /** Wait so long, or until the next signal. */
  async #tick(milliseconds: number): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, milliseconds);
    });
  }
}
