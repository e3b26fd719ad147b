/** `hauki fs`: MeshFS from a terminal; and the notes' verbs for it. */
import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import type { Command } from 'commander';
import { type Common, common, withMesh } from '../context.ts';
import { printable, table } from '../output.ts';
import { renderMarkdown } from '../render-markdown.ts';

async function read(pointer: string, flags: Common & { raw?: boolean }): Promise<void> {
  await withMesh(flags, async (mesh) => {
    const found = await mesh.meshfs.resolve(pointer);
    if (flags.json) return console.log(JSON.stringify(found));
    const pretty = process.stdout.isTTY && !flags.raw && found.media_type.startsWith('text/markdown');
    const text = pretty ? renderMarkdown(found.content) : found.content;
    process.stdout.write(process.stdout.isTTY && !pretty ? printable(text) : text);
    if (process.stdout.isTTY && !found.content.endsWith('\n')) process.stdout.write('\n');
  });
}

async function write(pointer: string, file: string | undefined, flags: Common & { language?: string; type?: string }) {
  const content = file === undefined || file === '-' ? await text(process.stdin) : readFileSync(file, 'utf8');
  const ending = /\.(ts|mts)$/.test(file ?? '')
    ? 'typescript'
    : /\.(js|mjs)$/.test(file ?? '')
      ? 'javascript'
      : undefined;
  const language = flags.language ?? ending;
  await withMesh(flags, async (mesh) => {
    const written = await mesh.meshfs.write(pointer, content, {
      ...(language ? { language } : {}),
      ...(flags.type ? { media_type: flags.type } : {}),
    });
    console.log(flags.json ? JSON.stringify(written) : `${written.pointer}  ${written.digest.slice(0, 12)}`);
  });
}

async function list(prefix: string, flags: Common): Promise<void> {
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

export function fsCommands(program: Command): void {
  const fs = program.command('fs').description('MeshFS: read, write and list what pointers point to');
  fs.command('read')
    .argument('<pointer>')
    .option('--raw', 'no rendering of Markdown')
    .description('print a document; on a terminal Markdown is rendered')
    .action((pointer: string, flags, command: Command) => read(pointer, { ...flags, ...common(command) }));
  fs.command('write')
    .argument('<pointer>')
    .argument('[file]', 'default: standard input')
    .option('--language <name>', 'javascript, typescript, python, lpc: source is kept as source')
    .option('--type <media type>', 'as in text/plain')
    .description('write a file or standard input to a pointer')
    .action((pointer: string, file: string | undefined, flags, command: Command) =>
      write(pointer, file, { ...flags, ...common(command) }),
    );
  fs.command('ls')
    .argument('[prefix]', 'pointers that begin so', 'gem-pointer://')
    .description('list pointers')
    .action((prefix: string, _flags, command: Command) => list(prefix, common(command)));
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
