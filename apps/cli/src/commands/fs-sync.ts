/**
 * `hauki fs sync`: a folder and the pointers below a prefix made alike, in one direction at a time.
 *
 * What always holds: every write names the version that it replaces, so that what others wrote meanwhile is a conflict
 * and not lost; a file that changed while we worked is left alone; links are not followed, in neither direction; hidden
 * files are not synced. What both sides were like after the last sync stands in `.hauki-sync.json` in the folder.
 */
import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, watch as watchFolder } from 'node:fs';
import { lstat, mkdir, readdir, readFile, rename, stat, unlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { BadInput, describe, isError, type Mesh, PreconditionFailed, parsePointer } from '@hauki/mesh';
import type { Command } from 'commander';
import { askedToEnd, type Common, common, withMesh } from '../context.ts';
import { asInput, makeFoldersTo } from '../named-files.ts';
import { EXIT, paint, printable } from '../output.ts';
import { type Action, plan, type There } from '../sync-plan.ts';
import { fileContent, isPointer, saveFile } from './fs-cp.ts';

const STATE = '.hauki-sync.json';
/** Transfers at once. */
const AT_ONCE = 8;
/** Files of one folder: their names and digests are held in memory. */
const MOST_FILES = 100_000;
/** After a change of a file others mostly follow. */
const SETTLE_MS = 200;

interface SyncFlags extends Common {
  pull?: boolean;
  watch?: boolean;
  dryRun?: boolean;
  force?: boolean;
}

interface LocalFile {
  /** As the file system spells it. */
  name: string;
  digest: string;
  bytes: number;
  mtime_ms: number;
}

interface Scan {
  found: Map<string, LocalFile>;
  left_out: Set<string>;
}

/** What was alike after the last sync. Size and time tell that a file need not be read again. */
type Base = Map<string, There & { bytes?: number; mtime_ms?: number }>;

interface Problem {
  path: string;
  why: string;
}

interface Outcome {
  pushed: string[];
  pulled: string[];
  deleted: string[];
  conflicts: Problem[];
  /** What cannot be synced at all: links, names that no pointer can have, what the mesh refused. */
  refused: Problem[];
  unchanged: number;
}

/** The prefix in its canonical spelling, without a slash at its end. */
function checkedPrefix(text: string): string {
  if (!isPointer(text)) throw new BadInput({ what: 'prefix', why: 'it is like gem-pointer://wiki/project' });
  return parsePointer(`${text.replace(/\/+$/, '')}/x/y`).text.slice(0, -'/x/y'.length);
}

async function readBase(folder: string, prefix: string): Promise<{ all: Record<string, object>; base: Base }> {
  const text = await readFile(join(folder, STATE), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '{"format":1,"prefixes":{}}';
    throw error;
  });
  try {
    const { format, prefixes } = JSON.parse(text);
    if (format !== 1) throw new Error('it is of another Hauki');
    return { all: prefixes, base: new Map(Object.entries(prefixes[prefix] ?? {})) };
  } catch (error) {
    throw new BadInput({ what: join(folder, STATE), why: `${describe(error)}. Remove it to begin anew` });
  }
}

async function writeBase(folder: string, prefix: string, all: Record<string, object>, base: Base): Promise<void> {
  const text = JSON.stringify({ format: 1, prefixes: { ...all, [prefix]: Object.fromEntries([...base].sort()) } });
  const temporary = join(folder, `.hauki-${randomUUID()}.tmp`);
  try {
    await writeFile(temporary, `${text}\n`, { flag: 'wx' });
    await rename(temporary, join(folder, STATE));
  } catch (error) {
    throw asInput(join(folder, STATE), error);
  }
}

async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(chunk);
  return hash.digest('hex');
}

/**
 * All files below the folder, by the path that their pointers have; and what stands where a file or a folder could be,
 * and is neither. What was synced at or below such a path has not been deleted: nothing is known of it.
 */
