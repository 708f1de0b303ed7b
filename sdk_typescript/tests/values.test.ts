/** Values: what comes back as it was, what comes back plain, and what is refused. */

import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";

import { type Codec, EncodingError, OutputTooLargeError, type Payload } from "../src/index.js";
import { Values } from "../src/values.js";

const values = new Values();

function text(payload: Payload): string {
  return Buffer.from(payload.data).toString();
}

test.each<[unknown, string]>([
  [null, "null"],
  [undefined, "null"],
  [true, "true"],
  [0, "0"],
  [-0.5, "-0.5"],
  [1e300, "1e+300"],
  ["text \0 ☃ 🙂", '"text \\u0000 ☃ 🙂"'],
  ['\\ud800 is no surrogate, nor is "\\udc00"', '"\\\\ud800 is no surrogate, nor is \\"\\\\udc00\\""'],
  [[], "[]"],
  [[1, [undefined, null]], "[1,[null,null]]"],
  [{ a: 1, gone: undefined }, '{"a":1}'],
  [-0, "-0"],
  [{ a: [0, -0], b: "-0" }, '{"a":[0,-0],"b":"-0"}'],
  [{ when: new Date(0) }, '{"when":"1970-01-01T00:00:00.000Z"}'],
  [new Date(0), '"1970-01-01T00:00:00.000Z"'],
  [{ bytes: Buffer.from([255, 0]) }, '{"bytes":"/wA="}'],
  [[new Uint8Array([255, 0])], '["/wA="]'],
  [Object.create(null, { a: { value: 1, enumerable: true } }), '{"a":1}'],
  [
    new (class Point {
      x = 1;
      double(): number {
        return 2 * this.x;
      }
    })(),
    '{"x":1}',
  ],
  [
    new (class Door {
      color = "color: #fff;";
      static #count = 1;
      #knock(): number {
        return Door.#count;
      }
      open(): number {
        return this.#knock();
      }
    })(),
    '{"color":"color: #fff;"}',
  ],
  [[runInNewContext("new Uint8Array([255, 0])")], '["/wA="]'],
  [{ toJSON: () => ({ a: [{ toJSON: () => 7 }] }) }, '{"a":[7]}'],
  [[new String("a"), new Number(1), new Boolean(false)], '["a",1,false]'],
  [new URL("http://a/"), '"http://a/"'],
  [JSON.parse('{"__proto__":{"a":1}}'), '{"__proto__":{"a":1}}'],
  [{ x: { "a.b": [{ when: new Date(0) }] }, y: 1 }, '{"x":{"a.b":[{"when":"1970-01-01T00:00:00.000Z"}]},"y":1}'],
])("a value is written as JSON: case %#", (value, json) => {
  const payload = values.encode(value);
  expect([text(payload), payload.encoding, payload.metadata]).toEqual([json, "json", {}]);
  expect(values.decode(payload)).toEqual(JSON.parse(json));
});

test("a value that is shared, but does not contain itself, is fine", () => {
  const shared = { a: 1 };
  expect(text(values.encode([shared, shared]))).toBe('[{"a":1},{"a":1}]');
});

test("encoding does not change a value", () => {
  const value = { when: new Date(0), deep: [{ bytes: new Uint8Array(1) }] };
  values.encode(value);
  expect(value).toEqual({ when: new Date(0), deep: [{ bytes: new Uint8Array(1) }] });
});

test.each([
  new Uint8Array([1, 2]),
  Buffer.from([1, 2]),
  new Uint8Array([0, 1, 2]).subarray(1),
  new Uint8Array([1, 2]).buffer,
])("bytes stay bytes", (bytes) => {
  const payload = values.encode(bytes);
  expect([payload.encoding, [...payload.data]]).toEqual(["binary", [1, 2]]);
  new Uint8Array(bytes instanceof ArrayBuffer ? bytes : bytes.buffer).fill(9);
  expect(values.decode(payload)).toEqual(new Uint8Array([1, 2]));
});

class Point {
  x = 1;
  #y = 2;
  get y(): number {
    return this.#y;
  }
}

