/**
 * QuickJS's WebAssembly without the exports that only native extensions need: three of four. Each costs every instance
 * objects of V8's, 110 KiB a vault all together. Nothing else is written anew (WebAssembly core, 5.5).
 */

const HEADER_BYTES = 8;
const EXPORTS = 7;
/** What `quickjs-wasi` itself uses besides its own functions (`qjs_…`). */
const KEPT = new Set(['memory', '__stack_pointer', '_initialize', 'malloc', 'free', 'wasm_malloc', 'wasm_free']);

/** An unsigned number of up to 32 bits (LEB128), and where what follows it begins. */
function read(bytes: Uint8Array, at: number): [value: number, next: number] {
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++]!;
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return [value, at];
  }
}

function write(value: number): number[] {
  const bytes: number[] = [];
  for (let left = value; ; left = Math.floor(left / 128)) {
    if (left < 128) return [...bytes, left];
    bytes.push((left % 128) | 0x80);
  }
}

/** The sections of a module: the number of its kind, the whole and what is in it. */
export function* sectionsOf(module: Uint8Array): Generator<{ id: number; whole: Uint8Array; body: Uint8Array }> {
  for (let at = HEADER_BYTES; at < module.length; ) {
    const [size, body] = read(module, at + 1);
    const end = body + size;
    yield { id: module[at]!, whole: module.subarray(at, end), body: module.subarray(body, end) };
    at = end;
  }
}

/** The module with those of its exports that we use. */
export function lean(module: Uint8Array): Uint8Array<ArrayBuffer> {
  const pieces = [module.subarray(0, HEADER_BYTES)];
  for (const { id, whole, body } of sectionsOf(module)) pieces.push(id === EXPORTS ? exportsKept(body) : whole);
  return Uint8Array.from(Buffer.concat(pieces));
}

function exportsKept(section: Uint8Array): Uint8Array {
  const kept: number[] = [];
  let count = 0;
  let [left, at] = read(section, 0);
  for (; left > 0; left--) {
    const begin = at;
    const [length, name_at] = read(section, at);
    const name = Buffer.from(section.subarray(name_at, name_at + length)).toString();
    at = read(section, name_at + length + 1)[1];
    if (!name.startsWith('qjs_') && !KEPT.has(name)) continue;
    kept.push(...section.subarray(begin, at));
    count++;
  }
  const body = [...write(count), ...kept];
  return Uint8Array.from([EXPORTS, ...write(body.length), ...body]);
}
