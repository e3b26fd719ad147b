/**
 * The platform of the web as far as workers ask for it: loaded into a QuickJS vault when one of it is first touched.
 * Node's own is the model, and the tests compare with it.
 */
import { structuredClone } from './platform/clone.ts';
import { arrived, fetched, Headers, pack, Request, Response, useText } from './platform/http.ts';
import { ReadableStream } from './platform/streams.ts';
import { TransformStream, WritableStream } from './platform/streams-writable.ts';
import { textCoders } from './platform/text.ts';
import { URL, URLSearchParams } from './platform/url.ts';
import type { Forms } from './vm-forms.ts';

/** What of it is quicker, or safer, outside of the VM. */
export interface PlatformPowers {
  /** UTF-8; a lone surrogate becomes U+FFFD. */
  encode(text: string): ArrayBuffer;
  /** `encoding` is utf-8 or utf-16le. Throws when `fatal` is 1 and the bytes are not that. */
  decode(bytes: ArrayBuffer, encoding: string, fatal: number, keep_bom: number): string;
  /** Where `what` stands in `bytes`, each behind the one before; the first `most`, as 32-bit numbers. */
  find(bytes: ArrayBuffer, what: ArrayBuffer, most: number): ArrayBuffer;
  /** What is made. */
  platform?: Platform;
  /** Blob, File and FormData, loaded when one is needed; `made_forms`: once they are. */
  forms(): Forms;
  made_forms?: Forms;
}

export interface Platform {
  Headers: typeof Headers;
  Request: typeof Request;
  ReadableStream: typeof ReadableStream;
  Response: typeof Response;
  TextDecoder: unknown;
  TextEncoder: unknown;
  TransformStream: typeof TransformStream;
  URL: typeof URL;
  URLSearchParams: typeof URLSearchParams;
  WritableStream: typeof WritableStream;
  structuredClone: typeof structuredClone;
  arrived: typeof arrived;
  fetched: typeof fetched;
  pack: typeof pack;
}

const powers = (globalThis as unknown as { __platform: PlatformPowers }).__platform;
useText(powers);
powers.platform = {
  Headers,
  ReadableStream,
  Request,
  Response,
  ...textCoders(powers),
  TransformStream,
  URL,
  URLSearchParams,
  WritableStream,
  structuredClone,
  arrived,
  fetched,
  pack,
};
