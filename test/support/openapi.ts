/**
 * What an OpenAPI document promises, as requests to make of it: for each operation such as it calls valid, and such as
 * differ from these in one place. The parts of JSON Schema that our descriptions use, and no others.
 */
import assert from 'node:assert/strict';
import { Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import * as protocol from '@hauki/protocol';
import fc from 'fast-check';
import { Compile } from 'typebox/compile';

/** How often each property is tried, in the least; `API_RUNS` says otherwise. */
export const RUNS = Number(process.env.API_RUNS ?? 8);

/** Asserts that something holds of values. What fails is printed with its seed. */
export const asserts = <T>(arbitrary: fc.Arbitrary<T>, holds: (value: T) => Promise<void>, numRuns = RUNS) =>
  fc.assert(fc.asyncProperty(arbitrary, holds), { numRuns, endOnFailure: true });

export interface Schema {
  type?: string;
  const?: unknown;
  enum?: unknown[];
  anyOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  patternProperties?: Record<string, Schema>;
  items?: Schema;
  minProperties?: number;
  maxProperties?: number;
  minItems?: number;
  maxItems?: number;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  pattern?: string;
  nullable?: boolean;
}

export interface Parameter {
  name: string;
  in: 'path' | 'query' | 'header';
  required?: boolean;
  schema: Schema;
}

export interface Operation {
  method: string;
  path: string;
  parameters: Parameter[];
  /** By media type. */
  body: Record<string, { schema?: Schema }>;
  body_required: boolean;
  responses: Record<string, { content?: Record<string, { schema?: Schema }> }>;
  open: boolean;
}

/** Values by the names of members and parameters, which say more than their schemas. */
export type Hints = Record<string, readonly unknown[]>;

export interface Asked {
  method: string;
  path: string;
  headers?: Record<string, string>;
  body?: string | Buffer | undefined;
}

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

/** A schema of OpenAPI 3.0 as JSON Schema says it: there, null is a type. */
function plain(schema: any): any {
  if (Array.isArray(schema)) return schema.map(plain);
  if (typeof schema !== 'object' || schema === null) return schema;
  const { nullable, ...rest } = schema;
  if (nullable && rest.enum?.length === 1 && rest.enum[0] === null) return { type: 'null' };
  const all = Object.fromEntries(Object.entries(rest).map(([key, of]) => [key, plain(of)]));
  return nullable ? { anyOf: [all, { type: 'null' }] } : all;
}

export function operationsOf(document: { paths: Record<string, Record<string, any>> }): Operation[] {
  return Object.entries(plain(document.paths) as typeof document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, described]) => ({
      method: method.toUpperCase(),
      path,
      parameters: described.parameters ?? [],
      body: described.requestBody?.content ?? {},
      body_required: described.requestBody?.required ?? false,
      responses: described.responses,
      open: described.security?.length === 0,
    })),
  );
}

const checks = new Map<Schema, (value: unknown) => boolean>();
/** Whether a value is as a schema says. */
export function fits(schema: Schema, value: unknown): boolean {
  let check = checks.get(schema);
  if (!check) {
    const compiled = Compile(schema as never);
    check = (one) => compiled.Check(one);
    checks.set(schema, check);
  }
  return check(value);
}

const word = fc.string({ maxLength: 12 });

/** What a schema calls valid. Optional members are there in one of three cases: all at once mostly contradict each other. */
export function valid(schema: Schema, hints: Hints, name = ''): fc.Arbitrary<unknown> {
  const hinted = Object.hasOwn(hints, name) ? hints[name]!.filter((value) => fits(schema, value)) : [];
  return hinted.length > 0 ? fc.constantFrom(...hinted) : anyOf(schema, hints).filter((value) => fits(schema, value));
}

