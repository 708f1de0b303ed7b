/**
 * Clocks and random numbers in bodies: while a body moves, `Date`, `Math.random` and `crypto.randomUUID` give what its
 * context's `now`, `random` and `uuid` give, the same in every replay. At any other time they are what they always are.
 *
 * A step's code has the real ones, as no body moves while it runs.
 */

import crypto from "node:crypto";
import { syncBuiltinESMExports } from "node:module";
import { moving } from "./moves.js";
import { uuidOf } from "./random.js";

/** What the globals need of a body. */
interface Body {
  /** Unix time in milliseconds. */
  readonly time: number;
  readonly random: () => number;
}

let users = 0;
let restore: () => void = () => undefined;

/** Have the globals look at who moves, until the function that this gives is called. */
export function guardGlobals(): () => void {
  users += 1;
  if (users === 1) restore = replace();
  let isOver = false;
  return () => {
    if (isOver) return;
    isOver = true;
    users -= 1;
    if (users === 0) restore();
  };
}

/** Replace the globals; gives what puts them back, unless others have replaced them meanwhile. */
function replace(): () => void {
  /* eslint-disable @typescript-eslint/unbound-method -- called with their objects, and put back */
  const real = {
    Date: globalThis.Date,
    random: Math.random,
    uuid: globalThis.crypto.randomUUID,
    nodes: crypto.randomUUID,
  };
  /* eslint-enable @typescript-eslint/unbound-method */
  const ReplayDate = dateOver(real.Date);
  const random = (): number => bodyThatMoves()?.random() ?? real.random();
  type Uuid = typeof crypto.randomUUID;
  const uuidLike = (get: Uuid): Uuid =>
    ((options) => {
      const body = bodyThatMoves();
      return body ? uuidOf(body.random) : get.call(globalThis.crypto, options);
    }) as Uuid;
  const [webs, nodes] = [uuidLike(real.uuid), uuidLike(real.nodes)];
  globalThis.Date = ReplayDate;
  Math.random = random;
  globalThis.crypto.randomUUID = webs;
  crypto.randomUUID = nodes;
  syncBuiltinESMExports(); // for those who import it by its name
  return () => {
    if (globalThis.Date === ReplayDate) {
      globalThis.Date = real.Date;
      real.Date.prototype.constructor = real.Date;
    }
    if (Math.random === random) Math.random = real.random;
    if (globalThis.crypto.randomUUID === webs) globalThis.crypto.randomUUID = real.uuid;
    if (crypto.randomUUID === nodes) crypto.randomUUID = real.nodes;
    syncBuiltinESMExports();
  };
}

function bodyThatMoves(): Body | undefined {
  return moving() as Body | undefined;
}

/** Make a `Date` that asks a body for the time; all dates are still instances of both. */
function dateOver(RealDate: DateConstructor): DateConstructor {
  function ReplayDate(this: unknown, ...args: unknown[]): Date | string {
    const body = bodyThatMoves();
    const given = args.length === 0 && body ? [body.time] : args;
    // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- `Date()` is a text
    if (new.target === undefined) return String(new RealDate(...((body ? [body.time] : []) as [])));
    // A subclass keeps its own prototype.
    return Reflect.construct(RealDate, given, (new.target as unknown) === ReplayDate ? RealDate : new.target) as Date;
  }
  Object.setPrototypeOf(ReplayDate, RealDate);
  Object.defineProperty(ReplayDate, "name", { value: "Date" });
  Object.defineProperty(ReplayDate, "length", { value: RealDate.length });
  ReplayDate.prototype = RealDate.prototype;
  RealDate.prototype.constructor = ReplayDate;
  ReplayDate.now = () => bodyThatMoves()?.time ?? RealDate.now();
  return ReplayDate as unknown as DateConstructor;
}
