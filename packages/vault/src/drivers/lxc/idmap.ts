/**
 * Hands out disjoint ranges of user ids, one for each vault of this machine, also among several agents.
 *
 * A claim is a file whose name tells slot and owner (pid, its start time, a random part), so a file is only ever
 * removed by its owner, or by anybody once that owner is dead: no removal can hit another's claim. Who claims a slot
 * makes its file first and looks afterwards; if anyone else alive has a file for it too, it steps back. Of two who
 * claim at once at least one sees the other, so a range never has two owners.
 */
import { randomBytes, randomInt } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startTime } from '../proc-stat.ts';
import { IDMAP_BASE, IDMAP_SIZE, IDMAP_SLOTS, RUN_DIR } from './limits.ts';

export interface Claim {
  /** The first host id of the range. */
  base: number;
  size: number;
  release(): void;
}

export interface Held {
  container: string;
  alive: boolean;
  file: string;
}

const FILE = /^(\d+)\.(\d+)\.(\d+)\.[0-9a-f]+$/;

/** Claims a free range for `container`. Throws when the machine has none left. */
export function claimIds(container: string, dir = join(RUN_DIR, 'idmap')): Claim {
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  const owner = `${ownerOf(process.pid)}.${randomBytes(4).toString('hex')}`;
  const first = randomInt(IDMAP_SLOTS);
  for (let i = 0; i < IDMAP_SLOTS; i++) {
    const slot = (first + i) % IDMAP_SLOTS;
    const name = `${slot}.${owner}`;
    const path = join(dir, name);
    writeFileSync(path, container, { flag: 'wx', mode: 0o600 });
    if (!othersHold(dir, slot, name)) {
      return { base: IDMAP_BASE + slot * IDMAP_SIZE, size: IDMAP_SIZE, release: () => remove(path) };
    }
    remove(path);
  }
  throw new Error(`all ${IDMAP_SLOTS} id ranges of this machine are in use (see ${dir})`);
}

/** How a claim names its owner: pid and start time. */
export const ownerOf = (pid: number): string => `${pid}.${startTime(pid)}`;

/** All claims of containers whose name begins so, and whether their owners live. */
export function listClaims(prefix: string, dir = join(RUN_DIR, 'idmap')): Held[] {
  return names(dir).flatMap((name) => {
    const parsed = FILE.exec(name);
    if (!parsed) return [];
    const file = join(dir, name);
    try {
      const container = readFileSync(file, 'utf8');
      return container.startsWith(prefix) ? [{ container, alive: lives(parsed), file }] : [];
    } catch {
      return [];
    }
  });
}

/** Removes the claim of a dead owner. */
export function dropClaim(held: Held): void {
  if (!held.alive) remove(held.file);
}

function othersHold(dir: string, slot: number, mine: string): boolean {
  let held = false;
  for (const name of names(dir)) {
    if (name === mine || !name.startsWith(`${slot}.`)) continue;
    const parsed = FILE.exec(name);
    if (!parsed) continue;
    if (lives(parsed)) held = true;
    else remove(join(dir, name));
  }
  return held;
}

function lives(parsed: RegExpExecArray): boolean {
  return startTime(Number(parsed[2])) === Number(parsed[3]);
}

function names(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Gone already.
  }
}