function anyOf(schema: Schema, hints: Hints): fc.Arbitrary<unknown> {
  const { type, minLength: least = 0, maxLength: most = 24, minimum, maximum } = schema;
  if ('const' in schema) return fc.constant(schema.const);
  if (schema.enum) return fc.constantFrom(...schema.enum);
  if (schema.anyOf) return fc.oneof(...schema.anyOf.map((one) => valid(one, hints)));
  if (type === 'boolean') return fc.boolean();
  if (type === 'null') return fc.constant(null);
  if (type === 'integer') {
    const bounds = { min: minimum ?? -(2 ** 31), max: maximum ?? 2 ** 31 };
    return fc.oneof(fc.integer(bounds), fc.constantFrom(bounds.min, bounds.max));
  }
  if (type === 'number') return fc.double({ min: minimum ?? -1e6, max: maximum ?? 1e6, noNaN: true });
  if (type === 'string') {
    if (schema.pattern) return fc.stringMatching(new RegExp(schema.pattern));
    return fc.string({ minLength: least, maxLength: Math.min(most, least + 24), unit: 'grapheme' });
  }
  if (type === 'array') {
    const { minItems: minLength = 0, maxItems = 3 } = schema;
    return fc.array(valid(schema.items ?? {}, hints), {
      minLength,
      maxLength: Math.max(minLength, Math.min(maxItems, 3)),
    });
  }
  if (type === 'object') {
    const { properties = {}, required = [], patternProperties = {}, additionalProperties } = schema;
    const members = Object.entries(properties).map(([key, of]) => {
      const value = valid(of, hints, key);
      return (required.includes(key) ? value : fc.option(value, { freq: 2, nil: undefined })).map((one) => [key, one]);
    });
    // Of three members two are left out, so that what contradicts each other is seldom together.
    const own = fc
      .tuple(...members, fc.array(fc.nat(2), { minLength: members.length, maxLength: members.length }))
      .map((all) => {
        const keep = all.pop() as number[];
        const given = (all as unknown as [string, unknown][]).filter(
          ([key, value], i) => value !== undefined && (required.includes(key) || keep[i] === 0),
        );
        return Object.fromEntries(given);
      });
    const open = typeof additionalProperties === 'object' ? additionalProperties : undefined;
    const [[pattern, of] = []] = Object.entries(patternProperties);
    if (!of && !open) return own;
    const keys = pattern ? fc.stringMatching(new RegExp(pattern)) : word;
    return fc
      .tuple(own, fc.dictionary(keys, valid(of ?? open!, hints), { maxKeys: Math.min(schema.maxProperties ?? 3, 3) }))
      .map(([one, more]) => ({ ...more, ...one }));
  }
  return fc.jsonValue({ maxDepth: 3 });
}

/** As `JSON.parse` makes it: an own member, no prototype. */
const proto = JSON.parse('{"__proto__":{"polluted":1}}');
const nested = (depth: number) => JSON.parse(`${'['.repeat(depth)}${']'.repeat(depth)}`);
const WRONG = [
  null, true, false, 0, -1, 1.5, 1e308, 2 ** 53, -(2 ** 63), '', ' ', 'NaN', 'Infinity', '1e400', 'null', '\0', '\ud800', '../..',
  'x'.repeat(5_000), [], [null], {}, { a: {} }, [[[]]], nested(200), proto, { constructor: { prototype: {} } }, { length: -1 }, { toString: 1 },
]; // biome-ignore format: a list to look over

/** One place in a value, by a number: all places are as likely. */
function change(value: unknown, at: number, how: number): unknown {
  const places: { on: any; key: string | number }[] = [];
  const root = { value: structuredClone(value) };
  const walk = (on: any) => {
    for (const key of Object.keys(on)) {
      places.push({ on, key });
      if (typeof on[key] === 'object' && on[key] !== null) walk(on[key]);
    }
  };
  walk(root);
  const { on, key } = places[at % places.length]!;
  const here = on[key];
  const kind = how % 4;
  const is_object = typeof here === 'object' && here !== null && !Array.isArray(here);
  if (kind === 0 && on !== root) delete on[key];
  else if (kind === 1 && is_object) here[['surprise', '', 'toString', 'constructor'][how % 3]!] = how;
  else if (kind === 2 && typeof here === 'string') on[key] = here + 'x'.repeat(how % 3 ? 1 : 70_000);
  else if (kind === 2 && typeof here === 'number') on[key] = [-here - 1, here * 1e9, here + 0.5, String(here)][how % 3];
  else on[key] = WRONG[how % WRONG.length];
  return root.value;
}

