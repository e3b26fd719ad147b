/**
 * What the mesh remembers of a lasting worker, and what people are shown of it. Pure: no clock, no store.
 */
import type { CodeInfo, Death, Grants, IsolationLevel, Language, LastingState, LastingWorker } from '@hauki/protocol';
import { LEASE, LIMITS } from '@hauki/protocol';
import { readCode } from '../modules.ts';
import type { Order } from '../swarm.ts';
import type { Kept, Texts } from '../texts.ts';

export interface LastingRecord {
  worker: string;
  owner: string;
  /** `starting`: an epoch was spent, its worker may live. `deleted`: only its epoch is remembered. */
  state: 'starting' | 'running' | 'restarting' | 'deleted';
  /** Whether whoever asked for it may have heard of it; if not, nobody wants it after a crash. */
  confirmed: boolean;
  /** What was asked for; the source as it was then. */
  pointer: string | null;
  source: Kept;
  language: Language;
  /** What it imports by pointers, as that was then: JSON. */
  modules?: Kept | null | undefined;
  code?: CodeInfo | null | undefined;
  /** Before the first start what was asked for, then what it got: it is never started with another. */
  driver: string | null;
  labels: Record<string, string>;
  /** Nodes that its owner may use; `*` for all. */
  nodes: string[];
  /** As an order's. */
  unread?: boolean | undefined;
  memory_mib: number | null;
  /** Left out in records of older cores. A driver that was not asked for by name stays one that isolates. */
  min_isolation?: IsolationLevel | undefined;
  cpu?: number | undefined;
  turn_ms?: number | undefined;
  grants: Grants;
  /** Values of its secrets, kept because it is started again; never in a view. */
  secrets?: Record<string, string> | undefined;
  load_timeout_ms: number;
  /** Starts so far. The one under way, or running, is the last. */
  epoch: number;
  node: string | null;
  /** Ends in a row that came before it was stable. */
  failures: number;
  deaths: Death[];
  /** Milliseconds since 1970; 0: not at all. */
  created_at: number;
  started_at: number;
  next_try_at: number;
  deleted_at: number;
}

/** What is settled when a lasting worker is asked for. */
type Asked = Omit<
  LastingRecord,
  'state' | 'confirmed' | 'node' | 'failures' | 'deaths' | 'started_at' | 'next_try_at' | 'deleted_at'
>;

/** A record before the first start. */
export function newRecord(asked: Asked): LastingRecord {
  const none = { started_at: 0, next_try_at: 0, deleted_at: 0 };
  return { ...asked, ...none, state: 'restarting', confirmed: false, node: null, failures: 0, deaths: [] };
}

/** What the swarm is asked for when the worker is started. The lease is only what its tickets show. */
export async function orderOf(record: LastingRecord, texts: Texts): Promise<Order> {
  const { owner, language, grants, secrets, min_isolation, cpu, turn_ms, load_timeout_ms, labels, nodes } = record;
  const lease = { heartbeat_ms: LEASE.heartbeat_ms, lease_ms: LEASE.lease_ms };
  const code = await readCode(record, texts);
  return {
    job: {
      ...{ ...code, owner, language, grants, lease, ttl_ms: 0, load_timeout_ms, lasting: true },
      ...(secrets ? { secrets } : {}),
      ...(min_isolation === undefined ? {} : { min_isolation }),
      ...(cpu === undefined ? {} : { cpu }),
      ...(turn_ms === undefined ? {} : { turn_ms }),
    },
    driver: record.driver ?? undefined,
    labels,
    nodes,
    unread: record.unread,
    memory_mib: record.memory_mib ?? undefined,
  };
}

export interface RestartTerms {
  /** The first wait, doubled with each failure in a row up to `most_ms`. */
  first_ms: number;
  most_ms: number;
  /** Whoever lived so long has not failed. */
  stable_ms: number;
}

export const RESTART: RestartTerms = { first_ms: 500, most_ms: 60_000, stable_ms: 60_000 };
/** From so many failures in a row on it is said to crash in a loop. */
export const CRASH_LOOP = 5;

/** Causes that are not the worker's own doing: it is started again at once, and has not failed. */
const BLAMELESS = new Set(['node_lost', 'node_closed']);

/** The record after an end, with the time of the next start. */
export function afterDeath(record: LastingRecord, death: Death, terms: RestartTerms = RESTART): LastingRecord {
  const stable = record.state === 'running' && death.at - record.started_at >= terms.stable_ms;
  const blameless = BLAMELESS.has(death.cause);
  const failures = blameless ? (stable ? 0 : record.failures) : (stable ? 0 : record.failures) + 1;
  const wait_ms = blameless ? 0 : Math.min(terms.first_ms * 2 ** Math.min(failures - 1, 30), terms.most_ms);
  return {
    ...record,
    state: 'restarting',
    failures,
    deaths: [...record.deaths, death].slice(-LIMITS.lasting_deaths),
    next_try_at: death.at + wait_ms,
  };
}

/**
 * What is shown of a record. `home_is_there`: whether its node is registered; `waiting`: why no node can take it;
 * `paused_at`: of a worker that is paused.
 */
export function viewOf(
  record: LastingRecord,
  home_is_there: boolean,
  waiting?: string,
  paused_at?: number,
): LastingWorker {
  const { worker, owner, pointer, code = null, node, epoch, driver, memory_mib, labels, grants, deaths } = record;
  const { created_at, started_at, next_try_at } = record;
  const last = deaths.at(-1);
  let state: LastingState = record.state === 'deleted' ? 'restarting' : record.state;
  if (state === 'restarting' && record.failures >= CRASH_LOOP) state = 'crash_loop';
  else if (waiting !== undefined) state = 'waiting';
  else if (node !== null && !home_is_there) state = 'node_away';
  const reasons: Partial<Record<LastingState, string | null>> = {
    running: paused_at === undefined ? null : `it is paused since ${new Date(paused_at).toISOString()}`,
    waiting: waiting ?? null,
    node_away: `its node ${node} is away`,
  };
  const why = state in reasons ? reasons[state]! : (last?.reason ?? null);
  return {
    worker,
    owner,
    state,
    why,
    ...(state === 'running' && paused_at !== undefined ? { paused_at } : {}),
    node,
    epoch,
    driver,
    restarts: Math.max(0, epoch - 1),
    pointer,
    code,
    memory_mib,
    labels,
    grants,
    created_at,
    started_at,
    next_try_at: state === 'restarting' || state === 'crash_loop' ? next_try_at : null,
    deaths,
  };
}
