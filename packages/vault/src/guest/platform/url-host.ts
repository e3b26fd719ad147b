/**
 * Hosts of URLs (URL standard, section 3): domains, IPv4, IPv6. Names beyond ASCII are normalised (NFKC, lower case) and
 * written in Punycode (RFC 3492); the finer tables of UTS 46 are not here.
 */

/** What is percent-encoded everywhere: all that is not printable ASCII. */
export const C0 = /[^ -~]/gu;

/** Percent-encodes what the set matches. */
export function encodeSet(text: string, set: RegExp): string {
  return text.replace(set, (character) => {
    const code = character.codePointAt(0)!;
    if (code < 0x80) return `%${code.toString(16).toUpperCase().padStart(2, '0')}`;
    return encodeURIComponent(character);
  });
}

/** Percent-decodes as bytes, and reads them as UTF-8; what is none becomes U+FFFD. */
export function decodePercent(text: string): string {
  if (!text.includes('%')) return text;
  return text.replace(/(?:%[0-9a-fA-F]{2})+/g, (run) => {
    try {
      return decodeURIComponent(run);
    } catch {
      return lenient(
        run
          .split('%')
          .slice(1)
          .map((hex) => Number.parseInt(hex, 16)),
      );
    }
  });
}

/** UTF-8 with faults in it: each longest beginning of a character that goes wrong is one U+FFFD. */
function lenient(bytes: number[]): string {
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at]!;
    let needs =
      first < 0x80
        ? 0
        : first >= 0xc2 && first < 0xe0
          ? 1
          : first >= 0xe0 && first < 0xf0
            ? 2
            : first >= 0xf0 && first < 0xf5
              ? 3
              : -1;
    at++;
    if (needs <= 0) {
      text += needs === 0 ? String.fromCharCode(first) : '\ufffd';
      continue;
    }
    let code = first & (0x3f >> needs);
    let [least, most] =
      first === 0xe0
        ? [0xa0, 0xbf]
        : first === 0xed
          ? [0x80, 0x9f]
          : first === 0xf0
            ? [0x90, 0xbf]
            : first === 0xf4
              ? [0x80, 0x8f]
              : [0x80, 0xbf];
    while (needs > 0 && at < bytes.length && bytes[at]! >= least! && bytes[at]! <= most!) {
      code = (code << 6) | (bytes[at++]! & 0x3f);
      [least, most] = [0x80, 0xbf];
      needs--;
    }
    text += needs > 0 ? '\ufffd' : String.fromCodePoint(code);
  }
  return text;
}

const FORBIDDEN = new Set('\0\t\n\r #/:<>?@[\\]^|');
/** What a domain has of ASCII. */
const DOMAIN = /^[!"$&-.0-9;=A-Z_`a-z{}~]+$/;
const BEYOND_ASCII = /[\u0080-\uffff]/;

/** The host as it stands in a URL, or undefined for what is none. */
export function parseHost(text: string, special: boolean): string | undefined {
  if (text.startsWith('[')) {
    if (!text.endsWith(']')) return undefined;
    const pieces = parseIPv6(text.slice(1, -1));
    return pieces && `[${writeIPv6(pieces)}]`;
  }
  if (!special) return [...text].some((character) => FORBIDDEN.has(character)) ? undefined : encodeSet(text, C0);
  const domain = toAscii(decodePercent(text));
  if (domain === undefined || !DOMAIN.test(domain)) return undefined;
  const parts = domain.split('.');
  if (parts.at(-1) === '' && parts.length > 1) parts.pop();
  const last = parts.at(-1)!;
  if (/^\d+$/.test(last) || number(last) !== undefined) return parseIPv4(parts);
  return domain;
}

/** A part of an IPv4 address; undefined when it is no number. */
function number(part: string): number | undefined {
  if (part === '') return undefined;
  if (/^0x[0-9a-f]*$/i.test(part)) return part.length === 2 ? 0 : Number.parseInt(part.slice(2), 16);
  if (/^0[0-7]*$/.test(part)) return part.length === 1 ? 0 : Number.parseInt(part, 8);
  return /^[1-9]\d*$/.test(part) ? Number(part) : undefined;
}

function parseIPv4(parts: string[]): string | undefined {
  if (parts.length > 4) return undefined;
  const numbers = parts.map(number);
  if (numbers.includes(undefined)) return undefined;
  const known = numbers as number[];
  const last = known.pop()!;
  if (known.some((n) => n > 255) || last >= 256 ** (4 - known.length)) return undefined;
  const address = known.reduce((sum, n, i) => sum + n * 256 ** (3 - i), last);
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
}

function parseIPv6(text: string): number[] | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const read = (half: string, is_last: boolean): number[] | undefined => {
    if (half === '') return [];
    const pieces: number[] = [];
    const words = half.split(':');
    for (const [i, word] of words.entries()) {
      if (is_last && i === words.length - 1 && word.includes('.')) {
        const bytes = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(word)?.slice(1);
        if (!bytes?.every((byte) => /^(?:0|[1-9]\d*)$/.test(byte) && Number(byte) < 256)) return undefined;
        const [a, b, c, d] = bytes.map(Number);
        pieces.push(a! * 256 + b!, c! * 256 + d!);
      } else if (/^[0-9a-fA-F]{1,4}$/.test(word)) pieces.push(Number.parseInt(word, 16));
      else return undefined;
    }
    return pieces;
  };
  const [head, tail] = [read(halves[0]!, halves.length === 1), read(halves[1] ?? '', true)];
  if (!head || !tail) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  return [...head, ...new Array<number>(missing).fill(0), ...tail];
}

