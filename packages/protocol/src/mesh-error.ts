/** What a row of the error table is made of (`errors.ts` has the table). */

/** What travels in a JSON-RPC `error` member. */
export interface WireError {
  code: number;
  message: string;
  data?: { name: string; retryable?: boolean; fields?: Record<string, unknown>; stack?: string };
}

/** The base of every typed error of Hauki. */
export class MeshError<Fields extends object = Record<string, unknown>> extends Error {
  declare readonly code: number;
  /** HTTP status where the error answers a request. */
  declare readonly status: number;
  /** True when the same request may succeed later without any change. */
  declare readonly retryable: boolean;
  declare readonly fields: Fields;

  constructor(row: Row, fields: Fields, message: string) {
    super(message);
    Object.assign(this, row, { fields });
  }
}

export interface Row {
  name: string;
  code: number;
  status: number;
  retryable: boolean;
}

export interface ErrorClass<Fields extends object> {
  new (fields: Fields, message?: string): MeshError<Fields>;
  readonly row: Row;
}

/** The rows that this program has: a bundle leaves out those that it never names (hence the marks `__PURE__`). */
export const byName = new Map<string, ErrorClass<any>>();

/** Adds a row to the table. `text` makes the message of its fields. */
export function define<Fields extends object>(
  name: string,
  code: number,
  status: number,
  retryable: boolean,
  text: (fields: Fields) => string,
): ErrorClass<Fields> {
  const row: Row = { name, code, status, retryable };
  const made = class extends MeshError<Fields> {
    static readonly row = row;
    constructor(fields: Fields, message: string = text(fields)) {
      super(row, fields, message);
    }
  };
  Object.defineProperty(made, 'name', { value: name });
  byName.set(name, made);
  return made;
}
