/** UTF-8 to text for a platform without TextDecoder. As the Encoding standard has it: what is wrong becomes U+FFFD. */

/** First byte to length, and the least and most that the second may be (Unicode, table 3-7). */
function leads(byte: number): [length: number, least: number, most: number] | undefined {
  if (byte >= 0xc2 && byte <= 0xdf) return [2, 0x80, 0xbf];
  if (byte >= 0xe0 && byte <= 0xef) return [3, byte === 0xe0 ? 0xa0 : 0x80, byte === 0xed ? 0x9f : 0xbf];
  if (byte >= 0xf0 && byte <= 0xf4) return [4, byte === 0xf0 ? 0x90 : 0x80, byte === 0xf4 ? 0x8f : 0xbf];
  return undefined;
}

/** Character codes that are turned to text at once: more arguments than that overflow a small stack. */
const AT_ONCE = 4096;

/** The text of bytes, without a byte order mark at its beginning. */
export function utf8Text(bytes: Uint8Array): string {
  let text = '';
  let units: number[] = [];
  const flush = () => {
    text += String.fromCharCode(...units);
    units = [];
  };
  let at = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
  while (at < bytes.length) {
    if (units.length >= AT_ONCE) flush();
    const first = bytes[at++]!;
    if (first < 0x80) {
      units.push(first);
      continue;
    }
    const lead = leads(first);
    let point = 0xfffd;
    if (lead) {
      const [length, least, most] = lead;
      let value = first & (0xff >> (length + 1));
      let left = length - 1;
      // The longest beginning of a character that could have been one is replaced as a whole.
      while (left > 0 && at < bytes.length) {
        const next = bytes[at]!;
        const second = left === length - 1;
        if (next < (second ? least : 0x80) || next > (second ? most : 0xbf)) break;
        value = (value << 6) | (next & 0x3f);
        at++;
        left--;
      }
      if (left === 0) point = value;
    }
    if (point < 0x10000) units.push(point);
    else units.push(0xd800 + ((point - 0x10000) >> 10), 0xdc00 + ((point - 0x10000) & 0x3ff));
  }
  flush();
  return text;
}
