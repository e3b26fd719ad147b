/**
 * Request and Response for plugins in Node: what a handler mostly uses of them, without the cost of Node's own, which
 * are made only when something else is asked for. Both stand in the line of Node's prototypes, so `instanceof` holds.
 */
import { type Body, type FlatHeaders, HEADER_NAME } from '@hauki/protocol';

// Taken when they are first wanted: touching them has Node load its whole HTTP client, 50 ms at the start of each vault.
let NativeRequest: typeof globalThis.Request;
let NativeResponse: typeof globalThis.Response;
const TEXT = 'text/plain;charset=UTF-8';
const JSON_TYPE = 'application/json';

type Whole = string | Uint8Array | null;

const isWhole = (body: unknown): body is Whole | undefined =>
  body === undefined || body === null || typeof body === 'string' || body instanceof Uint8Array;

/** As UTF-8 decodes what the text would be encoded as. */
const decoded = (text: string): string => {
  const well_formed = text.toWellFormed();
  return well_formed.charCodeAt(0) === 0xfeff ? well_formed.slice(1) : well_formed;
};

/** Reads the body of Node's own, so that it refuses whoever reads it again. */
const readOut = (native: Request | Response) => void native.text().catch(() => {});

const used = () => new TypeError('Body is unusable: Body has already been read');

/** Forwards what is not said here to Node's own object. */
function forward(to: object, names: readonly string[], kind: 'get' | 'call'): void {
  for (const name of names) {
    const own =
      kind === 'get'
        ? {
            get(this: { native(): any }) {
              return this.native()[name];
            },
          }
        : {
            value(this: { native(): any }, ...args: unknown[]) {
              return this.native()[name](...args);
            },
          };
    Object.defineProperty(to, name, { ...own, configurable: true });
  }
}

/** A request that came in. */
export class FastRequest {
  readonly method: string;
  readonly url: string;
  readonly #flat: FlatHeaders;
  readonly #body: Body;
  #headers: Headers | undefined;
  #native: Request | undefined;
  #used = false;
  readonly #call: { signal: AbortSignal } | undefined;

  constructor(method: string, url: string, headers: FlatHeaders, body: Body, call?: { signal: AbortSignal }) {
    this.method = method;
    this.url = url;
    this.#flat = headers;
    this.#body = body;
    this.#call = call;
  }

  /** Aborted when the client leaves. */
  get signal(): AbortSignal {
    return this.#call?.signal ?? this.native().signal;
  }