class Account {
  name = "mine";
  #balance = 7;
  #check(): boolean {
    return this.#balance > 0;
  }
  ok(): boolean {
    return this.#check();
  }
}

class Place extends Point {
  name = "here";
}

const inner: { b?: unknown } = {};
const cycle = { a: [inner] };
inner.b = cycle;
let deep: unknown = 0;
for (let depth = 0; depth < 201; depth += 1) deep = [deep];

test.each<[unknown, string]>([
  [Number.NaN, "NaN is no number that JSON knows"],
  [{ a: { b: [0, -1 / 0] } }, "at .a.b[1]: -Infinity is no number that JSON knows"],
  [{ n: 10n }, "at .n: 10 is a BigInt: use a number or a text"],
  [body, "a function is no data"],
  [{ f: body }, "at .f: a function is no data"],
  [[Symbol("s")], "at [0]: a symbol is no data"],
  [cycle, "at .a[0].b: it contains itself"],
  [deep, "it is nested more than 200 deep"],
  [new Map([[1, 2]]), "JSON would keep nothing of a Map: use Object.fromEntries(map)"],
  [{ tags: new Set() }, "at .tags: JSON would keep nothing of a Set: use [...set]"],
  [[/x/], "at [0]: JSON would keep nothing of a RegExp: use its source"],
  [{ error: new TypeError("boom") }, "at .error: JSON would keep nothing of a Error: use its message, or throw it"],
  [[Promise.resolve()], "at [0]: JSON would keep nothing of a Promise: await it"],
  [{ list: new Float64Array(2) }, "at .list: a Float64Array is no plain data: use a Uint8Array or a list of numbers"],
  [[new Date(Number.NaN)], "at [0]: it is an invalid Date"],
  [{ p: new Point() }, "at .p: JSON would not keep the getter 'y' of a Point: return { ...it }, or give it toJSON()"],
  [[new Place()], "at [0]: JSON would not keep the getter 'y' of a Place"],
  [{ h: new Headers({ a: "b" }) }, "at .h: JSON would keep nothing of a Headers: use Object.fromEntries(headers)"],
  [new URLSearchParams("a=1"), "JSON would keep nothing of a URLSearchParams: use its toString()"],
  [new Map([[1, 2]]).keys(), "JSON would not keep what a Map Iterator holds: return plain data"],
  [new Blob(["a"]), "JSON would not keep what a Blob holds"],
  [[new SharedArrayBuffer(1)], "at [0]: JSON would not keep what a SharedArrayBuffer holds"],
  [{ a: { [Symbol("s")]: 1 } }, "at .a: the key Symbol(s) is no text and would not come back"],
  ["a\ud800", "the text holds a lone surrogate"],
  [{ deep: ["a\udc00"] }, 'the text at "0" holds a lone surrogate'],
  [{ m: /b/.exec("abc") }, "at .m: JSON would not keep the field 'groups' of a list: return [...it]"],
  [Object.assign([1], { total: 1 }), "JSON would not keep the field 'total' of a list"],
  [[new Account()], "at [0]: JSON would not keep the private field '#balance' of a Account"],
  [Object.create({ inherited: 1 }), "JSON would not keep the inherited field 'inherited'"],
  [{ d: runInNewContext("new Date(NaN)") as unknown }, "at .d: it is an invalid Date"],
  [{ "a\ud800": 1 }, "holds a lone surrogate"],
  [
    {
      get a() {
        throw new Error("not now");
      },
    },
    "not now",
  ],
])("what JSON would lose is refused, by where it stands: case %#", (value, words) => {
  expect(() => values.encode(value, "output of 'f'")).toThrow(EncodingError);
  expect(() => values.encode(value, "output of 'f'")).toThrow("output of 'f' can't be encoded as JSON: ");
  expect(() => values.encode(value, "output of 'f'")).toThrow(words);
});

test("what can't be looked at is refused", () => {
  const gone = Proxy.revocable({}, {});
  gone.revoke();
  expect(() => values.encode(gone.proxy)).toThrow(EncodingError);
});

function body(): number {
  return 0;
}

