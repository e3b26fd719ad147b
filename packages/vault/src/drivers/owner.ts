/**
 * Names of files and folders that tell whose they are: of a process, by its pid and its start time, and a random part.
 *
 * What always holds: a dead owner stays dead, since no later process has both its pid and its start time. So what a dead
 * owner left may be removed by anybody, at any time, by several at once, and nobody has to agree with anybody about it.
 */
import { randomBytes } from 'node:crypto';
import { startTime } from './proc-stat.ts';

/** How a process is named as an owner. */
export const ownerOf = (pid: number): string => `${pid}.${startTime(pid)}`;

/** A new name for something of this process's own. */
export const ownName = (): string => `${ownerOf(process.pid)}.${randomBytes(4).toString('hex')}`;

const NAME = /(\d+)\.(\d+)\.[0-9a-f]+$/;

/** Whether the process lives that a name from `ownName`, with anything before it, tells of; undefined for other names. */
export function ownerLives(name: string): boolean | undefined {
  const parsed = NAME.exec(name);
  return parsed ? startTime(Number(parsed[1])) === Number(parsed[2]) : undefined;
}
