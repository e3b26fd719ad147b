/**
 * The spool, as its door sees it: durable jobs of one call each. A worker is cloned for the job, its one method called,
 * what came of it recorded, and the worker destructed. `store.ts` keeps them, `runner.ts` runs them.
 *
 * What always holds: a job is on disk before it is acknowledged; one result is recorded for it, whatever is killed; the
 * same key of the same owner is the same job.
 */
import { createHash } from 'node:crypto';
import { type KeyValue, neverAhead } from '@hauki/backplane';
import {
  BadInput,
  describe,
  type EventName,
  type JobDetails,
  JobEnded,
  type JobState,
  JobUnknown,
  LIMITS,
  Overloaded,
} from '@hauki/protocol';
import type { Session } from '@hauki/rpc';
import { modulesText } from '../modules.ts';
import { randomName } from '../names.ts';
import type { Damaged } from '../records.ts';
import type { Registry } from '../registry.ts';
import { demand, may, type Principal } from '../rights.ts';
import type { SpawnRequest, Swarm } from '../swarm.ts';
import type { Kept } from '../texts.ts';
import { type JobRecord, type JobRights, newJobId, viewOf } from './record.ts';
import { Runner } from './runner.ts';
import { inState, keyName, SpoolStore } from './store.ts';

export interface SpoolRequest extends Omit<SpawnRequest, 'audience' | 'lease_ms' | 'heartbeat_ms' | 'ttl_ms'> {
  method: string;
  /** An array: the arguments; an object: the one argument. */
  params?: unknown;
  timeout_ms?: number;
  /** At most so many attempts; 1: at most once. */
  attempts?: number;
  /** Whether what the job's own code throws, or its deadline, is tried again too. */
  retry_on_error?: boolean;
  key?: string;
}

export interface SpoolPowers {
  kv: KeyValue;
  registry: Registry;
  swarm: Pick<Swarm, 'order' | 'place'>;
  /** A session with a worker, for the one call. */
  connect(worker: string): Promise<Session>;
  event(name: EventName, fields: object): void;
  /** How long the next attempt waits for the node of the one before. */
  node_grace_ms?: number;
  kept?: { jobs: number; ms: number };
  /** Told of each job whose record is damaged. */
  damaged?: Damaged;
  /** Milliseconds since 1970: what people are shown, and what is on disk. */
  now?: () => number;
  /** Milliseconds on a clock that nobody sets: what waits are measured by. */
  elapsed?: () => number;
}

/** Attempts when nobody said otherwise. */
const ATTEMPTS = 3;
const SWEEP_EVERY_MS = 60_000;
const SCOPE = 'spool';
const ENDS = { done: 'SPOOL_DONE', failed: 'SPOOL_FAILED', cancelled: 'SPOOL_CANCELLED' } as const;
export const KEY = /^[\x21-\x7e]+$/;

/** What handling a job takes: it is its owner's, as a worker is. */
const wishFor = ({ job, owner }: JobRecord) => ({ scope: SCOPE, worker: { worker: job, owner } }) as const;

export class Spool {
  readonly #powers: SpoolPowers;
  readonly #store: SpoolStore;
  readonly #runner: Runner;
  readonly #now: () => number;
  #accepting = 0;
  readonly #waiters = new Set<() => void>();
  #sweeper: NodeJS.Timeout | undefined;

