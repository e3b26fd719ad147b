/**
 * Runs the spool's jobs: in the order in which they came, so many at once as nodes have room for, each to its end.
 *
 * What always holds: an attempt is on disk before any node hears of it; the next one begins after the worker of the one
 * before was ended, or its node was away for too long (that worker ends with its time to live, at the latest when the
 * node is back); what an attempt brings is recorded only while it is the present one.
 */
import {
  describe,
  type EventName,
  isError,
  JobEnded,
  LEASE,
  LIMITS,
  OutcomeUnknown,
  StorageFailed,
  toWire,
  type WorkerInfo,
} from '@hauki/protocol';
import type { Session } from '@hauki/rpc';
import { readCode } from '../modules.ts';
import type { RegisteredNode, Registry } from '../registry.ts';
import type { Swarm } from '../swarm.ts';
import { TextDamaged } from '../texts.ts';
import { exhausted, type JobRecord, jobOf, judge, ownDeadline, type Step, withAttempt, workerOf } from './record.ts';
import type { Open, SpoolStore } from './store.ts';

export interface RunnerPowers {
  store: SpoolStore;
  registry: Registry;
  swarm: Pick<Swarm, 'place'>;
  /** A session with a worker, for the one call. */
  connect(worker: string): Promise<Session>;
  event(name: EventName, fields: object): void;
  /** How long the next attempt waits for the node of the one before. */
  node_grace_ms: number;
  /** Milliseconds since 1970. */
  now(): number;
  /** Milliseconds on a clock that nobody sets. */
  elapsed?(): number;
}

/** The runner's own notes on a job. */
interface Notes {
  timer?: NodeJS.Timeout | undefined;
  /** Since when the node of its interrupted attempt is known to be away. */
  away_since?: number | undefined;
  /** Why the last attempt was interrupted. */
  error?: unknown;
  /** The attempt whose worker is known to be over. */
  over?: number | undefined;
}

const RETRY_MS = { first: 100, most: 2_000 };
/** An attempt's worker ends by itself so long after its call ought to be over, should nobody be left to end it. */
const TTL_SLACK_MS = 60_000;

/**
 * The core's own store failed before a node had heard of the attempt, and may not the next time: a text that is damaged
 * stays so. By its class alone: a job may throw any error.
 */
class NotBegun extends Error {}
const beforeIt = <T>(work: Promise<T>): Promise<T> =>
  work.catch((error) => {
    throw isError(error, StorageFailed) && !(error instanceof TextDamaged)
      ? new NotBegun(describe(error), { cause: error })
      : error;
  });

const backoff = (times: number) => Math.min(RETRY_MS.first * 2 ** Math.min(times - 1, 20), RETRY_MS.most);

export class Runner {
  readonly #powers: RunnerPowers;
  readonly #notes = new WeakMap<Open, Notes>();
  /** Ready to run, first come first served. */
  readonly #queue = new Set<Open>();
  /** No node had room; they try again after a while, or when one may have. */
  readonly #crowded = new Set<Open>();
  #running = 0;
  #closed = false;

  constructor(powers: RunnerPowers) {
    this.#powers = powers;
    powers.registry.watch({ registered: (node, workers) => this.#registered(node, workers) });
  }

  /** Takes up a job, wherever it stands. */
  take(open: Open): void {
    this.#ready(open);
    this.#pump();
  }

  /** Ends the worker of a job that was cancelled. */
  async drop({ record }: Open, reason: string): Promise<void> {
    if (record.worker !== null) await this.#destruct(record.node, record.worker, reason);
  }

  close(): void {
    this.#closed = true;
  }

  #noted(open: Open): Notes {
    const notes = this.#notes.get(open) ?? {};
    this.#notes.set(open, notes);
    return notes;
  }

  #goesOn(open: Open): boolean {
    return !this.#closed && this.#powers.store.open.get(open.record.job) === open;
  }

