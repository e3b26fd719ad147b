/**
 * Surgical edits: `{base_digest, edits: [{find, replace}…]}` against the source that runs. Pure.
 *
 * What always holds: every `find` must stand in the source exactly once, at the moment its edit is made; the edits are
 * made in their order, all or none; a base that is no longer what runs is refused before anything is looked for.
 */
import { createHash } from 'node:crypto';
import { BadInput, type Edit, EditRefused } from '@hauki/protocol';
import { createTwoFilesPatch } from 'diff';
import { KERNEL_LIMITS } from './limits.ts';

export const digestOf = (source: string): string => createHash('sha256').update(source).digest('hex');

function placesOf(source: string, find: string): number[] {
  const places: number[] = [];
  for (let at = source.indexOf(find); at >= 0 && places.length < 10; at = source.indexOf(find, at + 1)) places.push(at);
  return places;
}

const lineAt = (source: string, at: number) => source.slice(0, at).split('\n').length;

/**
 * The source after the edits. `running`: what runs now, undefined for a new module, which takes one edit with an empty
 * `find`. Throws BadInput for what is no list of edits, and EditRefused, which says what differs.
 */
export function operate(running: string | undefined, base_digest: string | undefined, edits: readonly Edit[]): string {
  if (!Array.isArray(edits) || edits.length === 0 || edits.length > KERNEL_LIMITS.edits)
    throw new BadInput({ what: 'edits', why: `from one to ${KERNEL_LIMITS.edits} of {find, replace}` });
  for (const edit of edits)
    if (typeof edit?.find !== 'string' || typeof edit.replace !== 'string')
      throw new BadInput({ what: 'edits', why: 'each has two texts: find and replace' });
  if (running === undefined) {
    if (edits.length === 1 && edits[0]!.find === '' && base_digest === undefined) return edits[0]!.replace;
    throw new EditRefused({ why: 'there is no such module; a new one takes one edit with an empty find, and no base' });
  }
  const digest = digestOf(running);
  if (base_digest !== digest)
    throw new EditRefused({
      why: `the base is not what runs: ${base_digest ? `${base_digest} was given` : 'none was given'}, ${digest} runs`,
      running: digest,
    });
  let source = running;
  edits.forEach(({ find, replace }, i) => {
    if (find === '') throw new EditRefused({ why: `edit ${i + 1} looks for nothing`, running: digest });
    const places = placesOf(source, find);
    const [place] = places;
    if (place === undefined)
      throw new EditRefused({
        why: `edit ${i + 1} looks for what is not there: ${JSON.stringify(find.slice(0, 200))}`,
        running: digest,
      });
    if (places.length > 1)
      throw new EditRefused({
        why: `edit ${i + 1} is ambiguous: ${JSON.stringify(find.slice(0, 200))} stands in the lines ${places.map((at) => lineAt(source, at)).join(', ')}`,
        running: digest,
      });
    source = source.slice(0, place) + replace + source.slice(place + find.length);
  });
  return source;
}

/** A unified diff of two sources of a module; empty where they are the same. */
export function diffOf(module: string, before: string, after: string, from = 'running', to = 'new'): string {
  if (before === after) return '';
  return createTwoFilesPatch(module, module, before, after, from, to);
}
