/** How workers end and what is told of it; what they use while they live. */
import { isError } from './caller-errors.ts';
import { SourceRejected } from './errors.ts';

/**
 * Every way in which a worker can end. `orderly`: somebody wanted it so, or it had been agreed; the others are faults.
 * `docs/vaults.md` has this table.
 */
export const CAUSES = {
  destructed: { orderly: true, meaning: 'its owner or an admin ended it' },
  lease_expired: { orderly: true, meaning: 'nobody renewed its lease' },
  unresponsive: {
    orderly: false,
    meaning: 'it answered nobody when its lease ran out: its code never returned, so no heartbeat could pass it',
  },
  idle: { orderly: true, meaning: 'nobody called it for as long as its idle time-out' },
  max_life: { orderly: true, meaning: 'it lived as long as it was allowed to' },
  token_revoked: { orderly: true, meaning: 'the token that it was made with was revoked, with its workers' },
  parent_died: { orderly: true, meaning: 'the worker that had cloned it ended' },
  node_closed: { orderly: true, meaning: 'its node was shut down' },
  node_lost: { orderly: false, meaning: 'its node was started again without it, or is gone' },
  out_of_memory: { orderly: false, meaning: 'the kernel ended it at its limit, or its JavaScript heap was full' },
  misbehaved: {
    orderly: false,
    meaning: 'its code ran too long at a stretch, its runtime failed, or it flooded its gate or broke its rules',
  },
  exited: { orderly: false, meaning: 'it ended by itself, or with the process that held it' },
  killed: { orderly: false, meaning: 'its driver ended it, for a reason other than those above' },
  rejected: { orderly: false, meaning: 'its source was refused: it was never born' },
  vault_failed: { orderly: false, meaning: 'its vault could not be started: it was never born' },
} as const;

export type Cause = keyof typeof CAUSES;

export const isCause = (text: unknown): text is Cause => typeof text === 'string' && Object.hasOwn(CAUSES, text);

/** The cause of a birth that failed. */
export const causeOfFailure = (error: unknown): Cause => (isError(error, SourceRejected) ? 'rejected' : 'vault_failed');

/** `vault`: not said by the worker, but by what held it: its runtime, its container. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'vault';

/** One line of a worker's log. */
export interface LogLine {
  /** Counts the worker's lines from 1 without a gap; a reader that sees a gap has missed lines. */
  seq: number;
  /** Milliseconds since 1970. */
  at: number;
  level: LogLevel;
  /** Lines that belong to one are parted by newlines. */
  text: string;
}

/** The lines as a person reads them. */
export const logText = (lines: readonly LogLine[]): string =>
  lines.map(({ level, text }) => (level === 'vault' ? text : `${level} ${text}`)).join('\n');

/** What a worker has used. Null: not known. */
export interface Usage {
  /** CPU time since its start, all its threads together. */
  cpu_ms: number | null;
  /** Memory that it occupies; of a dead one what was last known. */
  memory_bytes: number | null;
  /** Calls that have reached it, on itself and on what it gave out by reference: the guest's own word. */
  calls: number | null;
  /** Lines that it has logged. */
  log_lines: number;
  /** Bodies that it was given by granted fetches. */
  fetched_bytes: number;
}

/** Why a worker is gone. */
export interface Fate {
  worker: string;
  owner: string;
  cause: Cause;
  /** For a person. */
  reason: string;
  /** Milliseconds since 1970. */
  at: number;
  /** The last that it said, oldest first, at most `LIMITS.log_tail_chars`. */
  lines: LogLine[];
  /** Which start of a lasting worker it was. */
  epoch?: number;
  node?: string;
  driver?: string;
  /** Milliseconds since 1970; left out where it was never born. */
  born_at?: number;
  /** As of its end. */
  usage?: Usage;
  /** What was seen of the vault's own end, where `reason` says something else. */
  exit?: string;
}
