/**
 * The spool on disk, and what of it stands in memory: the jobs that have not ended, and when the others did.
 *
 * What always holds: a change of a job is on disk when `move` resolves, made by compare-and-set, one after the other;
 * an end is final. Sources, parameters and rights are held until their job ends, results until it is forgotten.
 */
import { createHash } from 'node:crypto';
import { CompareFailed, entriesOf, type KeyValue } from '@hauki/backplane';
import { type JobState, KeyReused, LIMITS, NO_GRANTS } from '@hauki/protocol';
import { type Damaged, type RecordShape, readRecord, recordsOf } from '../records.ts';
import { type Kept, Texts } from '../texts.ts';
import { ENDED, type JobRecord, type JobRights } from './record.ts';

/** A job that has not ended. */
export interface Open {
  record: JobRecord;
  revision: number;
  /** Changes of its state follow each other. */
  turn: Promise<unknown>;
  /** Who waits for its end. */
  waiters: Set<() => void>;
  /** Why it does not run just now, and how often in a row; the runner's. */
  waiting?: { why: string; times: number } | undefined;
}

export interface StorePowers {
  kv: KeyValue;
  now(): number;
  /** The same, for what is old: never ahead. */
  steady?: (() => number) | undefined;
  /** A job has ended, and that is on disk. */
  ended(open: Open): void;
  /** Something could not be removed; it is tried again at the next start. */
  failed(job: string, error: unknown): void;
  /** Told of each job whose record is damaged. */
  damaged?: Damaged | undefined;
  /** How many that have ended are kept, and for how long. */
  kept: { jobs: number; ms: number };
}

const JOB = 'job/';
const SHAPE: RecordShape<JobRecord> = {
  keyOf: ({ job }) => JOB + job,
  needs: ['owner', 'key', 'state', 'source', 'params', 'method', 'attempts', 'history'],
};
const KEY = 'key/';
/** A filter that little passes must not read the whole store in one request. */
const PAGES = 5;

/** Where a key of this owner's is kept. */
export const keyName = (owner: string, key: string): string =>
  `${KEY}${createHash('sha256')
    .update(JSON.stringify([owner, key]))
    .digest('hex')}`;

export class SpoolStore {
  readonly texts: Texts;
  /** Jobs that have not ended. */
  readonly open = new Map<string, Open>();
  readonly #powers: StorePowers;
  /** Ended ones, oldest first. */
  readonly #ended = new Map<string, { ended_at: number; key: string | undefined; result: Kept | null }>();

  constructor(powers: StorePowers) {
    this.#powers = powers;
    this.texts = new Texts(powers.kv, LIMITS.spool_bytes);
  }

