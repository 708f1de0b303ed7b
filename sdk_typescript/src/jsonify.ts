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
  { -readonly [Key in Kept<T> as undefined extends T[Key] ? never : Key]: Inner<T[Key]> } & {
    -readonly [Key in Kept<T> as undefined extends T[Key] ? Key : never]?: Inner<Exclude<T[Key], undefined>>;
  }
>;

type Kept<T extends object> = {
  [Key in keyof T]: Key extends symbol ? never : T[Key] extends Code ? never : Key;
}[keyof T];

type Flat<T> = { [Key in keyof T]: T[Key] };
