/**
 * One module out of a Python worker's files: the first as it stands, so that its lines keep their numbers, and behind it, as
 * comments, those that it imports from beside itself. The guest takes them out again (`guest/python/bundled.py`).
 *
 * What is not beside it is left to the machine's Python: whether that has it only its vault can tell.
 */
import { readFile } from 'node:fs/promises';
import { dirname, join, relative, sep } from 'node:path';
import { BadInput, LIMITS, TooLarge } from '@hauki/protocol';
import { sourceText } from './source-text.ts';

export interface BundledPython {
  source: string;
  language: 'python';
  /** The paths of all that went in. */
  files: string[];
}

/** `import a, b.c as d`, and `from .a import b, c`, wherever a statement may begin. */
const IMPORT =
  /(?:^|[;:])[ \t]*import[ \t]+([\w.]+(?:[ \t]+as[ \t]+\w+)?(?:[ \t]*,[ \t]*[\w.]+(?:[ \t]+as[ \t]+\w+)?)*)/gm;
const FROM = /(?:^|[;:])[ \t]*from[ \t]+(\.*)[ \t]*([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n;#]*)/gm;

/** The modules that a file's text may import, by their whole names. `own`: the package that the file is in. */
function importsOf(text: string, own: readonly string[]): string[] {
  const names = [...text.matchAll(IMPORT)].flatMap(([, list]) =>
    list!.split(',').map((one) => one.trim().split(/\s/)[0]!),
  );
  for (const [, dots, base, list] of text.matchAll(FROM)) {
    const up = dots!.length === 0 ? [] : own.slice(0, own.length - dots!.length + 1);
    const from = [...up, ...base!.split('.')].filter(Boolean).join('.');
    const members = list!.replace(/#.*$/gm, '').replace(/[()]/g, '').split(',');
    if (from !== '') names.push(from);
    for (const one of members.map((member) => member.trim().split(/\s/)[0]!))
      if (/^\w+$/.test(one)) names.push(from === '' ? one : `${from}.${one}`);
  }
  return names;
}

/**
 * Bundles `file`. `sought`: told of each file that an import may mean, also where there is none yet. Rejects with TooLarge
 * where it is more than a source may have.
 */
export async function bundlePython(file: string, sought?: (file: string) => void): Promise<BundledPython> {
  const root = dirname(file);
  const read = async (path: string) => {
    const content = await readFile(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR' || error.code === 'EISDIR') return undefined;
      throw new BadInput({ what: path, why: `it cannot be read (${error.code})` });
    });
    return content && sourceText(path, content);
  };
  const main = await read(file);
  if (main === undefined) throw new BadInput({ what: file, why: 'there is no such file' });
  const parts = new Map<string, string>();
  let bytes = Buffer.byteLength(main);
  const add = async (name: string): Promise<void> => {
    const steps = name.split('.');
    for (let i = 1; i <= steps.length; i++) {
      const base = join(root, ...steps.slice(0, i));
      for (const path of [join(base, '__init__.py'), `${base}.py`]) {
        sought?.(path);
        if (parts.has(path)) break;
        const text = await read(path);
        if (text === undefined) continue;
        parts.set(path, text);
        bytes += Buffer.byteLength(text);
        if (bytes > LIMITS.source_bytes)
          throw new TooLarge({ what: `${file} with what it imports`, limit_bytes: LIMITS.source_bytes });
        const own = path.endsWith('__init__.py') ? steps.slice(0, i) : steps.slice(0, i - 1);
        for (const next of importsOf(text, own)) await add(next);
        break;
      }
    }
  };
  for (const name of importsOf(main, [])) await add(name);
  if (parts.size === 0) return { source: main, language: 'python', files: [file] };
  const behind = [...parts].map(([path, text]) => {
    const lines = text.replace(/^\uFEFF/, '').split(/\r\n|\r|\n/);
    return `# hauki: file ${relative(root, path).split(sep).join('/')}\n${lines.map((line) => `#|${line}`).join('\n')}\n`;
  });
  return {
    source: `${main.replace(/\n?$/, '\n')}\n${behind.join('')}`,
    language: 'python',
    files: [file, ...parts.keys()],
  };
}
