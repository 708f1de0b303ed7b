/** JSON for JavaScript values. What JSON can't keep is refused, by the path at which it stands. */

import { Buffer } from "node:buffer";

import { EncodingError } from "./errors.js";

/** Levels of lists and objects that every SDK can read again. */
const DEEPEST = 200;
const LONGEST_PATH = 1024;
/** Longer lists are not looked at for fields beside their members: their keys would cost more than their encoding. */
const MOST_LOOKED_AT = 1_000;
/** Built-in objects of which JSON would keep nothing, and what to do instead. */
const REMEDIES: Readonly<Record<string, string>> = {
  "[object Map]": "use Object.fromEntries(map)",
  "[object Set]": "use [...set]",
  "[object WeakMap]": "return plain data",
  "[object WeakSet]": "return plain data",
  "[object WeakRef]": "return plain data",
  "[object RegExp]": "use its source",
  "[object Error]": "use its message, or throw it",
  "[object Promise]": "await it",
  "[object Generator]": "use [...generator]",
  "[object AsyncGenerator]": "return a list of what it gives",
  "[object URLSearchParams]": "use its toString()",
  "[object Headers]": "use Object.fromEntries(headers)",
  "[object FormData]": "use Object.fromEntries(form)",
  "[object Response]": "use await response.json() or text()",
};
/** Stands for -0, which JSON can hold, but JSON.stringify does not write. */
const NEGATIVE_ZERO = `-0 ${crypto.randomUUID()}`;
const NEGATIVE_ZERO_TEXT = JSON.stringify(NEGATIVE_ZERO);
/** By prototype, what instances have by their classes that JSON would not keep; empty if there is nothing. */
const losses = new WeakMap<object, string>();
/** A private field as it is declared in a class's source; that of a method has a parenthesis instead. */
const PRIVATE_FIELD = /(?<![.\w$])(?<!static\s+)(#[\w$]+)\s*(?:=(?!=)|;|\n|\})/g;
const decoder = new TextDecoder("utf-8", { fatal: true });

/** Encode a value; undefined as null. Throws EncodingError. */
export function toJson(value: unknown, what: string): string {
  if (value === undefined || value === null) return "null";
  try {
    const written = JSON.stringify(plain(value, "", []));
    const text = hadNegativeZero() ? written.replaceAll(NEGATIVE_ZERO_TEXT, "-0") : written;
    // JSON.stringify writes a lone surrogate as an escape, which others refuse to read.
    if (text.includes("\\ud")) refuseLoneSurrogates(value);
    return text;
  } catch (error) {
    if (error instanceof Misfit) throw new EncodingError(`${what} can't be encoded as JSON: ${error.message}`);
    throw new EncodingError(`${what} can't be encoded as JSON: ${String(error)}`, { cause: error });
  }
}

/** Decode JSON. Throws EncodingError. */
export function fromJson(data: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(decoder.decode(data));
  } catch (error) {
    throw new EncodingError(`${what} can't be read as JSON: ${error instanceof Error ? error.message : "?"}`);
  }
}

class Misfit extends Error {}

/** Whether the value that is being encoded holds -0. */
const seen = { negativeZero: false };

function hadNegativeZero(): boolean {
  const had = seen.negativeZero;
  seen.negativeZero = false;
  return had;
}

/** Give what JSON.stringify would write, the value itself if possible; throws Misfit for what it would lose. */
function plain(value: unknown, path: string, above: object[]): unknown {
  switch (typeof value) {
    case "string":
    case "boolean":
    case "undefined":
      return value;
    case "number":
      if (!Number.isFinite(value)) misfit(path, `${String(value)} is no number that JSON knows`);
      if (!Object.is(value, -0)) return value;
      seen.negativeZero = true;
      return NEGATIVE_ZERO;
    case "object":
      return value === null ? null : plainObject(value, path, above);
    case "bigint":
      if ("toJSON" in BigInt.prototype) return plain(ownForm(value, path), path, above);
      return misfit(path, `${String(value).slice(0, 40)} is a BigInt: use a number or a text`);
    default:
      return misfit(path, `a ${typeof value} is no data`);
  }
}

function plainObject(value: object, path: string, above: object[]): unknown {
  if (above.includes(value)) misfit(path, "it contains itself");
  if (above.length === DEEPEST) misfit(path, `it is nested more than ${String(DEEPEST)} deep`);
  above.push(value);
  try {
    return withoutItself(value, path, above);
  } finally {
    above.pop();
  }
}

function withoutItself(value: object, path: string, above: object[]): unknown {
  if (Array.isArray(value)) return plainArray(value, path, above);
  if (isBytes(value)) return Buffer.from(value.buffer, value.byteOffset, value.length).toString("base64");
  if (isDate(value) && Number.isNaN(value.getTime())) misfit(path, "it is an invalid Date");
  if ("toJSON" in value && typeof value.toJSON === "function") return plain(ownForm(value, path), path, above);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    const tag = value instanceof Error ? "[object Error]" : Object.prototype.toString.call(value);
    const remedy = REMEDIES[tag];
    if (remedy) misfit(path, `JSON would keep nothing of a ${tag.slice(8, -1)}: ${remedy}`);
    if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) {
      misfit(path, `a ${value.constructor.name} is no plain data: use a Uint8Array or a list of numbers`);
    }
    if (value instanceof Number || value instanceof String || value instanceof Boolean) {
      return plain(value.valueOf(), path, above);
    }
    const name = nameOf(prototype as object, tag);
    if (tag !== "[object Object]") misfit(path, `JSON would not keep what a ${name} holds: return plain data`);
    const loss = lossOf(prototype as object);
    if (loss !== "")
      misfit(path, `JSON would not keep the ${loss} of a ${name}: return { ...it }, or give it toJSON()`);
  }
  return plainRecord(value as Record<string, unknown>, path, above);
}

