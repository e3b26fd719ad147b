/** References in values that nobody decodes, and those that nobody let go of. */
import * as LIMITS from '@hauki/protocol/caller-limits';

/**
 * Finds the references in a parsed value that was not decoded: their numbers, their types, and whether a stream waits for
 * its reader. False where there are none.
 */
export function eachGiven(value: unknown, run: (id: number, type: unknown, lazy: boolean) => void, depth = 0): boolean {
  // What is deeper is not well formed: a tag is three levels of a text at most.
  if (typeof value !== 'object' || value === null || depth > 4 * LIMITS.depth) return false;
  const tag = Object.keys(value).length === 1 ? (value as { $?: unknown }).$ : undefined;
  if (Array.isArray(tag) && tag[0] === 'mine') {
    if (typeof tag[1] === 'number') run(tag[1], tag[2], tag[3] === 0);
    return true;
  }
  // What stands in this one is a user's own object, though it looks like a tag.
  const own = Array.isArray(tag) && tag[0] === 'object' && typeof tag[1] === 'object';
  let found = false;
  for (const member of Object.values(own ? (tag[1] ?? []) : value)) found = eachGiven(member, run, depth + 1) || found;
  return found;
}

/** For people: a remote reference was let go of by nobody. */
export function warnOfCollected(label: string): void {
  const text = `a remote ${label} was collected without being let go of, as \`using\` does: it stays in the other side's table`;
  const { process } = globalThis as { process?: { emitWarning?(text: string, name: string): void } };
  if (process?.emitWarning) process.emitWarning(text, 'MeshReferenceWarning');
  else console.warn(`hauki: ${text}`);
}
