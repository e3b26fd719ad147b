/** Who can be killed: every process of a system by its kind, read from /proc, and what the survivors take. */
import { readdirSync, readFileSync } from 'node:fs';
import { ownerOf } from '../../packages/vault/src/drivers/owner.ts';

export type Kind =
  | 'core'
  | 'agent'
  | 'kernel'
  | 'caller'
  | 'vault host'
  | 'gate host'
  | 'launcher'
  | 'reaper'
  | 'vault';

/** Those that the soak itself starts again. */
export const PARTS: readonly Kind[] = ['core', 'agent', 'kernel', 'caller'];

const KINDS: [Kind, RegExp][] = [
  ['core', /packages\/core\/src\/main\.ts/],
  ['agent', /packages\/node\/src\/main\.ts/],
  ['kernel', /packages\/microkernel\/src\/main\.ts/],
  ['caller', /chaos-caller\.ts/],
  ['reaper', /hauki-reaper/],
  ['vault host', /drivers\/quickjs\/host\./],
  ['gate host', /gates\/host\./],
  ['launcher', /lxc-start|setpriv|\/bin\/sh/],
];

export interface Victim {
  pid: number;
  /** Its pid and its start time. */
  owner: string;
  kind: Kind;
  command: string;
}

/** All processes below `root`, and reapers of any of `owners`. */
export function victims(root: number, owners: ReadonlySet<string>): Victim[] {
  const all = new Map<number, { parent: number; command: string }>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ');
      if (state !== 'Z' && command !== '') all.set(Number(name), { parent: Number(parent), command });
    } catch {
      // Gone meanwhile.
    }
  }
  const below = (pid: number): boolean => {
    for (let at = all.get(pid); at; at = all.get(at.parent)) if (at.parent === root) return true;
    return false;
  };
  return [...all].flatMap(([pid, { command }]) => {
    const kind = KINDS.find(([, pattern]) => pattern.test(command))?.[0] ?? 'vault';
    const ours = below(pid) || (kind === 'reaper' && [...owners].some((owner) => command.includes(` ${owner} `)));
    return ours ? [{ pid, owner: ownerOf(pid), kind, command }] : [];
  });
}

/** Resident memory in MiB, and open descriptors. */
export function takes(pid: number): { rss_mib: number; descriptors: number } {
  const rss = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  return { rss_mib: Math.round(rss / 1024), descriptors: readdirSync(`/proc/${pid}/fd`).length };
}
