/** What of a swarm is kept beside its data, for `swarm ls` and `swarm down`. Apart from the rest, which takes long to load. */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BadInput, describe } from '@hauki/protocol';
import { startTime } from '@hauki/vault/proc-stat';

export interface SwarmKernel {
  kernel: string;
  /** Of the kernel's process, on the host. */
  pid: number;
}

export interface SwarmState {
  pid: number;
  /** When that process began, in the kernel's ticks: a pid alone may be somebody else's later. */
  began: number;
  irc: string | null;
  kernels: SwarmKernel[];
}

/** Where the files of a data folder's swarm are. */
export const swarmDir = (data_dir: string): string => join(data_dir, 'swarm');
const stateFile = (data_dir: string): string => join(data_dir, 'swarm.json');

/** Keeps what this process's swarm is. */
export function writeState(data_dir: string, irc: string | null, kernels: SwarmKernel[]): void {
  const state: SwarmState = { pid: process.pid, began: startTime(process.pid), irc, kernels };
  const file = stateFile(data_dir);
  writeFileSync(`${file}.tmp`, JSON.stringify(state), { mode: 0o600, flush: true });
  renameSync(`${file}.tmp`, file);
}

/** Whether the swarm's process lives. */
export const runs = ({ pid, began }: SwarmState): boolean => startTime(pid) === began;

/** The swarm of a data folder, if there is one; `lives`: its process does. Throws BadInput where that cannot be read. */
export function stateOf(data_dir: string): (SwarmState & { lives: boolean }) | undefined {
  const file = stateFile(data_dir);
  try {
    const state = JSON.parse(readFileSync(file, 'utf8')) as SwarmState;
    if (!Array.isArray(state.kernels)) throw new Error('it names no kernels');
    return { ...state, lives: runs(state) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    const why = `it cannot be read (${describe(error)}), so whether a swarm runs is not known. End \`hauki swarm up\` if it does; then remove this file`;
    throw new BadInput({ what: file, why });
  }
}

/** Removes what a swarm has left; its sandboxes have ended with its process. */
export function clear(data_dir: string): void {
  rmSync(swarmDir(data_dir), { recursive: true, force: true });
  rmSync(stateFile(data_dir), { force: true });
}
