/**
 * Where a text stands in another, by the algorithm of Knuth, Morris and Pratt: a stranger chooses both, and what
 * `indexOf` does with texts that nearly match takes the product of their lengths, on the thread of all modules. Pure.
 */

/** Its UTF-16 code units, which are read faster so. */
const unitsOf = (text: string): Uint16Array => {
  const bytes = Buffer.from(text, 'utf16le');
  return new Uint16Array(bytes.buffer, bytes.byteOffset, text.length);
};

/** The first `most` places at which `sought`, which is not empty, stands in `text`, also where they overlap. */
export function placesOf(text: string, sought: string, most: number): number[] {
  const places: number[] = [];
  if (sought.length > text.length) return places;
  const units = unitsOf(text);
  const wanted = unitsOf(sought);
  /** For each beginning of what is sought: how much of its end is a beginning too. */
  const borders = new Int32Array(wanted.length);
  for (let i = 1, matched = 0; i < wanted.length; i++) {
    while (matched > 0 && wanted[matched] !== wanted[i]) matched = borders[matched - 1]!;
    if (wanted[matched] === wanted[i]) matched++;
    borders[i] = matched;
  }
  for (let i = 0, matched = 0; i < units.length && places.length < most; i++) {
    while (matched > 0 && wanted[matched] !== units[i]) matched = borders[matched - 1]!;
    if (wanted[matched] === units[i]) matched++;
    if (matched < wanted.length) continue;
    places.push(i - matched + 1);
    matched = borders[matched - 1]!;
  }
  return places;
}

/** Whether `sought` stands in `text`. */
export const standsIn = (text: string, sought: string): boolean =>
  sought === '' || placesOf(text, sought, 1).length > 0;
