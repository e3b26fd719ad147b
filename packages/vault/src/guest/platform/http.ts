/**
 * Headers, Request and Response (Fetch standard), for handlers of the shape `fetch(request)` and for what `fetch` brings.
 */
import { type Answer, type FlatHeaders, HEADER_NAME } from '@hauki/protocol';
import { bytesOf } from '../carried.ts';
import type { FetchedBody } from '../context.ts';
import type { Blob } from './blob.ts';
import { Body, bodyOf, isHere, powers, type Source, Typed, unusable } from './body.ts';
import type { FormData } from './form-data.ts';
import { Headers } from './headers.ts';
import { FORM } from './limits.ts';
import { bufferOf, joined } from './text.ts';
import { URL } from './url.ts';

/** What requests and responses share. */
class Message {
  /** As they came, until somebody asks for them. */
  #headers: Headers | FlatHeaders;
  #body: Body | undefined;

  constructor(headers: Headers | FlatHeaders, body: { body: Body; type?: string } | undefined) {
    this.#headers = headers;
    this.#body = body?.body;
    if (body?.type) Headers.typed(this.headers, body.type);
  }

  get headers(): Headers {
    if (!(this.#headers instanceof Headers)) this.#headers = Headers.arrived(this.#headers);
    return this.#headers;
  }
  get body(): Body | null {
    return this.#body ?? null;
  }
  get bodyUsed(): boolean {
    return this.#body?.disturbed ?? false;
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
  async blob(): Promise<Blob> {
    return powers.forms().blob(await this.bytes(), this.headers.get('content-type') ?? '');
  }
  async formData(): Promise<FormData> {
    const { reader } = powers.forms();
    const read = reader(this.headers.get('content-type') ?? '');
    const whole = await this.#whole(FORM.bytes);
    return read(typeof whole === 'string' ? new Uint8Array(powers.encode(whole)) : whole);
  }

  /** `most`: of a form, of which more than one copy has to fit into memory. */
  async #whole(most = Number.POSITIVE_INFINITY): Promise<string | Uint8Array> {
    if (!this.#body) return '';
    if (this.#body.disturbed || this.#body.locked) throw unusable();
    const body = this.#body.moved();
    const { source } = body;
    const bound = (size: number) => {
      if (size > most) throw new TypeError(`A form has at most ${most} bytes here; larger ones are read from body`);
    };
    if (isHere(source)) {
      bound(source.length);
      return source;
    }
    const pieces: Uint8Array[] = [];
    let size = 0;
    for await (const piece of body) {
      size += piece.length;
      bound(size);
      pieces.push(piece);
    }
    return joined(pieces);
  }

  /** The body for a copy of this. */
  protected copied(): Body | undefined {
    if (this.bodyUsed || this.#body?.locked) throw new TypeError('Body has already been consumed.');
    if (!this.#body || isHere(this.#body.source)) return this.#body && new Body(this.#body.source);
    const [mine, other] = this.#body.tee();
    this.#body = new Body(mine);
    return new Body(other);
  }
  /** The body for a request that takes this one's place. */
  protected taken(): Body | undefined {
    if (this.bodyUsed || this.#body?.locked)
      throw new TypeError('Cannot construct a Request with a Request object that has already been used.');
    return this.#body?.moved();
  }
}

interface RequestInit {
  method?: unknown;
  headers?: unknown;
  body?: unknown;
  signal?: AbortSignal | null;
  redirect?: unknown;
}

const REDIRECTS: unknown[] = ['follow', 'error', 'manual'];

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
  #redirect: string | undefined;

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
    if (!HEADER_NAME.test(named) || /^(?:connect|trace|track)$/i.test(named))
      throw new TypeError(`'${named}' is not a valid HTTP method.`);
    const method =
      /^(?:get|head|post|put|delete|options|patch)$/i.test(named) && named.toLowerCase() !== 'patch'
        ? named.toUpperCase()
        : named;
    const redirect = init.redirect === undefined ? from?.redirect : String(init.redirect);
    if (redirect !== undefined && !REDIRECTS.includes(redirect))
      throw new TypeError(
        `Request constructor: ${redirect} is not an accepted type. Expected one of follow, error, manual.`,
      );
    const url = from ? from.url : urlOf(input);
    const given = bodyOf(init.body);
    if ((method === 'GET' || method === 'HEAD') && given)
      throw new TypeError('Request with GET/HEAD method cannot have body.');
    const inherited = given || !from ? undefined : from.taken();
    super(new Headers(init.headers ?? from?.headers), given ?? (inherited && { body: inherited }));
    this.method = method;
    this.url = url;
    this.#signal = init.signal ?? from?.signal;
    this.#redirect = redirect;
  }

  /** The body, for whoever sends the request: it is used then. */
  static sent(request: Request): Body | undefined {
    return request.taken();
  }

  get redirect(): string {
    return this.#redirect ?? 'follow';
  }

  get signal(): AbortSignal {
    this.#signal ??= this.#call?.signal ?? new AbortController().signal;
    return this.#signal;
  }

  clone(): Request {
    const { url, method, headers, signal, redirect } = this;
    return new Request(url, { method, headers, signal, redirect, body: this.copied() });
  }
}

/** The body of what is given to `fetch`: text or bytes where it is all there. */
export function sent(given: object & { body?: unknown }): unknown {
  if (!(given instanceof Request)) return given.body;
  const body = Request.sent(given);
  return body && isHere(body.source) ? body.source : body;
}

// What means nothing to a vault: always as Node has it where nobody says otherwise.
for (const [name, value] of Object.entries({
  ...{ cache: 'default', credentials: 'same-origin', destination: '', duplex: 'half', integrity: '' },
  ...{ keepalive: false, mode: 'cors', referrer: 'about:client', referrerPolicy: '' },
}))
  Object.defineProperty(Request.prototype, name, { get: () => value, configurable: true, enumerable: true });

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
    return source === null || isHere(source) ? [this.status, Headers.flat(this.headers), source] : undefined;
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
  const whole = () => (base64 === undefined ? (text ?? '') : bytesOf({ base64 }));
  const bodiless = BODILESS.has(head.status);
  if (bodiless) void body?.[Symbol.asyncIterator]().return?.();
  const given = bodiless ? null : new Body(body ?? whole());
  return Object.assign(new Response(given, { statusText: status_text, headers }), { ...head, type: 'basic' });
}

/** A body of a kind that only this platform has, as it travels. */
export async function pack(body: unknown): Promise<{ bytes: Uint8Array; content_type: string | null }> {
  const response = new Response(body);
  return { bytes: await response.bytes(), content_type: response.headers.get('content-type') };
}
