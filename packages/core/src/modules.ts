/**
 * The modules that a worker imports by pointers: found, fetched and checked when the order is made, so that what runs
 * is a snapshot, whatever is written under the pointers later.
 *
 * What always holds: a module is fetched only after the caller's right to read it was checked; each is fetched once,
 * however many import it and in whatever spelling; one at a time, within bounds of number, depth and bytes.
 * The sources are a stranger's: they are read for imports only, by a lexer in WebAssembly, and never run here.
 */
import { createHash } from 'node:crypto';
import {
  type CodeInfo,
  describe,
  Forbidden,
  isError,
  type Language,
  LIMITS,
  MeshError,
  type Pointer,
  type PointerModule,
  parsePointer,
  runtimeOf,
  SourceRejected,
  WORKER_LANGUAGES,
} from '@hauki/protocol';
import { parse } from 'es-module-lexer';
import type { Kept, Texts } from './texts.ts';

export interface ModulePowers {
  resolve(
    pointer: string,
  ): Promise<{ pointer: string; content: string; language?: string | undefined; media_type: string }>;
  /** Throws Forbidden where the caller may not read the pointer. */
  demand(pointer: string): void;
}

/** A worker's own module. */
export interface RootModule {
  /** Where it is kept, if it is. */
  pointer?: string | undefined;
  source: string;
}

/** An import of a pointer, as it stands in a source. */
export interface PointerImport {
  pointer: Pointer;
  /** What its text must have, in hex; undefined where the import does not say. */
  digest: string | undefined;
  line: number;
}

