/** A worker's life from outside: pause and resume, a look inside, its log, and why it ended. */
import {
  type Fate,
  fromWire,
  type Grants,
  type IsolationLevel,
  type LogLine,
  type Revocation,
  type WorkerInfo,
} from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { CoreClient } from './http.ts';
import { requestStream } from './http-stream.ts';
import { pathPart } from './path.ts';
import type { WorkerOf } from './services.ts';
import { eventsOf } from './streams.ts';

export interface LogOptions {
  /** Of the lines that there are, the last so many come first; 200 when left out. */
  lines?: number;
  /** Goes on as lines come, to the worker's end, until it is left (`break`) or aborted. */
  follow?: boolean;
  signal?: AbortSignal;
}

/** What is known of a worker, dead or alive. `node_lost`: its node is away; it may live on. */
export type WorkerState =
  | { state: 'alive' | 'node_lost'; worker: string; node: string; info: (WorkerInfo & { node: string }) | null }
  | { state: 'dead'; worker: string; fate: Fate };

export interface WorkerDetails {
  worker: string;
  node: string;
  driver: string;
  isolation: IsolationLevel;
  route: 'direct' | 'relay';
  methods: string[];
  lease: { heartbeat_ms: number; lease_ms: number };
}

/** A worker is named by its ghost or by its name. */
export interface LifeDoor {
  /**
   * Stops a worker where it stands. Its lease stands still; calls wait, and meet their deadlines. It can be destructed.
   * Rejects with WorkerDied, WorkerUnknown, Forbidden.
   */
  pause(worker: object | string): Promise<void>;
  /** It goes on, with a whole lease. */
  resume(worker: object | string): Promise<void>;
  /**
   * Evaluates an expression beside a worker of one's own: `worker` is it, `hauki` what it may do, `await` is allowed.
   * Resolves with the result as text. Rejects with what it threw, DeadlineExceeded, WorkerPaused, Forbidden.
   */
  inspect(worker: object | string, expression: string, options?: { timeout_ms?: number }): Promise<string>;
  /** Its log, oldest line first; a line with `seq` 0 is the core's own. With `follow` it returns what became of it. */
  logs(worker: object | string, options?: LogOptions): AsyncGenerator<LogLine, Fate | undefined>;
  /**
   * Takes grants from a worker, and from its clones: from its next effect on. Resolves with what it has then. Rejects with
   * BadInput for what it was not granted, or what cannot be taken while it lives.
   */
  revoke(worker: object | string, what: Revocation): Promise<Grants>;
  /** Whether it lives, or why not, also long after. Rejects with WorkerUnknown. */
  why(worker: object | string): Promise<WorkerState>;
  /** Where a ghost's worker is and how it is reached; waits until it is born. */
  details(worker: object): Promise<WorkerDetails>;
}

/** The most that an inspection takes beyond its own deadline. */
const SLACK_MS = 5_000;
const INSPECT_MS = 10_000;

export function lifeDoor(core: CoreClient, workerOf: WorkerOf): LifeDoor {
  const path = async (worker: object | string, verb = '') => {
    const name = typeof worker === 'string' ? worker : (await workerOf(worker)).body.worker;
    return `/api/v2/ephemeral/${pathPart('worker', name)}${verb}`;
  };
  return {
    async pause(worker) {
      await core.request('POST', await path(worker, '/pause'), {});
    },
    async resume(worker) {
      await core.request('POST', await path(worker, '/resume'), {});
    },
    async inspect(worker, expression, { timeout_ms = INSPECT_MS } = {}) {
      const at = await path(worker, '/inspect');
      const body = { expression, timeout_ms };
      // The core holds callers to the same bound: one who asked for weeks would set a timer that ends at once.
      const most_ms = Math.min(timeout_ms, LIMITS.inspect_ms) + SLACK_MS;
      return (await core.request<{ result: string }>('POST', at, body, most_ms)).result;
    },
    async *logs(worker, { lines, follow = false, signal } = {}) {
      const query = new URLSearchParams();
      if (lines !== undefined) query.set('lines', String(lines));
      if (!follow) {
        type Answer = { lines: LogLine[]; fate: Fate | null };
        const answer = await core.request<Answer>('GET', `${await path(worker, '/logs')}?${query}`);
        yield* answer.lines;
        return answer.fate ?? undefined;
      }
      query.set('follow', 'true');
      const { body } = await requestStream(core, 'GET', `${await path(worker, '/logs')}?${query}`, { signal });
      for await (const { event, data } of eventsOf(body)) {
        if (data === undefined) continue;
        const said = JSON.parse(data);
        if (event === 'error') throw fromWire(said);
        if (event === 'end') return said as Fate;
        yield said as LogLine;
      }
      return undefined;
    },
    async revoke(worker, what) {
      return (await core.request<{ grants: Grants }>('POST', await path(worker, '/revoke'), what)).grants;
    },
    why: async (worker) => core.request<WorkerState>('GET', await path(worker)),
    async details(thing) {
      const { body, way, methods } = await workerOf(thing);
      const { worker, node, driver, isolation, lease } = body;
      return { worker, node, driver, isolation, lease, route: way.taken, methods };
    },
  };
}
