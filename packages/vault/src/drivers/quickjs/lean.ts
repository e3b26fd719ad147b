/**
 * QuickJS's WebAssembly without the exports that only native extensions need: three of four. Each costs every instance
 * objects of V8's, 110 KiB a vault all together. And with its memory as an import, so that one may serve again
 * (`memories.ts`). Nothing else is written anew (WebAssembly core, 5.5).
 */

const HEADER_BYTES = 8;
const [IMPORTS, MEMORY, EXPORTS] = [2, 5, 7];
/** Where it is imported from: of the modules that it imports the one for which `quickjs-wasi` takes more. */
const FROM = { module: 'wasi_snapshot_preview1', name: 'memory' };
/** A kind of import. */
const OF_MEMORY = 2;
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

/** The module with those of its exports that we use, and with its memory for whoever makes an instance to give. */
export function lean(module: Uint8Array): Uint8Array<ArrayBuffer> {
  const sections: [id: number, whole: Uint8Array, body: Uint8Array][] = [];
  for (let at = HEADER_BYTES; at < module.length; ) {
    const [size, body] = read(module, at + 1);
    const end = body + size;
    sections.push([module[at]!, module.subarray(at, end), module.subarray(body, end)]);
    at = end;
  }
  // One memory, without a bound of its own: count, flags, pages.
  const memory = sections.find(([id]) => id === MEMORY)![2];
  if (memory[0] !== 1 || memory[1] !== 0) throw new Error('the engine has another memory than it had');
  const pieces = sections.map(([id, whole, body]) => {
    if (id === MEMORY) return new Uint8Array(0);
    if (id === IMPORTS) return importing(body, memory.subarray(1));
    return id === EXPORTS ? exportsKept(body) : whole;
  });
  return Uint8Array.from(Buffer.concat([module.subarray(0, HEADER_BYTES), ...pieces]));
}

const sectionOf = (id: number, body: readonly number[]) => Uint8Array.from([id, ...write(body.length), ...body]);

/** The imports with the memory behind them: what is imported before it keeps its number. */
function importing(imports: Uint8Array, limits: Uint8Array): Uint8Array {
  const [count, at] = read(imports, 0);
  const text = (words: string) => [...write(words.length), ...Buffer.from(words)];
  const memory = [...text(FROM.module), ...text(FROM.name), OF_MEMORY, ...limits];
  return sectionOf(IMPORTS, [...write(count + 1), ...imports.subarray(at), ...memory]);
}

/** What of an instance's imports gives it its memory. */
export const withMemory = (memory: WebAssembly.Memory) =>
  ({ [FROM.name]: memory }) as unknown as Record<string, (...args: any[]) => any>;

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
  return sectionOf(EXPORTS, [...write(count), ...kept]);
}
