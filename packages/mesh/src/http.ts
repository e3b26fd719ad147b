/** The core's HTTP API, as the SDK uses it: JSON in and out, typed errors, a deadline on every request. */
import { ConnectionLost, DeadlineExceeded, fromWire, Unauthorised } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { Powers } from './powers.ts';

export interface CoreClient {
  readonly base: string;
  readonly token: string;
  request<T>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown, timeout_ms?: number): Promise<T>;
}

/** A client for the core at `base`. Requests reject with the core's own typed errors. */
export function createCoreClient(base: string, token: string, http: Powers['http']): CoreClient {
  return {
    base,
    token,
    async request<T>(method: string, path: string, body?: unknown, timeout_ms: number = LIMITS.call_ms): Promise<T> {
      const headers: Record<string, string> = { authorization: `Bearer ${token}` };
      if (body !== undefined) headers['content-type'] = 'application/json';
      let status: number;
      let answer: any;
      try {
        const text = body === undefined ? undefined : JSON.stringify(body);
        const got = await http(method, new URL(path, base), headers, text, timeout_ms);
        status = got.status;
        answer = JSON.parse(got.body);
      } catch (error) {
        const { name, message } = error as Error;
        if (name === 'TimeoutError')
          throw new DeadlineExceeded({ what: `${method} ${path.split('?')[0]}`, timeout_ms, may_have_run: true });
        throw new ConnectionLost({ why: `no core answers at ${base} (${message}). Start one with: hauki up` });
      }
      if (status >= 200 && status < 300) return answer as T;
      throw refusal(base, status, answer);
    },
  };
}

/** What a core said instead of what was asked for. */
export function refusal(base: string, status: number, answer: any): Error {
  if (answer?.error) return fromWire(answer.error);
  return new Unauthorised({ why: `${base} answered ${status} and is perhaps no core` });
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
