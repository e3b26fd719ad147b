/**
 * One module out of a worker's files and npm imports, by esbuild; a file that says all by itself stays as it is. What
 * cannot be bundled is said precisely, with file, line and column, before anything is cloned.
 */
import { readFile } from 'node:fs/promises';
import type { SourceMap, SourceMapping } from 'node:module';
import { dirname, extname, resolve } from 'node:path';
import { SourceRejected } from '@hauki/protocol';
import type { BuildFailure, BuildOptions, Message, Plugin } from 'esbuild';
import { sourceText } from './source-text.ts';

export { sourceText };

export interface BundleOptions {
  /** Where the worker is to run: only lxc vaults have Node's built-in modules. */
  driver?: string | undefined;
  /** Told of each file that an import may mean, before it is read, also where there is none yet. */
  sought?: ((file: string) => void) | undefined;
}

/** What an import may leave out. */
const LEFT_OUT = ['', '.ts', '.tsx', '.js', '.jsx', '.mts', '.mjs', '.json', '/index.ts', '/index.tsx', '/index.js'];

const where = ({ location, text }: Message) =>
  location ? `${location.file}:${location.line}:${location.column + 1}: ${text}` : text;

/** What a vault calls the module that it runs. */
const NAME = 'worker.mjs';
/** A place in it, as the vaults tell it. */
const PLACE = /(?:file:\/\/[^\s():]*\/)?\bworker\.mjs:(\d+):(\d+)/g;
/** What CommonJS packages ask for Node's own modules; an ES module has none. */
const REQUIRE = `import { createRequire as $createRequire } from 'node:module'; const require = $createRequire(import.meta.url);`;
/** Beyond the end of any line. */
const LINE_END = 2 ** 30;

/** Lines and columns from 1 on. */
interface Place {
  file: string;
  line: number;
  column: number;
}

/** Finds places in a bundle's files. */
export class Places {
  readonly #find: (line: number, column: number) => Place | undefined;

  constructor(find: (line: number, column: number) => Place | undefined) {
    this.#find = find;
  }

  /** A text with each place in the bundle as the one in its file. */
  inText(text: string): string {
    return text.replaceAll(PLACE, (told, line, column) => {
      const found = this.#find(Number(line), Number(column));
      return found ? `${found.file}:${found.line}:${found.column}` : told;
    });
  }

  /** The line, in its file, of a line of the bundle; `text` may tell of it more exactly. */
  line(line: number, text: string): number {
    const [, , column = LINE_END] = [...text.matchAll(PLACE)].find(([, told]) => Number(told) === line) ?? [];
    return this.#find(line, Number(column))?.line ?? line;
  }
}

export interface Bundled {
  source: string;
  language: 'javascript';
}

const placesBy = (map: SourceMap) =>
  new Places((line, column) => {
    const { originalSource, originalLine, originalColumn } = map.findEntry(line - 1, column - 1) as SourceMapping;
    if (originalSource === undefined) return undefined;
    return { file: originalSource, line: originalLine + 1, column: originalColumn + 1 };
  });

/** How every worker is compiled. */
const COMPILED = {
  bundle: true,
  write: false,
  outfile: NAME,
  format: 'esm',
  platform: 'neutral',
  // Errors are told by the names of their classes, of which two files may have the same.
  keepNames: true,
  charset: 'utf8',
  legalComments: 'none',
  logLevel: 'silent',
} as const satisfies BuildOptions;

/** Leaves what is imported where it is. */
const ALL_OUTSIDE: Plugin = {
  name: 'all-outside',
  setup: (on) =>
    on.onResolve({ filter: /.*/ }, ({ path, kind }) => (kind === 'entry-point' ? undefined : { path, external: true })),
};

async function stripped(text: string): Promise<string> {
  const { stripTypeScriptTypes } = await import('node:module');
  const { emitWarning } = process;
  // That Node may yet change it is nothing to whoever clones a file.
  process.emitWarning = () => {};
  try {
    return stripTypeScriptTypes(text);
  } finally {
    process.emitWarning = emitWarning;
  }
}

/**
 * A file's own text, with blanks for its types, where the bundle of it says the same: then places in it are the file's.
 * Else undefined, as where it imports other files, or is not written for the vaults' engines.
 */