function writeIPv6(pieces: number[]): string {
  let best = { at: -1, length: 1 };
  for (let at = 0; at < 8; at++) {
    let end = at;
    while (pieces[end] === 0) end++;
    if (end - at > best.length) best = { at, length: end - at };
  }
  const hex = (from: number, to: number) =>
    pieces
      .slice(from, to)
      .map((piece) => piece.toString(16))
      .join(':');
  return best.at < 0 ? hex(0, 8) : `${hex(0, best.at)}::${hex(best.at + best.length, 8)}`;
}

/** Mapped to nothing: soft hyphens, joiners, variation selectors. */
const IGNORED = /\u00ad|\u034f|[\u180b-\u180f]|\u200b|\u2060|\u2064|[\ufe00-\ufe0f]|\ufeff/g;

function toAscii(domain: string): string | undefined {
  if (!BEYOND_ASCII.test(domain) && !/(?:^|\.)xn--/i.test(domain)) return domain.toLowerCase();
  const mapped = domain
    .replace(IGNORED, '')
    .replace(/\u1e9e/g, 'ss')
    .normalize('NFKC')
    .toLowerCase()
    .normalize('NFKC');
  const labels = mapped.replace(/[\u3002\uff0e\uff61]/g, '.').split('.');
  const written = labels.map((label) => {
    if (label.startsWith('xn--')) return readPunycode(label.slice(4)) ? label : undefined;
    if (!BEYOND_ASCII.test(label)) return label;
    return /\ufffd|^\p{M}/u.test(label) ? undefined : `xn--${writePunycode(label)}`;
  });
  return written.includes(undefined) ? undefined : written.join('.');
}

const digit = (value: number) => String.fromCharCode(value < 26 ? value + 97 : value + 22);

function adapt(delta: number, count: number, first: boolean): number {
  let left = first ? Math.floor(delta / 700) : delta >> 1;
  left += Math.floor(left / count);
  let k = 0;
  for (; left > 455; k += 36) left = Math.floor(left / 35);
  return k + Math.floor((36 * left) / (left + 38));
}

function writePunycode(label: string): string {
  const codes = [...label].map((character) => character.codePointAt(0)!);
  let written = codes
    .filter((code) => code < 0x80)
    .map((code) => String.fromCharCode(code))
    .join('');
  const basic = written.length;
  if (basic > 0) written += '-';
  let [n, delta, bias, done] = [128, 0, 72, basic];
  while (done < codes.length) {
    const next = Math.min(...codes.filter((code) => code >= n));
    delta += (next - n) * (done + 1);
    n = next;
    for (const code of codes) {
      if (code < n) delta++;
      if (code !== n) continue;
      let q = delta;
      for (let k = 36; ; k += 36) {
        const t = Math.min(26, Math.max(1, k - bias));
        if (q < t) break;
        written += digit(t + ((q - t) % (36 - t)));
        q = Math.floor((q - t) / (36 - t));
      }
      written += digit(q);
      bias = adapt(delta, done + 1, done === basic);
      delta = 0;
      done++;
    }
    delta++;
    n++;
  }
  return written;
}

/** The label, or undefined where it is no Punycode that we would have written ourselves. */
function readPunycode(text: string): string | undefined {
  const dash = text.lastIndexOf('-');
  const codes = [...text.slice(0, Math.max(0, dash))].map((character) => character.charCodeAt(0));
  let [n, i, bias] = [128, 0, 72];
  for (let at = dash + 1; at < text.length; ) {
    const before = i;
    for (let [w, k] = [1, 36]; ; k += 36) {
      const code = text.charCodeAt(at++);
      const value = code >= 48 && code < 58 ? code - 22 : code >= 97 && code < 123 ? code - 97 : Number.NaN;
      if (!(value >= 0)) return undefined;
      i += value * w;
      if (i > 0x7fffffff) return undefined;
      const t = Math.min(26, Math.max(1, k - bias));
      if (value < t) break;
      w *= 36 - t;
    }
    bias = adapt(i - before, codes.length + 1, before === 0);
    n += Math.floor(i / (codes.length + 1));
    i %= codes.length + 1;
    if (n > 0x10ffff) return undefined;
    codes.splice(i++, 0, n);
  }
  const label = String.fromCodePoint(...codes);
  return codes.some((code) => code >= 0x80) && label.normalize('NFKC').toLowerCase() === label ? label : undefined;
}