async function scan(folder: string, prefix: string, base: Base, refused: Problem[]): Promise<Scan> {
  const found = new Map<string, LocalFile>();
  const left_out = new Set<string>();
  const refuse = (path: string, why: string) => void refused.push({ path, why });
  const leaveOut = (name: string, why: string) => {
    refuse(name, why);
    left_out.add(name.normalize('NFC')); // as pointers are spelled
  };
  const lookAt = async (name: string): Promise<void> => {
    let path: string;
    try {
      path = parsePointer(`${prefix}/${name}`).text.slice(prefix.length + 1);
    } catch (error) {
      return refuse(name, describe(error));
    }
    if (found.has(path)) return refuse(name, `its pointer would be that of ${found.get(path)!.name}`);
    if (found.size >= MOST_FILES)
      throw new BadInput({ what: folder, why: `it has more than ${MOST_FILES} files; sync its folders one by one` });
    const { size: bytes, mtimeMs: mtime_ms } = await stat(join(folder, name));
    const was = base.get(path);
    const is_known = was?.bytes === bytes && was.mtime_ms === mtime_ms;
    const digest = is_known ? was.digest : await digestOf(join(folder, name));
    found.set(path, { name, digest, bytes, mtime_ms });
  };
  const look = async (below: string): Promise<void> => {
    for (const entry of await readdir(join(folder, below), { withFileTypes: true })) {
      if (entry.name.startsWith('.')) continue;
      const name = below === '' ? entry.name : `${below}/${entry.name}`;
      try {
        if (entry.isDirectory()) await look(name);
        else if (entry.isFile()) await lookAt(name);
        else leaveOut(name, entry.isSymbolicLink() ? 'it is a link; links are not followed' : 'it is no file');
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (error instanceof BadInput || code === undefined) throw error;
        // What is gone by now is as if it had never been met; a name that is no UTF-8 was not read as it is.
        if (name.includes('\ufffd')) leaveOut(name, 'its name is not UTF-8');
        else if (code !== 'ENOENT') leaveOut(name, `it cannot be read (${code})`);
      }
    }
  };
  await look('');
  return { found, left_out };
}

/** What of `left_out` a path is, or lies behind. */
function leftOutBy(path: string, left_out: ReadonlySet<string>): string | undefined {
  if (left_out.size === 0) return undefined;
  for (let end = path.length; end > 0; end = path.lastIndexOf('/', end - 1))
    if (left_out.has(path.slice(0, end))) return path.slice(0, end);
  return undefined;
}

/** Whether the file is still as the scan saw it. */
async function isUnchanged(folder: string, file: LocalFile): Promise<boolean> {
  const now = await lstat(join(folder, file.name)).catch(() => undefined);
  return now?.isFile() === true && now.size === file.bytes && now.mtimeMs === file.mtime_ms;
}

/** Makes the folders above a file, none of them through a link. */
async function makeFolders(folder: string, path: string): Promise<void> {
  let at = folder;
  for (const name of path.split('/').slice(0, -1)) {
    at = join(at, name);
    // Made first and looked at then: other lanes make the same folders at the same time.
    await mkdir(at).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
    if (!(await lstat(at)).isDirectory())
      throw new BadInput({ what: at, why: 'it is a link or a file, and should be a folder' });
  }
}

interface Round {
  outcome: Outcome;
  /** That the mesh was at when it began. */
  revision: number;
  /** What ended it early. The outcome says what was done before, and the next round goes on from there. */
  failed?: { why: unknown };
}

