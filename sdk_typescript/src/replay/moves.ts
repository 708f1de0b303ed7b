/**
 * Who moves when. There is one microtask queue in a process, so one body moves at a time, until it has run dry.
 *
 * A body has run dry when the microtask queue is empty. Node runs what `process.nextTick` was given only then, however
 * many microtasks make more of them. So a move is one stretch of ticks and microtasks, in which nothing else has a
 * turn: no timer, no I/O, no other body. (A worker's own continuations may run in it, but they start nothing there.)
 */

import { MoveState } from "./move_state.js";

/** One stretch of a body's life. */
export interface Move {
  /** The body. */
  readonly owner: object;
  /** See how the body stands, now that it has run dry. Must not throw. */
  look(): void;
  /** Stir the body; false if nothing is left to do. Must not throw. */
  advance(): boolean;
  /** End the body, which did not come to rest and was broken off at this place. Must not throw. */
  breakOff(place: string): void;
}

/** Rounds of microtasks before a body counts as dry: code that defers something by `process.nextTick` has its turn. */
const ROUNDS = 2;
/** Milliseconds after which timers and I/O have a turn, between two results. */
const LONGEST_STRETCH = 20;

/** The moves of this thread, for the threads that watch it. */
export const moveState = new MoveState();
const MOST_NUMBERS = 2 ** 30;

const waiting: Move[] = [];
let current: Move | undefined;
let mover: object | undefined;
let going = false;
let rounds = 0;
let began = 0;
let lately = false;
let number = 0;

/** Give the body that moves now, if any. */
export function moving(): object | undefined {
  return mover;
}

/** Call code that is no body's, even if one moves. */
export function aside<T>(code: () => T): T {
  const paused = mover;
  mover = undefined;
  try {
    return code();
  } finally {
    mover = paused;
  }
}

/** Whether a body has moved since timers and I/O had their last turn. */
export function movedLately(): boolean {
  return lately;
}

/**
 * Go on after a move was broken off. What it had to do next may be lost with it. Call it when this thread has had a turn
 * for what was to come at once.
 */
export function recover(): void {
  if (moveState.brokenOff === 0 || moveState.brokenOff !== number) return;
  rounds = ROUNDS - 1;
  whenEmpty();
}

/** Have a move made after those that wait already. */
export function enqueue(move: Move): void {
  waiting.push(move);
  if (!going) {
    going = true;
    begin();
  }
}

function begin(): void {
  began = performance.now();
  if (!lately) {
    lately = true;
    setImmediate(() => (lately = false));
  }
  rounds = 0;
  queueMicrotask(afterMicrotasks);
}

function afterMicrotasks(): void {
  process.nextTick(whenEmpty);
}

function whenEmpty(): void {
  rounds += 1;
  if (rounds < ROUNDS) {
    queueMicrotask(afterMicrotasks);
    return;
  }
  rounds = 0;
  moveState.move = 0;
  if (current && moveState.brokenOff === number) {
    current.breakOff(moveState.takePlace());
    current = undefined;
  }
  current?.look();
  mover = undefined;
  if (current === undefined && waiting.length === 0) {
    going = false;
  } else if (performance.now() - began > LONGEST_STRETCH) {
    setImmediate(begin);
  } else {
    current ??= waiting.shift();
    mover = current?.owner;
    if (current?.advance()) {
      number = (number % MOST_NUMBERS) + 1;
      moveState.move = number;
    } else {
      current = undefined;
      mover = undefined;
    }
    queueMicrotask(afterMicrotasks);
  }
}
