/**
 * The granted `fetch`: performed by the agent for a guest, to listed host:port only. Every redirect is a new request and
 * is checked like one; bodies are bounded both ways; headers that steer the connection are not the guest's to set.
 */
import { BadInput, DeadlineExceeded, GrantMissing, type Grants, LIMITS, RemoteError, TooLarge } from '@hauki/protocol';
import type { FetchedBody } from '../guest/context.ts';
import type { EffectMaker } from './effect.ts';

const STEERING =
  /^(?:host|connection|proxy-.*|transfer-encoding|content-length|upgrade|te|trailer|expect|keep-alive)$/i;
const METHOD = /^[A-Z]{1,16}$/;

function checked(address: unknown, base: string | undefined, grants: Grants): URL {
  let url: URL;
  try {
    url = new URL(String(address), base);
  } catch {
    throw new BadInput({ what: 'fetch', why: `${JSON.stringify(String(address).slice(0, 200))} is not a URL` });
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw new BadInput({ what: 'fetch', why: `${url.protocol} is not fetched; http: and https: are` });
  if (url.username !== '' || url.password !== '')
    throw new BadInput({ what: 'fetch', why: 'a URL carries no credentials' });
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  const wanted = `${url.hostname.toLowerCase()}:${port}`;
  if (!grants.fetch.some(({ to }) => to === wanted)) throw new GrantMissing({ grant: 'fetch', wanted });
  return url;
}

async function bodyOf(response: Response): Promise<Pick<FetchedBody, 'text' | 'base64'>> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > LIMITS.fetch_body_bytes)
      throw new TooLarge({ what: `The body of ${response.url}`, limit_bytes: LIMITS.fetch_body_bytes });
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks);
  try {
    return { text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body) };
  } catch {
    return { base64: body.toString('base64') };
  }
}

/** Fetches of one vault under way. */
const FETCHES = 6;

/** Bodies are held whole: a few at a time, the rest waits its turn (bounded by the effects in flight). */
export const fetchEffect: EffectMaker = (vault) => {
  let fetching = 0;
  const waiting: (() => void)[] = [];
  return {
    async fetch(args) {
      if (fetching >= FETCHES) await new Promise<void>((resolve) => waiting.push(resolve));
      fetching++;
      try {
        return await performFetch(args, vault.grants);
      } finally {
        fetching--;
        waiting.shift()?.();
      }
    },
  };
};

/** Performs one fetch of a guest. `args`: url, `{method, headers: [name, value][], body?: string}`. */
async function performFetch(args: unknown[], grants: Grants): Promise<FetchedBody> {
  const [address, init] = args as [unknown, { method?: unknown; headers?: unknown; body?: unknown } | undefined];
  let method = String(init?.method ?? 'GET').toUpperCase();
  if (!METHOD.test(method)) throw new BadInput({ what: 'fetch', why: 'that is not a method' });
  const given = Array.isArray(init?.headers) ? init.headers.slice(0, 100) : [];
  let headers: [string, string][] = given
    .filter((pair) => Array.isArray(pair) && !STEERING.test(String(pair[0])))
    .map((pair) => [String(pair[0]), String(pair[1])]);
  let body = typeof init?.body === 'string' ? init.body : undefined;
  let url = checked(address, undefined, grants);
  const signal = AbortSignal.timeout(LIMITS.fetch_ms);
  try {
    for (let hop = 0; hop <= LIMITS.fetch_redirects; hop++) {
      const response = await fetch(url, { method, headers, body: body ?? null, redirect: 'manual', signal });
      const location = response.headers.get('location');
      if (location === null || response.status < 300 || response.status > 399) {
        return {
          status: response.status,
          status_text: response.statusText,
          url: url.href,
          headers: [...response.headers],
          ...(await bodyOf(response)),
        };
      }
      await response.body?.cancel();
      const next = checked(location, url.href, grants);
      // Secrets meant for one origin are not another's.
      if (next.origin !== url.origin) headers = headers.filter(([name]) => !/^(?:authorization|cookie)$/i.test(name));
      url = next;
      if (response.status === 303 || (method === 'POST' && response.status < 303)) {
        method = 'GET';
        body = undefined;
        headers = headers.filter(([name]) => !/^content-/i.test(name));
      }
    }
    throw new BadInput({ what: 'fetch', why: `more than ${LIMITS.fetch_redirects} redirects` });
  } catch (error) {
    if ((error as Error).name === 'TimeoutError')
      throw new DeadlineExceeded({ what: `fetch ${url.host}`, timeout_ms: LIMITS.fetch_ms, may_have_run: true });
    // undici says only "fetch failed"; the cause names what did.
    if (error instanceof TypeError) {
      const cause = (error.cause as NodeJS.ErrnoException | undefined)?.code ?? error.message;
      throw new RemoteError({ error_name: 'TypeError' }, `fetch failed: ${url.host}: ${cause}`);
    }
    throw error;
  }
}
