/**
 * What a page loads of the SDK: bundled for browsers, minified, compressed. It comes in chunks: those of the main job
 * (connect, clone, call, heartbeat, destruct) are fetched at once, the others when what is in them is used first. Run by
 * hand it prints where the bytes are. The benchmark, the browser's test and the example take the chunks from here.
 */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { constants, gzipSync } from 'node:zlib';
import { build, type Plugin } from 'esbuild';
import { minify } from 'terser';

/** What the client of a page may weigh for its main job, compressed. */
export const CLIENT_LIMIT_BYTES = 15 * 1024;
/** The same for all chunks together: just above what they do, so that nothing is added unseen. */
export const CLIENT_ALL_LIMIT_BYTES = 31 * 1024;

/** The name of the page's module. */
const PAGE = 'page';
const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** All that a script needs; the errors and limits that it may name come with it. */
const ENTRY = "export { connect, destruct } from '@hauki/mesh';";

export interface Chunk {
  /** Its name beside the others, which import it by that. The page's own import is `sdk.js`. */
  file: string;
  /** An ES module. */
  code: string;
  /** Fetched at once with `sdk.js`; the others when something in them is used first. */
  main: boolean;
  bytes: number;
  gzip_bytes: number;
  /** Files in it, the largest first: their minified bytes, and by how much less would be compressed without them. */
  parts: { file: string; bytes: number; gzip_bytes: number }[];
}

interface SourceMap {
  mappings: string;
  sources: string[];
}

export interface ClientBundle {
  /** `sdk.js` first, then the others of the main job. */
  chunks: Chunk[];
  /** What the main job loads, each chunk compressed by itself, as it is sent. */
  gzip_bytes: number;
  /** What all chunks weigh. */
  all_gzip_bytes: number;
  /** Modules that the bundle leaves for the platform to find; there must be none. */
  imports: string[];
}

export async function bundleClient(entry = ENTRY): Promise<ClientBundle> {
  const { outputFiles, metafile } = await build({
    entryPoints: [{ in: PAGE, out: 'sdk' }],
    plugins: [twoKinds(entry)],
    bundle: true,
    splitting: true,
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
    outdir: ROOT,
    absWorkingDir: ROOT,
  });
  const text = (file: string) => outputFiles.find(({ path }) => path.endsWith(`/${file}`))!.text;
  const main = new Set<string>();
  const visit = (file: string) => {
    if (main.has(file)) return;
    main.add(file);
    for (const { path, kind, external } of metafile.outputs[file]!.imports)
      if (kind === 'import-statement' && !external) visit(path);
  };
  visit('sdk.js');
  const late = Object.keys(metafile.outputs).filter((file) => !main.has(file) && file.endsWith('.js'));
  const [own, whole, ...more] = [...main];
  // What the page's own import is of, where that only passes things on.
  const passed = whole && more.length === 0 ? passedOn(text(own!), text(whole)) : undefined;
  const chunk = async (file: string, of: string, given: string): Promise<Chunk> => {
    const named = passed ? given.replaceAll(`"./${whole}"`, `"./${own}"`) : given;
    const { code, map } = await smaller(named, text(`${of}.map`));
    const sizes = { bytes: Buffer.byteLength(code), gzip_bytes: compressed(code) };
    return { file, code, main: main.has(file), ...sizes, parts: partsOf(code, map) };
  };
  const chunks = await Promise.all([
    ...(passed ? [chunk(own!, whole!, passed)] : [...main].map((file) => chunk(file, file, text(file)))),
    ...late.map((file) => chunk(file, file, text(file))),
  ]);
  const sum = (some: Chunk[]) => some.reduce((total, { gzip_bytes }) => total + gzip_bytes, 0);
  return {
    chunks,
    gzip_bytes: sum(chunks.filter((chunk) => chunk.main)),
    all_gzip_bytes: sum(chunks),
    imports: Object.values(metafile.outputs).flatMap(({ imports }) =>
      imports.filter(({ external }) => external).map(({ path }) => path),
    ),
  };
}

/**
 * Makes two kinds of chunks: one with all that the page's entry needs, and one for each `import()`. Left alone, esbuild
 * would cut the first along what the others share with it, and small files compress badly. So each of the others imports
 * the entry.
 */
const twoKinds = (entry: string): Plugin => ({
  name: 'two-kinds-of-chunks',
  setup(on) {
    on.onResolve({ filter: new RegExp(`^${PAGE}$`) }, () => ({ path: PAGE, namespace: PAGE }));
    on.onLoad({ filter: /.*/, namespace: PAGE }, () => ({ contents: entry, resolveDir: ROOT, loader: 'ts' }));
    on.onResolve({ filter: /.*/ }, async ({ path, kind, importer, resolveDir, pluginData }) => {
      if (kind !== 'dynamic-import' || pluginData === PAGE) return undefined;
      const found = await on.resolve(path, { kind, importer, resolveDir, pluginData: PAGE });
      return { ...found, pluginData: PAGE };
    });
    on.onLoad({ filter: /\.ts$/ }, async ({ path, pluginData }) =>
      pluginData === PAGE
        ? { contents: `${await readFile(path, 'utf8')}\nimport '${PAGE}';`, loader: 'ts' as const }
        : undefined,
    );
  },
});

/**
 * A chunk that exports what its entry passes on, too, under the entry's names: one file less to fetch. Undefined where
 * the entry does more than that.
 */
function passedOn(entry: string, chunk: string): string | undefined {
  const [, taken, given] = /^import\{([^}]*)\}from"[^"]*";export\{([^}]*)\};\s*$/.exec(entry) ?? [];
  const [, exported] = /export\{([^}]*)\};\s*$/.exec(chunk) ?? [];
  if (taken === undefined || given === undefined || exported === undefined) return undefined;
  /** `a as b` by its second name. */
  const named = (list: string) =>
    new Map(list.split(',').map((one) => one.split(' as ').toReversed() as [string, string]));
  const [by_export, by_import] = [named(exported), named(taken)];
  const more = [...named(given)].map(([name, inner]) => `${by_export.get(by_import.get(inner)!)} as ${name}`);
  return chunk.replace(/\};\s*$/, `,${more}};\n`);
}

/** What esbuild has made small, smaller: names given by how often they stand there make up most of the difference. */
async function smaller(code: string, map: string): Promise<{ code: string; map: SourceMap }> {
  const made = await minify(code, { module: true, ecma: 2020, compress: { passes: 2 }, sourceMap: { content: map } });
  return { code: made.code!, map: JSON.parse(made.map as string) };
}

const compressed = (text: string) => gzipSync(text, { level: constants.Z_BEST_COMPRESSION }).length;

/** Which file each piece of the code is from: by its source map (ECMA-426), which one name per piece is enough of. */
function partsOf(code: string, map: SourceMap): Chunk['parts'] {
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
  const { chunks, gzip_bytes, all_gzip_bytes } = await bundleClient();
  const row = (minified: number, gzip: number, what: string) =>
    console.log(`${String(minified).padStart(9)} ${String(gzip).padStart(7)}  ${what}`);
  for (const { file, main, bytes, gzip_bytes, parts } of chunks) {
    console.log(`\n minified    gzip  ${file}, ${main ? 'for the main job' : 'when it is used'}`);
    for (const part of parts) row(part.bytes, part.gzip_bytes, part.file);
    row(bytes, gzip_bytes, 'together');
  }
  console.log(`
The main job: ${gzip_bytes} bytes; the bound is ${CLIENT_LIMIT_BYTES}
Everything:   ${all_gzip_bytes} bytes; the bound is ${CLIENT_ALL_LIMIT_BYTES}`);
}
