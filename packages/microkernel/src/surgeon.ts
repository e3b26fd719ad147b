/**
 * Surgical edits: `{base_digest, edits: [{find, replace}…]}` against the source that runs. Pure.
 *
 * What always holds: every `find` must stand in the source exactly once, at the moment its edit is made; the edits are
 * made in their order, all or none; a base that is no longer what runs is refused before anything is looked for.
 */
import { createHash } from 'node:crypto';
import { BadInput, type Edit, EditRefused } from '@hauki/protocol';
import { formatPatch, structuredPatch } from 'diff';
import { KERNEL_LIMITS } from './limits.ts';
import { placesOf, standsIn } from './search.ts';

export const digestOf = (source: string): string => createHash('sha256').update(source).digest('hex');

/** So many of the places of an ambiguous text are told. */
const PLACES = 10;
const lineAt = (source: string, at: number) => source.slice(0, at).split('\n').length;

/** A version that runs no more, which edits were made for. */
export interface Base {
  version: number;
  source: string;
}

/**
 * The source after the edits. `running`: what runs now, undefined for a new module, which takes one edit with an empty
 * `find`. `base`: the version that has the digest given, where that is not what runs and is known. Throws BadInput for
 * what is no list of edits, and EditRefused, which says what differs.
 */
export function operate(
  running: string | undefined,
  base_digest: string | undefined,
  edits: readonly Edit[],
  base?: Base,
): string {
  if (!Array.isArray(edits) || edits.length === 0 || edits.length > KERNEL_LIMITS.edits)
    throw new BadInput({ what: 'edits', why: `from one to ${KERNEL_LIMITS.edits} of {find, replace}` });
  for (const edit of edits)
    if (typeof edit?.find !== 'string' || typeof edit.replace !== 'string')
      throw new BadInput({ what: 'edits', why: 'each has two texts: find and replace' });
  if (running === undefined) {
    if (edits.length === 1 && edits[0]!.find === '' && base_digest === undefined) return edits[0]!.replace;
    throw new EditRefused({ why: 'there is no such module; a new one takes one edit with an empty find, and no base' });
  }
  const digest = checkBase(running, base_digest, base);
  let source = running;
  let searched = 0;
  edits.forEach(({ find, replace }, i) => {
    const refused = (why: string) => new EditRefused({ why: `edit ${i + 1} ${why}`, running: digest });
    const sought = JSON.stringify(find.slice(0, 200));
    if (find === '')
      throw refused('looks for nothing, which only makes a new module: name a text that stands there once');
    searched += source.length;
    if (searched > KERNEL_LIMITS.searched_chars)
      throw refused(
        `and those before it are too many for so long a source: together they may search ${KERNEL_LIMITS.searched_chars} characters. Make fewer at once, or post the whole source`,
      );
    const places = placesOf(source, find, PLACES);
    const [place] = places;
    if (place === undefined)
      throw refused(
        `looks for what is not there${standsIn(running, find) ? ' any more, once those before it are made' : ''}: ${sought}${otherBreaks(source, find)}`,
      );
    if (places.length > 1) {
      const lines = places.map((at) => lineAt(source, at)).join(', ');
      throw refused(`is ambiguous: ${sought} stands in the lines ${lines}; give more of what is around it`);
    }
    source = source.slice(0, place) + replace + source.slice(place + find.length);
  });
  return source;
}

/** The digest of what runs. Throws EditRefused where that is not the base that was given, and says what differs. */
function checkBase(running: string, base_digest: string | undefined, base?: Base): string {
  const digest = digestOf(running);
  if (base_digest === digest) return digest;
  const given = base_digest === undefined ? 'none was given' : `${base_digest.slice(0, 100)} was given`;
  const known = base && `, which is version ${base.version}`;
  throw new EditRefused({
    why: `the base is not what runs: ${given}${known ?? ''}; ${digest} runs. Make the change for that`,
    running: digest,
    ...(base ? { diff: diffOf('base', base.source, running, `version ${base.version}`) } : {}),
  });
}

/** As for edits: a whole source that was written for another than what runs would undo what somebody else has changed. */
export function checkBaseOfWhole(running: string | undefined, base_digest: string, base?: Base): void {
  if (running === undefined) throw new EditRefused({ why: 'there is no such module; a new one has no base' });
  checkBase(running, base_digest, base);
}