const SCHEME = 'gem-pointer:';
/** Where a source may have an import to look at: most have none, and are not read by the lexer. */
const WORTH_A_LOOK = /gem-pointer:|['"]\.\.?\//;
const TOO_MANY = `at most ${LIMITS.modules} modules besides the worker’s own`;
const DIGEST = /^sha256-([0-9a-f]{64})$/;

export const digestOf = (source: string): string => createHash('sha256').update(source).digest('hex');

/** What is told of a worker's code. */
export const codeOf = ({ pointer, source }: RootModule, modules: readonly PointerModule[]): CodeInfo => ({
  ...(pointer === undefined ? {} : { pointer }),
  digest: digestOf(source),
  modules: modules.map(({ pointer, digest }) => ({ pointer, digest })),
});

export const isLanguage = (language: unknown): language is Language =>
  (WORKER_LANGUAGES as readonly unknown[]).includes(language);

const rejected = (where: string, specifier: string, why: string) =>
  new SourceRejected({ stage: 'import', reason: `${where} imports ${specifier}: ${why}` });

/**
 * The pointers that a source imports, each spelling once: statically, or dynamically with a literal. Throws
 * SourceRejected, naming `label` and line, for a pointer that is none, for more than a worker may have, and for a static
 * import of a path, since no folder is around a module that came alone. A source that is no module at all has
 * none: whoever loads it will say so better.
 */
export function pointerImports(source: string, label: string): PointerImport[] {
  if (!WORTH_A_LOOK.test(source)) return [];
  let imports: ReturnType<typeof parse>[0];
  try {
    // The lexer takes a byte order mark for a part of the first word; a space leaves all places as they are.
    [imports] = parse(source.replace(/^\uFEFF/, ' '));
  } catch {
    return [];
  }
  const found: PointerImport[] = [];
  const seen = new Set<string>();
  const names = new Set<string>();
  const lineOf = lines(source);
  for (const one of imports) {
    const { specifier } = one;
    // A dynamic one may stand where nothing comes to: it fails when it runs, if it does.
    const is_path = one.type !== 'dynamic' && /^\.\.?\//.test(specifier ?? '');
    if (!specifier || seen.has(specifier) || !(is_path || specifier.startsWith(SCHEME))) continue;
    if (one.type === 'dynamic' ? one.glob || one.probablyTypeOnly : one.typeOnly) continue;
    seen.add(specifier);
    const line = lineOf(one.importStart);
    const refuse = (why: string) => rejected(`${label}:${line}`, specifier, why);
    if (is_path) throw refuse('there are no files around it; import a gem-pointer:// instead, or bundle it');
    const [text, fragment, ...rest] = specifier.split('#');
    const digest = fragment === undefined ? undefined : DIGEST.exec(fragment)?.[1];
    if (rest.length > 0 || (fragment !== undefined && digest === undefined))
      throw refuse('what stands behind # must be sha256- and 64 small hex digits');
    let pointer: Pointer;
    try {
      pointer = parsePointer(text);
    } catch (error) {
      throw refuse(describe(error));
    }
    // One may be the worker's own, which counts for nothing.
    if (names.add(pointer.name).size > LIMITS.modules + 1) throw refuse(TOO_MANY);
    found.push({ pointer, digest, line });
  }
  return found;
}

/** Tells the line of each place of a text. The places must be asked for in their order: it reads the text once for all. */
function lines(text: string): (place: number) => number {
  let line = 1;
  let ends = text.indexOf('\n');
  return (place) => {
    for (; ends >= 0 && ends < place; ends = text.indexOf('\n', ends + 1)) line++;
    return line;
  };
}

/**
 * All modules that `root` imports by pointers, also indirectly; itself is not among them. Rejects with SourceRejected
 * (stage `import`), naming importer, line and pointer, or with Forbidden.
 */
export async function resolveModules(root: RootModule, powers: ModulePowers): Promise<PointerModule[]> {
  const modules: PointerModule[] = [];
  const digests = new Map<string, string>();
  // A module further down that imports the worker's own gets the worker's own.
  if (root.pointer !== undefined) digests.set(parsePointer(root.pointer).name, digestOf(root.source));
  let bytes = Buffer.byteLength(root.source);
  let level = [{ label: root.pointer ?? 'worker.mjs', source: root.source }];
  for (let depth = 0; level.length > 0; depth++) {
    const next: typeof level = [];
    for (const { label, source } of level)
      for (const { pointer, digest: wanted, line } of pointerImports(source, label)) {
        const where = `${label}:${line}`;
        const refuse = (why: string) => rejected(where, pointer.text, why);
        if (!digests.has(pointer.name)) {
          if (depth >= LIMITS.module_depth) throw refuse(`at most ${LIMITS.module_depth} imports in a row`);
          if (modules.length >= LIMITS.modules) throw refuse(TOO_MANY);
          const module = await fetchModule(pointer.text, where, powers);
          bytes += Buffer.byteLength(module.source);
          if (bytes > LIMITS.source_bytes)
            throw refuse(`the worker’s modules have more than ${LIMITS.source_bytes} bytes together`);
          modules.push(module);
          digests.set(pointer.name, module.digest);
          next.push({ label: module.pointer, source: module.source });
        }
        const digest = digests.get(pointer.name)!;
        if (wanted !== undefined && wanted !== digest)
          throw refuse(`it must have the digest sha256-${wanted}, but has sha256-${digest}`);
      }
    level = next;
  }
  return modules;
}

async function fetchModule(text: string, where: string, { demand, resolve }: ModulePowers): Promise<PointerModule> {
  try {
    demand(text);
    const { pointer, content, language, media_type } = await resolve(text);
    if (!isLanguage(language) || runtimeOf(language) !== 'node')
      throw rejected(where, text, `a module is JavaScript or TypeScript, but this is ${language ?? media_type}`);
    return { pointer, digest: digestOf(content), source: content, language };
  } catch (error) {
    if (isError(error, Forbidden))
      throw new Forbidden({ ...error.fields, why: `${where} imports ${text}. ${error.message}` });
    // That it is not there, or no text, is a fault of the source; that the disk fails is not.
    const refused = error instanceof MeshError && !isError(error, SourceRejected) && error.status < 500;
    throw refused ? rejected(where, text, describe(error)) : error;
  }
}

/** What an order keeps of its imported modules, where it has any; `readCode` reads it back. */
export const modulesText = (modules: readonly PointerModule[] = []): string | undefined =>
  modules.length === 0 ? undefined : JSON.stringify(modules);

/** A kept order's code as it was when the order was made. Rejects as `texts.read` does. */
export async function readCode(
  record: { source: Kept; modules?: Kept | null | undefined; code?: CodeInfo | null | undefined },
  texts: Texts,
): Promise<{ source: string; modules: PointerModule[]; code: CodeInfo }> {
  const source = await texts.read(record.source);
  const modules = record.modules ? (JSON.parse(await texts.read(record.modules)) as PointerModule[]) : [];
  return { source, modules, code: record.code ?? codeOf({ source }, modules) };
}
