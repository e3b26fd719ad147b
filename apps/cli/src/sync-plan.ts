/**
 * What a sync has to do, from three pictures: the folder now, the mesh now, and both as they were after the last sync.
 *
 * What always holds: nothing that changed on the side which would be overwritten is overwritten; what was never synced
 * is never deleted. Whoever forces a direction gets it, and the mesh's history still has what was there.
 */

export interface There {
  digest: string;
  version: number;
}

export type Action =
  | { kind: 'push'; path: string; over: number | undefined }
  | { kind: 'pull'; path: string }
  | { kind: 'delete_there'; path: string; over: number }
  | { kind: 'delete_here'; path: string }
  | { kind: 'conflict'; path: string; why: string }
  /** On the other side alone, and none of this direction's business. */
  | { kind: 'ignored'; path: string }
  /** `base`: what is known to be the same on both sides; undefined where neither has it. */
  | { kind: 'same'; path: string; base: There | undefined };

export interface Pictures {
  here: ReadonlyMap<string, { digest: string }>;
  there: ReadonlyMap<string, There>;
  base: ReadonlyMap<string, { digest: string }>;
}

/**
 * Pointers that a pull cannot write, and why: MeshFS has pointers below pointers, a folder nothing below a file. What is
 * a file here already stays one; of the others those stay that the deepest pointers need as folders.
 */
function impossible(here: ReadonlyMap<string, unknown>, there: ReadonlyMap<string, unknown>): Map<string, string> {
  const found = new Map<string, string>();
  for (const path of there.keys())
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
      const above = path.slice(0, end);
      if (!there.has(above)) continue;
      if (here.has(above)) found.set(path, `${above} is a file here, so that nothing can be below it`);
      else found.set(above, `there is ${path} too, so that it would have to be file and folder at once`);
    }
  return found;
}

/** What to do for each path, in the order of their names. */
export function plan(
  { here, there, base }: Pictures,
  direction: 'push' | 'pull',
  { force = false }: { force?: boolean } = {},
): Action[] {
  const paths = [...new Set([...here.keys(), ...there.keys(), ...base.keys()])].sort();
  const never = direction === 'pull' ? impossible(here, there) : undefined;
  return paths.map((path): Action => {
    const [local, remote, was] = [here.get(path)?.digest, there.get(path), base.get(path)?.digest];
    if (local === remote?.digest) return { kind: 'same', path, base: remote };
    const moved_here = local !== was;
    const moved_there = remote?.digest !== was;
    const push = (): Action =>
      local !== undefined
        ? { kind: 'push', path, over: remote?.version }
        : { kind: 'delete_there', path, over: remote!.version };
    const pull = (): Action => (remote === undefined ? { kind: 'delete_here', path } : { kind: 'pull', path });
    const conflict = (why: string): Action => ({ kind: 'conflict', path, why });
    const why_never = never?.get(path);
    if (why_never !== undefined) return conflict(why_never);
    if (direction === 'push') {
      if (!moved_there) return push();
      if (was === undefined && local === undefined) return { kind: 'ignored', path };
      if (force) return push();
      if (moved_here)
        return conflict(was === undefined ? 'it differs there, and was never synced' : both(local, remote));
      return conflict(remote ? 'it was changed there; pull it first' : 'it was deleted there; pull that first');
    }
    if (!moved_here) return pull();
    if (was === undefined && remote === undefined) return { kind: 'ignored', path };
    if (force) return pull();
    if (moved_there) return conflict(was === undefined ? 'it differs here, and was never synced' : both(local, remote));
    return conflict(
      local === undefined ? 'it was deleted here; push that first' : 'it was changed here; push it first',
    );
  });
}

const both = (local: string | undefined, remote: There | undefined) =>
  `it was ${local === undefined ? 'deleted' : 'changed'} here and ${remote ? 'changed' : 'deleted'} there`;
