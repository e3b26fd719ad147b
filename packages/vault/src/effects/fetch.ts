/**
 * The granted `fetch`: performed by the agent for a guest, to listed hosts, ports and methods only, as often as the grant
 * says. Every redirect is a new request and is checked like one; headers that steer the connection are not the guest's
 * to set; bodies pass piece by piece where both sides stream, else they are bounded.
 */
import type { IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  BadInput,
  canonicalTarget,
  DeadlineExceeded,
  type FetchGrant,
  GrantMissing,
  LIMITS,
  MeshError,
  Overloaded,
  RemoteError,
  TooLarge,
} from '@hauki/protocol';
import type { FetchedBody } from '../guest/context.ts';
import { type Pieces, piecesFrom, piecesOf, type Reading } from './bytes.ts';
import { carried } from './carried.ts';
import type { EffectMaker } from './effect.ts';
import { ACCEPT_ENCODING, decoded, exchange } from './exchange.ts';
import { routeTo } from './network.ts';
import { asksFor } from './secrets.ts';

/** Fetches of one vault that wait for their answer; the rest waits its turn (bounded by the effects in flight). */
const FETCHES = 6;
/** Bodies that come piece by piece, of one vault: to unpack one may take 16 MiB for each of its codings. */
const BODIES = 32;
/** One of which nobody has taken anything for so long gives way to the next: perhaps nobody ever will. */
const UNREAD_MS = 3_000;
const STEERING =
  /^(?:host|connection|proxy-.*|transfer-encoding|content-length|upgrade|te|trailer|expect|keep-alive)$/i;
