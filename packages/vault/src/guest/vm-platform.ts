/**
 * The platform of the web as far as workers ask for it: loaded into a QuickJS vault when one of it is first touched.
 * Node's own is the model, and the tests compare with it.
 */

import { isBody, useText } from './platform/body.ts';
import { structuredClone } from './platform/clone.ts';
import type { CompressionPowers } from './platform/compression.ts';
import { CustomEvent, Event, EventTarget } from './platform/events.ts';
import { Headers } from './platform/headers.ts';
import { arrived, fetched, pack, Request, Response, sent } from './platform/http.ts';
import { textCoders } from './platform/text.ts';
import { URL, URLSearchParams } from './platform/url.ts';
import type { Forms } from './vm-forms.ts';
import type { Streams } from './vm-streams.ts';

/** What of it is quicker, or safer, outside of the VM. */
export interface PlatformPowers extends CompressionPowers {
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
  /** The same of streams. */
  streams(): Streams;
  made_streams?: Streams;
}

export interface Platform extends ReturnType<typeof textCoders> {
  CustomEvent: typeof CustomEvent;
  Event: typeof Event;
  EventTarget: typeof EventTarget;
  Headers: typeof Headers;
  Request: typeof Request;
  Response: typeof Response;
  URL: typeof URL;
  URLSearchParams: typeof URLSearchParams;
  isBody: typeof isBody;
  structuredClone: typeof structuredClone;
  arrived: typeof arrived;
  fetched: typeof fetched;
  pack: typeof pack;
  sent: typeof sent;
}

const powers = (globalThis as unknown as { __platform: PlatformPowers }).__platform;
useText(powers);
powers.platform = {
  CustomEvent,
  Event,
  EventTarget,
  Headers,
  Request,
  Response,
  ...textCoders(powers),
  URL,
  URLSearchParams,
  isBody,
  structuredClone,
  arrived,
  fetched,
  pack,
  sent,
};
