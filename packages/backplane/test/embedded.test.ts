/** The embedded backend passes the suite, and does what only it has to do: the lock, the files, a full disk. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import {
  cp,
  type FileHandle,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
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

async function* streamOf(bytes: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 10_000) yield bytes.subarray(at, at + 10_000);
}

const filesIn = async (folder: string) =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name));

describe('the embedded backend', { concurrency: true }, () => {
  test(
    'acknowledges nothing any more when its folder was removed or replaced under it',
    {
      skip: process.platform === 'win32' && 'open files cannot be removed there',
    },
    () =>
      inFolder(async (folder) => {
        for (const replaced of [false, true]) {
          const root = join(folder, `replaced-${replaced}`);
          const store = await openEmbedded(root);
          const kv = store.kv('a');
          await kv.put('before', '1');
          await rename(root, `${root}-away`);
          if (replaced) await cp(`${root}-away`, root, { recursive: true });
          const failed = (thrown: unknown) =>
            isError(thrown, StorageFailed) && /kv\.sqlite was removed or replaced/.test(thrown.message);
          await assert.rejects(kv.put('after', '1'), failed);
          await assert.rejects(kv.put('later', '1'), failed);
          await assert.rejects(kv.get('before'), failed);
          await store.close();
        }
      }),
  );

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

  test('a store whose database was emptied or removed is not taken for a new one, and nothing of it is touched', () =>
    inFolder(async (folder) => {
      const first = await openEmbedded(folder);
      await first.objects.put(Buffer.alloc(LARGE, 'content'));
      await first.close();
      const database = join(folder, 'kv.sqlite');
      for (const harm of [() => truncate(database), () => rm(database), () => rm(join(folder, 'owner.pid'))]) {
        await harm();
        const before = await filesIn(folder);
        await assert.rejects(openEmbedded(folder), (thrown: Error) => {
          return isError(thrown, StorageFailed) && /Put kv\.sqlite back from a copy/.test(thrown.message);
        });
        assert.deepEqual(await filesIn(folder), before);
      }
    }));

  test('a store that a later version has written is refused, with what to do, and left as it is', () =>
    inFolder(async (folder) => {
      await (await openEmbedded(folder)).close();
      const pragma = (text: string) => {
        using db = new DatabaseSync(join(folder, 'kv.sqlite'));
        return db.prepare(`PRAGMA ${text}`).get()?.user_version;
      };
      const format = pragma('user_version') as number;
      pragma(`user_version = ${format + 1}`);
      await assert.rejects(openEmbedded(folder), (thrown: Error) => {
        return isError(thrown, StorageFailed) && /later version of Hauki.*Start that version/.test(thrown.message);
      });
      assert.equal(pragma('user_version'), format + 1);
    }));

  test('a store whose log is gone before anything of it was in the database is not taken for a new one', () =>
    inFolder(async (folder) => {
      const first = await openEmbedded(folder);
      await first.kv('a').put('key', 'value');
      const killed = join(folder, 'killed');
      await mkdir(killed);
      for (const name of ['kv.sqlite', 'owner.pid']) await cp(join(folder, name), join(killed, name));
      await first.close();
      await assert.rejects(openEmbedded(killed), (thrown) => isError(thrown, StorageFailed));
    }));

  test('a log that was damaged in its middle is told, put aside, and remembered until a person removes it', () =>
    inFolder(async (folder) => {
      const problems: string[] = [];
      const report = (problem: string) => problems.push(problem);
      const first = await openEmbedded(folder);
      for (let at = 0; at < 20; at++) await first.kv('a').put(`key-${at}`, 'value');
      const killed = join(folder, 'killed');
      const log = join(killed, 'kv.sqlite-wal');
      await mkdir(killed);
      for (const name of ['kv.sqlite', 'kv.sqlite-wal', 'owner.pid']) await cp(join(folder, name), join(killed, name));
      await first.close();
      const whole = await readFile(log);
      const keys = async (wanted: number | undefined) => {
        const store = await openEmbedded(killed, { report });
        const { entries } = await store.kv('a').list('');
        if (wanted !== undefined) assert.equal(entries.length, wanted);
        return { store, there: entries.length };
      };
      const damaged = Buffer.from(whole);
      damaged[Math.floor(whole.length / 2)]! ^= 1;
      await writeFile(log, damaged);
      const found = await keys(undefined);
      assert.ok(found.there < 20, 'SQLite drops what stands behind the damage');
      assert.match(problems.join(), /commits or more .* are lost/);
      assert.match(found.store.lost ?? '', /put aside/);
      await found.store.kv('a').put('later', 'value');
      // Killed again, it is not told again: what is behind the damage is no part of the log any more.
      const twice = join(folder, 'killed-again');
      await cp(killed, twice, { recursive: true });
      problems.length = 0;
      const after = await openEmbedded(twice, { report });
      assert.doesNotMatch(problems.join(), /are lost/);
      assert.equal((await after.kv('a').get('later'))?.value, 'value');
      await after.close();
      await found.store.close();
      const aside = (await readdir(killed)).find((name) => name.includes('damaged'))!;
      assert.deepEqual(await readFile(join(killed, aside)), damaged);
      problems.length = 0;
      const again = await keys(found.there + 1);
      assert.match(again.store.lost ?? '', /put aside/);
      assert.doesNotMatch(problems.join(), /are lost/);
      await again.store.close();
      await rm(join(killed, aside));
      problems.length = 0;
      const last = await keys(found.there + 1);
      assert.equal(last.store.lost, undefined);
      assert.deepEqual(problems, []);
      await last.store.close();
    }));

  test('a log that was torn at its end by a kill is no damage, nor is an older log behind its end', () =>
    inFolder(async (folder) => {
      const first = await openEmbedded(folder);
      for (let at = 0; at < 20; at++) await first.kv('a').put(`key-${at}`, 'value');
      const log = await readFile(join(folder, 'kv.sqlite-wal'));
      const [database, owner] = [await readFile(join(folder, 'kv.sqlite')), await readFile(join(folder, 'owner.pid'))];
      await first.close();
      const older = Buffer.from(log.subarray(-4 * (24 + 4096)));
      for (let at = 0; at < older.length; at += 24 + 4096) older[at + 8]! ^= 1; // its salt
      const torn = Buffer.concat([log.subarray(0, -4096), Buffer.alloc(4096)]);
      for (const [n, one] of [log, log.subarray(0, -100), torn, Buffer.concat([log, older])].entries()) {
        const killed = join(folder, `killed-${n}`);
        await mkdir(killed);
        await writeFile(join(killed, 'kv.sqlite'), database);
        await writeFile(join(killed, 'owner.pid'), owner);
        await writeFile(join(killed, 'kv.sqlite-wal'), one);
        const store = await openEmbedded(killed, { report: assert.fail });
        assert.ok((await store.kv('a').list('')).entries.length >= 19);
        assert.equal(store.lost, undefined);
        await store.close();
      }
    }));

  test('a small object that is damaged is put aside, so that a person can look', () =>
    inFolder(async (folder) => {
      const first = await openEmbedded(folder);
      const digest = await first.objects.put(Buffer.from('the right content'));
      await first.close();
      const damage = () => {
        const db = new DatabaseSync(join(folder, 'kv.sqlite'));
        db.prepare('INSERT OR REPLACE INTO object (digest, bytes) VALUES (?, ?)').run(
          Buffer.from(digest, 'hex'),
          Buffer.from('the wrong content'),
        );
        db.close();
      };
      damage();
      const again = await openEmbedded(folder);
      assert.equal(await again.objects.get(digest), undefined);
      assert.equal(await again.objects.size(digest), undefined);
      await again.close();
      const aside = join(folder, 'objects', digest.slice(0, 2), `${digest.slice(2)}.damaged`);
      assert.equal(await readFile(aside, 'utf8'), 'the wrong content');
      // Unless the right one is put just then.
      damage();
      const { objects, close } = await openEmbedded(folder);
      await Promise.all([objects.get(digest), objects.put(Buffer.from('the right content'))]);
      assert.equal(Buffer.from((await objects.get(digest))!).toString(), 'the right content');
      await close();
    }));

  test('a damaged page of the database is a typed error that says what to do, of keys and of small objects', () =>
    inFolder(async (folder) => {
      const backplane = await openEmbedded(folder);
      const texts = Array.from({ length: 40 }, (_, at) => `needle-${at}-`.padEnd(1_000, '.'));
      const digests: string[] = [];
      for (const [at, text] of texts.entries()) {
        digests.push(await backplane.objects.put(Buffer.from(text)));
        await backplane.kv('names').put(`name-${at}`, text);
      }
      await backplane.close();
      const file = join(folder, 'kv.sqlite');
      const bytes = await readFile(file);
      for (let at = bytes.indexOf('needle-'); at >= 0; at = bytes.indexOf('needle-', at)) {
        const page = Math.floor(at / 4_096) * 4_096;
        bytes.fill(0, page, page + 4_096);
      }
      await writeFile(file, bytes);
      const again = await openEmbedded(folder);
      const is_told = (thrown: Error) =>
        isError(thrown, StorageFailed) && /kv\.sqlite is damaged.*put the file back from a copy/.test(thrown.message);
      await assert.rejects(again.kv('names').get('name-1'), is_told);
      await assert.rejects(again.objects.get(digests[1]!), is_told);
      await assert.rejects(contentOf(again.objects.read(digests[1]!)), is_told);
      await assert.rejects(again.objects.size(digests[1]!), is_told);
      await again.close();
    }));

  test('a damaged object is never given out, and putting it again heals it', () =>
    inFolder(async (folder) => {
      const backplane = await openEmbedded(folder);
      const content = Buffer.alloc(LARGE, 'the right content');
      const digest = await backplane.objects.put(content);
      const file = join(folder, 'objects', digest.slice(0, 2), digest.slice(2));
      for (const damage of [Buffer.alloc(LARGE, 'the wrong content'), 'short', '']) {
        for (let at = 0; at < 2; at++) {
          await writeFile(file, damage);
          assert.equal(await backplane.objects.get(digest), undefined);
          await writeFile(file, damage);
          await assert.rejects(contentOf(backplane.objects.read(digest)), (thrown) => isError(thrown, StorageFailed));
        }
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

  test('content that could not be written is held by nobody, and leaves no file', () =>
    inFolder(async (folder) => {
      const { objects, close } = await openEmbedded(folder);
      const parts = join(folder, 'objects', 'parts');
      const contents = [randomBytes(LARGE), randomBytes(LARGE)];
      const give = [(bytes: Buffer) => bytes, (bytes: Buffer) => streamOf(bytes)];
      const refused = (thrown: unknown) => isError(thrown, StorageFailed);
      // It can be neither begun, nor given its name.
      await rename(parts, `${parts}-away`);
      for (const [at, bytes] of contents.entries()) await assert.rejects(objects.put(give[at]!(bytes)), refused);
      await rename(`${parts}-away`, parts);
      for (const [at, bytes] of contents.entries()) {
        const shelf = join(folder, 'objects', createHash('sha256').update(bytes).digest('hex').slice(0, 2));
        await rename(shelf, `${shelf}-away`);
        await assert.rejects(objects.put(give[at]!(bytes)), refused);
        await rename(`${shelf}-away`, shelf);
      }
      const broken = async function* () {
        yield randomBytes(LARGE);
        throw new Error('it broke off');
      };
      await assert.rejects(objects.put(broken()), /it broke off/);
      assert.deepEqual(await readdir(parts), []);
      for (const [at, bytes] of contents.entries()) await objects.put(give[at]!(bytes));
      const swept = await objects.sweep(async () => {});
      assert.deepEqual(swept, { kept: 0, removed: 2, removed_bytes: 2 * LARGE });
      await close();
    }));

  test(
    'the bytes and the name of content are on the disk before it is there for anybody',
    { skip: process.platform !== 'linux' },
    (
      t, // biome-ignore format: one thought
    ) =>
      inFolder(async (folder) => {
        const { objects, close } = await openEmbedded(folder);
        const probe = await open(folder);
        const handles = Object.getPrototypeOf(probe) as { sync(): Promise<void> };
        await probe.close();
        const synced: string[] = [];
        const real = handles.sync;
        t.mock.method(handles, 'sync', async function (this: FileHandle) {
          const path = readlinkSync(`/proc/self/fd/${this.fd}`);
          await real.call(this);
          if (path.includes(basename(folder))) synced.push(path.split('/objects/')[1]!.replace(/\.tmp-\d+/, '.tmp'));
        });
        const bytes = randomBytes(LARGE);
        const shelfOf = (digest: string) => digest.slice(0, 2);
        const digest = await objects.put(bytes);
        assert.deepEqual(synced.splice(0), ['parts/.tmp', shelfOf(digest)]);
        // Whoever brought it may have died before its name was there for good.
        await objects.put(bytes);
        assert.deepEqual(synced.splice(0), [shelfOf(digest)]);
        const streamed = await objects.put(streamOf(randomBytes(LARGE)));
        assert.deepEqual(synced.splice(0), ['parts/.tmp', shelfOf(streamed)]);
        const part = objects.part('an-upload');
        await part.append(streamOf(randomBytes(LARGE)));
        assert.deepEqual(synced.splice(0), ['parts/an-upload.part', 'parts']);
        using whole = await part.finish();
        assert.deepEqual(synced.splice(0), ['parts/an-upload.part', shelfOf(whole.digest)]);
        await close();
      }),
  );

  test('it holds as many changes for watchers as it is told to, and lets go of older ones', () =>
    inFolder(async (folder) => {
      const backplane = await openEmbedded(folder, { remembered_changes: 8 });
      const kv = backplane.kv('a');
      const revisions: number[] = [];
      const elsewhere = kv.watch('y').next();
      for (let i = 0; i < 40; i++) revisions.push(await kv.put('x', String(i)));
      for (const [back, seen] of [8, 3, 1].entries()) {
        const after = revisions.at(-seen - 1)!;
        assert.equal((await kv.watch('', { after }).next()).value.value, String(40 - seen), String(back));
      }
      assert.throws(
        () => kv.watch('', { after: revisions.at(-10)! }),
        (thrown) => isError(thrown, ChangesMissed),
      );
      // Who waits for others has missed none of these.
      const revision = await kv.put('y', '');
      assert.deepEqual((await elsewhere).value, { key: 'y', revision, value: '' });
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
