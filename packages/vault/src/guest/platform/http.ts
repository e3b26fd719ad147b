/**
 * Headers, Request and Response (Fetch standard), for handlers of the shape `fetch(request)` and for what `fetch` brings.
 * Bodies are text, bytes, or whatever can be iterated for them; there are no forms of files and no streams of WHATWG's.
 */
import type { Answer, FlatHeaders } from '@hauki/protocol';
import type { FetchedBody } from '../context.ts';
import type { PlatformPowers } from '../vm-platform.ts';
import { ReadableStream } from './streams.ts';
import { bufferOf, viewOf } from './text.ts';
import { URL, URLSearchParams } from './url.ts';

let powers: PlatformPowers;
/** Called once, before anything else here. */
export function useText(given: PlatformPowers): void {
  powers = given;
}

const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const nameOf = (given: unknown): string => {
  const name = String(given);
  if (!NAME.test(name)) throw new TypeError(`Headers: ${JSON.stringify(name)} is an invalid header name.`);
  return name.toLowerCase();
};
const valueFrom = (given: unknown): string => {
  const value = String(given).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, '');
  if (/[\r\n\u0100-\uffff]/.test(value) || value.includes('\0'))
    throw new TypeError(`Headers: ${JSON.stringify(value)} is an invalid header value.`);
  return value;
};

export class Headers {
  readonly #all = new Map<string, string[]>();

