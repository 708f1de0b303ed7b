/** The type of a value that has been written as JSON and read again. */

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- any code at all
type Code = (...args: any[]) => unknown;

/** What comes back of a value: undefined as null, bytes as bytes, dates as texts, class instances as plain objects. */
export type Jsonify<T> = 0 extends 1 & T // any
  ? T
  : unknown extends T
    ? T
    : // eslint-disable-next-line @typescript-eslint/no-invalid-void-type -- what code without a return gives
      T extends void
      ? null
      : T extends Uint8Array | ArrayBuffer
        ? Uint8Array
        : Inner<T>;

type Inner<T> = 0 extends 1 & T
  ? T
  : unknown extends T
    ? T
    : T extends string | number | boolean | null
      ? T
      : T extends Uint8Array
        ? string
        : T extends { toJSON(...args: never[]): infer Form }
          ? Inner<Form>
          : T extends Code | symbol | bigint
            ? never
            : T extends readonly unknown[]
              ? Elements<T>
              : T extends object
                ? Fields<T>
                : never;

type Elements<T extends readonly unknown[]> = {
  -readonly [Index in keyof T]: T[Index] extends undefined ? null : Inner<T[Index]>;
};

/** Fields that may be undefined may be missing afterwards; methods are gone. */
type Fields<T extends object> = Flat<
  { -readonly [Key in KeptKeys<T> as undefined extends T[Key] ? never : Key]: Inner<T[Key]> } & {
    -readonly [Key in KeptKeys<T> as undefined extends T[Key] ? Key : never]?: Inner<Exclude<T[Key], undefined>>;
  }
>;

type KeptKeys<T extends object> = {
  [Key in keyof T]: Key extends symbol ? never : T[Key] extends Code ? never : Key;
}[keyof T];

type Flat<T> = { [Key in keyof T]: T[Key] };

/** What JSON would lose, at the top of a value or up to three fields below it. */
export type LostIn<T, Depth extends 0[] = []> = 0 extends 1 & T // any
  ? never
  : unknown extends T
    ? never
    : T extends ReadonlyMap<unknown, unknown> | ReadonlySet<unknown> | bigint | symbol | Code | Error
      ? T
      : T extends Uint8Array | ArrayBuffer | Date | string | number | boolean | null | undefined
        ? never
        : T extends { toJSON(...args: never[]): unknown }
          ? never
          : Depth["length"] extends 3
            ? never
            : T extends readonly (infer Item)[]
              ? LostIn<Item, [...Depth, 0]>
              : T extends object
                ? { [Key in keyof T]-?: T[Key] extends Code ? never : LostIn<T[Key], [...Depth, 0]> }[keyof T]
                : never;

/** Rest parameters that nobody can give where an output would lose something; none where all of it is kept. */
export type Refusal<Output> = [LostIn<Output>] extends [never]
  ? []
  : [refused: { "JSON would lose a part of what the step returns": LostIn<Output> }];

/** Anything if an output, perhaps of a promise, is kept whole by JSON; else nothing. */
export type Kept<Output> = [LostIn<Awaited<Output>>] extends [never] ? unknown : never;