/** What differs in one place from what a schema calls valid, so that it is not; of one that takes anything there is none. */
export function broken(schema: Schema, hints: Hints, name = ''): fc.Arbitrary<unknown> {
  return fc
    .tuple(valid(schema, hints, name), fc.array(fc.tuple(fc.nat(999), fc.nat(9_999)), { minLength: 20, maxLength: 20 }))
    .map(([value, changes]) => {
      for (const [at, how] of changes) {
        const changed = change(value, at, how);
        // As it arrives.
        const arrives = changed === undefined ? undefined : JSON.parse(JSON.stringify(changed));
        if (arrives !== undefined && !fits(schema, arrives)) return { arrives };
      }
      return undefined;
    })
    .filter((one) => one !== undefined)
    .map((one) => one!.arrives);
}

/** What the text of a parameter says: as it is written, or undefined where it is not written so. */
function said(schema: Schema, text: string): unknown {
  if (schema.anyOf) return schema.anyOf.map((one) => said(one, text)).find((one) => one !== undefined);
  if (schema.type === 'integer') return /^-?\d+$/.test(text) ? Number(text) : undefined;
  if (schema.type === 'boolean') return ({ true: true, false: false } as Record<string, boolean>)[text];
  return schema.type === 'array' ? undefined : text;
}
const textOf = (value: unknown) => (typeof value === 'string' ? value.toWellFormed() : JSON.stringify(value));

const TEXTS = [
  '', ' ', 'true', 'TRUE', 'false', '1', '0', '-1', '1.5', '1e3', '0x10', '+1', ' 1', '1 ', '1n', '01', '\u0663', 'NaN', 'Infinity', '1e400', 'null',
  '9'.repeat(30), '-9223372036854775809', '[]', '{}', 'x'.repeat(90), 'x'.repeat(1_500), '\0', '..', '.', '/', '\\', '%', '%00', '\r\n', '__proto__',
  'constructor', '\ufffd', '\u202e', '\u{1f600}',
]; // biome-ignore format: a list to look over

/** A text, or the same parameter twice, that the schema does not take; of one that takes any text only the latter. */
export function brokenText({ schema, in: where }: Parameter): fc.Arbitrary<string | string[]> | undefined {
  const isBroken = (text: string) => {
    const value = said(schema, text);
    return value === undefined || !fits(schema, value);
  };
  const texts = TEXTS.filter((text) => isBroken(text) && (where !== 'path' || !['', '.', '..'].includes(text)));
  const twice =
    where === 'query' && !fits(schema, ['A', 'B'])
      ? [
          ['1', '2'],
          ['A', 'A'],
        ]
      : [];
  return texts.length + twice.length > 0 ? fc.constantFrom<string | string[]>(...texts, ...twice) : undefined;
}

/** A request with these parameters and this body. */
export function requestOf(operation: Operation, given: Record<string, unknown>, body?: unknown): Asked {
  let { path } = operation;
  const query: string[] = [];
  const headers: Record<string, string> = {};
  for (const { name, in: where } of operation.parameters) {
    if (given[name] === undefined) continue;
    const texts = [given[name]].flat().map(textOf);
    if (where === 'path') path = path.replace(`{${name}}`, () => encodeURIComponent(texts[0]!));
    else if (where === 'header') headers[name] = texts[0]!;
    else for (const text of texts) query.push(`${name}=${encodeURIComponent(text)}`);
  }
  if (body !== undefined) headers['content-type'] = 'application/json';
  return {
    method: operation.method,
    path: path + (query.length > 0 ? `?${query.join('&')}` : ''),
    headers,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  };
}

/** The parameters of an operation, all valid. */
export function validParameters(operation: Operation, hints: Hints): fc.Arbitrary<Record<string, unknown>> {
  return fc.record(
    Object.fromEntries(
      operation.parameters.map(({ name, schema, required, in: where }) => [
        name,
        required
          ? valid(schema, hints, name).filter((one) => where !== 'path' || one !== '')
          : fc.option(valid(schema, hints, name), { freq: 2, nil: undefined }),
      ]),
    ),
  );
}

