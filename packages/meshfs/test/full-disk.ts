/**
 * Run by wiki-folder.test.ts with a wiki folder on a file system of 1 MB: fills it, then looks at what is left there,
 * and in the store of contents.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { openEmbedded } from '@hauki/backplane';
import { isError, StorageFailed } from '@hauki/protocol';
import { createMeshFs } from '../src/index.ts';
import { listing } from './support.ts';

const root = process.argv[2]!;
const backplane = await openEmbedded(join(root, 'data'));
const mesh = await createMeshFs(backplane, { wiki_folder: join(root, 'wiki') });
const kept: Record<string, string> = {};
/** How many contents there are. All that are written here are too large for the database. */
const objects = async () =>
  (await readdir(join(root, 'data', 'objects'), { recursive: true, withFileTypes: true })).filter((one) => one.isFile())
    .length;
let written = 0;
for (let at = 0; ; at++) {
  const content = `${at} `.repeat(50_000);
  const file = `p/page${at % 7}.md`;
  try {
    await mesh.write({ pointer: `gem-pointer://wiki/${file}`, content });
    kept[file] = content;
    written += 1;
  } catch (thrown) {
    assert.ok(isError(thrown, StorageFailed), String(thrown));
    assert.match(thrown.message, /full/);
    break;
  }
}
assert.deepEqual(await listing(join(root, 'wiki')), kept);
for (const [file, content] of Object.entries(kept)) {
  assert.equal((await mesh.resolve(`gem-pointer://wiki/${file}`)).content, content);
}
assert.equal(await objects(), written, 'a text that was refused left its content');
const film = 'gem-pointer://wiki/p/film.mp4';
const full = (thrown: unknown) => isError(thrown, StorageFailed) && /full/.test(thrown.message);
const bytes = randomBytes(900_000);
await assert.rejects(mesh.put({ pointer: film, content: bytes }), full);
async function* stream() {
  for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000);
}
await assert.rejects(mesh.put({ pointer: film, content: stream() }), full);
const piece = { pointer: film, upload: 'an-upload', content: stream, start: 0, length: 900_000, total: 900_000 };
await assert.rejects(mesh.uploads.receive(piece), full);
assert.equal(await objects(), written, 'bytes that were refused left their content');
// Two at once with the same content, of which one has room: what is refused takes nothing from the other.
for (let at = 0; at < 20; at++) {
  const same = randomBytes(900_000);
  const other = { pointer: `gem-pointer://data/copy${at}`, content: same };
  const both = [mesh.put({ pointer: film, content: same }), mesh.put(other)];
  const [refused, fine] = await Promise.allSettled(at % 2 ? both : both.reverse()).then((all) =>
    at % 2 ? all : all.reverse(),
  );
  assert.deepEqual([refused!.status, fine!.status], ['rejected', 'fulfilled']);
  assert.ok((await backplane.objects.get((await mesh.open(other.pointer)).digest))?.length === same.length);
}
await backplane.close();
console.log(`refused after ${Object.keys(kept).length}, old version stays`);
