/** Wrong arguments of apps, clients and workers are errors at once, which name the argument: plain JavaScript has no types. */

import { expect, test } from "vitest";

import { Client, RegistrationError, Stepwire, StepwireError, Worker } from "../src/index.js";

/* eslint-disable @typescript-eslint/no-explicit-any, @typescript-eslint/no-unsafe-argument, @typescript-eslint/no-unsafe-assignment, @typescript-eslint/no-extraneous-class, @typescript-eslint/no-empty-function -- what types would refuse */
const odd = (value: unknown): any => value;
const client = new Client({ executor: "127.0.0.1:1", retryFor: 0 });
const app = new Stepwire({ id: "shop" });

test.each<[() => unknown, string]>([
  [() => new Stepwire(odd(undefined)), "an app: give an object of id, version, codec, logger"],
  [() => new Stepwire({ id: "a", version: odd(5) }), "an app's version is 5"],
  [() => new Stepwire({ id: "a", codec: odd({}) }), "{} is no codec: it has no method 'encode'"],
  [() => new Stepwire({ id: "a", logger: odd({ info: 1 }) }), "is no logger: it has no method 'debug'"],
  [() => app.createFunction(odd(undefined), odd([]), odd(undefined)), "give an object of id, retries"],
  [() => app.createFunction({ id: "a" }, [], function* () {}), "function 'a' is a generator"],
  [() => app.task("t", odd(class {})), "task 't' is a class: give it a function"],
])("an app is told what is wrong with it: case %#", (call, words) => {
  expect(call).toThrow(RegistrationError);
  expect(call).toThrow(words);
});

test.each<[() => unknown, string]>([
  [() => new Client({ executor: odd(5) }), "5 is no address of an executor"],
  [() => new Client({ codec: odd(5) }), "5 is no codec: it has no method 'encode'"],
  [() => new Worker(odd(undefined)), "a worker serves an app, made by new Stepwire({ id }), not undefined"],
  [() => new Worker(app, { labels: odd(5) }), 'labels is 5, but must be names and their texts, like { zone: "a" }'],
  [() => new Worker(app, { labels: { a: odd(5) } }), 'the label "a" is 5, but must be a text'],
  [() => new Worker(app, { instanceId: odd(5) }), "a worker's instanceId is 5, but must be a text"],
  [() => new Worker(app, { logger: odd(5) }), "5 is no logger"],
])("a client and a worker are told what is wrong with their options: case %#", (call, words) => {
  expect(call).toThrow(StepwireError);
  expect(call).toThrow(words);
});

test.each<[() => Promise<unknown>, string]>([
  [() => client.send(odd(undefined)), "give an object of name, data, id, time"],
  [() => client.send({ name: odd(5) }), "an event's name is 5, but must be a text"],
  [() => client.send({ name: "a\ud800" }), "which is not valid Unicode: it holds a lone surrogate"],
  [() => client.send({ name: "a", id: odd(5) }), "the id of event 'a' is 5, but must be a text"],
  [() => client.send({ name: "a", time: odd("now") }), "the time of event 'a' is now, but must be a Date"],
  [() => client.send({ name: "a", time: new Date(Number.NaN) }), "is Invalid Date, but must be a Date"],
  [() => client.get("\ud800"), "a run's id is"],
  [() => client.cancel("r", odd(5)), "the reason is 5, but must be a text"],
  [() => client.list({ states: [odd("gone")] }).next(), '"gone" is no state of a run'],
  [() => client.list({ app: odd(5) }).next(), "the filter app is 5, but must be a text"],
  [() => client.list({ createdAfter: odd("x") }).next(), "createdAfter is x, but must be a Date"],
])("a call names a wrong argument before anything is sent: case %#", async (call, words) => {
  await expect(call()).rejects.toThrow(StepwireError);
  await expect(call()).rejects.toThrow(words);
});