/** Sends requests over connections that are kept. An answer must come, whole; of a stream its head is enough. */
export function asker(url: string, token: string, answer_ms = 30_000) {
  const { hostname, port } = new URL(url);
  const agent = new Agent({ keepAlive: true, maxSockets: 8 });
  const ask = ({ method, path, headers = {}, body }: Asked): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const what = `${method} ${path.slice(0, 300)}`;
      const bytes = body === undefined ? undefined : Buffer.from(body as string);
      const request = httpRequest({
        agent,
        hostname,
        port,
        method,
        path,
        headers: {
          ...(token === '' ? {} : { authorization: `Bearer ${token}` }),
          ...(bytes ? { 'content-length': String(bytes.length) } : {}),
          ...headers,
        },
      });
      const late = setTimeout(() => request.destroy(new Error(`no answer within ${answer_ms} ms`)), answer_ms);
      request.on('error', (error) => reject(new Error(`${what}: ${error.message}`)));
      request.on('close', () => clearTimeout(late));
      request.on('response', (response) => {
        const { statusCode: status = 0, headers: got } = response;
        if (got['content-type']?.startsWith('text/event-stream')) {
          resolve({ status, headers: got, text: '' });
          request.destroy();
          return;
        }
        const chunks: Buffer[] = [];
        response.on('data', (chunk) => chunks.push(chunk));
        response.on('error', (error) => reject(new Error(`${what}: ${error.message}`)));
        response.on('end', () => resolve({ status, headers: got, text: Buffer.concat(chunks).toString() }));
      });
      request.end(bytes);
    });
  return { ask, close: () => agent.destroy() };
}

const ROWS = new Map(
  Object.values(protocol).flatMap((made) => {
    const { row } = made as { row?: { name: string; code: number; status: number; retryable: boolean } };
    return row ? [[row.name, row] as const] : [];
  }),
);

/** Statuses that HTTP itself has for what reaches no route. */
const HTTP_ONLY = new Set([408, 431, 501]);
/** All names of errors. */
export const NAMES: ReadonlySet<string> = new Set(ROWS.keys());

/** The name of an answer's error, which is as docs/protocol.md says of it; undefined of a success. */
export function errorIn({ status, headers, text }: Answer): string | undefined {
  if (status < 400) return undefined;
  assert.match(headers['content-type'] ?? '', /^application\/json/, text);
  const { status: said, error } = JSON.parse(text);
  assert.equal(said, 'error', text);
  const row = ROWS.get(error.data?.name);
  assert.ok(row, `${text} is no error of the table`);
  assert.deepEqual([error.code, error.data.retryable], [row.code, row.retryable], text);
  if (!(row.name === 'BadInput' && HTTP_ONLY.has(status))) assert.equal(status, row.status, text);
  assert.equal(typeof error.message, 'string');
  assert.notEqual(row.name, 'InternalError', text);
  return row.name;
}

/** Asserts that an answer is one that the description has for its operation. */
export function answersAs(operation: Operation, answer: Answer): void {
  const { status, headers, text } = answer;
  const what = `${operation.method} ${operation.path} answered ${status} ${text.slice(0, 500)}`;
  const described = operation.responses[status] ?? (status >= 400 ? operation.responses.default : undefined);
  assert.ok(described, `${what}, which is not described`);
  if (operation.method === 'HEAD' || status === 304) return assert.equal(text, '', what);
  const kinds = described.content;
  if (!kinds) return assert.equal(text, '', what);
  const kind = headers['content-type']?.split(';')[0] ?? '';
  const media = kinds[kind] ?? kinds['*/*'];
  assert.ok(media, `${what} as ${kind}, which is not described`);
  if (kind === 'application/json' && kinds[kind]?.schema)
    assert.ok(fits(kinds[kind].schema, JSON.parse(text)), `${what}, which is not as described`);
}

/** What is hardly ever meant. */
export const JUNK: fc.Arbitrary<unknown> = fc.oneof(fc.constantFrom<unknown>(...WRONG), fc.jsonValue({ maxDepth: 3 }));

/** A value with something else in one place, or in its own. */
export function replaced(value: unknown): fc.Arbitrary<unknown> {
  return fc.tuple(fc.nat(999), JUNK).map(([at, junk]) => {
    const root = { value: structuredClone(value) };
    const places: [on: any, key: string][] = [];
    const walk = (on: any) => {
      for (const key of Object.keys(on)) {
        places.push([on, key]);
        if (typeof on[key] === 'object' && on[key] !== null) walk(on[key]);
      }
    };
    walk(root);
    const [on, key] = places[at % places.length]!;
    on[key] = junk;
    return root.value;
  });
}
