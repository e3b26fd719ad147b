/** Run by wiki-folder.test.ts with a wiki folder on a file system of 1 MB: fills it, then looks at what is left. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { openEmbedded } from '@hauki/backplane';
import { isError, StorageFailed } from '@hauki/protocol';
import { createMeshFs } from '../src/index.ts';
import { listing } from './support.ts';

const root = process.argv[2]!;
const backplane = await openEmbedded(join(root, 'data'));
const mesh = await createMeshFs(backplane, { wiki_folder: join(root, 'wiki') });
const kept: Record<string, string> = {};
for (let at = 0; ; at++) {
  const content = `${at} `.repeat(50_000);
  const file = `p/page${at % 7}.md`;
  try {
    await mesh.write({ pointer: `gem-pointer://wiki/${file}`, content });
    kept[file] = content;
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
await backplane.close();
console.log(`refused after ${Object.keys(kept).length}, old version stays`);
