/**
 * Hands out disjoint ranges of user ids, one for each vault of this machine, also among several agents.
 *
 * A claim is a file whose name tells slot and owner (`owner.ts`), so a file is only ever removed by its owner, or by
 * anybody once that owner is dead: no removal can hit another's claim. Who claims a slot makes its file first and looks
 * afterwards; if anyone else alive has a file for it too, it steps back. Of two who claim at once at least one sees the
 * other, so a range never has two owners.
 */
import { randomInt } from 'node:crypto';
import { mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { list } from '../files.ts';
import { ownerLives, ownName } from '../owner.ts';
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

/** Claims a free range for `container`. Throws when the machine has none left. */
export function claimIds(container: string, dir = join(RUN_DIR, 'idmap')): Claim {
  mkdirSync(dir, { recursive: true, mode: 0o755 });
  const owner = ownName();
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

/** All claims of containers whose name begins so, and whether their owners live. */
export function listClaims(prefix: string, dir = join(RUN_DIR, 'idmap')): Held[] {
  return list(dir).flatMap((name) => {
    const alive = ownerLives(name);
    if (alive === undefined) return [];
    const file = join(dir, name);
    try {
      const container = readFileSync(file, 'utf8');
      // Its owner died before it had written it: there is no container yet.
      if (container === '' && !alive) remove(file);
      return container.startsWith(prefix) ? [{ container, alive, file }] : [];
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
  for (const name of list(dir)) {
    if (name === mine || !name.startsWith(`${slot}.`)) continue;
    const alive = ownerLives(name);
    if (alive) held = true;
    else if (alive === false) remove(join(dir, name));
  }
  return held;
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Gone already.
  }
}