  get headers(): Headers {
    if (!this.#headers) {
      this.#headers = new Headers();
      for (let i = 0; i + 1 < this.#flat.length; i += 2) this.#headers.append(this.#flat[i]!, this.#flat[i + 1]!);
    }
    return this.#headers;
  }

  get bodyUsed(): boolean {
    return this.#used || (this.#native?.bodyUsed ?? false);
  }

  async text(): Promise<string> {
    const whole = this.#take();
    if (whole === undefined) return this.native().text();
    return typeof whole === 'string' ? decoded(whole) : new TextDecoder().decode(whole ?? undefined);
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }

  /** The body, where it is here and nobody has read it; undefined where Node's own must be asked. */
  #take(): Whole | undefined {
    if (this.#native || !isWhole(this.#body)) return undefined;
    if (this.#used) throw used();
    this.#used = this.#body !== null;
    return this.#body;
  }

  native(): Request {
    if (this.#native) return this.#native;
    const { method, url, headers } = this;
    const init: RequestInit & { duplex?: 'half' } = {
      method,
      headers,
      ...(this.#call && { signal: this.#call.signal }),
    };
    if (this.#body !== null) {
      init.body = (isWhole(this.#body) ? this.#body : (ReadableStream as any).from(this.#body)) as BodyInit;
      init.duplex = 'half';
    }
    this.#native = new NativeRequest(url, init);
    if (this.#used) readOut(this.#native);
    return this.#native;
  }
}

/** What `Response.json` has made of a value: its type is another than other texts'. */
class Json {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** Header values that are sent as they stand: others Node's own trims, refuses or encodes. */
const VALUE = /^(?:[!-~](?:[\t -~]*[!-~])?)?$/;

/** The headers given for an answer, as they stand at this moment; undefined where Node's own must look at them. */
function flatOf(given: unknown): string[] | undefined {
  const flat: string[] = [];
  if (given === undefined) return flat;
  if (given === null || Object.getPrototypeOf(given) !== Object.prototype) {
    if (!(given instanceof Headers)) return undefined;
    for (const [name, value] of given) flat.push(name, value);
    return flat;
  }
  for (const name of Object.keys(given as object)) {
    const value = (given as Record<string, unknown>)[name];
    if (typeof value !== 'string' || !VALUE.test(value) || !HEADER_NAME.test(name)) return undefined;
    flat.push(name, value);
  }
  return flat;
}

const isTyped = (flat: FlatHeaders): boolean => {
  for (let i = 0; i < flat.length; i += 2)
    if (flat[i]!.length === 12 && flat[i]!.toLowerCase() === 'content-type') return true;
  return false;
};

/** An answer that a handler makes: of what it is given it keeps copies, as Node's own does. */
export class FastResponse {
  readonly #body: Whole = null;
  readonly #status: number = 200;
  readonly #flat: FlatHeaders = [];
  #headers: Headers | undefined;
  #native: Response | undefined;
  #used = false;
  readonly webSocket: unknown;

  constructor(body?: unknown, init?: ResponseInit) {
    const json = body instanceof Json;
    const given = json ? body.text : body;
    const { webSocket } = (init ?? {}) as { webSocket?: unknown };
    if (webSocket !== undefined) {
      // Only a kernel sees it, and answers with the handshake.
      this.webSocket = webSocket;
      this.#status = init!.status ?? 200;
      this.#headers = new Headers(init!.headers);
      return;
    }
    const status = init?.status ?? 200;
    const flat =
      isWhole(given) &&
      Number.isInteger(status) &&
      status >= 200 &&
      status <= 599 &&
      (given == null || !EMPTY.has(status)) &&
      init?.statusText === undefined
        ? flatOf(init?.headers)
        : undefined;
    if (!flat) {
      // Node's own says what is wrong, or makes of it what it should be.
      this.#native = new NativeResponse((json ? Buffer.from(body.text) : body) as BodyInit, init);
      if (json && !this.#native.headers.has('content-type')) this.#native.headers.set('content-type', JSON_TYPE);
      return;
    }
    if (typeof given === 'string' && !isTyped(flat)) flat.push('content-type', json ? JSON_TYPE : TEXT);
    this.#body = given instanceof Uint8Array ? new Uint8Array(given) : ((given ?? null) as string | null);
    this.#status = status;
    this.#flat = flat;
  }

  static json(value: unknown, init?: ResponseInit): FastResponse {
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError('Value is not JSON serializable');
    return new FastResponse(new Json(text), init);
  }

  get status(): number {
    return this.#native ? this.#native.status : this.#status;
  }

  get statusText(): string {
    return this.#native ? this.#native.statusText : '';
  }

  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  get headers(): Headers {
    if (this.#native) return this.#native.headers;
    if (!this.#headers) {
      this.#headers = new Headers();
      for (let i = 0; i < this.#flat.length; i += 2) this.#headers.append(this.#flat[i]!, this.#flat[i + 1]!);
    }
    return this.#headers;
  }

  get bodyUsed(): boolean {
    return this.#used || (this.#native?.bodyUsed ?? false);
  }

  async text(): Promise<string> {
    if (this.#native || typeof this.#body !== 'string') return this.native().text();
    if (this.#used) throw used();
    this.#used = true;
    return decoded(this.#body);
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }

  /** The whole answer, where it is here; undefined where it must be read. */
  whole(): [number, FlatHeaders, Whole] | undefined {
    if (this.#native || this.#used) return undefined;
    if (!this.#headers) return [this.#status, this.#flat, this.#body];
    const flat: string[] = [];
    for (const [name, value] of this.#headers) flat.push(name, value);
    return [this.#status, flat, this.#body];
  }

  native(): Response {
    if (this.#native) return this.#native;
    const { status, headers } = this;
    // As bytes: of a text it would take a type that was taken away for one that is missing.
    const body = typeof this.#body === 'string' ? Buffer.from(this.#body) : this.#body;
    this.#native = new NativeResponse(body as BodyInit, { status, headers });
    if (this.#used) readOut(this.#native);
    return this.#native;
  }
}

const EMPTY = new Set([101, 103, 204, 205, 304]);

/** Has `instanceof` take Node's own for ours too. */
function knows(ours: object, native: abstract new (...args: never[]) => object): void {
  const value = function (this: unknown, it: unknown) {
    return this === ours ? it instanceof native : Function.prototype[Symbol.hasInstance].call(this as () => void, it);
  };
  Object.defineProperty(ours, Symbol.hasInstance, { value });
}

/** Puts them in the place of Node's own, for the module that is about to be loaded. */
export function useFastHttp(): void {
  NativeRequest = globalThis.Request;
  NativeResponse = globalThis.Response;
  forward(
    FastRequest.prototype,
    [
      'body',
      'cache',
      'credentials',
      'destination',
      'integrity',
      'mode',
      'redirect',
      'referrer',
      'referrerPolicy',
      'keepalive',
      'duplex',
    ],
    'get',
  );
  forward(FastRequest.prototype, ['arrayBuffer', 'blob', 'bytes', 'formData', 'clone'], 'call');
  forward(FastResponse.prototype, ['body', 'type', 'url', 'redirected'], 'get');
  forward(FastResponse.prototype, ['arrayBuffer', 'blob', 'bytes', 'formData', 'clone'], 'call');
  Object.setPrototypeOf(FastRequest.prototype, NativeRequest.prototype);
  Object.setPrototypeOf(FastResponse.prototype, NativeResponse.prototype);
  Object.setPrototypeOf(FastResponse, NativeResponse);
  // Node's own knows its own only: one of ours is unwrapped.
  class Request extends NativeRequest {
    constructor(input: RequestInfo | URL, init?: RequestInit) {
      super(input instanceof FastRequest ? (input as FastRequest).native() : input, init);
    }
  }
  Object.defineProperty(FastResponse, 'name', { value: 'Response' });
  // Node still makes its own: of `Response.redirect`, `clone()` and `fetch`.
  knows(FastResponse, NativeResponse);
  knows(Request, NativeRequest);
  Object.assign(globalThis, { Request, Response: FastResponse });
}
