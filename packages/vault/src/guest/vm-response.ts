/** What `fetch` gives inside a QuickJS vault: the part of Response that reading needs. */
import type { FetchedBody } from './context.ts';
import { utf8Text } from './utf8.ts';

export class VmResponse {
  readonly status: number;
  readonly statusText: string;
  readonly url: string;
  readonly headers: { get(name: string): string | null; has(name: string): boolean; entries(): [string, string][] };
  readonly #body: AsyncIterable<Uint8Array> | null;
  #used = false;

  constructor({ status, status_text, url, headers, body, text, base64 }: FetchedBody) {
    this.status = status;
    this.statusText = status_text;
    this.url = url;
    const all = new Map<string, string>();
    for (const [name, value] of headers) {
      const key = name.toLowerCase();
      const before = all.get(key);
      all.set(key, before === undefined ? value : `${before}, ${value}`);
    }
    this.headers = {
      get: (name) => all.get(String(name).toLowerCase()) ?? null,
      has: (name) => all.has(String(name).toLowerCase()),
      entries: () => [...all.entries()],
    };
    this.#body = body ?? whole(base64 === undefined ? unescape(encodeURIComponent(text ?? '')) : atob(base64));
  }

  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  get bodyUsed(): boolean {
    return this.#used;
  }

  /** Piece by piece, once. */
  get body(): AsyncIterable<Uint8Array> | null {
    return this.#body && { [Symbol.asyncIterator]: () => this.#take()[Symbol.asyncIterator]() };
  }

  #take(): AsyncIterable<Uint8Array> {
    if (this.#used) throw new TypeError('the body has been read already');
    this.#used = true;
    return this.#body ?? whole('');
  }

  async bytes(): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let length = 0;
    for await (const piece of this.#take()) {
      pieces.push(piece);
      length += piece.length;
    }
    const all = new Uint8Array(length);
    let at = 0;
    for (const piece of pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    return (await this.bytes()).buffer as ArrayBuffer;
  }

  async text(): Promise<string> {
    return utf8Text(await this.bytes());
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }
}

/** Bytes that came as a text of their codes. */
async function* whole(binary: string): AsyncGenerator<Uint8Array, void> {
  if (binary.length > 0) yield Uint8Array.from(binary, (character) => character.charCodeAt(0));
}
