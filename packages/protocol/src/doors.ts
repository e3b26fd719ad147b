/** What the core's doors show of jobs, lasting workers and pointers: what it answers with, and what the SDK gives. */
import type { CodeInfo } from './control.ts';
import type { Cause } from './fate.ts';
import type { Grants } from './grants.ts';
import type { WireError } from './mesh-error.ts';

export const JOB_STATES = ['accepted', 'running', 'done', 'failed', 'cancelled'] as const;
export type JobState = (typeof JOB_STATES)[number];

/** An attempt at a job that came to nothing. */
export interface Attempt {
  attempt: number;
  node: string | null;
  /** Milliseconds since 1970. */
  ended_at: number;
  why: string;
}

/** A job as its owner sees it; its result stands beside it where the job is done and was asked for by itself. */
export interface JobDetails {
  job: string;
  owner: string;
  key: string | null;
  state: JobState;
  pointer: string | null;
  /** Which code that is, with what it imports by pointers: it was fixed when this was asked for. */
  code: CodeInfo | null;
  method: string;
  /** Begun so far. */
  attempts: number;
  max_attempts: number;
  worker: string | null;
  node: string | null;
  /** Why it does not run yet, where that is known. */
  why: string | null;
  /** The last attempts that came to nothing, newest last. */
  history: Attempt[];
  /** Milliseconds since 1970. */
  accepted_at: number;
  ended_at: number | null;
  error: WireError | null;
}

/** One end of a lasting worker. */
export interface Death {
  epoch: number;
  node: string | null;
  /** Milliseconds since 1970. */
  at: number;
  cause: Cause;
  reason: string;
  log_tail: string;
}

export type LastingState = 'running' | 'starting' | 'restarting' | 'crash_loop' | 'node_away' | 'waiting';

/** A lasting worker as its owner sees it. */
export interface LastingWorker {
  worker: string;
  owner: string;
  state: LastingState;
  /** Why it does not run, where it does not; or since when it is paused. */
  why: string | null;
  /** Milliseconds since 1970, where it is `running` and stands still. */
  paused_at?: number;
  node: string | null;
  /** Counts its starts. */
  epoch: number;
  driver: string | null;
  restarts: number;
  pointer: string | null;
  /** Which code that is, with what it imports by pointers: it was fixed when this was asked for. */
  code: CodeInfo | null;
  memory_mib: number | null;
  labels: Record<string, string>;
  grants: Grants;
  /** Milliseconds since 1970. */
  created_at: number;
  started_at: number;
  next_try_at: number | null;
  /** The last few, newest last. */
  deaths: Death[];
}

/** One write of a pointer, or its deletion. */
export interface FileVersion {
  /** Counts from 1, deletions included, without a gap. */
  version: number;
  /** SHA-256 of the content, in hex; empty for a deletion. */
  digest: string;
  bytes: number;
  media_type: string;
  language?: string;
  written_at: string;
  deleted?: true;
}

/** A private lasting folder as its owner sees it; of one whose node is away, only the name and the node are known. */
export interface VolumeDetails {
  owner: string;
  name: string;
  node: string;
  node_away: boolean;
  quota_mib: number | null;
  used_bytes: number | null;
  /** The worker that has it just now. */
  worker: string | null;
  /** Milliseconds since 1970. */
  created_at: number | null;
}
