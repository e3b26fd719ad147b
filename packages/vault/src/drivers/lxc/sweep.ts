/**
 * Ends what is left of containers whose agent is dead: processes, by their cgroups and by their command lines, and the
 * cgroups themselves. A process that was starting when its agent died may make a cgroup after it was looked for: so it is
 * looked for both again and again until there is neither.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { list, read } from '../files.ts';
import { type Cgroups, sigkill } from './cgroups.ts';
import { dropClaim, type Held } from './idmap.ts';
import { END_POLL_MS, END_TIMEOUT_MS } from './limits.ts';

/** What starts containers: only a process that has one of these as an argument too is taken for a container's. */
export const STARTERS = ['/usr/bin/lxc-start', '/usr/bin/bwrap'];

/**
 * Ends the containers. Of those of which nothing runs any more `forget` removes the files; then the claims of the dead are
 * dropped, by which a sweep that is cut short is done again.
 */
export async function endDead(
  names: ReadonlySet<string>,
  claims: readonly Held[],
  cgroups: Cgroups,
  forget: (name: string) => void,
  log: (message: string, fields?: object) => void = () => {},
): Promise<void> {
  const left = await endContainers(names, cgroups);
  for (const [name, what] of left) log(`${name} could not be ended`, { what });
  for (const name of names) if (!left.has(name)) forget(name);
  for (const claim of claims) if (!left.has(claim.container)) dropClaim(claim);
}

/** Resolves with those of which something is left after all, in words. */
async function endContainers(names: Iterable<string>, cgroups: Cgroups): Promise<Map<string, string[]>> {
  const left = new Map<string, string[]>([...names].map((name) => [name, []]));
  const until = performance.now() + END_TIMEOUT_MS;
  while (left.size > 0) {
    const running = processesNamed(left);
    for (const name of [...left.keys()]) {
      const pids = running.get(name) ?? [];
      for (const pid of pids) sigkill(pid);
      cgroups.kill(name);
      if (cgroups.remove(name) && pids.length === 0) left.delete(name);
      else left.set(name, [...pids.map((pid) => `process ${pid}`), ...cgroups.folders(name)]);
    }
    if (performance.now() > until) break;
    if (left.size > 0) await sleep(END_POLL_MS);
  }
  return left;
}

/** Living processes that start one of the containers or watch it, by its name, which is an argument of theirs. */
function processesNamed(names: ReadonlyMap<string, unknown>): Map<string, number[]> {
  const found = new Map<string, number[]>();
  for (const pid of list('/proc').map(Number).filter(Number.isInteger)) {
    const args = read(`/proc/${pid}/cmdline`)?.split('\0') ?? [];
    const name = args.find((arg) => names.has(arg));
    if (!STARTERS.some((starter) => args.includes(starter))) continue;
    if (name !== undefined) found.set(name, [...(found.get(name) ?? []), pid]);
  }
  return found;
}
