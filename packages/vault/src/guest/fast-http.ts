/**
 * Request and Response for plugins in Node: what a handler mostly uses of them, without the cost of Node's own, which
 * are made only when something else is asked for. Both stand in the line of Node's prototypes, so `instanceof` holds.
 */
import type { Body, FlatHeaders } from '@hauki/protocol';

// Taken when they are first wanted: touching them has Node load its whole HTTP client, 50 ms at the start of each vault.
let NativeRequest: typeof globalThis.Request;
let NativeResponse: typeof globalThis.Response;
const TEXT = 'text/plain;charset=UTF-8';

type Whole = string | Uint8Array | null;

const isWhole = (body: unknown): body is Whole | undefined =>
  body === undefined || body === null || typeof body === 'string' || body instanceof Uint8Array;

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
    return this.#native?.bodyUsed ?? this.#used;
  }

  async text(): Promise<string> {
    const whole = this.#take();
    if (whole === undefined) return this.native().text();
    return typeof whole === 'string' ? whole : new TextDecoder().decode(whole ?? undefined);
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
    if (this.#body !== null && !this.#used) {
      init.body = (isWhole(this.#body) ? this.#body : (ReadableStream as any).from(this.#body)) as BodyInit;
      init.duplex = 'half';
    }
    this.#native = new NativeRequest(url, init);
    return this.#native;
  }
}

/** An answer that a handler makes. */
export class FastResponse {
  readonly #body: Whole = null;
  readonly #init: ResponseInit | undefined;
  #headers: Headers | undefined;
  #native: Response | undefined;
  #used = false;
  readonly webSocket: unknown;
  /** Of a text, where nobody says another. */
  #type = TEXT;

  constructor(body?: unknown, init?: ResponseInit) {
    const { webSocket } = (init ?? {}) as { webSocket?: unknown };
    if (webSocket !== undefined) {
      // Only a kernel sees it, and answers with the handshake.
      this.webSocket = webSocket;
      this.#init = init;
      return;
    }
    const status = init?.status;
    const plain = status === undefined || (Number.isInteger(status) && status >= 200 && status <= 599);
    if (!isWhole(body) || !plain || (body != null && EMPTY.has(status ?? 200))) {
      // Node's own says what is wrong, or makes a stream of it.
      this.#native = new NativeResponse(body as BodyInit, init);
      return;
    }
    this.#body = body ?? null;
    this.#init = init;
  }

  static json(value: unknown, init?: ResponseInit): FastResponse {
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError('Value is not JSON serializable');
    const made = new FastResponse(text, init);
    made.#type = 'application/json';
    return made;
  }

  get status(): number {
    return this.#native ? this.#native.status : (this.#init?.status ?? 200);
  }

  get statusText(): string {
    return this.#native ? this.#native.statusText : (this.#init?.statusText ?? '');
  }

  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  get headers(): Headers {
    if (this.#native) return this.#native.headers;
    if (!this.#headers) {
      this.#headers = new Headers(this.#init?.headers);
      if (typeof this.#body === 'string' && !this.#headers.has('content-type'))
        this.#headers.set('content-type', this.#type);
    }
    return this.#headers;
  }

  get bodyUsed(): boolean {
    return this.#native?.bodyUsed ?? this.#used;
  }

  async text(): Promise<string> {
    if (this.#native || typeof this.#body !== 'string') return this.native().text();
    if (this.#used) throw used();
    this.#used = true;
    return this.#body;
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }

  /** The whole answer, where it is here; undefined where it must be read. */
  whole(): [number, FlatHeaders, Whole] | undefined {
    if (this.#native || this.#used) return undefined;
    const { status } = this;
    const flat: FlatHeaders = [];
    const given = this.#init?.headers;
    if (this.#headers || given instanceof Headers || Array.isArray(given))
      for (const [name, value] of this.headers) flat.push(name, value);
    else {
      // Nobody has asked for them as Headers: the kernel checks them as it writes them.
      let typed = false;
      for (const name in given as Record<string, string>) {
        typed ||= name.toLowerCase() === 'content-type';
        flat.push(name, String((given as Record<string, string>)[name]));
      }
      if (!typed && typeof this.#body === 'string') flat.push('content-type', this.#type);
    }
    return [status, flat, this.#body];
  }

  native(): Response {
    if (this.#native) return this.#native;
    const { status, statusText, headers } = this;
    this.#native = new NativeResponse(this.#used ? null : (this.#body as BodyInit), { status, statusText, headers });
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
