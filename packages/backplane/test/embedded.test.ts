/** The embedded backend passes the suite, and does what only it has to do: the lock, the files, a full disk. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ChangesMissed, isError, StorageFailed } from '@hauki/protocol';
import { BACKPLANE_LIMITS, openEmbedded } from '../src/index.ts';
import { backplaneConformance } from './conformance.ts';

const writer = new URL('./writer.ts', import.meta.url);
backplaneConformance('the embedded backend', openEmbedded, { writer });

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'hauki-embedded-'));
  try {
    await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Kept as a file, not as a row. */
const LARGE = BACKPLANE_LIMITS.small_object_bytes + 1;

async function contentOf(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk)); // a copy: the next piece may overwrite it
  return Buffer.concat(chunks);
}

const filesIn = async (folder: string) =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name));

describe('the embedded backend', { concurrency: true }, () => {
  test('a folder is open in one process alone; the second is told by whom', () =>
    inFolder(async (folder) => {
      const child = spawn(process.execPath, [fileURLToPath(writer), folder, '0'], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(child.stdout, 'data');
      await assert.rejects(openEmbedded(folder, { wait_ms: 50 }), (thrown: Error) => {
        return isError(thrown, StorageFailed) && thrown.message.includes(`(pid ${child.pid})`);
      });
      child.kill('SIGKILL');
      await once(child, 'exit');
      await (await openEmbedded(folder)).close();
    }));

  test('a folder is not opened twice by the same process either', () =>
    inFolder(async (folder) => {
      const first = await openEmbedded(folder);
      await assert.rejects(openEmbedded(folder, { wait_ms: 0 }), (thrown) => isError(thrown, StorageFailed));
      await first.kv('a').put('still', 'mine');
      await first.close();
    }));

  test('after a kill the next open removes what was half written', () =>
    inFolder(async (folder) => {
      const first = await openEmbedded(folder);
      const digest = await first.objects.put(Buffer.alloc(LARGE, 'whole'));
      await first.close();
      for (const shelf of [digest.slice(0, 2), 'parts'])
        await writeFile(join(folder, 'objects', shelf, '.tmp-17'), 'hal');
      const again = await openEmbedded(folder);
      assert.deepEqual(await filesIn(join(folder, 'objects')), [
        join(folder, 'objects', digest.slice(0, 2), digest.slice(2)),
      ]);
      await again.close();
    }));

  test('a damaged object is never given out, and putting it again heals it', () =>
    inFolder(async (folder) => {
      const backplane = await openEmbedded(folder);
      const content = Buffer.alloc(LARGE, 'the right content');
      const digest = await backplane.objects.put(content);
      const file = join(folder, 'objects', digest.slice(0, 2), digest.slice(2));
      for (const damage of [Buffer.alloc(LARGE, 'the wrong content'), 'short', '']) {
        await writeFile(file, damage);
        await assert.rejects(contentOf(backplane.objects.read(digest)), (thrown) => isError(thrown, StorageFailed));
        if (damage.length === content.length) assert.equal(await backplane.objects.get(digest), undefined);
        assert.equal(await backplane.objects.put(content), digest);
        assert.deepEqual(await readFile(file), content);
      }
      await backplane.close();
    }));

  test('content whose stored copy is damaged is written anew by whoever puts it, read or not', () =>
    inFolder(async (folder) => {
      const small = Buffer.alloc(LARGE - 1, 'the right content');
      const large = Buffer.alloc(LARGE, 'the right content');
      const first = await openEmbedded(folder);
      const digests = [await first.objects.put(small), await first.objects.put(large)] as const;
      await first.close();
      const damaged = Buffer.from(small);
      damaged[0]! ^= 1;
      const db = new DatabaseSync(join(folder, 'kv.sqlite'));
      db.prepare('UPDATE object SET bytes = ? WHERE digest = ?').run(damaged, Buffer.from(digests[0], 'hex'));
      db.close();
      const file = join(folder, 'objects', digests[1].slice(0, 2), digests[1].slice(2));
      await writeFile(file, Buffer.alloc(LARGE, 'the wrong content'));
      const backplane = await openEmbedded(folder);
      for (const [at, content] of [small, large].entries()) {
        using prepared = await backplane.objects.prepare(content);
        await backplane.commit([{ namespace: 'names', key: `${at}`, value: prepared.digest }], [prepared]);
        assert.deepEqual(await contentOf(backplane.objects.read(digests[at]!)), content);
        assert.deepEqual(Buffer.from((await backplane.objects.get(digests[at]!))!), content);
      }
      await backplane.close();
    }));

  test('a reader that met damage takes nothing from whoever has put the right bytes meanwhile', () =>
    inFolder(async (folder) => {
      const backplane = await openEmbedded(folder);
      const content = Buffer.alloc(LARGE, 'the right content');
      const digest = await backplane.objects.put(content);
      const file = join(folder, 'objects', digest.slice(0, 2), digest.slice(2));
      await writeFile(file, Buffer.alloc(LARGE, 'the wrong content'));
      const reading = backplane.objects.read(digest)[Symbol.asyncIterator]();
      await reading.next();
      await backplane.objects.put(content);
      await assert.rejects(reading.next(), (thrown) => isError(thrown, StorageFailed));
      assert.deepEqual(Buffer.from((await backplane.objects.get(digest))!), content);
      await backplane.close();
    }));

  test('it holds as many changes for watchers as it is told to, and lets go of older ones', () =>
    inFolder(async (folder) => {
      const backplane = await openEmbedded(folder, { remembered_changes: 8 });
      const kv = backplane.kv('a');
      const revisions: number[] = [];
      for (let i = 0; i < 40; i++) revisions.push(await kv.put('x', String(i)));
      for (const [back, seen] of [8, 3, 1].entries()) {
        const after = revisions.at(-seen - 1)!;
        assert.equal((await kv.watch('', { after }).next()).value.value, String(40 - seen), String(back));
      }
      assert.throws(
        () => kv.watch('', { after: revisions.at(-10)! }),
        (thrown) => isError(thrown, ChangesMissed),
      );
      await backplane.close();
    }));

  test('a full disk is a typed error, and all that was acknowledged stays', async (t) => {
    // A real one: a small file system in a mount namespace of the child's own, gone with it.
    const script = fileURLToPath(new URL('./full-disk.ts', import.meta.url));
    await inFolder(async (folder) => {
      const mount = `mount -t tmpfs -o size=3m none "$1" && exec "$2" "$3" "$1"`;
      try {
        await promisify(execFile)('unshare', ['-rm', 'sh', '-c', 'mount -t tmpfs -o size=1m none "$1"', 'sh', folder]);
      } catch {
        t.skip('this host lets nobody mount a small file system to fill');
        return;
      }
      const args = ['-rm', 'sh', '-c', mount, 'sh', folder, process.execPath, script];
      const { stdout } = await promisify(execFile)('unshare', args);
      assert.match(
        stdout,
        /objects refused, kept [1-9]\d*\nstreams refused, nothing left of them\nkeys refused, kept [1-9]\d*\nreopened/,
      );
    });
  });
});
