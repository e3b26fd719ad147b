/**
 * Forms as they travel: multipart/form-data (RFC 7578, as the Fetch standard reads and writes it). Where boundaries stand
 * is looked for outside the VM, in one call: in here each byte would cost a hundred times as much.
 *
 * What always holds: a form is read whole or refused with a TypeError that says what is wrong with it; parts, and the head
 * of each, are bounded; the bytes of files are those of the form, not copies.
 */
import type { PlatformPowers } from '../vm-platform.ts';
import { Blob, File, own } from './blob.ts';
import { FormData } from './form-data.ts';
import { FORM } from './limits.ts';
import { bufferOf } from './text.ts';

export type MultipartPowers = Pick<PlatformPowers, 'encode' | 'decode' | 'find'>;

const [CR, LF, DASH] = [13, 10, 45];

const malformed = (why: string) => new TypeError(`The form cannot be read: ${why}`);

/** The boundary that a content type names. Throws TypeError. */
export function boundaryOf(content_type: string): string {
  const found = /;[\t ]*boundary=(?:"([^"\r\n]*)"|([^\s;"]*))/i.exec(content_type);
  const boundary = found?.[1] ?? found?.[2] ?? '';
  if (boundary === '' || boundary.length > FORM.boundary_chars)
    throw malformed(`its type names no boundary of 1 to ${FORM.boundary_chars} characters`);
  return boundary;
}

interface Head {
  name: string;
  filename: string | undefined;
  type: string;
}

/** Escapes of names and files' names. */
const unescaped = (text: string) =>
  text.replace(/%(0A|0D|22)/gi, (_, code) => String.fromCharCode(Number.parseInt(code, 16)));
const escaped = (text: string) =>
  text.replace(/[\r\n"]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`);
const crlf = (text: string) => text.replace(/\r\n?|\n/g, '\r\n');

function headOf(text: string): Head {
  const fields = new Map<string, string>();
  for (const line of text.split('\r\n')) {
    const colon = line.indexOf(':');
    if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+[\t ]*$/.test(line.slice(0, Math.max(colon, 0))) || /[\r\n]/.test(line))
      throw malformed('the head of a part has a line that is no header');
    fields.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
  }
  const disposition = fields.get('content-disposition') ?? '';
  const kind = /^form-data[\t ]*(?=;|$)/i.exec(disposition);
  if (!kind) throw malformed('a part is no form-data');
  const given = new Map<string, string>();
  const parameter = /;[\t ]*([^=;\s"]+)=(?:"([^"]*)"|([^;\s"]*))[\t ]*/y;
  for (parameter.lastIndex = kind[0].length; parameter.lastIndex < disposition.length; ) {
    const found = parameter.exec(disposition);
    if (!found) throw malformed('what a part says of itself has no end');
    given.set(found[1]!.toLowerCase(), found[2] ?? found[3]!);
  }
  const name = given.get('name');
  if (name === undefined) throw malformed('a part has no name');
  const extended = given.get('filename*');
  const filename = extended === undefined ? given.get('filename') : decoded(extended);
  const file = filename === undefined ? undefined : extended === undefined ? unescaped(filename) : filename;
  return { name: unescaped(name), filename: file, type: fields.get('content-type') ?? 'text/plain' };
}

/** A name as RFC 8187 writes it. */
function decoded(extended: string): string {
  try {
    const value = /^utf-8'[^']*'(.*)$/i.exec(extended)?.[1];
    if (value !== undefined) return decodeURIComponent(value);
  } catch {
    // As below.
  }
  throw malformed('a file’s name is not in UTF-8');
}

/** Reads a form. Throws TypeError. */
export function readMultipart(bytes: Uint8Array, boundary: string, powers: MultipartPowers): FormData {
  const first = new Uint8Array(powers.encode(`--${boundary}`));
  const isLine = (at: number) => bytes[at] === CR && bytes[at + 1] === LF;
  let at = 0;
  while (isLine(at)) at += 2;
  if (first.some((byte, i) => bytes[at + i] !== byte)) throw malformed('it does not begin with its boundary');
  at += first.length;
  const ends = new Uint32Array(powers.find(bufferOf(bytes), powers.encode(`\r\n--${boundary}`), FORM.parts + 1));
  const form = new FormData();
  for (let part = 0, next = 0; !(bytes[at] === DASH && bytes[at + 1] === DASH); part++) {
    if (part === FORM.parts) throw malformed(`it has more than ${FORM.parts} parts`);
    if (!isLine(at)) throw malformed('a boundary is followed by something else');
    at += 2;
    const blank = blankLine(bytes, at);
    const { name, filename, type } = headOf(powers.decode(bufferOf(bytes.subarray(at, blank)), 'utf-8', 0, 1));
    const from = blank + 4;
    while (next < ends.length && ends[next]! < from) next++;
    const end = ends[next++];
    if (end === undefined)
      throw malformed(ends.length > FORM.parts ? `it has more than ${FORM.parts} parts` : 'it ends within a part');
    const body = bytes.subarray(from, end);
    if (filename === undefined) form.append(name, powers.decode(bufferOf(body), 'utf-8', 0, 1));
    else form.append(name, new File(own(body), filename, { type }));
    at = end + 2 + first.length;
  }
  return form;
}

/** Where the head of a part ends. */
function blankLine(bytes: Uint8Array, from: number): number {
  const most = Math.min(bytes.length, from + FORM.head_bytes);
  for (let at = bytes.indexOf(CR, from); at >= 0 && at < most; at = bytes.indexOf(CR, at + 1))
    if (bytes[at + 1] === LF && bytes[at + 2] === CR && bytes[at + 3] === LF) return at;
  throw malformed(`the head of a part has no end within ${FORM.head_bytes} bytes`);
}

/** A form as it is sent, with its type. Throws TypeError where no boundary can be found that is not in it. */
export function writeMultipart(form: FormData, powers: MultipartPowers): { bytes: Uint8Array; type: string } {
  for (let number = 0; number < FORM.boundaries; number++) {
    const boundary = `----hauki-form-boundary-${String(number).padStart(8, '0')}`;
    const pieces: unknown[] = [];
    let count = 1;
    for (const [name, value] of form) {
      count++;
      const head = `--${boundary}\r\nContent-Disposition: form-data; name="${escaped(crlf(name))}"`;
      if (typeof value === 'string') pieces.push(`${head}\r\n\r\n${crlf(value)}\r\n`);
      else {
        const type = value.type || 'application/octet-stream';
        pieces.push(`${head}; filename="${escaped(value.name)}"\r\nContent-Type: ${type}\r\n\r\n`, value, '\r\n');
      }
    }
    const bytes = Blob.bytesOf(new Blob([...pieces, `--${boundary}--\r\n`]));
    const found = powers.find(bufferOf(bytes), powers.encode(boundary), count + 1).byteLength / 4;
    if (found === count) return { bytes, type: `multipart/form-data; boundary=${boundary}` };
  }
  throw new TypeError('The form cannot be sent: it has every boundary in it that was tried');
}