/** In which way a text that is not there would be: where only the breaks of its lines are others. */
function otherBreaks(source: string, find: string): string {
  const [lf, crlf] = [find.replaceAll('\r\n', '\n'), find.replaceAll(/\r?\n/g, '\r\n')];
  if (find !== crlf && standsIn(source, crlf))
    return '; it would be with lines that end in \\r\\n, as those of the source do';
  if (find !== lf && standsIn(source, lf)) return '; it would be with lines that end in \\n, as those of the source do';
  return '';
}

/** Lines that are shown around what differs. */
const CONTEXT = 4;
const NO_BREAK = '\n\\ No newline at end of file\n';

/**
 * A unified diff of two sources of a module; empty where they are the same. What they have in common at both ends is put
 * aside first, and the shortest difference is sought where that is soon done: so it takes no longer where all differs.
 */
export function diffOf(module: string, before: string, after: string, from = 'running', to = 'new'): string {
  if (before === after) return '';
  const { head, olds, news } = apart(before, after, CONTEXT);
  const least = { maxEditLength: KERNEL_LIMITS.diff_edits };
  const sought =
    olds.length + news.length <= KERNEL_LIMITS.diff_sought_chars
      ? structuredPatch(module, module, olds, news, from, to, least)?.hunks
      : undefined;
  const hunks = sought?.map((hunk) => ({
    ...hunk,
    oldStart: hunk.oldStart + head,
    newStart: hunk.newStart + head,
  }));
  const titled = { oldFileName: module, newFileName: module, oldHeader: from, newHeader: to, index: module };
  const title = formatPatch({ ...titled, hunks: hunks ?? [] });
  const [diff, chars] = hunks ? [title, title.length] : wholeHunk(title, before, after);
  const { diff_chars } = KERNEL_LIMITS;
  return chars <= diff_chars ? diff : `${diff.slice(0, diff_chars)}\n… ${chars - diff_chars} characters more\n`;
}

/** All that differs as one hunk below `title`, as far as it is shown, and how many characters it has. */
function wholeHunk(title: string, before: string, after: string): [text: string, chars: number] {
  const { head, olds, news } = apart(before, after, 0);
  // A range of no lines is said to be behind the line before.
  const range = (text: string) => `${text === '' ? head : head + 1},${linesIn(text)}`;
  const top = `${title}@@ -${range(olds)} +${range(news)} @@\n`;
  let [diff, chars] = [top, top.length];
  for (const [text, mark] of [
    [olds, '-'],
    [news, '+'],
  ] as const) {
    if (text === '') continue;
    const whole = text.endsWith('\n');
    const shown = (whole ? text.slice(0, -1) : text).slice(0, KERNEL_LIMITS.diff_chars);
    const end = whole ? '\n' : NO_BREAK;
    diff += mark + shown.split('\n').join(`\n${mark}`) + end;
    chars += text.length + linesIn(text) + (whole ? 0 : end.length);
  }
  return [diff, chars];
}

/** How many lines a text has; the last may have no break at its end. */
function linesIn(text: string): number {
  let lines = text === '' || text.endsWith('\n') ? 0 : 1;
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) lines++;
  return lines;
}

/**
 * What two texts that differ have between the lines that they begin and end with alike, with up to `context` of those, and
 * how many lines there are before it.
 */
function apart(before: string, after: string, context: number): { head: number; olds: string; news: string } {
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before.charCodeAt(start) === after.charCodeAt(start)) start++;
  // Where a line begins in both; the one that is the other's beginning may end in the middle of a line.
  for (let line = 0; line <= context && start > 0; line++) {
    const ends = line === 0 ? start - 1 : start - 2;
    start = ends < 0 ? 0 : before.lastIndexOf('\n', ends) + 1;
  }
  let tail = 0;
  const room = most - start;
  while (tail < room && before.charCodeAt(before.length - 1 - tail) === after.charCodeAt(after.length - 1 - tail))
    tail++;
  let end = before.length - tail;
  for (let line = 0; line <= context && end < before.length; line++) {
    // One that begins here in both is no part of a line that differs.
    const begins = (text: string) =>
      text.length - (before.length - end) === start || text[text.length - (before.length - end) - 1] === '\n';
    if (line === 0 && begins(before) && begins(after)) continue;
    const next = before.indexOf('\n', end);
    end = next === -1 ? before.length : next + 1;
  }
  return {
    head: linesIn(before.slice(0, start)),
    olds: before.slice(start, end),
    news: after.slice(start, after.length - (before.length - end)),
  };
}
