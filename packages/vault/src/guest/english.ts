/**
 * How Node writes numbers and dates in English, and orders texts, for QuickJS, whose engine has no locales: as far as it can
 * be done without tables. Loaded when it is first needed (`vm-english.ts`).
 */

/** A number as the language writes it. */
const NUMBER = /^-?(\d+)(?:\.(\d+))?(?:e(.+))?$/;
/** So many decimals are shown. */
const DECIMALS = 3;
/** The characters of ASCII that count in the order of texts, small letters for both kinds (CLDR's root collation). */
const ORDER = '\t\n\v\f\r _-,;:!?.\'"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz';
/** A character's place in that order, by its code; 0: none. */
const PLACES = Uint8Array.from(
  { length: 128 },
  (_, code) => ORDER.indexOf(String.fromCharCode(code).toLowerCase()) + 1,
);
const ACCENT = /[\u0300-\u036f]/;

const grouped = (digits: string): string => {
  let made = digits.slice(0, digits.length % 3);
  for (let at = made.length; at < digits.length; at += 3) made += `${made && ','}${digits.slice(at, at + 3)}`;
  return made;
};

function numberText(number: number): string {
  const [, whole, part = '', power = '0'] = NUMBER.exec(`${number}`) ?? [];
  const sign = number < 0 || Object.is(number, -0) ? '-' : '';
  if (whole === undefined) return Number.isNaN(number) ? 'NaN' : `${sign}∞`;
  // All digits that are shown, and the one behind them, which rounds them.
  const count = whole.length + Number(power) + DECIMALS;
  const digits = `${whole}${part}`.padEnd(count + 1, '0');
  const rounded = BigInt(digits.slice(0, Math.max(0, count))) + (count >= 0 && digits[count]! > '4' ? 1n : 0n);
  const all = `${rounded}`.padStart(DECIMALS + 1, '0');
  const decimals = all.slice(-DECIMALS).replace(/0+$/, '');
  return `${sign}${grouped(all.slice(0, -DECIMALS))}${decimals && '.'}${decimals}`;
}

function dateText(date: Date): string {
  const year = date.getUTCFullYear();
  return `${date.getUTCMonth() + 1}/${date.getUTCDate()}/${year > 0 ? year : 1 - year}`;
}

function timeText(date: Date): string {
  const hour = date.getUTCHours();
  const two = (number: number) => `${number}`.padStart(2, '0');
  return `${hour % 12 || 12}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())} ${hour < 12 ? 'AM' : 'PM'}`;
}

/** What counts first of a text, what decides between two in which that is the same, and what between the rest. */
function keysOf(text: string): string[] {
  let [places, accents, cases] = ['', '', ''];
  for (const character of text.normalize('NFD')) {
    if (ACCENT.test(character)) accents += character;
    else {
      const small = character.toLowerCase();
      const code = small.codePointAt(0)!;
      if (PLACES[code] === 0) continue;
      places += String.fromCodePoint(PLACES[code] ?? code);
      accents += '\0';
      cases += character === small ? '0' : '1';
    }
  }
  return [places, accents, cases];
}

/** As `localeCompare` of Node compares, but for characters beyond ASCII: those come by their number, accents aside. */
function compared(one: string, other: string): number {
  if (one === other) return 0;
  const { length } = one;
  // Sorts ask often: no list is made for each character.
  for (let at = 0; at < length; at++) {
    const mine = PLACES[one.charCodeAt(at)];
    const theirs = PLACES[other.charCodeAt(at)];
    if (!mine || !theirs) break;
    if (mine !== theirs) return mine < theirs ? -1 : 1;
  }
  const [mine, theirs] = [keysOf(one), keysOf(other)];
  const at = mine.findIndex((key, i) => key !== theirs[i]);
  return at < 0 ? 0 : mine[at]! < theirs[at]! ? -1 : 1;
}

const whole = (text: (date: Date) => string) => (date: Date) =>
  Number.isNaN(date.getTime()) ? 'Invalid Date' : text(date);

export const english = {
  number: numberText,
  bigint: (number: bigint) => (number < 0n ? `-${grouped(`${-number}`)}` : grouped(`${number}`)),
  date: whole(dateText),
  time: whole(timeText),
  both: whole((date) => `${dateText(date)}, ${timeText(date)}`),
  compared,
};
export type English = typeof english;
