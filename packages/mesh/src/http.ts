/** The core's HTTP API, as the SDK uses it: JSON or streams in and out, typed errors, a deadline on every request. */
import {
  ConnectionLost,
  DeadlineExceeded,
  fromWire,
  type MeshError,
  OutcomeUnknown,
  Unauthorised,
} from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { HttpStream, Powers } from './powers.ts';

type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';

export interface StreamRequest {
  headers?: Record<string, string>;
  body?: Uint8Array;
  /** The longest time in which nothing moves. */
  idle_ms?: number;
  signal?: AbortSignal | undefined;
}

export interface CoreClient {
  readonly base: string;
  readonly token: string;
  request<T>(
    method: Method,
    path: string,
    body?: unknown,
    timeout_ms?: number,
    headers?: Record<string, string>,
  ): Promise<T>;
  /** A request whose answer is read as it comes. Rejects as `request` does where the answer is an error. */
  stream(method: Method, path: string, request?: StreamRequest): Promise<HttpStream>;
}

/** More of an error's answer is not read. */
const ERROR_CHARS = 64 * 1024;

/** A client for the core at `base`. Requests reject with the core's own typed errors. */
export function createCoreClient(base: string, token: string, powers: Pick<Powers, 'http' | 'stream'>): CoreClient {
  // An open kernel takes requests without one.
  const authorized: Record<string, string> = token === '' ? {} : { authorization: `Bearer ${token}` };

  /** What a request that got no answer failed with. */
  function unanswered(error: unknown, what: string, timeout_ms: number): MeshError {
    const { name, message } = error as Error;
    if (name === 'TimeoutError') return new DeadlineExceeded({ what, timeout_ms, may_have_run: true }) as MeshError;
    // There was a connection, and it broke: what should change something may have done so.
    if (/ECONNRESET|EPIPE/.test(message) && !/^(GET|HEAD)/.test(what))
      return new OutcomeUnknown({ method: what, why: `the connection to ${base} broke` }) as MeshError;
    return new ConnectionLost({
      why: `no core answers at ${base} (${message}). Start one with: hauki up`,
    }) as MeshError;
  }

  return {
    base,
    token,
    async request<T>(
      method: Method,
      path: string,
      body?: unknown,
      timeout_ms: number = LIMITS.call_ms,
      more: Record<string, string> = {},
    ): Promise<T> {
      const headers: Record<string, string> = { ...more, ...authorized };
      if (body !== undefined) headers['content-type'] = 'application/json';
      let status: number;
      let answer: any;
      try {
        const text = body === undefined ? undefined : JSON.stringify(body);
        const got = await powers.http(method, new URL(path, base), headers, text, timeout_ms);
        status = got.status;
        answer = JSON.parse(got.body);
      } catch (error) {
        throw unanswered(error, `${method} ${path.split('?')[0]}`, timeout_ms);
      }
      if (status >= 200 && status < 300) return answer as T;
      throw refusal(base, status, answer);
    },

    async stream(method, path, { headers = {}, body, idle_ms = LIMITS.call_ms, signal } = {}) {
      const what = `${method} ${path.split('?')[0]}`;
      let answer: HttpStream;
      try {
        const url = new URL(path, base);
        answer = await powers.stream(method, url, { ...headers, ...authorized }, body, { idle_ms, signal });
      } catch (error) {
        if (signal?.aborted) throw signal.reason;
        throw unanswered(error, what, idle_ms);
      }
      const { status } = answer;
      if (status >= 200 && status < 300)
        return { ...answer, body: translated(answer.body, (error) => unanswered(error, what, idle_ms), signal) };
      let text = '';
      const decoder = new TextDecoder();
      try {
        for await (const chunk of answer.body) {
          text += decoder.decode(chunk, { stream: true });
          if (text.length > ERROR_CHARS) break;
        }
      } catch (error) {
        throw unanswered(error, what, idle_ms);
      }
      throw refusal(base, status, parsed(text));
    },
  };
}

/** What a core said instead of what was asked for. */
export function refusal(base: string, status: number, answer: any): MeshError {
  if (answer?.error) return fromWire(answer.error);
  return new Unauthorised({ why: `${base} answered ${status} and is perhaps no core` }) as MeshError;
}

/** Waits for `ms`, or until `signal` is aborted. */
export const pause = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
    if (signal?.aborted) done();
  });

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function* translated(
  body: AsyncIterable<Uint8Array>,
  translate: (error: unknown) => Error,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const chunks = body[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { done, value } = await chunks.next().catch((error) => {
        throw signal?.aborted ? signal.reason : translate(error);
      });
      if (done) return;
      yield value;
    }
  } finally {
    await chunks.return?.();
  }
}
