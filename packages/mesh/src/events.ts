/**
 * The mesh's events for a script: what the core remembers, or what happens as it happens. Runs in Node and browsers.
 *
 * What always holds for a reader that follows: events come in order, each once; after a cut it goes on behind the last
 * one that it gave out, and what could not be had any more is said by an EVENTS_LOST in its place. A core that is away
 * is waited for; a token that is refused is an error.
 */
import { BadInput, ConnectionLost, isError, MeshError, type MeshEvent, Overloaded } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { type CoreClient, refusal } from './http.ts';
import { pause } from './pause.ts';
import { eventsOf, type ServerEvent } from './streams.ts';

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

/** One stream of the core, as long as it lasts. Ends, or rejects with ConnectionLost or what the core said. */
async function* frames(
  { base, token }: CoreClient,
  query: URLSearchParams,
  last: string | undefined,
  signal: AbortSignal | undefined,
): AsyncGenerator<ServerEvent, void> {
  const ending = new AbortController();
  const end = () => ending.abort();
  signal?.addEventListener('abort', end);
  let silence: ReturnType<typeof setTimeout> | undefined;
  try {
    silence = setTimeout(end, LIMITS.handshake_ms);
    const headers: Record<string, string> = { authorization: `Bearer ${token}`, accept: 'text/event-stream' };
    if (last !== undefined) headers['last-event-id'] = last;
    const url = new URL(`/api/v2/events?${query}`, base);
    const answer = await fetch(url, { headers, signal: ending.signal, redirect: 'error', cache: 'no-store' });
    if (!answer.ok || !answer.body) throw refusal(base, answer.status, await answer.json().catch(() => undefined));
    const reader = answer.body.getReader();
    yield* eventsOf(
      (async function* () {
        for (let got = await reader.read(); !got.done; got = await reader.read()) {
          // A slow script is no silent core; and the core says at least every so often that it is there.
          clearTimeout(silence);
          yield got.value;
          silence = setTimeout(end, LIMITS.event_idle_ms * 3);
        }
      })(),
    );
  } catch (error) {
    if (error instanceof MeshError && !isError(error, BadInput)) throw error;
    const why = ending.signal.aborted ? 'nothing was heard for too long' : (error as Error).message;
    throw new ConnectionLost({ why: `the events of ${base}: ${why}` });
  } finally {
    clearTimeout(silence);
    signal?.removeEventListener('abort', end);
    // Ends the request too.
    end();
  }
}