async function round(mesh: Mesh, folder: string, prefix: string, flags: SyncFlags): Promise<Round> {
  const outcome: Outcome = { pushed: [], pulled: [], deleted: [], conflicts: [], refused: [], unchanged: 0 };
  const { all, base } = await readBase(folder, prefix);
  const { found: here, left_out } = await scan(folder, prefix, base, outcome.refused);
  const { entries, revision } = await mesh.meshfs.snapshot(`${prefix}/`);
  const there = new Map<string, There>();
  for (const { pointer, digest, version } of entries) {
    const path = pointer.slice(prefix.length + 1);
    // Another spelling of the prefix is not ours; a hidden file would be code that somebody else's pull runs.
    if (!pointer.startsWith(`${prefix}/`) || path.split('/').some((name) => name.startsWith('.'))) continue;
    there.set(path, { digest, version });
  }
  const actions = plan({ here, there, base }, flags.pull ? 'pull' : 'push', { force: flags.force === true });
  const settle = (path: string, now: There | undefined, file?: { bytes: number; mtime_ms: number }) => {
    if (now === undefined) base.delete(path);
    else
      base.set(path, {
        digest: now.digest,
        version: now.version,
        ...(file && { bytes: file.bytes, mtime_ms: file.mtime_ms }),
      });
  };

  const act = async (action: Action): Promise<void> => {
    const { path, kind } = action;
    const local = here.get(path);
    if (kind === 'ignored') return;
    const behind = leftOutBy(path, left_out);
    if (behind !== undefined) {
      if (behind !== path) outcome.refused.push({ path, why: `it would be behind ${behind}` });
      return;
    }
    if (kind === 'same') {
      outcome.unchanged += local ? 1 : 0;
      return settle(path, action.base, local);
    }
    if (kind === 'conflict') return void outcome.conflicts.push({ path, why: action.why });
    const done = kind === 'push' ? outcome.pushed : kind === 'pull' ? outcome.pulled : outcome.deleted;
    if (!flags.dryRun) {
      const pointer = `${prefix}/${path}`;
      if (kind === 'push') {
        const content = await fileContent(join(folder, local!.name));
        const over = action.over === undefined ? { create: true } : { if_match: action.over };
        settle(path, await mesh.meshfs.put(pointer, content, { ...over, digest: local!.digest }), local);
      } else if (kind === 'delete_there') {
        await mesh.meshfs.delete(pointer, { if_match: action.over });
        settle(path, undefined);
      } else {
        const target = join(folder, local?.name ?? path);
        const now = await lstat(target).catch(() => undefined);
        const is_as_seen = local ? await isUnchanged(folder, local) : !now;
        const why = now?.isDirectory() ? 'a folder of that name is here' : 'it is being changed here';
        if (!is_as_seen) return void outcome.conflicts.push({ path, why });
        if (kind === 'delete_here') {
          await unlink(target);
          settle(path, undefined);
        } else {
          await makeFolders(folder, path);
          const got = await mesh.meshfs.get(pointer);
          await saveFile(got, target);
          const { size: bytes, mtimeMs: mtime_ms } = await stat(target);
          settle(path, got, { bytes, mtime_ms });
        }
      }
    }
    done.push(path);
  };

  const waiting = actions[Symbol.iterator]();
  let failed: Round['failed'];
  const lane = async () => {
    for (const action of waiting) {
      if (failed) return;
      try {
        await act(action);
      } catch (error) {
        const { path } = action;
        if (isError(error, PreconditionFailed)) outcome.conflicts.push({ path, why: 'it was changed there just now' });
        else if (error instanceof Error && 'status' in error && Number(error.status) < 500)
          outcome.refused.push({ path, why: describe(error) });
        else failed ??= { why: error }; // the other lanes finish what they are at, and begin nothing new
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  if (!flags.dryRun) await writeBase(folder, prefix, all, base);
  return { outcome, revision, ...(failed && { failed }) };
}

function tell(outcome: Outcome, flags: SyncFlags, quiet: boolean): void {
  const { pushed, pulled, deleted, conflicts, refused, unchanged } = outcome;
  process.exitCode = conflicts.length + refused.length > 0 ? EXIT.failed : EXIT.ok;
  if (quiet && pushed.length + pulled.length + deleted.length + conflicts.length + refused.length === 0) return;
  if (flags.json) return console.log(JSON.stringify({ ...outcome, dry_run: flags.dryRun === true }));
  const line = (what: string, path: string, why = '') =>
    console.log(`${what}  ${printable(path)}${why && `: ${printable(why)}`}`);
  for (const path of pushed) line(paint('green', 'pushed  '), path);
  for (const path of pulled) line(paint('green', 'pulled  '), path);
  for (const path of deleted) line(paint('yellow', 'deleted '), path);
  for (const { path, why } of conflicts) line(paint('red', 'conflict'), path, why);
  for (const { path, why } of refused) line(paint('red', 'refused '), path, why);
  const counts = { pushed, pulled, deleted, conflicts, refused };
  const said = Object.entries(counts).flatMap(([what, list]) => (list.length > 0 ? [`${list.length} ${what}`] : []));
  console.log(
    `${[...said, `${unchanged} unchanged`].join(', ')}${flags.dryRun ? ' (a dry run: nothing was done)' : ''}`,
  );
}

/** Tells when it is time for another round: resolves true after a change has settled, false when asked to end. */
type Waiting = (after: number) => Promise<boolean>;

const settled = async (ended: AbortSignal): Promise<boolean> => {
  if (!ended.aborted) await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  return !ended.aborted;
};

/** Watches the folder from now on: what changes during a round is found by the next. */
function watchHere(folder: string, ended: AbortSignal): Waiting {
  let changed = Promise.withResolvers<void>();
  const watcher = watchFolder(folder, { recursive: true, signal: ended });
  watcher.on('change', (_, name) => {
    if (!/(^|[/\\])\./.test(String(name))) changed.resolve();
  });
  watcher.on('error', (error) => (ended.aborted ? changed.resolve() : changed.reject(error)));
  watcher.on('close', () => changed.resolve());
  return async () => {
    await changed.promise;
    const go_on = await settled(ended);
    changed = Promise.withResolvers<void>();
    return go_on;
  };
}

/** Watches the prefix, from the revision that the last round saw. */
function watchThere(mesh: Mesh, prefix: string, ended: AbortSignal): Waiting {
  return async (after) => {
    for await (const _ of mesh.meshfs.watch(`${prefix}/`, { after, signal: ended })) break;
    return settled(ended);
  };
}

async function sync(given: string, prefix_text: string, flags: SyncFlags): Promise<void> {
  const folder = resolve(given);
  if (isPointer(given))
    throw new BadInput({ what: 'folder', why: 'the folder comes first; --pull copies the other way' });
  if (flags.pull && !flags.dryRun) makeFoldersTo(folder);
  if (!(await stat(folder).catch(() => undefined))?.isDirectory())
    throw new BadInput({ what: folder, why: 'there is no such folder' });
  const prefix = checkedPrefix(prefix_text);
  if (flags.watch && flags.dryRun) throw new BadInput({ what: '--watch', why: 'a dry run ends by itself' });
  const ended = new AbortController();
  if (flags.watch) void askedToEnd().then(() => ended.abort());
  await withMesh(flags, async (mesh) => {
    const { signal } = ended;
    const changed = !flags.watch
      ? async () => false
      : flags.pull
        ? watchThere(mesh, prefix, signal)
        : watchHere(folder, signal);
    for (let quiet = false; ; quiet = true) {
      const { outcome, revision, failed } = await round(mesh, folder, prefix, flags);
      tell(outcome, flags, quiet);
      if (failed) throw failed.why;
      if (!(await changed(revision))) return;
    }
  });
}

export function syncCommand(fs: Command): void {
  fs.command('sync')
    .argument('<folder>')
    .argument('<prefix>', 'as in gem-pointer://wiki/project')
    .option('--pull', 'from the mesh to the folder; without it, from the folder to the mesh')
    .option('--watch', 'go on: sync again whenever something changes; Ctrl-C ends it')
    .option('--dry-run', 'only say what would be done')
    .option('--force', 'overwrite what was changed on the other side too; its history keeps it')
    .description('mirror a folder to the pointers below a prefix, or the other way with --pull')
    .addHelpText(
      'after',
      `
What others changed since the last sync is not overwritten: it is told as a conflict, and the exit code is 1. Files
that are on the other side alone, and were never synced, stay. Hidden files and links are left out.`,
    )
    .action((folder: string, prefix: string, flags, command: Command) =>
      sync(folder, prefix, { ...flags, ...common(command) }),
    );
}
