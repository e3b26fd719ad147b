/** `hauki fs`: MeshFS from a terminal; and the notes' verbs for it. Copying is `fs-cp.ts`, mirroring `fs-sync.ts`. */
import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { buffer } from 'node:stream/consumers';
import { BadInput, type FileVersion, PointerInvalid } from '@hauki/mesh';
import type { Command } from 'commander';
import { askedToEnd, type Common, common, whole, withMesh } from '../context.ts';
import { languageOf } from '../languages.ts';
import { asInput } from '../named-files.ts';
import { paint, printable, report, size, table } from '../output.ts';
import { renderMarkdown } from '../render-markdown.ts';
import { cpCommand, isPointer } from './fs-cp.ts';
import { syncCommand } from './fs-sync.ts';

export interface ConditionFlags {
  ifMatch?: string;
  create?: boolean;
}

/** The SDK's condition from `--if-match` and `--create`. A tag is a version number or a digest. */
export function condition({ ifMatch, create }: ConditionFlags) {
  if (ifMatch === undefined) return create ? { create } : {};
  if (!/^(\d{1,15}|[0-9a-f]{64}|\*)$/.test(ifMatch))
    throw new BadInput({ what: '--if-match', why: 'it is a version number, or a digest of 64 hex digits' });
  return { if_match: ifMatch };
}

/** A whole number from 1, from a flag. */
export function wholeNumber(what: string, given: string | undefined, least = 1): number | undefined {
  if (given === undefined) return undefined;
  return whole(what, given, least);
}

export const withConditions = (command: Command): Command =>
  command
    .option('--if-match <version or digest>', 'only over this: so that nobody’s newer version is overwritten')
    .option('--create', 'only where there is nothing yet');

async function read(pointer: string, flags: Common & { raw?: boolean; at?: string }): Promise<void> {
  const version = wholeNumber('--at', flags.at);
  await withMesh(flags, async (mesh) => {
    const found = await mesh.meshfs.resolve(pointer, { version });
    if (flags.json) return console.log(JSON.stringify(found));
    const pretty = process.stdout.isTTY && !flags.raw && found.media_type.startsWith('text/markdown');
    const text = pretty ? renderMarkdown(found.content, process.stdout.columns || undefined) : found.content;
    process.stdout.write(process.stdout.isTTY && !pretty ? printable(text) : text);
    if (process.stdout.isTTY && !found.content.endsWith('\n')) process.stdout.write('\n');
  });
}

interface WriteFlags extends Common, ConditionFlags {
  language?: string;
  type?: string;
}

function bytesOf(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw asInput(file, error);
  }
}

/** A text file, or standard input. What is no text would not come back as it was. */
async function textOf(file: string | undefined): Promise<string> {
  const bytes = file === undefined || file === '-' ? await buffer(process.stdin) : bytesOf(file);
  if (isUtf8(bytes)) return bytes.toString('utf8');
  throw new BadInput({ what: file ?? 'standard input', why: 'it is not UTF-8 text; `hauki fs cp` copies any file' });
}

async function write(pointer: string, file: string | undefined, flags: WriteFlags) {
  const content = await textOf(file);
  const language = flags.language ?? languageOf(file ?? '');
  await withMesh(flags, async (mesh) => {
    const written = await mesh.meshfs.write(pointer, content, {
      ...condition(flags),
      ...(language ? { language } : {}),
      ...(flags.type ? { media_type: flags.type } : {}),
    });
    console.log(flags.json ? JSON.stringify(written) : `${written.pointer}  ${written.digest.slice(0, 12)}`);
  });
}

/** Throws PointerInvalid for what no pointer begins with. */
function demandPrefix(prefix: string): void {
  if (!isPointer(prefix)) throw new PointerInvalid({ pointer: prefix, why: 'it does not begin with gem-pointer://' });
}

async function list(prefix: string, flags: Common): Promise<void> {
  demandPrefix(prefix);
  await withMesh(flags, async (mesh) => {
    const entries = await mesh.meshfs.list(prefix);
    if (flags.json) return console.log(JSON.stringify({ entries }));
    if (entries.length === 0) return console.log(`Nothing below ${prefix}`);
    console.log(
      table([
        ['POINTER', 'BYTES', 'TYPE', 'DIGEST'],
        ...entries.map((e) => [e.pointer, String(e.bytes), e.media_type, e.digest.slice(0, 12)]),
      ]),
    );
  });
}

async function history(pointer: string, flags: Common): Promise<void> {
  await withMesh(flags, async (mesh) => {
    const found = await mesh.meshfs.history(pointer);
    if (flags.json) return console.log(JSON.stringify(found));
    const row = ({ version, written_at, bytes, media_type, digest, deleted }: FileVersion) => [
      String(version),
      written_at.replace('T', ' ').replace(/\..*/, ''),
      ...(deleted ? ['', 'deleted', ''] : [String(bytes), media_type, digest.slice(0, 12)]),
    ];
    console.log(paint('bold', found.pointer));
    console.log(table([['VERSION', 'WRITTEN (UTC)', 'BYTES', 'TYPE', 'DIGEST'], ...found.versions.map(row)]));
  });
}

