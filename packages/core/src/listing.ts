/** Lists of MeshFS for tokens that do not reach all of it: only what they may read is told, nor is the rest hinted at. */
import { Forbidden, PointerInvalid, pointerGranted, reaches } from '@hauki/protocol';
import type { Principal } from './rights.ts';

interface Page<Entry> {
  entries: Entry[];
  next?: string;
}
interface Asked {
  limit?: number;
  after?: string;
}

/** Throws Forbidden unless the principal's pointers cover the prefix. */
export function demandPrefix({ targets }: Pick<Principal, 'targets'>, prefix: string): void {
  if (!/^gem-pointer:\/\//i.test(prefix))
    throw new PointerInvalid({ pointer: prefix, why: 'it does not begin with gem-pointer://' });
  const folder = prefix.endsWith('/') ? prefix : `${prefix}/`;
  if (!pointerGranted(targets.pointers, prefix) && !pointerGranted(targets.pointers, folder))
    throw new Forbidden({
      why: `This token does not reach all that begins with ${prefix}; it reaches ${targets.pointers.join(', ') || 'none'}`,
      target: prefix,
    });
}

/** A page of what the principal reaches below a prefix. Throws Forbidden unless its pointers cover the prefix. */
export async function listFor<Entry extends { pointer: string }>(
  { targets }: Principal,
  store: { list(prefix: string, page: Asked): Promise<Page<Entry>> },
  prefix: string,
  page: Asked,
): Promise<Page<Entry>> {
  demandPrefix({ targets }, prefix);
  let { entries, next } = await store.list(prefix, page);
  // `wiki/a` begins `wiki/ab` too, and the store folds letter case: others' pointers may be among them. A page ends at
  // one that may be told, since `next` names the last.
  for (;;) {
    const seen = entries.filter((entry) => reaches(targets.pointers, entry.pointer));
    if (next === undefined) return { entries: seen };
    if (seen.length > 0 && seen.at(-1) === entries.at(-1)) return { entries: seen, next };
    const more = await store.list(prefix, { ...page, after: next });
    entries = [...seen, ...more.entries];
    next = more.next;
  }
}