const METHOD = /^[A-Z]{1,16}$/;
/** A placeholder, as it was written or as URLs escape it. */
const SECRET_IN_URL = /(?:\{\{|%7b%7b)secret(?::|%3a)/i;
/** They would make the agent a proxy. */
const METHODS_REFUSED = new Set(['CONNECT', 'TRACE', 'TRACK']);
const BODILESS = new Set(['GET', 'HEAD']);
const REDIRECT = ['follow', 'manual', 'error'];
/** Where a server redirects to that has got a secret: what it says may hold that. */
const UNSAID = 'where it is redirected to (not told here, since a secret was sent; `redirect: "manual"` tells it)';
const HEADERS = 100;
const HEADER_CHARS = 64 * 1024;

/** The rules of a grant that let such a request pass, wherever it goes. */
const forMethod = (rules: readonly FetchGrant[], method: string): FetchGrant[] =>
  rules.filter(({ methods }) => methods.length === 0 || methods.includes(method));

/** A guest's request, checked in form; nothing of it has been granted yet. */
interface Wanted {
  url: URL;
  method: string;
  headers: [string, string][];
  body: Uint8Array | Pieces | undefined;
  redirect: string;
  /** Whether the guest takes the answer's body piece by piece. */
  stream: boolean;
}

export const fetchEffect: EffectMaker = (vault) => {
  const { network, secrets } = vault;
  let fetching = 0;
  const waiting: (() => void)[] = [];
  const enter = async () => {
    if (fetching < FETCHES) fetching++;
    else await new Promise<void>((resolve) => waiting.push(resolve));
  };
  // A place that becomes free goes to whoever waits longest.
  const leave = () => {
    const next = waiting.shift();
    if (next) next();
    else fetching--;
  };

  const bodies = new Set<Reading>();
  let one_less = Promise.withResolvers<void>();
  /** Waits until there is room for one more body. */
  const makeWay = async () => {
    while (bodies.size >= BODIES) {
      const unread = [...bodies].reduce((a, b) => (b.unread_since < a.unread_since ? b : a));
      const wait_ms = unread.unread_since + UNREAD_MS - performance.now();
      if (wait_ms <= 0) unread.end(new Overloaded({ what: 'bodies of fetches that are not read', limit: BODIES }));
      else await Promise.race([one_less.promise, sleep(Math.min(wait_ms, UNREAD_MS), undefined, { ref: false })]);
    }
  };

  /**
   * Lets a request pass, or throws. Takes one from the rate of the worker and of all above it: whoever was granted so many
   * has no more by its clones. `shown`: the target, as far as it may be told.
   */
  const demand = (target: string, method: string, shown = target): void => {
    const there = vault.grants.fetch.filter(({ to }) => to === target);
    if (there.length === 0) throw new GrantMissing({ grant: 'fetch', wanted: shown });
    if (forMethod(there, method).length === 0)
      throw new GrantMissing({ grant: 'fetch', wanted: `${method} ${target}` });
    for (const [i, { worker, grants, rates }] of vault.allowances().entries()) {
      const fitting = forMethod(grants.fetch, method).filter(({ to }) => to === target);
      // One above that has lost them meanwhile takes them from those below it by itself.
      if (fitting.length === 0 || rates.take(fitting)) continue;
      const whose = i === 0 ? 'this worker and its clones' : `${worker}, from which this one stems, and all its clones`;
      const limit = Math.max(...fitting.map(({ per_minute }) => per_minute));
      throw new Overloaded({ what: `fetches (of ${whose}) from ${target} in a minute`, limit });
    }
  };

  const ask = async (wanted: Wanted, signal: AbortSignal) => {
    let { url, method, headers, body } = wanted;
    // What a stream brings is not known beforehand.
    const with_secret =
      headers.some(([, value]) => asksFor(value)) || (body instanceof Uint8Array ? asksFor(body) : body !== undefined);
    const answered = (answer: IncomingMessage, hops: number) => ({ answer, url, method, redirected: hops > 0 });
    for (let hop = 0; hop <= LIMITS.fetch_redirects; hop++) {
      const target = targetOf(url);
      demand(target, method, hop > 0 && with_secret ? UNSAID : undefined);
      const listed = forMethod(vault.grants.fetch, method).map(({ to }) => to);
      const route = await routeTo(target, { network, asker: vault.asker(), grant: 'fetch', listed, signal });
      const answer = await exchange({
        ...{ url, route, method, signal },
        headers: headers.map(([name, value]) => [name, secrets.fill(value, target)] as const),
        body: await bodyFor(body, target),
      });
      const { location } = answer.headers;
      const status = answer.statusCode ?? 0;
      if (location === undefined || ![301, 302, 303, 307, 308].includes(status)) return answered(answer, hop);
      if (wanted.redirect === 'manual') return answered(answer, hop);
      answer.destroy();
      if (wanted.redirect === 'error')
        throw new BadInput({ what: 'fetch', why: 'it is redirected, and `redirect: "error"` says not to follow' });
      const next = urlOf(location, url);
      const to = targetOf(next);
      if (status === 303 ? method !== 'HEAD' : method === 'POST' && status < 303) {
        method = 'GET';
        body = undefined;
        headers = headers.filter(([name]) => !/^content-/i.test(name));
      }
      if (body !== undefined && !(body instanceof Uint8Array))
        throw new BadInput({ what: 'fetch', why: 'it is redirected, and a streamed body cannot be sent twice' });
      // Secrets meant for one origin are not another's: neither the guest's own nor those that it does not know.
      if (next.origin !== url.origin) headers = headers.filter(([name]) => !/^(?:authorization|cookie)$/i.test(name));
      headers = headers.filter(([, value]) => !secrets.withheld(value, to));
      url = next;
    }
    throw new BadInput({ what: 'fetch', why: `more than ${LIMITS.fetch_redirects} redirects` });
  };

  const bodyFor = async (body: Wanted['body'], target: string) => {
    if (body === undefined) return undefined;
    if (body instanceof Uint8Array) return secrets.fillWhole(body, target);
    return { pieces: secrets.fillBytes(body, target), leave: () => void body.return?.() };
  };

  return {
    async fetch(args, given_up) {
      const wanted = wantedBy(args);
      // What it waits with is held already.
      const letGoBody = vault.hold(bodyRoom(wanted));
      await enter();
      if (wanted.stream) await makeWay();
      let letGoAnswer: (() => void) | undefined;
      const letGo = () => {
        letGoBody();
        letGoAnswer?.();
      };
      let streaming = false;
      const late = new AbortController();
      const timer = setTimeout(() => late.abort(), LIMITS.fetch_ms);
      try {
        given_up.throwIfAborted();
        // Before anybody is asked: what comes can be held.
        letGoAnswer = vault.hold(wanted.stream ? LIMITS.stream_bytes : LIMITS.fetch_body_bytes);
        const { answer, url, method, redirected } = await ask(wanted, AbortSignal.any([given_up, late.signal]));
        const pieces = piecesOf(decoded(answer, method), {
          idle: { ms: LIMITS.fetch_ms, error: () => lateError(url), paused: vault.paused },
          took: vault.fetched,
          failure: (error) => vault.told(failure(error, url)),
          over() {
            vault.ended.removeEventListener('abort', stop);
            answer.destroy();
            if (!streaming) return;
            letGo();
            bodies.delete(pieces);
            one_less.resolve();
            one_less = Promise.withResolvers();
          },
        });
        const stop = () => void pieces.return?.();
        vault.ended.addEventListener('abort', stop);
        const head: FetchedBody = {
          status: answer.statusCode ?? 0,
          status_text: answer.statusMessage ?? '',
          url: url.href,
          ...(redirected ? { redirected } : {}),
          headers: pairs(answer.rawHeaders),
        };
        if (!wanted.stream) return { ...head, ...(await bodyOf(pieces, url)) };
        streaming = true;
        bodies.add(pieces);
        return { ...head, body: pieces };
      } catch (error) {
        throw late.signal.aborted ? lateError(wanted.url) : failure(error, wanted.url);
      } finally {
        clearTimeout(timer);
        leave();
        if (!streaming) letGo();
      }
    },
  };
};

/** What is held of a request's body: all of it, or a stream's window. */
const bodyRoom = ({ body }: Wanted): number =>
  body instanceof Uint8Array ? body.length : body ? LIMITS.stream_bytes : 0;

function urlOf(given: unknown, base?: URL): URL {
  let url: URL;
  try {
    url = new URL(typeof given === 'string' ? given : '', base);
  } catch {
    const shown = typeof given === 'string' ? JSON.stringify(given.slice(0, 200)) : 'that';
    throw unfit(base ? 'what is no URL' : undefined, `${shown} is not a URL`);
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw unfit(base && 'another protocol', `${url.protocol} is not fetched; http: and https: are`);
  if (url.username !== '' || url.password !== '')
    throw unfit(base && 'a URL with credentials', 'a URL carries no credentials');
  if (targetFrom(url) === undefined) throw unfit(base && 'what is no host', `${url.host} is no host`);
  return url;
}

/** What a server redirects to is not told: it may hold what the server was sent. */
const unfit = (redirected_to: string | undefined, why: string) =>
  new BadInput({ what: 'fetch', why: redirected_to ? `it is redirected to ${redirected_to}` : why });

const targetFrom = (url: URL) =>
  canonicalTarget(`${url.hostname}:${url.port || (url.protocol === 'https:' ? '443' : '80')}`);
/** Host and port as grants name them. */
const targetOf = (url: URL): string => targetFrom(url)!;

/** `args`: url, `{method, headers: [name, value][], body?: text | bytes | stream, redirect?, stream?: true}`. */
function wantedBy([address, init]: unknown[]): Wanted {
  const given = (typeof init === 'object' && init !== null ? init : {}) as Record<string, unknown>;
  const method = typeof given.method === 'string' ? given.method.toUpperCase() : 'GET';
  if (!METHOD.test(method) || METHODS_REFUSED.has(method))
    throw new BadInput({ what: 'fetch', why: 'that is not a method that is fetched with' });
  // It would go as it stands, and the server's refusal would not say why.
  if (typeof address === 'string' && SECRET_IN_URL.test(address))
    throw new BadInput({
      what: 'fetch',
      why: 'a secret goes into a header or the body, not into a URL: servers log those',
    });
  const { redirect = 'follow' } = given;
  if (!REDIRECT.includes(redirect as string))
    throw new BadInput({ what: 'fetch', why: `redirect is one of ${REDIRECT.join(', ')}` });
  const headers: [string, string][] = [];
  let chars = 0;
  const pairs: unknown[] = Array.isArray(given.headers) ? given.headers : [];
  if (pairs.length > HEADERS) throw new BadInput({ what: 'fetch', why: `a request has at most ${HEADERS} headers` });
  for (const pair of pairs) {
    if (!Array.isArray(pair) || typeof pair[0] !== 'string' || typeof pair[1] !== 'string') continue;
    chars += pair[0].length + pair[1].length;
    if (!STEERING.test(pair[0])) headers.push([pair[0], pair[1]]);
  }
  if (chars > HEADER_CHARS) throw new TooLarge({ what: 'The headers of a fetch', limit_bytes: HEADER_CHARS });
  if (!headers.some(([name]) => /^accept-encoding$/i.test(name))) headers.push(['Accept-Encoding', ACCEPT_ENCODING]);
  let body: Wanted['body'];
  if (given.body === undefined || given.body === null) body = undefined;
  else if (BODILESS.has(method)) throw new BadInput({ what: 'fetch', why: `${method} has no body` });
  else if (typeof given.body === 'string') body = Buffer.from(given.body);
  else if (given.body instanceof Uint8Array) body = given.body;
  else body = piecesFrom('the body of a fetch', given.body);
  return { url: urlOf(address), method, headers, body, redirect: redirect as string, stream: given.stream === true };
}

const pairs = (raw: readonly string[]): [string, string][] =>
  Array.from({ length: raw.length / 2 }, (_, i) => [raw[2 * i]!, raw[2 * i + 1]!]);

async function bodyOf(pieces: Pieces, url: URL): Promise<Pick<FetchedBody, 'text' | 'base64'>> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of pieces) {
    bytes += chunk.length;
    if (bytes > LIMITS.fetch_body_bytes)
      throw new TooLarge({ what: `The body from ${url.host}`, limit_bytes: LIMITS.fetch_body_bytes });
    chunks.push(chunk);
  }
  return carried(Buffer.concat(chunks));
}

const lateError = (url: URL) =>
  new DeadlineExceeded({ what: `fetch ${url.host}`, timeout_ms: LIMITS.fetch_ms, may_have_run: true });

/** Typed errors as they are, others by their code. */
function failure(error: unknown, url: URL): Error {
  if (error instanceof MeshError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  // Node names the header with what it holds: of a secret nothing is said but that it may be the one.
  if (code === 'ERR_INVALID_CHAR' || code === 'ERR_INVALID_HTTP_TOKEN')
    return new BadInput({ what: 'fetch', why: 'a header, or a secret in one, has a character that none may have' });
  return new RemoteError({ error_name: 'TypeError' }, `fetch failed: ${url.host}: ${code ?? message}`);
}