  /** Reads everything, and removes what crashes left without an owner. Resolves with the open jobs, oldest first. */
  async load(): Promise<Open[]> {
    const ended: JobRecord[] = [];
    const held: Kept[] = [];
    const { kv, failed, damaged } = this.#powers;
    const left_out = new Set<string>();
    for await (const { record, revision } of recordsOf(kv, JOB, SHAPE, damaged, left_out)) {
      if (!ENDED.has(record.state)) {
        this.open.set(record.job, { record, revision, turn: Promise.resolve(), waiters: new Set() });
        for (const text of [record.source, record.params, record.modules, record.rights]) if (text) held.push(text);
      } else {
        ended.push(record);
        if (record.result) held.push(record.result);
      }
    }
    for (const record of ended.sort((a, b) => a.ended_at - b.ended_at)) this.#remember(record);
    // Keys of acceptances that a crash cut short.
    const lost: string[] = [];
    for await (const { key, value } of entriesOf(kv, KEY))
      if (!this.open.has(value) && !this.#ended.has(value) && !left_out.has(JOB + value)) lost.push(key);
    await Promise.all(lost.map((key) => kv.delete(key).catch((error) => failed(key, error))));
    await this.texts.open(held, left_out.size === 0);
    return [...this.open.values()].sort((a, b) => a.record.accepted_at - b.record.accepted_at);
  }

  async read(job: string): Promise<JobRecord | undefined> {
    const open = this.open.get(job);
    if (open) return open.record;
    const found = await this.#powers.kv.get(JOB + job);
    return found && readRecord(JOB + job, found.value, SHAPE);
  }

  /** What a job that has not ended may do, and where. */
  async rightsOf({ rights, labels = {}, grants = NO_GRANTS, secrets }: JobRecord): Promise<JobRights> {
    return rights ? (JSON.parse(await this.texts.read(rights)) as JobRights) : { labels, grants, secrets };
  }

  /** The id that the key is bound to; undefined where it is not. */
  async keyed(key_name: string): Promise<string | undefined> {
    return (await this.#powers.kv.get(key_name))?.value;
  }

  /** The record of an earlier request under this key, if it came to one. Throws KeyReused where that was another. */
  async same(job: string, request: string, key: string): Promise<JobRecord | undefined> {
    const record = await this.read(job);
    if (record && record.request !== request) throw new KeyReused({ key, job });
    return record;
  }

  /** Binds the key to the job; resolves with the job that it is bound to. */
  async bind(key_name: string, job: string): Promise<string> {
    try {
      await this.#powers.kv.put(key_name, job, { expect: 'absent' });
      return job;
    } catch (error) {
      if (!(error instanceof CompareFailed)) throw error;
      return (await this.keyed(key_name)) ?? this.bind(key_name, job);
    }
  }

  /** A new job, on disk when it resolves; undefined where there is one of this id. Its texts must be held. */
  async add(record: JobRecord): Promise<Open | undefined> {
    try {
      const revision = await this.#powers.kv.put(JOB + record.job, JSON.stringify(record), { expect: 'absent' });
      const open: Open = { record, revision, turn: Promise.resolve(), waiters: new Set() };
      this.open.set(record.job, open);
      return open;
    } catch (error) {
      if (error instanceof CompareFailed) return undefined;
      throw error;
    }
  }

  /** Changes a job that has not ended; false when it has, or when `change` wants nothing. */
  move(open: Open, change: (record: JobRecord) => Partial<JobRecord> | undefined): Promise<boolean> {
    const work = async () => {
      const wanted = ENDED.has(open.record.state) ? undefined : change(open.record);
      if (!wanted) return false;
      const ends = wanted.state !== undefined && ENDED.has(wanted.state);
      const over = () => ({ ended_at: this.#powers.now(), secrets: undefined, rights: undefined });
      const next = { ...open.record, ...wanted, ...(ends ? over() : {}) };
      const { revision: expect, record: before } = open;
      try {
        open.revision = await this.#powers.kv.put(JOB + next.job, JSON.stringify(next), { expect });
      } catch (error) {
        // A write that was thought to have failed had not: what is on disk is true, and decides.
        const found = error instanceof CompareFailed ? await this.#powers.kv.get(JOB + next.job) : undefined;
        if (!found) throw error;
        Object.assign(open, { record: JSON.parse(found.value), revision: found.revision });
        if (!ENDED.has(open.record.state)) throw error;
        this.#end(open, before);
        return false;
      }
      open.record = next;
      if (ends) this.#end(open, before);
      return true;
    };
    const mine = open.turn.then(work);
    open.turn = mine.catch(() => {});
    return mine;
  }

  /** A page of jobs that pass, newest first. `next` is the following `after`. */
  async list(
    passes: (record: JobRecord) => boolean,
    { after, limit }: { after?: string | undefined; limit: number },
  ): Promise<{ records: JobRecord[]; next?: string }> {
    const records: JobRecord[] = [];
    let from = after === undefined ? '' : JOB + after;
    for (let pages = 0; pages < PAGES; pages++) {
      const page = await this.#powers.kv.list(JOB, { after: from });
      for (const { key, value } of page.entries) {
        const record = readable(key, value);
        if (record && passes(record)) {
          if (records.length === limit) return { records, next: records.at(-1)!.job };
          records.push(record);
        }
        from = key;
      }
      if (page.next === undefined) return { records };
    }
    return { records, next: from.slice(JOB.length) };
  }

  /** Forgets the oldest that have ended: by age, by number, and where texts take too much room. */
  sweep(): void {
    const { kept, now, steady = now, kv, failed } = this.#powers;
    for (const [job, { ended_at, key, result }] of this.#ended) {
      const many = this.#ended.size > kept.jobs || this.texts.chars > LIMITS.spool_bytes;
      if (!many && ended_at >= steady() - kept.ms) return;
      this.#ended.delete(job);
      this.texts.release(result ?? undefined);
      for (const gone of [JOB + job, key]) if (gone !== undefined) kv.delete(gone).catch((error) => failed(job, error));
    }
  }

  #end(open: Open, { job, source, modules, params, rights }: JobRecord): void {
    this.open.delete(job);
    this.#remember(open.record);
    this.texts.release(source, modules, params, rights);
    this.#powers.ended(open);
    for (const wake of open.waiters) wake();
    this.sweep();
  }

  #remember({ job, owner, key, ended_at, result }: JobRecord): void {
    this.#ended.set(job, { ended_at, key: key === null ? undefined : keyName(owner, key), result });
  }
}

/** Undefined where the record is damaged, which was told at the start. */
function readable(key: string, value: string): JobRecord | undefined {
  try {
    return readRecord(key, value, SHAPE);
  } catch {
    return undefined;
  }
}

/** Narrows a list to one state. */
export const inState = (state: JobState | undefined) => (record: JobRecord) =>
  state === undefined || record.state === state;
