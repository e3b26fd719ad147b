/** Run by embedded.test.ts on a file system of 3 MB: fills it, then checks what was acknowledged before. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isError, StorageFailed } from '@hauki/protocol';
import { type Backplane, openEmbedded } from '../src/index.ts';

const folder = process.argv[2]!;
const digests: string[] = [];
const values = new Map<string, string>();

async function untilFull(what: string, write: (at: number) => Promise<void>): Promise<number> {
  for (let at = 0; at < 1000; at++) {
    try {
      await write(at);
    } catch (thrown) {
      assert.ok(isError(thrown, StorageFailed), String(thrown));
      return at;
    }
  }
  throw new Error(`the disk was never full of ${what}`);
}

async function check(backplane: Backplane): Promise<void> {
  for (const digest of digests) assert.ok(await backplane.objects.get(digest));
  for (const [key, value] of values) assert.equal((await backplane.kv('a').get(key))?.value, value);
}

let backplane = await openEmbedded(folder);
const put = async (at: number) => {
  const value = randomBytes(20_000).toString('hex');
  await backplane.kv('a').put(`k${at % 5}`, value);
  values.set(`k${at % 5}`, value);
};
for (let at = 0; at < 5; at++) await put(at);
const objects = await untilFull(
  'objects',
  async () => void digests.push(await backplane.objects.put(randomBytes(60_000))),
);
console.log(`objects refused, kept ${objects}`);
await check(backplane);
/** A stream of one megabyte, which cannot fit any more. */
async function* large(): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < 20; at++) yield randomBytes(50_000);
}
await assert.rejects(
  backplane.objects.put(large()),
  (thrown) => isError(thrown, StorageFailed) && /full/.test(`${thrown}`),
);
const part = backplane.objects.part('an-upload');
await assert.rejects(part.append(large()), (thrown) => isError(thrown, StorageFailed) && /full/.test(`${thrown}`));
await part.discard();
assert.deepEqual(await readdir(join(folder, 'objects', 'parts')), []);
console.log('streams refused, nothing left of them');
const before = values.size;
const keys = await untilFull('keys', put);
await check(backplane);
console.log(`keys refused, kept ${keys + before}`);
await backplane.close();
backplane = await openEmbedded(folder);
await check(backplane);
// Room for an end that leaves no log; then none at all.
digests.splice(0, 12);
await backplane.objects.sweep(async (candidates) => {
  for (const digest of digests) candidates.delete(digest);
});
await backplane.close();
assert.ok(!(await readdir(folder)).includes('kv.sqlite-wal'));
await untilFull('others’ files', (at) =>
  writeFile(join(folder, '..filler'), new Uint8Array(4096), { flag: 'a' }).catch((thrown) => {
    throw at > 0 ? new StorageFailed({ what: String(thrown) }) : thrown;
  }),
);
backplane = await openEmbedded(folder);
await check(backplane);
await assert.rejects(put(0), (thrown) => isError(thrown, StorageFailed) && /full/.test(`${thrown}`));
await backplane.close();
console.log('reopened');
