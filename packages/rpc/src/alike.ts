/** Lists of words that come again and again, such as headers: said once, and what is made of them made once. */

/** In the place of how many headers follow: those of the one before. */
export const AS_BEFORE = -1;
/** What the answers of one message have, in characters, with what is said once for many counted for each. */
export const ANSWERS_CHARS = 256 * 1024;

/** The characters of those that are texts. */
export function charsIn(words: readonly unknown[]): number {
  let chars = 0;
  for (const word of words) if (typeof word === 'string') chars += word.length;
  return chars;
}

/** Whether two lists say the same. */
export function areAlike(some: readonly string[], others: readonly string[]): boolean {
  if (some === others) return true;
  const { length } = some;
  if (others.length !== length) return false;
  for (let i = 0; i < length; i++) if (some[i] !== others[i]) return false;
  return true;
}

/** What `make` gives, made once for as long as it is asked of the same one or two; to be changed by nobody. */
export function onceForSame<A extends [unknown, unknown?], T>(make: (...given: A) => T): (...given: A) => T {
  let last: { first: unknown; second: unknown; made: T } | undefined;
  return (...given) => {
    const [first, second] = given;
    if (!last || last.first !== first || last.second !== second) last = { first, second, made: make(...given) };
    return last.made;
  };
}
