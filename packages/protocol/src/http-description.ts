/**
 * What an HTTP API says of its answers, for descriptions alone: nothing is checked or written by it, so what is not told
 * here is still passed on.
 */

/** A schema of JSON Schema, as OpenAPI takes it. */
export type Described = Record<string, unknown>;

/** Members by name; whose name ends with `?` may be missing. Further ones may come with newer versions. */
export function objectOf(members: Record<string, Described>): Described {
  const names = Object.keys(members);
  return {
    type: 'object',
    required: names.filter((name) => !name.endsWith('?')),
    properties: Object.fromEntries(names.map((name) => [name.replace(/\?$/, ''), members[name]!])),
  };
}

export const Text: Described = { type: 'string' };
export const Whole: Described = { type: 'integer' };
export const Flag: Described = { type: 'boolean' };
export const Some: Described = { type: 'object' };
export const orNull = (of: Described): Described => ({ anyOf: [of, { type: 'null' }] });
export const listOf = (of: Described): Described => ({ type: 'array', items: of });
export const List = listOf(Some);
export const oneOf = (...words: string[]): Described => ({ type: 'string', enum: words });

/** What is answered where all went well. */
export const success = (members: Record<string, Described> = {}): Described =>
  objectOf({ status: oneOf('success'), ...members });

/** A route that answers so, and in no other way. */
export const ok = (members?: Record<string, Described>): Told => ({ answers: { 200: success(members) } });

/** An answer of another kind than JSON, or without content. */
export const content = (description: string, ...kinds: string[]): Described => ({
  description,
  ...(kinds.length === 0
    ? { type: 'null' }
    : { content: Object.fromEntries(kinds.map((kind) => [kind, { schema: Text }])) }),
});

/** For descriptions of whole APIs: how an error looks, and what to do about it. */
export const AN_ERROR =
  '**An error** is `{"status": "error", "error": {"code", "message", "data": {"name", "retryable", "fields"}}}`: the message says what was wrong and what to do; the name is a program’s key; where `retryable` is true, the same request may do later.';

/** What a route that is none is answered with. */
export const NO_SUCH_ROUTE = 'There is no such route. They are described at /docs, for programs at /docs/json';

/** Every error, whose name says which it is (docs/protocol.md, section 13). */
export const ERROR: Described = {
  description: 'An error. `name` is its key, and the status of the answer belongs to it',
  ...objectOf({
    status: oneOf('error'),
    error: objectOf({
      code: Whole,
      message: Text,
      data: objectOf({ name: Text, retryable: Flag, 'fields?': Some }),
    }),
  }),
};

/** What is told of a route besides what its own schema checks: by status, its answers; what it reads of a request. */
export interface Told {
  answers: Record<number, Described>;
  querystring?: Described;
  headers?: Described;
  body?: Described;
  /** Media types of the body. */
  consumes?: string[];
}

/** A route's schema as it is described. */
export function describedAs(schema: object | undefined, told: Told | undefined): object {
  const { answers, ...asked } = told ?? { answers: {} };
  return { ...asked, ...schema, response: { ...answers, default: ERROR } };
}
