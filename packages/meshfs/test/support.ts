/** A MeshFS in a folder of its own, with something beside the wiki that must stay untouched. */
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Backplane, openEmbedded } from '@hauki/backplane';
import { createMeshFs, type MeshFs } from '../src/index.ts';

export interface Place {
  root: string;
  wiki: string;
  backplane: Backplane;
  mesh: MeshFs;
  reports: string[];
  /** Sets the clock. */
  at(ms: number): void;
  /** Opens MeshFS once more over the same backplane, as after a restart. */
  reopen(backplane?: Backplane): Promise<MeshFs>;
}

export async function inPlace(
  use: (place: Place) => Promise<void>,
  options: { collect_ms?: number; elapsed?: () => number } = {},
): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'hauki-meshfs-'));
  const wiki = join(root, 'area', 'wiki');
  await mkdir(join(root, 'area', 'outside'), { recursive: true });
  await writeFile(join(root, 'area', 'outside', 'secret.md'), 'not of the wiki');
  const backplane = await openEmbedded(join(root, 'data'));
  const reports: string[] = [];
  let now = 0;
  const at = (ms: number) => {
    now = ms;
  };
  const reopen = (over = backplane) =>
    createMeshFs(over, {
      ...{ wiki_folder: wiki, clock: () => now, elapsed: () => now, report: (problem) => reports.push(problem) },
      ...options,
    });
  try {
    await use({ root, wiki, backplane, mesh: await reopen(), reports, reopen, at });
  } finally {
    await backplane.close();
    await rm(root, { recursive: true, force: true });
  }
}

/** Every file below a folder with its content; links are named, not followed. */
export async function listing(folder: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const name = path.slice(folder.length + 1);
    if (entry.isFile()) found[name] = await readFile(path, 'utf8');
    else if (entry.isSymbolicLink()) found[name] = `-> ${await readlink(path)}`;
  }
  return found;
}

/** All of a stream. */
export async function contentOf(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk)); // a copy: the next piece may overwrite it
  return Buffer.concat(chunks);
}
