/** A guest's ways out over the network: `fetch` and `connect`. Both only ask; the host decides and performs. */
import type { Connection } from '@hauki/rpc';
import type { FetchedBody } from './context.ts';
import type { Outside } from './guest.ts';
import { asPiece, cutAll, Outgoing, untilAborted } from './pieces.ts';

/** What differs between platforms. */
export interface Platform {
  /** The platform's Response of what came back. */
  respond(fetched: FetchedBody): unknown;
  /** Bodies of kinds that only this platform has. */
  pack?(body: unknown): Promise<{ bytes: Uint8Array; content_type: string | null }>;
  /** The body of what is given to `fetch`, where the platform knows better than it says itself; it is used from here on. */
  sent?(given: { body?: unknown }): unknown;
}

type Pairs = [string, string][];

/** Of `Headers`, a list of pairs, or an object. */
const pairsOf = (headers: any): Pairs =>
  headers
    ? [...(Symbol.iterator in headers ? headers : Object.entries(headers))].map(([name, value]) => [
        String(name),
        String(value),
      ])
    : [];

/** The body as it travels; tells of its kind where the worker's headers do not. */
async function bodyOf(body: NonNullable<unknown>, headers: Pairs, platform: Platform): Promise<unknown> {
  const kind = (type: string | null) => {
    if (type && !headers.some(([name]) => name.toLowerCase() === 'content-type')) headers.push(['content-type', type]);
  };
  const piece = asPiece(body);
  if (typeof piece === 'string') kind('text/plain;charset=UTF-8');
  // Of bytes a copy: their owner may change them before they leave.
  if (piece !== undefined) return piece.slice();
  if (typeof body === 'object' && Symbol.asyncIterator in body) {
    // Now, so that a stream is locked from here on.
    const pieces = (body as AsyncIterable<unknown>)[Symbol.asyncIterator]();
    return cutAll('the body of a fetch', { [Symbol.asyncIterator]: () => pieces });
  }
  if (!platform.pack) return String(body);
  const { bytes, content_type } = await platform.pack(body);
  kind(content_type);
  return bytes;
}

/** `fetch` of the Fetch standard, as far as hosts perform it. */
export const fetchFor =
  (outside: Outside, platform: Platform) =>
  async (input: any, init: any = {}) => {
    const from = typeof input === 'object' && input !== null && typeof input.url === 'string' ? input : { url: input };
    const signal: AbortSignal | undefined = init.signal ?? from.signal ?? undefined;
    signal?.throwIfAborted();
    const headers = pairsOf(init.headers ?? from.headers);
    if (init.body === undefined && (from.bodyUsed || from.body?.locked))
      throw new TypeError('Cannot construct a Request with a Request object that has already been used.');
    const given = init.body ?? (platform.sent ? platform.sent(from) : from.body);
    // A Request has said in its own headers of what kind its body is: where others take their place, nobody says it.
    const told = given === init.body ? headers : [...headers];
    const sent = given instanceof Promise ? await given : given;
    // Without a body nothing is waited for, so that a refusal tells where it was asked also in quickjs.
    const body = sent === undefined || sent === null ? undefined : await bodyOf(sent, told, platform);
    const redirect = String(init.redirect ?? from.redirect ?? 'follow');
    const request = {
      ...{ method: String(init.method ?? from.method ?? 'GET'), headers, stream: true },
      ...(redirect === 'follow' ? {} : { redirect }),
      ...(body === undefined ? {} : { body }),
    };
    let fetched: FetchedBody;
    try {
      fetched = (await outside.effect('fetch', [String(from.url), request], { signal })) as FetchedBody;
    } catch (error) {
      throw signal?.aborted ? signal.reason : error;
    }
    if (fetched.body) fetched.body = untilAborted(fetched.body, signal);
    return platform.respond(fetched);
  };

/** Opens a byte stream to `host:port`. Rejects with GrantMissing, or as the host could not. */
export const connectFor =
  (outside: Outside) =>
  async (target: string, { signal }: { signal?: AbortSignal } = {}): Promise<Connection> => {
    signal?.throwIfAborted();
    const outgoing = new Outgoing();
    const opened = (await outside.effect('connect', [String(target), outgoing], { signal }).catch((error) => {
      void outgoing.return();
      throw signal?.aborted ? signal.reason : error;
    })) as { address: string; incoming: AsyncIterable<Uint8Array> };
    const incoming = opened.incoming[Symbol.asyncIterator]() as AsyncIterableIterator<Uint8Array>;
    return {
      address: opened.address,
      readable: incoming,
      write: (chunk) => outgoing.write(chunk),
      end: () => outgoing.end(),
      close() {
        void outgoing.return();
        void incoming.return?.();
      },
    };
  };
