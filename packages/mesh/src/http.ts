/** The core's HTTP API, as the SDK uses it: JSON in and out, typed errors, a deadline on every request. */
import {
  ConnectionLost,
  DeadlineExceeded,
  fromWire,
  type MeshError,
  OutcomeUnknown,
  Unauthorised,
} from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { Powers } from './powers.ts';

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';

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
}

/** A client for the core at `base`. Requests reject with the core's own typed errors. */
export const createCoreClient = (base: string, token: string, powers: Pick<Powers, 'http'>): CoreClient => ({
  base,
  token,
  async request(method, path, body, timeout_ms = LIMITS.call_ms, more = {}) {
    const headers: Record<string, string> = { ...more };
    // An open kernel takes requests without one.
    if (token) headers.authorization = `Bearer ${token}`;
    if (body !== undefined) headers['content-type'] = 'application/json';
    let status: number;
    let answer: any;
    try {
      const text = body === undefined ? undefined : JSON.stringify(body);
      ({ status, body: answer } = await powers.http(method, new URL(path, base), headers, text, timeout_ms));
    } catch (error) {
      throw unanswered(base, error, `${method} ${path.split('?')[0]}`, timeout_ms);
    }
    if (status >= 200 && status < 300) return answer;
    throw refusal(base, status, answer);
  },
});

/** What a request that got no answer failed with; `what` is its method and path. */
export function unanswered(base: string, error: unknown, what: string, timeout_ms: number): MeshError<any> {
  const { name, message } = error as Error;
  if (name === 'TimeoutError') return new DeadlineExceeded({ what, timeout_ms, may_have_run: true });
  // There was a connection, and it broke: what should change something may have done so.
  if (/ECONNRESET|EPIPE/.test(message) && !/^(GET|HEAD)/.test(what))
    return new OutcomeUnknown({ method: what, why: `the connection to ${base} broke` });
  return new ConnectionLost({ why: `no core answers at ${base} (${message}). Start one with: hauki up` });
}

/** What a core said instead of what was asked for. */
export const refusal = (base: string, status: number, answer: any): MeshError<any> =>
  answer?.error
    ? fromWire(answer.error)
    : new Unauthorised({ why: `${base} answered ${status} and is perhaps no core` });
