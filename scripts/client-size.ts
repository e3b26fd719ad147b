/**
 * What a page loads of the SDK: bundled for browsers, minified, compressed. Run by hand it prints where the bytes are.
 * The benchmark, the browser's test and the example take the bundle from here.
 */
import { fileURLToPath } from 'node:url';
import { constants, gzipSync } from 'node:zlib';
import { build } from 'esbuild';

/** What the client of a page shall weigh, compressed, at most. It does not yet. */
export const CLIENT_GOAL_BYTES = 15 * 1024;
/** What it may weigh meanwhile: just above what it does, so that nothing is added unseen. Only ever lowered. */
export const CLIENT_LIMIT_BYTES = 27_300;

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** All that a script needs; the errors and limits that it may name come with it. */
const ENTRY = "export { connect, destruct } from '@hauki/mesh';";

export interface ClientBundle {
  /** An ES module. */
  code: string;
  bytes: number;
  gzip_bytes: number;
  /** Files in it, the largest first: their minified bytes, and by how much less would be compressed without them. */
  parts: { file: string; bytes: number; gzip_bytes: number }[];
  /** Modules that the bundle leaves for the platform to find; there must be none. */
  imports: string[];
}

export async function bundleClient(entry = ENTRY): Promise<ClientBundle> {
  const { outputFiles, metafile } = await build({
    stdin: { contents: entry, resolveDir: ROOT, sourcefile: 'page.ts', loader: 'ts' },
    bundle: true,
    write: false,
    minify: true,
    metafile: true,
    platform: 'browser',
    format: 'esm',
    target: 'es2024',
    legalComments: 'none',
    logLevel: 'silent',
    // Without this a module of Node would be an error; the test wants to name it.
    external: ['node:*'],
    sourcemap: 'external',
    outfile: 'sdk.js',
  });
  const [code, map] = ['sdk.js', 'sdk.js.map'].map((name) => outputFiles.find(({ path }) => path.endsWith(name))!.text);
  return {
    code: code!,
    bytes: Buffer.byteLength(code!),
    gzip_bytes: compressed(code!),
    parts: partsOf(code!, JSON.parse(map!)),
    imports: Object.values(metafile.outputs).flatMap(({ imports }) => imports.map(({ path }) => path)),
  };
}

const compressed = (text: string) => gzipSync(text, { level: constants.Z_BEST_COMPRESSION }).length;

/** Which file each piece of the code is from: by its source map (ECMA-426), which one name per piece is enough of. */
function partsOf(code: string, map: { mappings: string; sources: string[] }): ClientBundle['parts'] {
  const pieces: { from: number; source: number }[] = [];
  let line_start = 0;
  let source = 0;
  const lines = code.split('\n');
  for (const [n, line] of map.mappings.split(';').entries()) {
    let column = 0;
    for (const segment of line.split(',').filter(Boolean)) {
      const [columns = 0, sources = 0] = readVlq(segment);
      column += columns;
      source += sources;
      pieces.push({ from: line_start + column, source });
    }
    line_start += (lines[n]?.length ?? 0) + 1;
  }
  const total = compressed(code);
  return map.sources
    .map((file, of) => {
      let rest = code.slice(0, pieces[0]?.from);
      for (const [i, piece] of pieces.entries())
        if (piece.source !== of) rest += code.slice(piece.from, pieces[i + 1]?.from);
      return { file, bytes: code.length - rest.length, gzip_bytes: total - compressed(rest) };
    })
    .sort((a, b) => b.gzip_bytes - a.gzip_bytes);
}

const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** The numbers of one segment of a source map: base 64, five bits a digit, the lowest bit is the sign. */
function readVlq(segment: string): number[] {
  const numbers: number[] = [];
  let value = 0;
  let shift = 0;
  for (const letter of segment) {
    const digit = DIGITS.indexOf(letter);
    value += (digit & 31) << shift;
    shift += 5;
    if (digit & 32) continue;
    numbers.push(value & 1 ? -(value >> 1) : value >> 1);
    value = shift = 0;
  }
  return numbers;
}

if (import.meta.main) {
  const { bytes, gzip_bytes, parts } = await bundleClient();
  const row = (minified: number | string, gzip: number | string, what: string) =>
    console.log(`${String(minified).padStart(9)} ${String(gzip).padStart(7)}  ${what}`);
  row('minified', 'gzip', 'file');
  for (const { file, bytes, gzip_bytes } of parts) row(bytes, gzip_bytes, file);
  row(bytes, gzip_bytes, `all; the bound is ${CLIENT_LIMIT_BYTES}, the goal ${CLIENT_GOAL_BYTES}`);
}
