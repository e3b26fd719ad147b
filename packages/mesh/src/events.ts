/**
 * The mesh's events for a script: what the core remembers, or what happens as it happens. Runs in Node and browsers.
 *
 * What always holds for a reader that follows: events come in order, each once; after a cut it goes on behind the last
 * one that it gave out, and what could not be had any more is said by an EVENTS_LOST in its place. A core that is away
 * is waited for; a token that is refused is an error.
 */
import {
  ConnectionLost,
  fromWire,
  isError,
  LIMITS,
  MeshError,
  type MeshEvent,
  Overloaded,
  Unauthorised,
} from '@hauki/protocol';
import type { CoreClient } from './http.ts';

export interface EventsOptions {
  /** Goes on as things happen, until it is left (`break`) or aborted. Else: what the core remembers. */
  follow?: boolean;
  /** Only events whose name begins with one of these. */
  names?: string[];
  worker?: string;
  /** Begins after the event with this id; `0`: with the oldest remembered. */
  after?: string;
  /** Without `follow`: at most so many, the newest, or the first after `after`. 1,000 when left out. */
  limit?: number;
  signal?: AbortSignal;
}

/** Waits between tries to come back. */
const RETRY_MS = { first: 200, most: 5_000 };
/** One event with its framing. A core sends far less; what sends more is none. */
const EVENT_CHARS = 256 * 1024;

/** Events as `mesh.events` gives them. Rejects with Unauthorised, Forbidden, BadInput, ConnectionLost. */
export async function* meshEvents(core: CoreClient, options: EventsOptions = {}): AsyncGenerator<MeshEvent, void> {
  const { follow = false, names = [], worker, after, limit = 1_000, signal } = options;
  const query = new URLSearchParams(names.map((name) => ['name', name]));
  if (worker !== undefined) query.set('worker', worker);
  if (!follow) {
    if (after !== undefined) query.set('after', after);
    query.set('limit', String(limit));
    const path = `/api/v2/events/recent?${query}`;
    yield* (await core.request<{ events: MeshEvent[] }>('GET', path)).events;
    return;
  }
  let last = after;
  let wait_ms = RETRY_MS.first;
  let was_there = false;
  while (!signal?.aborted) {
    try {
      for await (const frame of frames(core, query, last, signal)) {
        was_there = true;
        wait_ms = RETRY_MS.first;
        if (frame.data !== undefined) yield JSON.parse(frame.data) as MeshEvent;
        // Only now is it the script's: one that was cut off before comes again.
        if (frame.id !== undefined) last = frame.id;
      }
    } catch (error) {
      if (signal?.aborted) return;
      const away = isError(error, ConnectionLost) || isError(error, Overloaded);
      if (!away || !was_there) throw error;
    }
    await pause(wait_ms, signal);
    wait_ms = Math.min(wait_ms * 2, RETRY_MS.most);
  }
}

interface Frame {
  id?: string;
  data?: string;
}

/** One stream of the core, as long as it lasts. Ends, or rejects with ConnectionLost or what the core said. */
async function* frames(
  { base, token }: CoreClient,
  query: URLSearchParams,
  last: string | undefined,
  signal: AbortSignal | undefined,
): AsyncGenerator<Frame, void> {
  const ending = new AbortController();
  const end = () => ending.abort();
  signal?.addEventListener('abort', end, { once: true });
  // The core says at least every so often that it is there.
  let silence: ReturnType<typeof setTimeout> | undefined;
  const heard = (within_ms: number) => {
    clearTimeout(silence);
    silence = setTimeout(end, within_ms);
  };
  const lost = (why: string) => new ConnectionLost({ why: `the events of ${base}: ${why}` });
  try {
    heard(LIMITS.handshake_ms);
    const headers: Record<string, string> = { authorization: `Bearer ${token}`, accept: 'text/event-stream' };
    if (last !== undefined) headers['last-event-id'] = last;
    const url = new URL(`/api/v2/events?${query}`, base);
    const answer = await fetch(url, { headers, signal: ending.signal, redirect: 'error', cache: 'no-store' }).catch(
      (error: Error) => {
        throw lost(error.message);
      },
    );
    if (!answer.ok || !answer.body) throw await refused(answer, base);
    let text = '';
    for await (const chunk of chunks(answer.body)) {
      // A slow script is no silent core.
      clearTimeout(silence);
      text += chunk;
      for (let at = text.indexOf('\n\n'); at >= 0; at = text.indexOf('\n\n')) {
        const frame = parseFrame(text.slice(0, at));
        text = text.slice(at + 2);
        if (frame) yield frame;
      }
      if (text.length > EVENT_CHARS) throw lost('it sends no events');
      heard(LIMITS.event_idle_ms * 3);
    }
  } catch (error) {
    if (error instanceof MeshError) throw error;
    throw lost(ending.signal.aborted ? 'nothing was heard for too long' : (error as Error).message);
  } finally {
    clearTimeout(silence);
    signal?.removeEventListener('abort', end);
    end();
  }
}

async function* chunks(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void> {
  const reader = body.pipeThrough(new TextDecoderStream() as never).getReader() as ReadableStreamDefaultReader<string>;
  try {
    for (let got = await reader.read(); !got.done; got = await reader.read()) yield got.value;
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function parseFrame(text: string): Frame | undefined {
  const frame: Frame = {};
  for (const line of text.split('\n')) {
    const [, field, value] = /^(id|data): ?(.*)$/.exec(line) ?? [];
    if (field === 'id') frame.id = value!;
    if (field === 'data') frame.data = frame.data === undefined ? value! : `${frame.data}\n${value}`;
  }
  return frame.id === undefined && frame.data === undefined ? undefined : frame;
}

async function refused(answer: Response, base: string): Promise<Error> {
  const body = (await answer.json().catch(() => undefined)) as { error?: unknown } | undefined;
  if (body?.error) return fromWire(body.error);
  return new Unauthorised({ why: `${base} answered ${answer.status} and is perhaps no core` });
}

const pause = (ms: number, signal: AbortSignal | undefined): Promise<void> =>
  new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done, { once: true });
    if (signal?.aborted) done();
  });
