/**
 * All examples of section 7 of the JSON-RPC 2.0 specification (https://www.jsonrpc.org/specification#examples), and the
 * methods that they call. A message in `expect` is a beginning: ours may say more after the specification's words.
 */
import assert from 'node:assert/strict';
import { NoSuchMethod } from '@hauki/protocol';

export interface Example {
  name: string;
  request: string;
  /** The answer by value; undefined: nothing may be sent. */
  expect: unknown | undefined;
}

const failed = (code: number, message: string, id: unknown = null) => ({
  jsonrpc: '2.0',
  error: { code, message },
  id,
});
const invalid = failed(-32600, 'Invalid Request');
const parse = failed(-32700, 'Parse error');

export const EXAMPLES: Example[] = [
  {
    name: 'positional parameters',
    request: '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
    expect: { jsonrpc: '2.0', result: 19, id: 1 },
  },
  {
    name: 'positional parameters, the other way round',
    request: '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
    expect: { jsonrpc: '2.0', result: -19, id: 2 },
  },
  {
    name: 'named parameters',
    request: '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
    expect: { jsonrpc: '2.0', result: 19, id: 3 },
  },
  {
    name: 'named parameters in another order',
    request: '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
    expect: { jsonrpc: '2.0', result: 19, id: 4 },
  },
  {
    name: 'a notification',
    request: '{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}',
    expect: undefined,
  },
  { name: 'a notification without parameters', request: '{"jsonrpc": "2.0", "method": "foobar"}', expect: undefined },
  {
    name: 'a call of a method that does not exist',
    request: '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
    expect: failed(-32601, 'Method not found', '1'),
  },
  {
    name: 'invalid JSON',
    request: '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
    expect: parse,
  },
  {
    name: 'an invalid Request object',
    request: '{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
    expect: invalid,
  },
  {
    name: 'a batch of invalid JSON',
    request: '[ {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method" ]',
    expect: parse,
  },
  { name: 'an empty array', request: '[]', expect: invalid },
  { name: 'an invalid batch that is not empty', request: '[1]', expect: [invalid] },
  { name: 'an invalid batch', request: '[1,2,3]', expect: [invalid, invalid, invalid] },
  {
    name: 'a mixed batch',
    request:
      '[ {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},' +
      ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},' +
      ' {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},' +
      ' {"foo": "boo"},' +
      ' {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},' +
      ' {"jsonrpc": "2.0", "method": "get_data", "id": "9"} ]',
    expect: [
      { jsonrpc: '2.0', result: 7, id: '1' },
      { jsonrpc: '2.0', result: 19, id: '2' },
      invalid,
      failed(-32601, 'Method not found', '5'),
      { jsonrpc: '2.0', result: ['hello', 5], id: '9' },
    ],
  },
  {
    name: 'a batch of notifications alone',
    request:
      '[ {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},' +
      ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]} ]',
    expect: undefined,
  },
];

/** The methods of the examples. `foobar` is not among them: the specification calls it where there is none. */
export const METHODS: Record<string, (params: any) => unknown> = {
  subtract: (p) => (Array.isArray(p) ? p[0] - p[1] : p.minuend - p.subtrahend),
  sum: (p: number[]) => p.reduce((total, n) => total + n, 0),
  get_data: () => ['hello', 5],
  update: () => undefined,
  notify_hello: () => undefined,
  notify_sum: () => undefined,
};

/** Calls the examples' methods. */
export function exampleDispatch(method: string, params: unknown): unknown {
  if (!Object.hasOwn(METHODS, method)) throw new NoSuchMethod({ method, has: Object.keys(METHODS) });
  return METHODS[method]!(params);
}

/** The same methods as the source of a worker. */
export const EXAMPLE_WORKER = `
export const subtract = (a, b) => (typeof a === 'object' ? a.minuend - a.subtrahend : a - b);
export const sum = (...numbers) => numbers.reduce((total, n) => total + n, 0);
export const get_data = () => ['hello', 5];
export const update = () => {};
export const notify_hello = () => {};
export const notify_sum = () => {};
`;

const idOf = (answer: any) => JSON.stringify(answer?.id ?? null);

/** Compares an answer with an example's: by value, errors by code and beginning of the message, a batch in any order. */
export function assertAnswer(got: unknown, expect: unknown): void {
  if (Array.isArray(expect)) {
    assert.ok(Array.isArray(got), `a batch is answered by a batch, got ${JSON.stringify(got)}`);
    assert.equal(got.length, expect.length);
    const rank = (list: any[]) => [...list].sort((a, b) => idOf(a).localeCompare(idOf(b)));
    const wanted = rank(expect);
    rank(got).forEach((answer, at) => {
      assertAnswer(answer, wanted[at]);
    });
    return;
  }
  const { error: wanted, ...rest } = expect as any;
  const { error, ...got_rest } = got as any;
  assert.deepEqual(got_rest, rest);
  assert.equal(error === undefined, wanted === undefined, `got ${JSON.stringify(got)}`);
  if (wanted === undefined) return;
  assert.equal(error.code, wanted.code);
  assert.ok(String(error.message).startsWith(wanted.message), `${error.message} does not begin with ${wanted.message}`);
}
