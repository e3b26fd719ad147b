/** `mesh.spool`: durable one-shot jobs, for the SDK. A handle holds no connection; another process can make it anew. */
import {
  ConnectionLost,
  DeadlineExceeded,
  fromWire,
  isError,
  JobCancelled,
  type JobDetails,
  type JobState,
} from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { CloneOptions, Origin } from './connect.ts';
import type { CoreClient } from './http.ts';
import type { ModuleOf } from './lasting.ts';
import { pathPart } from './path.ts';
import { pause } from './pause.ts';

export interface SpoolOptions
  extends Pick<
    CloneOptions,
    'driver' | 'min_isolation' | 'labels' | 'memory_mib' | 'cpu' | 'turn_ms' | 'grants' | 'secrets' | 'load_timeout_ms'
  > {
  method: string;
  /** The arguments. */
  params?: unknown[];
  /** For one attempt's call. */
  timeout_ms?: number;
  /** How often it may be begun when it is interrupted, by default 3. 1: at most once. */
  attempts?: number;
  /** Try again also what its own code throws. */
  retry_on_error?: boolean;
  /** The same key is the same job: a request that is sent again makes no second one. */
  key?: string;
}

export interface SpooledJob<T = unknown> {
  readonly job: string;
  /**
   * Waits for the job's end and gives its result. Rejects with the job's own error; with DeadlineExceeded after
   * `timeout_ms` (the job goes on); with JobCancelled. A core that is away meanwhile is waited for, where a `timeout_ms`
   * is given.
   */
  result(options?: { timeout_ms?: number }): Promise<T>;
  /** Resolves when it will not run, or run on. Rejects with JobEnded where it is too late. */
  cancel(): Promise<void>;
  state(): Promise<JobDetails>;
}

export interface SpoolDoor {
  /** Spools a job. Resolves when it is durable: from then on it ends with exactly one result, whatever is killed. */
  spool<T = unknown>(origin: Origin, options: SpoolOptions): Promise<SpooledJob<T>>;
  readonly jobs: {
    /** The handle of a job that was spooled before. Asks nobody. */
    get<T = unknown>(job: string): SpooledJob<T>;
    /** A page of jobs, newest first; `next` is the following `after`. */
    list(options?: {
      state?: JobState;
      after?: string;
      limit?: number;
    }): Promise<{ jobs: JobDetails[]; next?: string }>;
  };
}

const PATH = '/api/v2/omega_spool';
/** One request's wait: short enough for whatever stands between. */
const WAIT_MS = 25_000;
const AGAIN_MS = 250;

/** The part of a mesh that has to do with the spool. */
export function spoolDoor(core: CoreClient, moduleOf: ModuleOf): SpoolDoor {
  const handle = <T>(job: string): SpooledJob<T> => {
    const path = () => `${PATH}/${pathPart('job', job)}`;
    return {
      job,
      async result({ timeout_ms } = {}) {
        const until = timeout_ms === undefined ? Number.POSITIVE_INFINITY : performance.now() + timeout_ms;
        for (;;) {
          const left = Math.max(0, until - performance.now());
          const wait_ms = Math.floor(Math.min(WAIT_MS, left));
          const asked = core.request<JobDetails & { result?: T }>(
            'GET',
            `${path()}?wait_ms=${wait_ms}`,
            undefined,
            wait_ms + LIMITS.handshake_ms,
          );
          const found = await asked.catch(async (error) => {
            // A core that was killed comes back with the job.
            if (!isError(error, ConnectionLost) || timeout_ms === undefined || left === 0) throw error;
            await pause(AGAIN_MS);
            return undefined;
          });
          if (found?.state === 'done') return found.result as T;
          if (found?.state === 'failed') throw fromWire(found.error);
          if (found?.state === 'cancelled') throw new JobCancelled({ job });
          if (left === 0)
            throw new DeadlineExceeded({ what: `Job ${job}`, timeout_ms: timeout_ms ?? 0, may_have_run: true });
        }
      },
      async cancel() {
        await core.request('DELETE', path());
      },
      async state() {
        const { status: _status, result: _result, ...details } = await core.request<any>('GET', path());
        return details as JobDetails;
      },
    };
  };
  return {
    async spool(origin, options) {
      const body = { ...(await moduleOf(origin, options.driver)), ...options };
      return handle((await core.request<{ job: string }>('POST', PATH, body)).job);
    },
    jobs: {
      get: handle,
      async list(options = {}) {
        const given = Object.entries(options).filter(([, value]) => value !== undefined);
        const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
        const { jobs, next } = await core.request<Awaited<ReturnType<SpoolDoor['jobs']['list']>>>(
          'GET',
          `${PATH}?${query}`,
        );
        return { jobs, ...(next === undefined ? {} : { next }) };
      },
    },
  };
}