  constructor(init?: unknown) {
    if (init === undefined || init === null) return;
    if (init instanceof Headers) {
      for (const [key, values] of init.#all) this.#all.set(key, [...values]);
      return;
    }
    if (typeof init !== 'object') throw new TypeError('Headers are made of an object or of pairs');
    const pairs = Symbol.iterator in init ? [...(init as Iterable<Iterable<unknown>>)] : Object.entries(init);
    for (const pair of pairs) {
      const both = [...pair];
      if (both.length !== 2) throw new TypeError('Each header pair must be a name/value tuple');
      this.append(both[0], both[1]);
    }
  }

  /** Of headers that came in: whoever read them has checked and folded them. */
  static arrived(flat: FlatHeaders): Headers {
    const headers = new Headers();
    for (let i = 0; i + 1 < flat.length; i += 2) {
      const before = headers.#all.get(flat[i]!);
      if (before) before.push(flat[i + 1]!);
      else headers.#all.set(flat[i]!, [flat[i + 1]!]);
    }
    return headers;
  }

  /** Names and values in turn, as they travel. */
  static flat(headers: Headers): FlatHeaders {
    const flat: FlatHeaders = [];
    for (const [name, values] of headers.#all) for (const value of values) flat.push(name, value);
    return flat;
  }

  /** Gives a message the type that its body has by itself. */
  static typed(headers: Headers, type: string): void {
    if (!headers.#all.has('content-type')) headers.#all.set('content-type', [type]);
  }

  append(name: unknown, value: unknown): void {
    const key = nameOf(name);
    const before = this.#all.get(key);
    if (before) before.push(valueFrom(value));
    else this.#all.set(key, [valueFrom(value)]);
  }
  delete(name: unknown): void {
    this.#all.delete(nameOf(name));
  }
  get(name: unknown): string | null {
    return this.#all.get(nameOf(name))?.join(', ') ?? null;
  }
  getSetCookie(): string[] {
    return [...(this.#all.get('set-cookie') ?? [])];
  }
  has(name: unknown): boolean {
    return this.#all.has(nameOf(name));
  }
  set(name: unknown, value: unknown): void {
    this.#all.set(nameOf(name), [valueFrom(value)]);
  }
  forEach(run: (value: string, name: string, headers: Headers) => void, self?: unknown): void {
    for (const [name, value] of this) run.call(self, value, name, this);
  }
  *entries(): Generator<[string, string], void> {
    for (const name of [...this.#all.keys()].sort()) {
      const values = this.#all.get(name) ?? [];
      if (name === 'set-cookie') for (const value of values) yield [name, value];
      else yield [name, values.join(', ')];
    }
  }
  *keys(): Generator<string, void> {
    for (const [name] of this.entries()) yield name;
  }
  *values(): Generator<string, void> {
    for (const [, value] of this.entries()) yield value;
  }
  [Symbol.iterator](): Generator<[string, string], void> {
    return this.entries();
  }
}

type Source = string | Uint8Array | AsyncIterable<unknown>;

/** A body that can be given on to another Request or Response, or read piece by piece. */
class Body {
  readonly source: Source;
  constructor(source: Source) {
    this.source = source;
  }
  getReader(): ReturnType<ReadableStream['getReader']> {
    return ReadableStream.from(this).getReader();
  }
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    const whole = typeof this.source === 'string' || this.source instanceof Uint8Array;
    for await (const piece of whole ? [this.source] : (this.source as AsyncIterable<unknown>))
      if (typeof piece === 'string') yield new Uint8Array(powers.encode(piece));
      else if (piece instanceof ArrayBuffer || ArrayBuffer.isView(piece)) yield viewOf(piece);
      else throw new TypeError('a piece of a body is neither bytes nor text');
  }
}

/** A text of another type than others. */
class Typed {
  readonly text: string;
  readonly type: string;
  constructor(text: string, type: string) {
    this.text = text;
    this.type = type;
  }
}

/** What a body is made of, and the type that it has when nobody says another. */
function bodyOf(given: unknown): { body: Body; type?: string } | undefined {
  if (given === undefined || given === null) return undefined;
  if (typeof given === 'string') return { body: new Body(given), type: 'text/plain;charset=UTF-8' };
  if (given instanceof Typed) return { body: new Body(given.text), type: given.type };
  if (given instanceof Body) return { body: given };
  if (given instanceof URLSearchParams)
    return { body: new Body(given.toString()), type: 'application/x-www-form-urlencoded;charset=UTF-8' };
  if (given instanceof ArrayBuffer || ArrayBuffer.isView(given)) return { body: new Body(viewOf(given).slice()) };
  if (
    typeof given === 'object' &&
    (Symbol.asyncIterator in given || (Symbol.iterator in given && !(given instanceof String)))
  )
    return { body: new Body(given as AsyncIterable<unknown>) };
  return { body: new Body(String(given)), type: 'text/plain;charset=UTF-8' };
}

/** What requests and responses share. */
class Message {
  /** As they came, until somebody asks for them. */
  #headers: Headers | FlatHeaders;
  #body: Body | undefined;
  #used = false;

  constructor(headers: Headers | FlatHeaders, body: { body: Body; type?: string } | undefined) {
    this.#headers = headers;
    this.#body = body?.body;
    if (body?.type) Headers.typed(this.headers, body.type);
  }

  get headers(): Headers {
    if (Array.isArray(this.#headers)) this.#headers = Headers.arrived(this.#headers);
    return this.#headers;
  }
  get body(): Body | null {
    return this.#body ?? null;
  }
  get bodyUsed(): boolean {
    return this.#used;
  }

  async text(): Promise<string> {
    const whole = await this.#whole();
    if (typeof whole === 'string')
      return (whole as string & { toWellFormed(): string }).toWellFormed().replace(/^\ufeff/, '');
    return powers.decode(bufferOf(whole), 'utf-8', 0, 0);
  }
  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }
  async bytes(): Promise<Uint8Array> {
    const whole = await this.#whole();
    return typeof whole === 'string' ? new Uint8Array(powers.encode(whole)) : whole.slice();
  }
  async arrayBuffer(): Promise<ArrayBuffer> {
    return bufferOf(await this.bytes());
  }
  async formData(): Promise<URLSearchParams> {
    if (!/^application\/x-www-form-urlencoded/i.test(this.headers.get('content-type') ?? ''))
      throw new TypeError('Only a form of type application/x-www-form-urlencoded can be read here');
    return new URLSearchParams(await this.text());
  }

  async #whole(): Promise<string | Uint8Array> {
    if (this.#used) throw new TypeError('Body is unusable: Body has already been read');
    if (!this.#body) return '';
    this.#used = true;
    const { source } = this.#body;
    if (typeof source === 'string' || source instanceof Uint8Array) return source;
    const pieces: Uint8Array[] = [];
    for await (const piece of this.#body) pieces.push(piece);
    const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    return whole;
  }

  /** The body for a copy of this. */
  protected copied(): Body | undefined {
    if (this.#used) throw new TypeError('Body has already been consumed.');
    if (!this.#body) return undefined;
    const { source } = this.#body;
    if (typeof source !== 'string' && !(source instanceof Uint8Array))
      throw new TypeError('A body that comes in pieces cannot be cloned here');
    return this.#body;
  }
  /** The body for a request that takes this one's place. */
  protected taken(): Body | undefined {
    if (this.#used) throw new TypeError('Cannot construct a Request with a Request object that has already been used.');
    this.#used = this.#body !== undefined;
    return this.#body;
  }
}

interface RequestInit {
  method?: unknown;
  headers?: unknown;
  body?: unknown;
  signal?: AbortSignal | null;
}

type Call = { signal: AbortSignal };

/** A request that came in: nothing of it needs to be checked or parsed before its handler asks. */
class Arrived {
  readonly method: string;
  readonly url: string;
  readonly headers: FlatHeaders;
  readonly body: Source | null;
  readonly call: Call | undefined;

  constructor(method: string, url: string, headers: FlatHeaders, body: Source | null, call: Call | undefined) {
    this.method = method;
    this.url = url;
    this.headers = headers;
    this.body = body;
    this.call = call;
  }
}

export class Request extends Message {
  readonly method: string;
  readonly url: string;
  #signal: AbortSignal | undefined;
  #call: Call | undefined;

  constructor(input: unknown, init: RequestInit = {}) {
    if (input instanceof Arrived) {
      super(input.headers, input.body === null ? undefined : { body: new Body(input.body) });
      this.method = input.method;
      this.url = input.url;
      this.#call = input.call;
      return;
    }
    const from = input instanceof Request ? input : undefined;
    const named = String(init.method ?? from?.method ?? 'GET');
    if (!NAME.test(named) || /^(?:connect|trace|track)$/i.test(named))
      throw new TypeError(`'${named}' is not a valid HTTP method.`);
    const method =
      /^(?:get|head|post|put|delete|options|patch)$/i.test(named) && named.toLowerCase() !== 'patch'
        ? named.toUpperCase()
        : named;
    const url = from ? from.url : urlOf(input);
    const given = bodyOf(init.body);
    if ((method === 'GET' || method === 'HEAD') && given)
      throw new TypeError('Request with GET/HEAD method cannot have body.');
    const inherited = given || !from ? undefined : from.taken();
    super(new Headers(init.headers ?? from?.headers), given ?? (inherited && { body: inherited }));
    this.method = method;
    this.url = url;
    this.#signal = init.signal ?? from?.signal;
  }

  get signal(): AbortSignal {
    this.#signal ??= this.#call?.signal ?? new AbortController().signal;
    return this.#signal;
  }

  clone(): Request {
    const { url, method, headers, signal } = this;
    return new Request(url, { method, headers, signal, body: this.copied() });
  }
}

/** The request of a plugin's caller. */
export const arrived = (method: string, url: string, headers: FlatHeaders, body: Source | null, call?: Call): Request =>
  new Request(new Arrived(method, url, headers, body, call));

function urlOf(input: unknown): string {
  const url = URL.parse(input);
  if (!url) throw new TypeError(`Failed to parse URL from ${String(input)}`);
  if (url.username !== '' || url.password !== '')
    throw new TypeError(`Request cannot be constructed from a URL that includes credentials: ${String(input)}`);
  return url.href;
}

interface ResponseInit {
  /** A plugin's end of a WebSocket: only its kernel sees it. */
  webSocket?: unknown;
  status?: unknown;
  statusText?: unknown;
  headers?: unknown;
}

const BODILESS = new Set([101, 103, 204, 205, 304]);

export class Response extends Message {
  readonly status: number;
  readonly statusText: string;
  readonly url: string = '';
  readonly redirected: boolean = false;
  readonly type: string = 'default';

  constructor(body?: unknown, init: ResponseInit = {}) {
    const status = init?.status === undefined ? 200 : Number(init.status);
    const switches = status === 101 && init.webSocket !== undefined;
    if (!switches && !(Number.isInteger(status) && status >= 200 && status <= 599))
      throw new RangeError('init["status"] must be in the range of 200 to 599, inclusive.');
    const statusText = String(init?.statusText ?? '');
    if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(statusText)) throw new TypeError('Invalid statusText');
    const given = bodyOf(body);
    if (given && BODILESS.has(status)) throw new TypeError(`Invalid response status code ${status}`);
    super(new Headers(init?.headers), given);
    this.status = status;
    this.statusText = statusText;
    if (switches) Object.assign(this, { webSocket: init.webSocket });
  }

  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  /** The whole answer, where it is here; undefined where it must be read. For who made the request only. */
  whole(): Answer | undefined {
    const { source = null } = this.body ?? {};
    const here = source === null || typeof source === 'string' || source instanceof Uint8Array;
    return here ? [this.status, Headers.flat(this.headers), source] : undefined;
  }

  clone(): Response {
    const { status, statusText, headers, url, type } = this;
    const init = { status: type === 'error' ? 200 : status, statusText, headers };
    return Object.assign(new Response(this.copied(), init), { status, url, type });
  }

  static json(value: unknown, init: ResponseInit = {}): Response {
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError('Value is not JSON serializable');
    return new Response(new Typed(text, 'application/json'), init);
  }

  static redirect(url: unknown, status: unknown = 302): Response {
    if (![301, 302, 303, 307, 308].includes(Number(status))) throw new RangeError(`Invalid status code ${status}`);
    return new Response(null, { status, headers: { location: new URL(url).href } });
  }

  static error(): Response {
    return Object.assign(new Response(), { status: 0, type: 'error' });
  }
}

/** The Response of what the host has fetched: piece by piece, or whole. */
export function fetched({ status_text, headers, body, text, base64, ...head }: FetchedBody): Response {
  const whole = () => (base64 === undefined ? (text ?? '') : Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));
  const given = BODILESS.has(head.status) ? null : new Body(body ?? whole());
  return Object.assign(new Response(given, { statusText: status_text, headers }), { ...head, type: 'basic' });
}

/** A body of a kind that only this platform has, as it travels. */
export async function pack(body: unknown): Promise<{ bytes: Uint8Array; content_type: string | null }> {
  const response = new Response(body);
  return { bytes: await response.bytes(), content_type: response.headers.get('content-type') };
}
