/** The core's HTTP API, as the SDK uses it: JSON in and out, typed errors, a deadline on every request. */
import { ConnectionLost, DeadlineExceeded, fromWire, LIMITS, Unauthorised } from '@hauki/protocol';

export interface CoreClient {
  readonly base: string;
  readonly token: string;
  request<T>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown, timeout_ms?: number): Promise<T>;
}

/** A client for the core at `base`. Requests reject with the core's own typed errors. */
export function createCoreClient(base: string, token: string): CoreClient {
  return {
    base,
    token,
    async request<T>(method: string, path: string, body?: unknown, timeout_ms: number = LIMITS.call_ms): Promise<T> {
      const headers: Record<string, string> = { authorization: `Bearer ${token}` };
      if (body !== undefined) headers['content-type'] = 'application/json';
      let response: Response;
      let answer: any;
      try {
        response = await fetch(new URL(path, base), {
          method,
          headers,
          body: body === undefined ? null : JSON.stringify(body),
          signal: AbortSignal.timeout(timeout_ms),
          redirect: 'error',
        });
        answer = await response.json();
      } catch (error) {
        const failure = error as Error & { cause?: { code?: string } };
        if (failure.name === 'TimeoutError')
          throw new DeadlineExceeded({ what: `${method} ${path.split('?')[0]}`, timeout_ms, may_have_run: true });
        const why = failure.cause?.code ?? failure.message;
        throw new ConnectionLost({
          why: `no core answers at ${base} (${why}). Start one with: hauki up`,
        });
      }
      if (response.ok) return answer as T;
      throw answer?.error
        ? fromWire(answer.error)
        : new Unauthorised({ why: `${base} answered ${response.status} and is perhaps no core` });
    },
  };
}
