/**
 * A job of the spool: what is kept of it, what its owner is shown, and what an attempt's failure means. Pure: no clock,
 * no store, so that the rules can be tested by themselves.
 */
import {
  type Attempt,
  type CodeInfo,
  ConnectionLost,
  DeadlineExceeded,
  type Grants,
  type IsolationLevel,
  isError,
  type JobDetails,
  type JobState,
  type Language,
  type MeshError,
  NoNodeFits,
  OutcomeUnknown,
  Overloaded,
  QuotaExceeded,
  SourceRejected,
  toWire,
  VaultFailed,
  type WireError,
  WorkerDied,
} from '@hauki/protocol';
import { type Kept, TextDamaged } from '../texts.ts';

export const ENDED: ReadonlySet<JobState> = new Set(['done', 'failed', 'cancelled']);

/** What a job may be large in beside its code: never in a view, and not in memory while it waits. */
export interface JobRights {
  labels: Record<string, string>;
  grants: Grants;
  /** Values of its secrets. */
  secrets?: Record<string, string> | undefined;
}

export interface JobRecord {
  job: string;
  owner: string;
  key: string | null;
  /** SHA-256 of the request, to tell a repetition from another request under the same key. */
  request: string;
  state: JobState;
  pointer: string | null;
  /** The source as it was when the job was accepted; held until the job ends, as the parameters are. */
  source: Kept;
  language: Language;
  /** What it imports by pointers, as that was then: JSON. */
  modules?: Kept | undefined;
  code?: CodeInfo | undefined;
  method: string;
  /** JSON. */
  params: Kept;
  driver: string | null;
  /** JSON of `JobRights`, until it ends. Records of older cores have them in place. */
  rights?: Kept | undefined;
  labels?: Record<string, string>;
  /** Nodes that its owner may use; `*` for all. */
  nodes: string[];
  /** As an order's. */
  unread?: boolean | undefined;
  memory_mib: number | null;
  /** Left out in records of older cores. */
  min_isolation?: IsolationLevel | undefined;
  cpu?: number | undefined;
  turn_ms?: number | undefined;
  grants?: Grants;
  secrets?: Record<string, string> | undefined;
  timeout_ms: number;
  load_timeout_ms: number;
  max_attempts: number;
  retry_on_error: boolean;
  /** Attempts begun. While the job is `running`, `worker` on `node` is the last one's. */
  attempts: number;
  worker: string | null;
  node: string | null;
  /** The last attempts that came to nothing, newest last. */
  history: Attempt[];
  /** Milliseconds since 1970; 0: not yet. */
  accepted_at: number;
  ended_at: number;
  /** JSON; of a job that is done. */
  result: Kept | null;
  /** Of a job that has failed. */
  error: WireError | null;
}

export function viewOf(record: JobRecord, why: string | null = null): JobDetails {
  const { job, owner, key, state, pointer, code = null, method, attempts, max_attempts, worker } = record;
  const { node, history } = record;
  const { accepted_at, ended_at, error } = record;
  const shown = { job, owner, key, state, pointer, code, method, attempts, max_attempts, worker, node, why, history };
  return { ...shown, accepted_at, ended_at: ended_at || null, error };
}

/** Attempts that are remembered of one job. */
const HISTORY = 10;

/** The history with one more attempt that came to nothing. */
export const withAttempt = (record: JobRecord, ended_at: number, why: string): Attempt[] =>
  [...record.history, { attempt: record.attempts, node: record.node, ended_at, why: why.slice(0, 500) }].slice(
    -HISTORY,
  );

/** At which step an attempt failed: finding a place and loading, connecting to the worker, or the call itself. */
export type Step = 'place' | 'connect' | 'call';

/**
 * What a failure means. `crowded`: no code of the job has run, and the attempt does not count. `interrupted`: it may
 * have run, and it was not its own fault. `own`: the job's code, or its time, failed.
 */
export type Verdict = 'crowded' | 'interrupted' | 'own';

/** Ends of a vault that would only come again. */
const OWN_DEATHS = new Set(['out_of_memory', 'misbehaved']);

const CROWDED = [NoNodeFits, Overloaded, ConnectionLost, QuotaExceeded];

/** `cut`: whether the connection to the worker was over by then, so that the error is no answer of the worker's. */
export function judge(error: unknown, step: Step, cut: boolean): Verdict {
  if (error instanceof TextDamaged) return 'own';
  if (isError(error, WorkerDied) && OWN_DEATHS.has(error.fields.cause)) return 'own';
  if (step === 'place') {
    if (CROWDED.some((kind) => isError(error, kind as typeof NoNodeFits))) return 'crowded';
    return isError(error, SourceRejected) ? 'own' : 'interrupted';
  }
  if (step === 'connect') return 'interrupted';
  const lost = isError(error, OutcomeUnknown) || isError(error, ConnectionLost) || isError(error, WorkerDied);
  return cut && lost ? 'interrupted' : 'own';
}

/** The error with which a job ends whose last attempt was interrupted. */
export function exhausted(method: string, error: unknown, attempts: number): WireError {
  // Then none of its code has run, which is better known than unknown.
  if (isError(error, VaultFailed)) return toWire(error);
  const times =
    attempts === 1 ? 'its only attempt was interrupted' : `each of its ${attempts} attempts was interrupted`;
  return toWire(new OutcomeUnknown({ method, why: `${times}: ${(error as Error).message}` }) as MeshError);
}

/** The deadline of a call by the words of the job, where the call's own was exceeded: its code may pass on others. */
export const ownDeadline = (error: unknown, method: string, timeout_ms: number): unknown =>
  isError(error, DeadlineExceeded) && error.fields.timeout_ms === timeout_ms
    ? new DeadlineExceeded({ what: `${method}()`, timeout_ms, may_have_run: true })
    : error;

const WORKER = /^s-([a-z0-9]+)-\d+$/;

/** The worker of one attempt. */
export const workerOf = (job: string, attempt: number): string => `s-${job.slice(2)}-${attempt}`;

/** The job that a worker's name belongs to; undefined for all other workers. */
export function jobOf(worker: string): string | undefined {
  const id = WORKER.exec(worker)?.[1];
  return id === undefined ? undefined : `j-${id}`;
}

/** A job's id: of two the later sorts first, so that a list begins with the newest. */
export function newJobId(now: number, random: string): string {
  const left = (36 ** 9 - 1 - now).toString(36).padStart(9, '0');
  return `j-${left}${random}`;
}