function plainArray(value: readonly unknown[], path: string, above: object[]): readonly unknown[] {
  let copy: unknown[] | undefined;
  for (let index = 0; index < value.length; index += 1) {
    const part = value[index];
    const kept = plain(part, isScalar(part) ? "" : `${path}[${String(index)}]`, above);
    if (kept !== part && copy === undefined) copy = value.slice(0, index);
    copy?.push(kept);
  }
  const named = namedFieldOf(value);
  if (named) misfit(path, `JSON would not keep the field '${named}' of a list: return [...it], or an object`);
  return copy ?? value;
}

/** Give a field that a list has beside its members, as one that RegExp gives has; such keys come last. */
function namedFieldOf(value: readonly unknown[]): string | undefined {
  if (value.length > MOST_LOOKED_AT) return undefined;
  const last = Object.keys(value).at(-1);
  return last === undefined || /^\d+$/.test(last) ? undefined : last;
}

function plainRecord(value: Record<string, unknown>, path: string, above: object[]): Record<string, unknown> {
  for (const symbol of Object.getOwnPropertySymbols(value)) {
    if (Object.prototype.propertyIsEnumerable.call(value, symbol)) {
      misfit(path, `the key ${String(symbol)} is no text and would not come back`);
    }
  }
  let copy: Record<string, unknown> | undefined;
  for (const key of Object.keys(value)) {
    const part = value[key];
    const kept = plain(part, isScalar(part) ? "" : `${path}.${key}`, above);
    if (kept !== part) copy ??= { ...value };
    if (copy) copy[key] = kept;
  }
  return copy ?? value;
}

function nameOf(prototype: object, tag: string): string {
  const { constructor } = prototype as { constructor?: unknown };
  const isNamed = typeof constructor === "function" && constructor.name !== "" && constructor !== Object;
  return isNamed ? constructor.name : tag.slice(8, -1);
}

/** Whether a value is a Uint8Array, of another realm too. */
export function isBytes(value: object): value is Uint8Array {
  return value instanceof Uint8Array || Object.prototype.toString.call(value) === "[object Uint8Array]";
}

function isDate(value: object): value is Date {
  return value instanceof Date || Object.prototype.toString.call(value) === "[object Date]";
}

/** Name what instances with this prototype have by their class and JSON would lose; empty if there is nothing. */
function lossOf(prototype: object): string {
  const known = losses.get(prototype);
  if (known !== undefined) return known;
  const own = getterOf(prototype) || privateFieldOf(prototype);
  const base = Object.getPrototypeOf(prototype) as object | null;
  const found = own === "" && base !== null && base !== Object.prototype ? lossOf(base) : own;
  losses.set(prototype, found);
  return found;
}

function getterOf(prototype: object): string {
  for (const [name, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
    if (name !== "__proto__" && "get" in descriptor) return `getter '${name}'`;
    if (descriptor.enumerable && typeof descriptor.value !== "function") return `inherited field '${name}'`;
  }
  return "";
}

/** Only a class's source tells that it has private fields: one that is declared, and used. */
function privateFieldOf(prototype: object): string {
  const { constructor } = prototype as { constructor?: unknown };
  if (typeof constructor !== "function") return "";
  const source = Function.prototype.toString.call(constructor);
  if (!source.startsWith("class")) return "";
  const names = [...source.matchAll(PRIVATE_FIELD)].map(([, name = ""]) => name);
  const used = names.find((name) => source.includes(`this.${name}`));
  return used === undefined ? "" : `private field '${used}'`;
}

/** Whether a value can't be refused, so that nobody will ask for its path. */
function isScalar(value: unknown): boolean {
  return (
    typeof value === "string" || typeof value === "boolean" || (typeof value === "number" && Number.isFinite(value))
  );
}

function ownForm(value: unknown, path: string): unknown {
  const key = path.slice(path.lastIndexOf(".") + 1);
  return (value as { toJSON(key: string): unknown }).toJSON(key);
}

function refuseLoneSurrogates(value: unknown): void {
  JSON.stringify(value, (key, part: unknown) => {
    const lone = [key, part].some((text) => typeof text === "string" && /\p{Surrogate}/u.test(text));
    const place = key === "" ? "" : ` at ${JSON.stringify(key)}`;
    if (lone) throw new Misfit(`the text${place} holds a lone surrogate, which is not valid Unicode`);
    return part;
  });
}

function misfit(path: string, reason: string): never {
  throw new Misfit(path ? `at ${path.slice(0, LONGEST_PATH)}: ${reason}` : reason);
}
