/**
 * The smaller parts of encoding, which know no references: how texts and bigints are written, what is said of things
 * that no message can carry, and how notes about a text are written into it.
 */
import { LIMITS, TooLarge } from '@hauki/protocol';

/** Up to here a text is looked through by hand for what JSON escapes; beyond, the platform is faster. */
const SHORT = 24;

/** Thrown inside; the place is added where it is caught. */
export class Refusal extends Error {}

/** What to do instead, for what a platform has and no message can carry. */
export const HINTS: Record<string, string> = {
  __proto__: null as never,
  Promise: 'a promise: await it first',
  WeakMap: 'a WeakMap, whose content cannot be known',
  WeakSet: 'a WeakSet, whose content cannot be known',
  WeakRef: 'a WeakRef: send what it refers to',
  Symbol: 'a symbol',
  URL: 'a URL: send its href',
  URLSearchParams: 'URLSearchParams: send their toString()',
  Headers: 'Headers: send Object.fromEntries(headers)',
  Request: 'a Request: send its url, its method and its body',
  Response: 'a Response: send its status and its body (a stream, or await text(), json() or bytes())',
  Blob: 'a Blob: send await blob.bytes(), or blob.stream()',
  File: 'a File: send await file.bytes(), or file.stream()',
  FormData: 'FormData: send Object.fromEntries(form)',
};

/** Said before the bytes or the text of a message outgrow it, and not only when it is laid. */
export const tooLarge = () => new TooLarge({ what: 'A message', limit_bytes: LIMITS.message_bytes });

/** A text as JSON. */
export function quote(text: string): string {
  if (text.length > SHORT) return JSON.stringify(text);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    // Lone halves of pairs are escaped too; JSON.stringify tells them from whole pairs.
    if (code < 0x20 || code === 0x22 || code === 0x5c || code >= 0xd800) return JSON.stringify(text);
  }
  return `"${text}"`;
}

/** What is the same in a list of its own, given to JSON.stringify. */
export const isPlain = (item: unknown): boolean =>
  typeof item === 'number'
    ? item - item === 0 && (item !== 0 || 1 / item > 0)
    : typeof item === 'string' || typeof item === 'boolean' || item === null;

/** Plain items as JSON without the brackets. Where somebody gave all lists a toJSON, it is not called. */
export const many = (items: unknown[]): string =>
  'toJSON' in items ? items.map((item) => JSON.stringify(item)).join(',') : JSON.stringify(items).slice(1, -1);

/** Four bits are more than a digit: what does not even fit into these is not written out. */
const BIGINT_BITS = BigInt(LIMITS.bigint_digits * 4);

/** A bigint in decimal digits. Throws a Refusal for one that is too long. */
export function digits(value: bigint): string {
  const size = value < 0n ? -value : value;
  const text = size >> BIGINT_BITS === 0n ? size.toString() : undefined;
  if (text === undefined || text.length > LIMITS.bigint_digits)
    throw new Refusal(`a bigint of more than ${LIMITS.bigint_digits} digits`);
  return value < 0n ? `-${text}` : text;
}

/**
 * Writes into a text what was noted beside it: labels at the first places of objects, references at their later ones,
 * escapes of what looks like a tag. `spans`: begin and end of each object, in turn; `again`: position of a later place
 * and number of the object, in turn; `dollars`: numbers of objects that look like a tag.
 */
export function annotated(
  text: string,
  spans: readonly number[],
  again: readonly number[],
  dollars: readonly number[],
): string {
  const edits: { at: number; text: string }[] = [];
  // Pushed from the inside outwards at an end, from the outside inwards at a beginning; the sort is stable.
  const shared = [...new Set(again.filter((_, i) => i % 2 === 1))].sort((a, b) => a - b);
  const labels = new Map(shared.map((number, label) => [number, label]));
  for (const [number, label] of labels) edits.push({ at: spans[2 * number]!, text: `{"$":["def",${label},` });
  for (const number of dollars)
    edits.push({ at: spans[2 * number]!, text: '{"$":["object",' }, { at: spans[2 * number + 1]!, text: ']}' });
  for (const number of shared) edits.push({ at: spans[2 * number + 1]!, text: ']}' });
  for (let i = 0; i < again.length; i += 2)
    edits.push({ at: again[i]!, text: `{"$":["ref",${labels.get(again[i + 1]!)}]}` });
  edits.sort((a, b) => a.at - b.at);
  let out = '';
  let done = 0;
  for (const edit of edits) {
    out += text.slice(done, edit.at) + edit.text;
    done = edit.at;
  }
  return out + text.slice(done);
}
