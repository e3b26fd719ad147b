/** HTTP's headers about a representation, read and written: ETag and its conditions, ranges, digests (RFC 9110, 9530). */
import type { IncomingHttpHeaders } from 'node:http';
import type { Expect } from '@hauki/meshfs';
import { BadInput } from '@hauki/protocol';

const MOST_TAGS = 64;

export const etagOf = ({ digest }: { digest: string }) => `"${digest}"`;

const bad = (what: string, why: string) => new BadInput({ what, why });

/** The tags of If-Match or If-None-Match: digests as they are, versions as numbers. Weak tags match nothing. */
function tagsIn(what: string, header: string): (string | number)[] {
  const tags = header.split(',').map((tag) => tag.trim());
  if (tags.length > MOST_TAGS) throw bad(what, `it has more than ${MOST_TAGS} tags`);
  return tags.flatMap((tag) => {
    if (/^W\//.test(tag)) return [];
    const [, text] = /^"?([0-9a-f]{64}|\d{1,15})"?$/.exec(tag) ?? [];
    if (text === undefined) throw bad(what, 'a tag is a digest (64 hex digits) or a version number, in quotes');
    return [text.length === 64 ? text : Number(text)];
  });
}

/** What a writing request expects to find. Throws `BadInput` for what cannot be a condition. */
export function expectOf(headers: IncomingHttpHeaders): Expect | undefined {
  const { 'if-match': match, 'if-none-match': none } = headers;
  if (match !== undefined && none !== undefined) throw bad('If-Match', 'it cannot stand beside If-None-Match');
  if (none !== undefined) {
    if (none.trim() === '*') return 'absent';
    throw bad('If-None-Match', 'of a write it can only be *');
  }
  if (match === undefined) return undefined;
  return match.trim() === '*' ? 'present' : tagsIn('If-Match', match);
}

/** Whether this is what the reader wants (If-Match, compared strongly): by its digest, or its version's number. */
export function isWanted(headers: IncomingHttpHeaders, found: { digest: string; version: number }): boolean {
  const match = headers['if-match'];
  if (match === undefined || match.trim() === '*') return true;
  const wanted = [etagOf(found), `"${found.version}"`];
  return match.split(',').some((tag) => wanted.includes(tag.trim()));
}

/** Whether the reader has this content already (If-None-Match). */
export function isKnown(headers: IncomingHttpHeaders, found: { digest: string; version: number }): boolean {
  const none = headers['if-none-match'];
  if (none === undefined) return false;
  if (none.trim() === '*') return true;
  const tags = none.split(',').map((tag) => tag.trim().replace(/^W\//, ''));
  return tags.some((tag) => tag === etagOf(found));
}

/** The one range that is asked for, `end` not included; `none` where it lies outside; undefined for the whole. */
export function rangeOf(
  headers: IncomingHttpHeaders,
  found: { digest: string; bytes: number },
): { start: number; end: number } | 'none' | undefined {
  const { range, 'if-range': if_range } = headers;
  if (range === undefined || (if_range !== undefined && if_range !== etagOf(found))) return undefined;
  const [, from, to] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(range) ?? [];
  // What is no range, or several, may be ignored: the whole is a right answer.
  if (from === undefined || to === undefined || (from === '' && to === '')) return undefined;
  const { bytes } = found;
  if (from === '')
    return Number(to) === 0 || bytes === 0 ? 'none' : { start: Math.max(0, bytes - Number(to)), end: bytes };
  const start = Number(from);
  const end = to === '' ? bytes : Math.min(bytes, Number(to) + 1);
  if (to !== '' && Number(to) < start) return undefined;
  return start < bytes ? { start, end } : 'none';
}

/** Which bytes of an upload a piece holds. An empty last piece says only how long the whole is: `bytes *\/9`. */
export function contentRangeOf(header: string): { start: number; length: number; total: number | undefined } {
  const [, from, to, of] = /^bytes (?:(\d{1,15})-(\d{1,15})|\*)\/(\d{1,15}|\*)$/.exec(header) ?? [];
  if (of === undefined) throw bad('Content-Range', 'it is like "bytes 0-1023/4096", or "bytes 0-1023/*"');
  const total = of === '*' ? undefined : Number(of);
  if (from === undefined || to === undefined) {
    if (total === undefined) throw bad('Content-Range', 'it says nothing');
    return { start: total, length: 0, total };
  }
  const [start, last] = [Number(from), Number(to)];
  if (last < start || (total !== undefined && last >= total))
    throw bad('Content-Range', 'it ends before it begins, or behind its whole');
  return { start, length: last - start + 1, total };
}

/** The SHA-256 that a request announces for the whole content, in hex. */
export function announcedDigest(headers: IncomingHttpHeaders): string | undefined {
  const header = headers['repr-digest'];
  if (typeof header !== 'string') return undefined;
  const [, base64] = /(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?:,|$)/.exec(header) ?? [];
  if (base64 === undefined) throw bad('Repr-Digest', 'it is like "sha-256=:<32 bytes in base64>:"');
  return Buffer.from(base64, 'base64').toString('hex');
}

export const reprDigest = (digest: string) => `sha-256=:${Buffer.from(digest, 'hex').toString('base64')}:`;
