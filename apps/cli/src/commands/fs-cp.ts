/**
 * `hauki fs cp`: between files and pointers, in any size.
 *
 * What always holds: a file is there whole, with the digest that the mesh names, or it is as it was. Who might read a file
 * may do so when its content is another, and nobody else. What is no file (a device, a pipe, a link) is never replaced.
 */
import { createHash, randomUUID } from 'node:crypto';
import { openAsBlob, type Stats } from 'node:fs';
import { type FileHandle, lstat, open, realpath, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { BadInput, DigestMismatch, type FileInfo, type Mesh, type OpenFile } from '@hauki/mesh';
import type { Command } from 'commander';
import { type Common, common, withMesh } from '../context.ts';
import { asInput } from '../named-files.ts';
import { printable, progress, size } from '../output.ts';
import { type ConditionFlags, condition, wholeNumber, withConditions } from './fs.ts';

interface CpFlags extends Common, ConditionFlags {
  at?: string;
  type?: string;
  language?: string;
}

export const isPointer = (text: string) => /^gem-pointer:\/\//i.test(text);

/** The bytes of a local file, as something whose size is known. */
export async function fileContent(file: string): Promise<Blob> {
  const found = await stat(file).catch(() => undefined);
  if (!found?.isFile()) throw new BadInput({ what: file, why: found ? 'it is no file' : 'there is no such file' });
  return openAsBlob(file);
}

/** Lets go of what is not read: it would hold its connection, and with it this process. */
async function letGo(body: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of body) return;
}

/** Makes a new file as open as the one that it replaces. */
async function asOpenAs(was: Stats, handle: FileHandle): Promise<void> {
  const has_group = await handle.chown(was.uid, was.gid).then(
    () => true,
    () => false,
  );
  // Another group is not to read what that one might.
  await handle.chmod(was.mode & (has_group ? 0o777 : 0o707));
}

/** Writes what comes to a file. It gets its name when all of it is there with the right digest. Links are not followed. */
export async function saveFile(
  got: OpenFile,
  file: string,
  onBytes: (bytes: number) => void = () => {},
): Promise<void> {
  const temporary = join(dirname(file), `.hauki-${randomUUID()}.tmp`);
  let handle: FileHandle | undefined;
  try {
    const was = await lstat(file).catch(() => undefined);
    if (was && !was.isFile() && !was.isDirectory())
      throw new BadInput({ what: file, why: 'it is neither a file nor a folder; standard output is -' });
    handle = await open(temporary, 'wx', was ? 0o600 : 0o666);
    const hash = createHash('sha256');
    let bytes = 0;
    for await (const chunk of got.body) {
      hash.update(chunk);
      await handle.writeFile(chunk);
      bytes += chunk.length;
      onBytes(bytes);
    }
    const digest = hash.digest('hex');
    if (digest !== got.digest) throw new DigestMismatch({ wanted: got.digest, got: digest });
    if (was) await asOpenAs(was, handle);
    await handle.sync();
    await handle.close();
    await rename(temporary, file);
  } catch (error) {
    await handle?.close().catch(() => {});
    await unlink(temporary).catch(() => {});
    await letGo(got.body).catch(() => {});
    throw asInput(file, error);
  }
}

async function upload(mesh: Mesh, from: string, to: string, flags: CpFlags): Promise<FileInfo> {
  const content = from === '-' ? process.stdin : await fileContent(from);
  const pointer = to.endsWith('/') && from !== '-' ? to + basename(from) : to;
  const total = content instanceof Blob ? content.size : undefined;
  const show = progress(from, total);
  const { type: media_type, language } = flags;
  const options = { ...condition(flags), media_type, language, onProgress: show };
  return mesh.meshfs.put(pointer, content, options).finally(() => show());
}

async function fetchTo(mesh: Mesh, from: string, to: string, version: number | undefined): Promise<FileInfo> {
  const got = await mesh.meshfs.get(from, { version });
  const { body, whole: _w, text: _t, ...info } = got;
  const show = progress(from, info.bytes);
  try {
    if (to === '-') for await (const chunk of body) await new Promise((done) => process.stdout.write(chunk, done));
    else {
      const is_folder = (await stat(to).catch(() => undefined))?.isDirectory() ?? to.endsWith('/');
      const file = is_folder ? join(to, basename(info.pointer)) : to;
      // What a link leads to is written, as by cp. One that leads nowhere is refused.
      await saveFile(got, await realpath(file).catch(() => file), show);
    }
  } finally {
    show();
  }
  return info;
}

async function between(mesh: Mesh, from: string, to: string, flags: CpFlags): Promise<FileInfo> {
  const got = await mesh.meshfs.get(from, { version: wholeNumber('--at', flags.at) });
  const show = progress(from, got.bytes);
  const { media_type, language, digest } = got;
  const pointer = to.endsWith('/') ? to + basename(got.pointer) : to;
  const kind = { media_type: flags.type ?? media_type, language: flags.language ?? language };
  const options = { ...condition(flags), ...kind, digest, onProgress: show };
  return mesh.meshfs.put(pointer, got.body, options).finally(() => show());
}

async function copy(from: string, to: string, flags: CpFlags): Promise<void> {
  const [is_from, is_to] = [isPointer(from), isPointer(to)];
  if (!is_from && !is_to)
    throw new BadInput({ what: 'cp', why: 'one of the two is a pointer, like gem-pointer://data/film' });
  const version = wholeNumber('--at', flags.at);
  if (!is_from && version !== undefined) throw new BadInput({ what: '--at', why: 'only a pointer has versions' });
  if (!is_to && (flags.ifMatch ?? flags.create ?? flags.type ?? flags.language) !== undefined)
    throw new BadInput({ what: 'cp', why: '--if-match, --create, --type and --language are for writing to a pointer' });
  await withMesh(flags, async (mesh) => {
    const info = !is_to
      ? await fetchTo(mesh, from, to, version)
      : is_from
        ? await between(mesh, from, to, flags)
        : await upload(mesh, from, to, flags);
    const said = `${printable(info.pointer)}  ${size(info.bytes)}  ${info.digest.slice(0, 12)}`;
    // What goes to standard output may be the content itself.
    const say = to === '-' ? console.error : console.log;
    if (flags.json || to !== '-') say(flags.json ? JSON.stringify(info) : said);
  });
}

export function cpCommand(fs: Command): void {
  withConditions(fs.command('cp'))
    .argument('<from>', 'a file, a pointer, or - for standard input')
    .argument('<to>', 'a pointer, a file or folder, or - for standard output')
    .option('--at <version>', 'copy an earlier version of a pointer')
    .option('--type <media type>', 'as in image/png; default: as the name’s ending tells')
    .option('--language <name>', 'javascript, typescript, python, lpc: source is kept as source')
    .description('copy a file to a pointer, a pointer to a file, or a pointer to a pointer, of any size')
    .action((from: string, to: string, flags, command: Command) => copy(from, to, { ...flags, ...common(command) }));
}