  #pump(): void {
    while (!this.#closed && this.#running < LIMITS.spool_running) {
      const open = this.#queue.values().next().value;
      if (!open) return;
      this.#queue.delete(open);
      if (!this.#goesOn(open)) continue;
      this.#running++;
      void this.#run(open)
        .catch((error) => this.#aside(open, describe(error)))
        .finally(() => {
          this.#running--;
          // One that ended has made room for another.
          const [next] = this.#crowded;
          if (next && !this.#goesOn(open)) this.#ready(next);
          this.#pump();
        });
    }
  }

  #ready(open: Open): void {
    clearTimeout(this.#noted(open).timer);
    this.#crowded.delete(open);
    if (this.#goesOn(open)) this.#queue.add(open);
  }

  /** Out of the queue for a while. */
  #aside(open: Open, why: string, wait_ms?: number): void {
    if (!this.#goesOn(open)) return;
    const notes = this.#noted(open);
    open.waiting = { why, times: (open.waiting?.times ?? 0) + 1 };
    clearTimeout(notes.timer);
    notes.timer = setTimeout(() => this.take(open), wait_ms ?? backoff(open.waiting.times));
    notes.timer.unref();
  }

  /** A node told what it has: of jobs that are no longer at it, nothing may be left. Who waited for it goes on. */
  #registered(node: RegisteredNode, workers: WorkerInfo[]): void {
    const { open: jobs } = this.#powers.store;
    for (const { worker, lasting } of workers) {
      const job = lasting ? undefined : jobOf(worker);
      if (job === undefined || jobs.get(job)?.record.worker === worker) continue;
      void this.#destruct(node.info.node, worker, 'its job is no longer at it');
    }
    for (const open of jobs.values()) {
      const waited = this.#noted(open).away_since !== undefined && open.record.node === node.info.node;
      if (waited || this.#crowded.has(open)) this.#ready(open);
    }
    this.#pump();
  }

  /** Ends a worker. False where its node is away, or fails to say that nothing is left. */
  async #destruct(node: string | null, worker: string, reason: string): Promise<boolean> {
    const home = node === null ? undefined : this.#powers.registry.nodes.get(node);
    if (!home) return false;
    return home.rpc.destruct(worker, reason).then(
      () => true,
      () => false,
    );
  }

  /** One attempt, from wherever the job stands to its end or to its next wait. */
  async #run(open: Open): Promise<void> {
    if (open.record.state === 'running' && !(await this.#earlierIsOver(open))) return;
    const { store, connect } = this.#powers;
    const { job, method, timeout_ms, attempts } = open.record;
    const attempt = attempts + 1;
    const worker = workerOf(job, attempt);
    const present = (record: JobRecord) => record.state === 'running' && record.attempts === attempt;
    let step: Step = 'place';
    let session: Session | undefined;
    try {
      const params = JSON.parse(await beforeIt(store.texts.read(open.record.params)));
      await this.#place(open, worker, attempt);
      open.waiting = undefined;
      step = 'connect';
      session = await connect(worker);
      step = 'call';
      const value = await session.call(method, Array.isArray(params) ? params : [params], { timeout_ms });
      const json = JSON.stringify(value ?? null);
      await this.#record(open, async () => {
        const result = await store.texts.keep(json, true);
        let recorded = false;
        try {
          recorded = await store.move(open, (r) => (present(r) ? { state: 'done', result } : undefined));
        } finally {
          if (!recorded) store.texts.release(result);
        }
      });
    } catch (error) {
      const told = step === 'call' ? ownDeadline(error, method, timeout_ms) : error;
      await this.#failed(open, attempt, told, step, session?.open === false);
    } finally {
      session?.close();
      // One that goes on is ended before its next attempt.
      if (!this.#goesOn(open)) await this.#destruct(open.record.node, worker, 'its job is done with it');
    }
  }

  async #place(open: Open, worker: string, attempt: number): Promise<void> {
    const { store, swarm, now, event } = this.#powers;
    const { record } = open;
    const { job, owner } = record;
    const { labels, grants, secrets } = await beforeIt(store.rightsOf(record));
    const ttl_ms = record.timeout_ms + record.load_timeout_ms + TTL_SLACK_MS;
    await swarm.place(
      {
        job: {
          owner: record.owner,
          ...(await beforeIt(readCode(record, store.texts))),
          language: record.language,
          grants,
          ...(secrets ? { secrets } : {}),
          lease: { heartbeat_ms: LEASE.heartbeat_ms, lease_ms: LEASE.lease_ms },
          ttl_ms,
          load_timeout_ms: record.load_timeout_ms,
          ...(record.min_isolation === undefined ? {} : { min_isolation: record.min_isolation }),
          ...(record.cpu === undefined ? {} : { cpu: record.cpu }),
          ...(record.turn_ms === undefined ? {} : { turn_ms: record.turn_ms }),
        },
        driver: record.driver ?? undefined,
        labels,
        nodes: record.nodes,
        unread: record.unread,
        memory_mib: record.memory_mib ?? undefined,
      },
      {
        name: () => worker,
        chosen: async (_worker, { info: { node } }) => {
          const goes = await beforeIt(
            store.move(open, (r) => {
              const earlier = r.state === 'running' && r.attempts < attempt;
              const history = earlier ? withAttempt(r, now(), describe(this.#why(open))) : r.history;
              return { state: 'running', attempts: attempt, worker, node, history };
            }),
          );
          if (!goes) throw new JobEnded({ job, state: open.record.state });
          event('SPOOL_STARTED', { job, owner, attempt, worker, node });
          return {};
        },
      },
    );
  }

  /** What a failed attempt means for the job. */
  async #failed(open: Open, attempt: number, error: unknown, step: Step, cut: boolean): Promise<void> {
    if (!this.#goesOn(open)) return;
    const { store, event } = this.#powers;
    const { job, owner, method, max_attempts, retry_on_error } = open.record;
    const begun = open.record.attempts === attempt;
    const verdict = judge(error, step, cut);
    if (verdict === 'crowded' || error instanceof NotBegun) {
      // None of its code has run: the attempt does not count.
      if (begun)
        await this.#record(open, async () => {
          const back = { state: 'accepted', attempts: attempt - 1, worker: null, node: null } as const;
          if (await store.move(open, () => back))
            event('SPOOL_REQUEUED', { job, owner, attempt, why: describe(error) });
        });
      this.#crowded.add(open);
      return this.#aside(open, describe(error));
    }
    const again = !(error instanceof TextDamaged) && (verdict === 'interrupted' || retry_on_error);
    if (again && attempt < max_attempts) {
      event('SPOOL_INTERRUPTED', { job, owner, attempt, why: describe(error) });
      this.#noted(open).error = error;
      return this.#aside(open, describe(error), backoff(attempt));
    }
    const wire = verdict === 'interrupted' ? exhausted(method, error, attempt) : toWire(error);
    await this.#record(open, () => store.move(open, () => ({ state: 'failed', error: wire })));
  }

  /** Whether the next attempt may begin: the worker of the one before is ended, or its node has been away too long. */
  async #earlierIsOver(open: Open): Promise<boolean> {
    const { store, registry, elapsed = () => performance.now(), node_grace_ms } = this.#powers;
    const notes = this.#noted(open);
    const { attempts, max_attempts, worker, node, method } = open.record;
    if (attempts >= max_attempts) {
      const error = exhausted(method, this.#why(open), attempts);
      await this.#record(open, () => store.move(open, () => ({ state: 'failed', error })));
      await this.drop(open, 'its job has failed');
      return false;
    }
    if (worker === null || notes.over === attempts) return true;
    if (node !== null && !registry.nodes.has(node)) {
      notes.away_since ??= elapsed();
      const left = notes.away_since + node_grace_ms - elapsed();
      if (left > 0) {
        this.#aside(open, `the node of its attempt ${attempts}, ${node}, is away`, left);
        return false;
      }
    } else if (!(await this.#destruct(node, worker, 'its attempt was interrupted'))) {
      this.#aside(open, `${node} does not say that its attempt ${attempts} is over`);
      return false;
    }
    notes.away_since = undefined;
    notes.over = attempts;
    return this.#goesOn(open);
  }

  /** Why the last attempt came to nothing; of one that another process began nothing more is known than that. */
  #why(open: Open): unknown {
    const { method } = open.record;
    return this.#noted(open).error ?? new OutcomeUnknown({ method, why: 'the core was restarted' });
  }

  /** Writes until the disk takes it, or this process ends: what came of an attempt is not to be lost. */
  async #record(open: Open, write: () => Promise<unknown>): Promise<void> {
    for (let times = 1; this.#goesOn(open); times++) {
      try {
        await write();
        return;
      } catch (error) {
        this.#powers.event('STORAGE_FAILED', { job: open.record.job, why: describe(error) });
        await new Promise((resolve) => setTimeout(resolve, backoff(times)));
      }
    }
  }
}