test("what Python writes is read", () => {
  const payload = {
    data: Buffer.from('{"a":[1.0,1e-7,null,"\\u2603\\ud83d\\ude42"],"n":12345678901234567890}'),
    encoding: "",
    metadata: {},
  };
  expect(values.decode(payload)).toEqual({ a: [1, 1e-7, null, "☃🙂"], n: 12345678901234567000 });
});

test("an absent value is null", () => {
  expect(values.decode({ data: new Uint8Array(), encoding: "", metadata: {} })).toBeNull();
  expect(values.decode({ data: new Uint8Array(), encoding: "json", metadata: {} })).toBeNull();
});

test.each([
  ["{", "output of 'f' can't be read as JSON: "],
  ["NaN", "output of 'f' can't be read as JSON: "],
  ["\xff", "output of 'f' can't be read as JSON: "],
])("%j is no JSON", (data, words) => {
  const payload = { data: Buffer.from(data, "latin1"), encoding: "json", metadata: {} };
  expect(() => values.decode(payload, "output of 'f'")).toThrow(EncodingError);
  expect(() => values.decode(payload, "output of 'f'")).toThrow(words);
});

test("what is too large is refused by the limit's name", () => {
  const small = new Values(undefined, 5);
  expect(text(small.encode("abc"))).toBe('"abc"');
  expect(() => small.encode("abcd", "output of 'f'")).toThrow(OutputTooLargeError);
  expect(() => small.encode("x".repeat(2000), "output of 'f'")).toThrow(
    "output of 'f' has 2,002 bytes, over --max-output-bytes=5: return less, or a reference to it",
  );
  expect(text(small.encode("abcdef", "an event", 0))).toBe('"abcdef"');
  expect(() => small.encode("abcdef", "an event", 7)).toThrow("over the limit=7");
  small.maxOutputBytes = 0;
  expect(text(small.encode("abcd"))).toBe('"abcd"');
});

const turned: Codec = {
  encode: ({ data, encoding }) => ({ data: data.toReversed(), encoding: "turned", metadata: { was: encoding } }),
  decode: (payload) =>
    payload.encoding === "turned"
      ? { data: payload.data.toReversed(), encoding: payload.metadata.was ?? "", metadata: {} }
      : payload,
};

test.each([[{ a: 1 }], ["text"], [null], [new Uint8Array([1, 2])]])("a codec wraps %o and unwraps it", (value) => {
  const coded = new Values(turned);
  const payload = coded.encode(value);
  expect(payload.encoding).toBe("turned");
  expect(coded.decode(payload)).toEqual(value);
  expect(coded.decode(values.encode(value))).toEqual(value);
});

test("a payload of a codec that is not here says so", () => {
  const payload = new Values(turned).encode(1);
  expect(() => values.decode(payload, "input")).toThrow(
    "input has the encoding 'turned', which nothing here can decode",
  );
});

test.each([undefined, "text", { data: "text", encoding: "odd", metadata: {} }, { data: new Uint8Array() }])(
  "what a codec gives that is no payload is refused: %o",
  (given) => {
    const odd = { encode: () => given, decode: () => given } as unknown as Codec;
    expect(() => new Values(odd).encode(1, "input")).toThrow("input: the codec gave no payload");
    const sealed: Payload = { data: new Uint8Array([1]), encoding: "sealed", metadata: {} };
    expect(() => new Values(odd).decode(sealed, "input")).toThrow("input: the codec gave no payload");
  },
);

test("a codec that leaves the encoding or gives no payload is refused", () => {
  const same: Codec = { ...turned, encode: (payload) => ({ ...payload, data: payload.data.toReversed() }) };
  expect(() => new Values(same).encode(1, "input")).toThrow(
    "input: the codec changed a payload but left its encoding 'json'",
  );
  const none: Codec = { ...turned, encode: () => "no" as never };
  expect(() => new Values(none).encode(1, "input")).toThrow("input: the codec gave no payload");
  const keeping: Codec = { ...turned, encode: (payload) => payload };
  expect(text(new Values(keeping).encode(1))).toBe("1");
});