async function asItStands(file: string, bundled: string): Promise<string | undefined> {
  const { build } = await import('esbuild');
  try {
    const text = await readFile(file, 'utf8');
    const source = /ts$/.test(extname(file)) ? await stripped(text) : text;
    const stdin = { contents: source, sourcefile: file, resolveDir: dirname(file), loader: 'js' as const };
    // Neither lowered nor given anything: what comes out is what stands there, as the bundler writes it.
    const { outputFiles } = await build({ ...COMPILED, stdin, target: 'esnext', plugins: [ALL_OUTSIDE] });
    return outputFiles[0]!.text === bundled ? source : undefined;
  } catch {
    return undefined; // it needs more than its types taken away, as enums do
  }
}

/** Throws BadInput where a file is not in UTF-8: the bundler would take other letters for its own, in silence. */
async function checkCoding(file: string): Promise<void> {
  // What it has not read from a file is in no other coding; what is not there it says itself.
  const content = await readFile(file).catch(() => undefined);
  if (content) sourceText(file, content);
}

/**
 * Bundles `file`. Rejects with SourceRejected (stage `bundle`) naming every import or line that is in the way, and with
 * BadInput where one of its files, packages left out, is not in UTF-8.
 */
export async function bundle(file: string, options: BundleOptions = {}): Promise<Bundled> {
  const { source, language } = await bundleWithFiles(file, options);
  return { source, language };
}

export interface BundledWithFiles extends Bundled {
  /** The paths of all files that went in. */
  files: string[];
  /** What is told of the bundle, with places in those files for places in it. */
  places: Places;
}

/** The same with what it was made of. */
export async function bundleWithFiles(file: string, options: BundleOptions = {}): Promise<BundledWithFiles> {
  const { build } = await import('esbuild');
  const { builtinModules, SourceMap } = await import('node:module');
  await checkCoding(resolve(file));
  const builtins = new Set(builtinModules.flatMap((name) => [name, `node:${name}`]));
  let requires = false;
  const node: Plugin = {
    name: 'node-builtins',
    setup(on) {
      on.onResolve({ filter: /.*/ }, ({ path, kind, resolveDir }) => {
        if (/^[./]/.test(path)) for (const end of LEFT_OUT) options.sought?.(resolve(resolveDir, path) + end);
        // What is kept in MeshFS is fetched and checked by the core, when the worker is ordered.
        if (path.startsWith('gem-pointer:')) return { path, external: true };
        if (!builtins.has(path) || kind === 'entry-point') return undefined;
        if (options.driver === 'lxc' || options.driver === 'process') {
          requires ||= kind === 'require-call' || kind === 'require-resolve';
          return { path: path.startsWith('node:') ? path : `node:${path}`, external: true };
        }
        return {
          errors: [
            {
              text: `"${path}" is a module of Node itself: it exists only in lxc and process vaults. Ask for the driver lxc, or do without`,
            },
          ],
        };
      });
    },
  };
  try {
    const make = (banner: string) =>
      build({
        ...COMPILED,
        entryPoints: [file],
        metafile: true,
        sourcemap: 'external',
        sourcesContent: false,
        mainFields: ['module', 'main'],
        // With `import` or `require`, whichever a package is asked for by.
        conditions: ['default'],
        // Packages choose their faster half by it, and only Node has a `process`.
        define: { 'process.env.NODE_ENV': '"production"' },
        target: 'es2023',
        jsx: 'automatic',
        banner: { js: banner },
        plugins: [node],
      });
    const made = await make('');
    // Only now is it known whether it is needed; in front of everything, since what it gives is asked for at once.
    const { outputFiles, metafile } = requires ? await make(REQUIRE) : made;
    const files = Object.keys(metafile.inputs).map((input) => resolve(input));
    // What is in a package is its author's affair: a name in a comment must not be in anybody's way.
    for (const one of files) if (!/[\\/]node_modules[\\/]/.test(one)) await checkCoding(one);
    const [map, code] = [true, false].map(
      (is_map) => outputFiles.find(({ path }) => path.endsWith('.map') === is_map)!,
    );
    const inputs = Object.entries(metafile.inputs);
    const [name, { format }] = inputs[0]!;
    const own = inputs.length === 1 && format === 'esm' ? await asItStands(file, code!.text) : undefined;
    return {
      source: own ?? code!.text,
      language: 'javascript',
      files,
      places:
        own === undefined
          ? placesBy(new SourceMap(JSON.parse(map!.text)))
          : new Places((line, column) => ({ file: name, line, column })),
    };
  } catch (error) {
    const messages = (error as BuildFailure).errors;
    if (!Array.isArray(messages)) throw error;
    throw new SourceRejected({ stage: 'bundle', reason: messages.slice(0, 10).map(where).join('\n') });
  }
}