  constructor(powers: SpoolPowers) {
    const { kv, registry, swarm, connect, event, damaged } = powers;
    const { now = () => Date.now(), elapsed = () => performance.now() } = powers;
    const { kept = { jobs: LIMITS.spool_kept, ms: LIMITS.spool_kept_ms }, node_grace_ms = LIMITS.node_silence_ms } =
      powers;
    this.#powers = powers;
    this.#now = now;
    this.#store = new SpoolStore({
      kv,
      now,
      steady: neverAhead(now, elapsed),
      kept,
      damaged,
      ended: ({ record: { job, owner, state, attempts } }) =>
        event(ENDS[state as keyof typeof ENDS], { job, owner, attempts }),
      failed: (job, error) => event('STORAGE_FAILED', { job, why: describe(error) }),
    });
    this.#runner = new Runner({ store: this.#store, registry, swarm, connect, event, now, elapsed, node_grace_ms });
  }

  /** Reads what was spooled, and goes on with it; to be called once, before any node can register. */
  async open(): Promise<void> {
    for (const open of await this.#store.load()) this.#runner.take(open);
    this.#store.sweep();
    this.#sweeper = setInterval(() => this.#store.sweep(), SWEEP_EVERY_MS);
    this.#sweeper.unref();
  }

  /** Takes a job; resolves when it is on disk. With a key that was used before, the job is the one of then. */
  async accept(request: SpoolRequest, principal: Principal): Promise<JobDetails> {
    const { key } = request;
    if (key !== undefined && (key.length > LIMITS.spool_key_chars || !KEY.test(key)))
      throw new BadInput({
        what: 'key',
        why: `printable ASCII without spaces, at most ${LIMITS.spool_key_chars} long`,
      });
    const digest = createHash('sha256').update(JSON.stringify(request)).digest('hex');
    const key_name = key === undefined ? undefined : keyName(principal.name, key);
    let job = key_name && (await this.#store.keyed(key_name));
    const known = job && (await this.#store.same(job, digest, key!));
    if (known) return viewOf(known);
    if (this.#store.open.size + this.#accepting >= LIMITS.spool_open)
      throw new Overloaded({ what: 'jobs in the spool', limit: LIMITS.spool_open });
    this.#accepting++;
    const texts: Kept[] = [];
    try {
      const order = await this.#powers.swarm.order(request, principal, { source: SCOPE, pointer: SCOPE });
      const params_text = JSON.stringify(request.params ?? []);
      const {
        labels,
        job: { grants, secrets },
      } = order;
      const rights_text = JSON.stringify({ labels, grants, secrets } satisfies JobRights);
      const [source, modules, params, rights] = await this.#store.texts.keepAll([
        order.job.source,
        modulesText(order.job.modules),
        params_text,
        rights_text,
      ]);
      texts.push(source, params, rights, ...(modules ? [modules] : []));
      job ??= newJobId(this.#now(), randomName(6));
      if (key_name !== undefined) job = await this.#store.bind(key_name, job);
      const record: JobRecord = {
        job,
        owner: principal.name,
        key: key ?? null,
        request: digest,
        state: 'accepted',
        pointer: request.pointer ?? null,
        source,
        language: order.job.language,
        modules,
        code: order.job.code,
        method: request.method,
        params,
        driver: order.driver ?? null,
        rights,
        nodes: [...order.nodes],
        unread: order.unread,
        memory_mib: order.memory_mib ?? null,
        min_isolation: order.job.min_isolation,
        cpu: order.job.cpu,
        turn_ms: order.job.turn_ms,
        timeout_ms: request.timeout_ms ?? LIMITS.call_ms,
        load_timeout_ms: order.job.load_timeout_ms,
        max_attempts: request.attempts ?? ATTEMPTS,
        retry_on_error: request.retry_on_error ?? false,
        attempts: 0,
        worker: null,
        node: null,
        history: [],
        accepted_at: this.#now(),
        ended_at: 0,
        result: null,
        error: null,
      };
      const open = await this.#store.add(record);
      if (!open) {
        // Another request with the same key was quicker.
        const same = await this.#store.same(job, digest, key!);
        if (!same) throw new JobUnknown({ job });
        this.#store.texts.release(...texts);
        return viewOf(same);
      }
      this.#powers.event('SPOOL_ACCEPTED', { job, owner: record.owner, method: record.method });
      this.#runner.take(open);
      return viewOf(record);
    } catch (error) {
      this.#store.texts.release(...texts);
      throw error;
    } finally {
      this.#accepting--;
    }
  }

  /** Rejects with JobUnknown, or Forbidden for one that is out of reach. The result is JSON text, of a job that is done. */
  async get(job: string, principal: Principal): Promise<{ view: JobDetails; result: string | undefined }> {
    const record = await this.#find(job, principal);
    return {
      view: this.#view(record),
      result: record.result ? await this.#store.texts.read(record.result) : undefined,
    };
  }

  /** Resolves when the job has ended, or after `wait_ms`, or when `gone` is aborted. Rejects as `get` does. */
  async wait(job: string, principal: Principal, wait_ms: number, gone: AbortSignal): Promise<void> {
    await this.#find(job, principal);
    const open = this.#store.open.get(job);
    if (!open || wait_ms <= 0 || gone.aborted) return;
    if (this.#waiters.size >= LIMITS.spool_waiters)
      throw new Overloaded({ what: 'requests that wait for jobs', limit: LIMITS.spool_waiters });
    const { promise, resolve: wake } = Promise.withResolvers<void>();
    this.#waiters.add(wake);
    open.waiters.add(wake);
    gone.addEventListener('abort', () => wake());
    const timer = setTimeout(wake, Math.min(wait_ms, LIMITS.spool_wait_ms));
    await promise;
    clearTimeout(timer);
    open.waiters.delete(wake);
    this.#waiters.delete(wake);
  }

  /** A page of the principal's jobs, newest first; an admin sees all. `next` is the following `after`. */
  async list(
    principal: Principal,
    { state, after, limit = 100 }: { state?: JobState | undefined; after?: string | undefined; limit?: number },
  ): Promise<{ jobs: JobDetails[]; next?: string }> {
    const wanted = inState(state);
    const passes = (record: JobRecord) => may(principal, wishFor(record)) && wanted(record);
    const { records, next } = await this.#store.list(passes, { after, limit });
    return { jobs: records.map((record) => this.#view(record)), ...(next === undefined ? {} : { next }) };
  }

  /** Jobs that have not ended, of owners that are meant. */
  owned(meant: (owner: string) => boolean): string[] {
    return [...this.#store.open.values()].filter(({ record }) => meant(record.owner)).map(({ record }) => record.job);
  }

  /** Cancels what has not ended: it never runs, or its worker is destructed. Rejects with JobEnded where it is too late. */
  async cancel(job: string, principal: Principal): Promise<JobDetails> {
    await this.#find(job, principal);
    const open = this.#store.open.get(job);
    if (open && (await this.#store.move(open, () => ({ state: 'cancelled' }))))
      await this.#runner.drop(open, `its job was cancelled by ${principal.name}`);
    const record = await this.#find(job, principal);
    if (record.state !== 'cancelled') throw new JobEnded({ job, state: record.state });
    return this.#view(record);
  }

  /** Begins nothing more and wakes who waits. What runs is tried again after the next start. */
  close(): void {
    clearInterval(this.#sweeper);
    this.#runner.close();
    for (const wake of this.#waiters) wake();
  }

  #view(record: JobRecord): JobDetails {
    return viewOf(record, this.#store.open.get(record.job)?.waiting?.why ?? null);
  }

  async #find(job: string, principal: Principal): Promise<JobRecord> {
    const record = await this.#store.read(job);
    if (!record) throw new JobUnknown({ job });
    demand(principal, wishFor(record));
    return record;
  }
}