async function remove(pointers: string[], flags: Common & ConditionFlags): Promise<void> {
  const given = condition(flags);
  await withMesh(flags, async (mesh) => {
    let failed: { why: unknown } | undefined;
    for (const pointer of pointers)
      try {
        const deleted = await mesh.meshfs.delete(pointer, given);
        console.log(
          flags.json
            ? JSON.stringify(deleted)
            : `${deleted.pointer}  deleted; before it was version ${deleted.version - 1}`,
        );
      } catch (error) {
        // As `rm` does: one that cannot be deleted keeps nobody from the others.
        if (failed) report(failed.why, flags.json === true);
        failed = { why: error };
      }
    if (failed) throw failed.why;
  });
}

async function watch(prefix: string, flags: Common & { after?: string }): Promise<void> {
  demandPrefix(prefix);
  const after = wholeNumber('--after', flags.after, 0);
  const stop = new AbortController();
  void askedToEnd().then(() => stop.abort());
  await withMesh(flags, async (mesh) => {
    const { signal } = stop;
    for await (const change of mesh.meshfs.watch(prefix, { signal, ...(after === undefined ? {} : { after }) })) {
      if (flags.json) console.log(JSON.stringify(change));
      else {
        const what = change.deleted ? paint('red', 'deleted') : paint('green', 'written');
        const more = change.deleted ? '' : `  ${change.bytes} bytes  ${change.digest.slice(0, 12)}`;
        console.log(`${change.written_at.slice(11, 19)}  ${what}  ${change.pointer}  version ${change.version}${more}`);
      }
    }
  });
}

async function collect(flags: Common): Promise<void> {
  await withMesh(flags, async (mesh) => {
    const done = await mesh.meshfs.collect();
    const { kept, removed, removed_bytes } = done;
    console.log(
      flags.json ? JSON.stringify(done) : `${removed} contents removed (${size(removed_bytes)}), ${kept} kept`,
    );
  });
}

export function fsCommands(program: Command): void {
  const fs = program
    .command('fs')
    .description('MeshFS: what pointers point to, now and before')
    .addHelpText(
      'after',
      `
A pointer is gem-pointer://<space>/<path>. In the space wiki, gem-pointer://wiki/<project>/<page>, each is a readable
file too. Every write is a version; versions stay readable, also after rm.

Try:
  hauki fs write gem-pointer://wiki/demo/notes README.md      write text
  hauki fs read gem-pointer://wiki/demo/notes                 read it
  hauki fs cp film.mp4 gem-pointer://data/film                copy any file, of any size
  hauki fs history gem-pointer://wiki/demo/notes              what it was before
  hauki fs read gem-pointer://wiki/demo/notes --at 1          read it as it was
  hauki fs sync docs gem-pointer://wiki/docs --watch          mirror a folder, and go on`,
    );
  fs.command('read')
    .argument('<pointer>')
    .option('--raw', 'no rendering of Markdown')
    .option('--at <version>', 'an earlier version, as `history` numbers them')
    .description('print a document; on a terminal Markdown is rendered')
    .action((pointer: string, flags, command: Command) => read(pointer, { ...flags, ...common(command) }));
  withConditions(fs.command('write'))
    .argument('<pointer>')
    .argument('[file]', 'default: standard input')
    .option('--language <name>', 'javascript, typescript, python, lpc: source is kept as source')
    .option('--type <media type>', 'as in text/plain')
    .description('write a text file or standard input to a pointer')
    .action((pointer: string, file: string | undefined, flags, command: Command) =>
      write(pointer, file, { ...flags, ...common(command) }),
    );
  fs.command('ls')
    .argument('[prefix]', 'pointers that begin so', 'gem-pointer://')
    .description('list pointers')
    .action((prefix: string, _flags, command: Command) => list(prefix, common(command)));
  fs.command('history')
    .argument('<pointer>')
    .description('list the versions of a pointer, the newest first')
    .action((pointer: string, _flags, command: Command) => history(pointer, common(command)));
  fs.command('rm')
    .argument('<pointer...>')
    .option('--if-match <version or digest>', 'only if this is still the newest')
    .description('delete; earlier versions stay readable')
    .action((pointers: string[], flags, command: Command) => remove(pointers, { ...flags, ...common(command) }));
  fs.command('watch')
    .argument('[prefix]', 'pointers that begin so', 'gem-pointer://')
    .option('--after <revision>', 'what changed since, as `ls --json` tells revisions')
    .description('print changes as they happen; Ctrl-C ends it')
    .action((prefix: string, flags, command: Command) => watch(prefix, { ...flags, ...common(command) }));
  cpCommand(fs);
  syncCommand(fs);
  fs.command('gc')
    .description('give back the space of content that no kept version needs (a core does it at its start, too)')
    .action((_flags, command: Command) => collect(common(command)));
}

/** The notes' own verbs, for the command's second name, `x-hauki-core`. */
export function notesVerbs(program: Command): void {
  program
    .command('meshfs_resolve')
    .argument('<pointer>')
    .description('print the document that a pointer points to')
    .action((pointer: string, _flags, command: Command) => read(pointer, common(command)));
  program
    .command('meshfs_write')
    .argument('<pointer>')
    .argument('[file]', 'default: standard input')
    .option('--language <name>')
    .description('write a file or standard input to a pointer')
    .action((pointer: string, file: string | undefined, flags, command: Command) =>
      write(pointer, file, { ...flags, ...common(command) }),
    );
  program
    .command('service_registry')
    .description('the nodes and workers of the mesh, as JSON')
    .action((_flags, command: Command) =>
      withMesh(common(command), async (mesh) => console.log(JSON.stringify(await mesh.registry(), undefined, 2))),
    );
}
