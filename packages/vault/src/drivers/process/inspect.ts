/** What the kernel tells of a vault's process, and what is still in its pipes. */
import type { ChildProcess } from 'node:child_process';
import { readlinkSync, writeFileSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { STATUS_FD } from './command.ts';

/** Node's types know of five only. */
export function stream(child: ChildProcess, fd: number): Readable {
  return (child.stdio as unknown as Readable[])[fd]!;
}

/** Whether bubblewrap has handed over to the program of the vault. */
export function executes(pid: number): boolean {
  if (process.platform !== 'linux') return true;
  try {
    return !/\/bwrap$/.test(readlinkSync(`/proc/${pid}/exe`));
  } catch {
    return false;
  }
}

export function shares(pid: number, kind: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/ns/${kind}`) === readlinkSync(`/proc/self/ns/${kind}`);
  } catch {
    return true;
  }
}

/** Waits for the pipes to close: what was written last is still in them. All writers are dead by now. */
export async function drained(child: ChildProcess | undefined): Promise<void> {
  if (!child) return;
  const streams = [child.stdout, child.stderr, stream(child, STATUS_FD)];
  const open = streams.filter((stream) => stream && !stream.closed && !stream.destroyed);
  const closed = Promise.all(open.map((stream) => new Promise((resolve) => stream!.once('close', resolve))));
  const timeout = new AbortController();
  await Promise.race([closed, sleep(50, undefined, { signal: timeout.signal }).catch(() => {})]);
  timeout.abort();
  for (const stream of open) stream!.destroy();
}

/** Where memory runs out the kernel ends it, not the one who started it. */
export function firstToGo(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, '1000');
  } catch {
    // There is no such thing here, or it has ended.
  }
}

/** Ends what the leader of a group of processes has left. */
export function endGroup(leader: number): void {
  try {
    process.kill(-leader, 'SIGKILL');
  } catch {
    // Nothing is left of it.
  }
}
