/**
 * The worker's pulse: heartbeats, and a watch over the executor's silence and the loop that runs user code.
 *
 * It beats in the stream's thread, which user code can't block: a blocked loop is seen, named in the log and told to the
 * executor, and costs no lease. The executor answers every heartbeat: while a stream is open, something comes in every
 * interval.
 */

const LAG_MS = 1_000;
const LONGEST_TICK_MS = 500;

/** What a pulse needs. */
export interface PulseHandlers {
  /** Milliseconds since any beginning, never going back. */
  readonly clock: () => number;
  /** Have the loop that runs user code answer this ping, and give the last one that it has answered. */
  readonly ping: (number: number) => void;
  readonly answered: () => number;
  /** Give the stack of the thread that runs user code; called when it is found blocked. */
  readonly stack: () => Promise<string>;
  /** Send a heartbeat; the lag is in milliseconds, 0 for none. */
  readonly beat: (lag: number, stack: string) => void;
  /** Nothing has come for so many milliseconds. */
  readonly silent: (milliseconds: number) => void;
  readonly warn: (message: string) => void;
}

/** Beats from `start` to `stop`. */
export class Pulse {
  readonly #handlers: PulseHandlers;
  #timer: NodeJS.Timeout | undefined;
  #interval = 3_000;
  #nextBeat = Infinity;
  #heard: number;
  /** How long a silence may be; undefined if it does not matter. */
  #patience: number | undefined;
  #begun: number;
  #asked: { number: number; at: number } | undefined;
  #pings = 0;
  #stack = "";
  #told = false;

  constructor(handlers: PulseHandlers) {
    this.#handlers = handlers;
    this.#heard = this.#begun = handlers.clock();
  }

  /** Begin to tick. */
  start(): void {
    this.#begun = this.#handlers.clock();
    this.#timer = setTimeout(() => {
      this.tick();
      if (this.#timer !== undefined) this.start();
    }, this.tickMs);
  }

  /** End. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** How long to wait before the next tick. */
  get tickMs(): number {
    return Math.min(this.#interval / 6, LONGEST_TICK_MS);
  }

  /** Take a silence of more than this for the other side's death from now on; undefined: there is no other side. */
  expect(patience: number | undefined): void {
    this.#heard = this.#handlers.clock();
    this.#patience = patience;
    this.#nextBeat = Infinity;
  }

  /** Beat at least this often, now at first, and take a silence of twice that for the executor's death. */
  welcome(interval: number): void {
    this.#interval = interval;
    this.expect(2 * interval);
    this.#beat(this.#lag());
  }

  /** Note that a frame has come. */
  hear(): void {
    this.#heard = this.#handlers.clock();
  }

  /** Beat if it is time, and listen. */
  tick(): void {
    const begun = this.#begun;
    const lag = this.#lag();
    const now = this.#handlers.clock();
    if (now >= this.#nextBeat) this.#beat(lag);
    if (now - begun > 3 * this.tickMs) {
      this.#heard = now; // the process stood still: what has come meanwhile is not read yet
      return;
    }
    const silence = now - this.#heard;
    if (this.#patience !== undefined && silence > this.#patience) {
      this.expect(undefined);
      this.#handlers.silent(silence);
    }
  }

  #beat(lag: number): void {
    this.#nextBeat = this.#handlers.clock() + this.#interval / 3;
    if (lag > LAG_MS) this.#handlers.beat(lag, this.#stack);
    else this.#handlers.beat(0, "");
  }

  /** Give how long the loop has owed its answer; 0 if it has answered, and it is asked anew then. */
  #lag(): number {
    const now = this.#handlers.clock();
    if (this.#asked === undefined || this.#handlers.answered() === this.#asked.number) {
      this.#told = false;
      this.#stack = "";
      this.#asked = { number: ++this.#pings, at: now };
      this.#handlers.ping(this.#pings);
      return 0;
    }
    const lag = now - this.#asked.at;
    if (lag > LAG_MS && !this.#told) {
      this.#told = true;
      void this.#tell(this.#asked.number);
    }
    return lag;
  }

  async #tell(ping: number): Promise<void> {
    const stack = await this.#handlers.stack();
    if (this.#asked?.number !== ping || this.#handlers.answered() === ping) return;
    this.#stack = stack;
    const lag = ((this.#handlers.clock() - this.#asked.at) / 1000).toFixed(1);
    this.#handlers.warn(
      `user code has blocked the event loop for ${lag} s: await in between, or move the work to a worker thread` +
        (stack ? `\n${stack}` : ""),
    );
  }
}
