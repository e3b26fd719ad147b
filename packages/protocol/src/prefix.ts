/**
 * Prefixes of pointers, as grants and tokens name them: their one spelling, and what they cover. One that ends with `/`
 * covers all below it; another is a pointer, and covers that alone, in every spelling of it. Pure.
 */
import { parsePointer } from './pointer.ts';

/** The prefix of all pointers. */
export const EVERYTHING = 'gem-pointer://';

/** A prefix in its one spelling, so that nothing that it covers can be written in another. Throws as `parsePointer` does. */
export function canonicalPrefix(prefix: string): string {
  if (prefix === EVERYTHING) return prefix;
  if (!prefix.endsWith('/')) return parsePointer(prefix).text;
  // The shortest pointers below a prefix: in the wiki a project and a page.
  const { space, segments } = parsePointer(`${prefix}x/x`);
  return `${EVERYTHING}${[space, ...segments.slice(0, -2)].join('/')}/`;
}

/** Whether a canonical pointer lies under one of the prefixes. */
export function pointerGranted(prefixes: readonly string[], pointer: string): boolean {
  return prefixes.some((prefix) => (prefix.endsWith('/') ? pointer.startsWith(prefix) : pointer === prefix));
}

/** Whether the prefixes cover a pointer, also where they name the same slot in another spelling. */
export function reaches(prefixes: readonly string[], given: string): boolean {
  const pointer = parsePointer(given);
  return (
    pointerGranted(prefixes, pointer.text) ||
    prefixes.some((prefix) => !prefix.endsWith('/') && parsePointer(prefix).name === pointer.name)
  );
}

/** Whether the prefixes cover all that another one covers. As text first: one that is no pointer covers nothing. */
export const reachesAll = (prefixes: readonly string[], prefix: string): boolean =>
  pointerGranted(prefixes, prefix) || (!prefix.endsWith('/') && reaches(prefixes, prefix));
