/** Events as users send and receive them. */

import { Buffer } from "node:buffer";

import type { Duration } from "./durations.js";
import { EncodingError } from "./errors.js";
import type { OutgoingEvent } from "./replay/model.js";
import type { Payload } from "./model.js";
import { Values } from "./values.js";

/** The types of events' data by the events' names. Data that is not described is `any`. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- data of events that nobody has described
export type EventTypes = Record<string, any>;

/** An event to send. */
export interface Event<Name extends string = string, Data = unknown> {
  readonly name: Name;
  /** Anything that can be encoded; null if left out. */
  readonly data?: Data;
  /** Makes the event once only, for 24 h. */
  readonly id?: string;
  /** When it happened: a Date, or Unix time in milliseconds. Now, if left out. */
  readonly time?: Date | number;
}

/** An event that has been received, its data decoded. */
export interface ReceivedEvent<Name extends string = string, Data = unknown> {
  readonly id: string;
  readonly name: Name;
  readonly data: Data;
  readonly time: Date;
}

/** The received event of a name; of several names, one of them. */
export type EventOf<Events extends EventTypes, Name extends keyof Events & string> = Name extends string
  ? ReceivedEvent<Name, Events[Name]>
  : never;

/** An event of one of the names, to send. */
export type EventToSend<Events extends EventTypes> = {
  [Name in keyof Events & string]: Event<Name, Events[Name]>;
}[keyof Events & string];

type Scalar = string | number | boolean | null;

/** Dotted paths in an event's data, at most four names deep; any text where the data is not described. */
export type PathIn<Data, Depth extends 0[] = []> = 0 extends 1 & Data // any
  ? string
  : unknown extends Data
    ? string
    : Depth["length"] extends 4
      ? string
      : Data extends Scalar | undefined | bigint | symbol | Date
        ? never
        : Data extends readonly (infer Item)[]
          ? `${number}` | `${number}.${PathIn<Item, [...Depth, 0]>}`
          : {
              [Key in keyof Data & (string | number)]:
                | `${Key}`
                | (PathIn<Data[Key], [...Depth, 0]> extends infer Path extends string ? `${Key}.${Path}` : never);
            }[keyof Data & (string | number)];

/** Dotted paths in an event's data, and what stands there. */
export type Match<Data> =
  string extends PathIn<Data> ? Readonly<Record<string, Scalar>> : Readonly<Partial<Record<PathIn<Data>, Scalar>>>;

/** What a step waits for. `Data` is what the event brings. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- data of events that nobody has described
export interface WaitOptions<Name extends string = string, Data = any> {
  /** The event's name. */
  readonly event: Name;
  /** Dotted paths in the event's data, and what stands there: `{ "user.id": 7 }`. All must be equal. */
  readonly match?: Match<Data>;
  /** How long to wait; 366 days if left out. */
  readonly timeout?: Duration;
}

/** Encode an event's data. Throws EncodingError. */
export function outgoing(event: Event, values: Values): OutgoingEvent {
  const data = values.encode(event.data, `data of event '${event.name}'`, 0);
  const time = event.time instanceof Date ? event.time.getTime() : event.time;
  if (Number.isNaN(time)) throw new EncodingError(`the time of event '${event.name}' is an invalid Date`);
  return { id: event.id ?? "", name: event.name, data, time };
}

/** The JSON that the executor writes for an event that a step has waited for. */
interface WaitedFor {
  readonly id: string;
  readonly name: string;
  readonly time: string;
  readonly data?: unknown;
  /** Instead of `data`, if that is no plain JSON. */
  readonly payload?: {
    readonly data: string;
    readonly encoding: string;
    readonly metadata: Readonly<Record<string, string>>;
  };
}

/** Read the result of a step that waited for an event. Throws EncodingError. */
export function receivedOf(output: Payload, values: Values): ReceivedEvent {
  const event = new Values().decode(output, "the event that was waited for") as WaitedFor | null;
  if (typeof event !== "object" || event === null) {
    throw new EncodingError("the event that was waited for can't be read");
  }
  const { id, name, time, payload } = event;
  const opaque = payload && { ...payload, data: Buffer.from(payload.data, "base64") };
  const data = opaque ? values.decode(opaque, `data of event '${name}'`) : (event.data ?? null);
  return { id, name, data, time: new Date(time) };
}
