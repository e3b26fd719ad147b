/** What became of a pointer over time: versions, deletion, conditions, watching, and space that comes back. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import {
  BadInput,
  ChangesMissed,
  DigestMismatch,
  type ErrorClass,
  isError,
  NotText,
  PointerDeleted,
  PointerInvalid,
  PointerUnknown,
  PreconditionFailed,
  StorageFailed,
  TooLarge,
  VersionUnknown,
} from '@hauki/protocol';
import { MESHFS_LIMITS } from '../src/index.ts';
import { contentOf, inPlace, listing, type Place } from './support.ts';

const is = (kind: ErrorClass<any>) => (thrown: unknown) => isError(thrown, kind);
const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');
const page = 'gem-pointer://wiki/p/page.md';

describe('a pointer over time', { concurrency: true }, () => {
  test('every version stays readable, with its own kind, and is told of', () =>
    inPlace(async ({ mesh }) => {
      for (const content of ['one', 'two', 'three']) await mesh.write({ pointer: page, content });
      for (const [at, content] of ['one', 'two', 'three'].entries()) {
        const found = await mesh.resolve(page, { version: at + 1 });
        assert.deepEqual([found.content, found.version, found.digest], [content, at + 1, sha256(content)]);
      }
      const { versions } = await mesh.history('gem-pointer://wiki/p/page');
      assert.deepEqual(
        versions.map(({ version, digest }) => [version, digest]),
        [3, 2, 1].map((version) => [version, sha256(['one', 'two', 'three'][version - 1]!)]),
      );
      for (const version of [0, 4, -1, 1.5, Number.NaN])
        await assert.rejects(mesh.resolve(page, { version }), is(VersionUnknown));
      await assert.rejects(mesh.history('gem-pointer://wiki/p/nothing'), is(PointerUnknown));
    }));

  test('a history comes in pages without a gap', () =>
    inPlace(async ({ mesh }) => {
      for (let at = 1; at <= 12; at++) await mesh.write({ pointer: page, content: `${at}` });
      const seen: number[] = [];
      for (let before: number | undefined, pages = 0; ; pages++) {
        const found = await mesh.history(page, { limit: 5, ...(before && { before }) });
        seen.push(...found.versions.map(({ version }) => version));
        before = found.next;
        if (before !== undefined) continue;
        assert.equal(pages, 2);
        break;
      }
      assert.deepEqual(
        seen,
        Array.from({ length: 12 }, (_, at) => 12 - at),
      );
    }));

  test('a deletion is a version: nothing is read, what was is, the file goes, and writing goes on counting', () =>
    inPlace(async ({ mesh, wiki, reopen, reports }) => {
      const written = await mesh.write({ pointer: page, content: 'was here' });
      const deleted = await mesh.delete('gem-pointer://wiki/p/page');
      assert.deepEqual(deleted, {
        ...written, version: 2, revision: deleted.revision, digest: '', bytes: 0, deleted: true,
      }); // biome-ignore format: one value
      assert.deepEqual(await listing(wiki), {});
      await assert.rejects(mesh.resolve(page), (thrown) => {
        assert.ok(isError(thrown, PointerDeleted));
        assert.deepEqual(thrown.fields, { pointer: page, version: 2, deleted_at: '1970-01-01T00:00:00.000Z' });
        return true;
      });
      await assert.rejects(mesh.resolve(page, { version: 2 }), is(PointerDeleted));
      await assert.rejects(mesh.open(page), is(PointerDeleted));
      await assert.rejects(mesh.delete(page), is(PointerDeleted));
      await assert.rejects(mesh.delete('gem-pointer://wiki/p/never'), is(PointerUnknown));
      assert.deepEqual((await mesh.list('gem-pointer://')).entries, []);
      await mesh.collect();
      assert.equal((await mesh.resolve(page, { version: 1 })).content, 'was here');
      const again = await reopen();
      assert.deepEqual(await listing(wiki), {});
      assert.equal((await again.write({ pointer: page, content: 'back' })).version, 3);
      assert.deepEqual(await listing(wiki), { 'p/page.md': 'back' });
      const { versions } = await again.history(page);
      assert.deepEqual(
        versions.map(({ version, deleted }) => [version, deleted]),
        [[3, undefined], [2, true], [1, undefined]],
      ); // biome-ignore format: a table
      assert.deepEqual(reports, []);
    }));

  test('a deleted name is free for another kind, and old versions keep theirs', () =>
    inPlace(async ({ mesh, wiki, reopen }) => {
      const pointer = 'gem-pointer://wiki/w/scout';
      await mesh.write({ pointer, content: 'source', language: 'typescript' });
      await assert.rejects(mesh.write({ pointer, content: 'prose' }), is(PointerInvalid));
      await mesh.delete(pointer);
      const prose = await mesh.write({ pointer, content: 'prose' });
      assert.deepEqual([prose.pointer, prose.version], [`${pointer}.md`, 3]);
      await reopen();
      assert.deepEqual(await listing(wiki), { 'w/scout.md': 'prose' });
      const old = await mesh.resolve(pointer, { version: 1 });
      assert.deepEqual([old.content, old.language, old.media_type], ['source', 'typescript', 'text/typescript']);
    }));

  test('opening removes the file of a page deleted just before a crash, but nobody else’s', () =>
    inPlace(async ({ mesh, wiki, reopen }) => {
      for (const name of ['left', 'mine', 'taken'])
        await mesh.write({ pointer: `gem-pointer://wiki/p/${name}`, content: name });
      for (const name of ['left', 'mine', 'taken']) await mesh.delete(`gem-pointer://wiki/p/${name}`);
      await mesh.write({ pointer: 'gem-pointer://wiki/p/taken', content: 'new' });
      await writeFile(join(wiki, 'p/left.md'), 'left'); // as if the process had ended before it was removed
      await writeFile(join(wiki, 'p/mine.md'), 'a file of a person');
      await reopen();
      assert.deepEqual(await listing(wiki), { 'p/mine.md': 'a file of a person', 'p/taken.md': 'new' });
    }));

  test('deleting does not follow planted links', () =>
    inPlace(async ({ mesh, wiki, root, reports }) => {
      const outside = join(root, 'area/outside');
      const before = await listing(outside);
      await mesh.write({ pointer: 'gem-pointer://wiki/p/secret', content: 'x' });
      await mkdir(join(wiki, 'elsewhere'));
      await rename(join(wiki, 'p'), join(wiki, 'q'));
      await symlink(outside, join(wiki, 'p'));
      await mesh.delete('gem-pointer://wiki/p/secret');
      assert.match(reports.join(), /is deleted, but not its file: .* is a link/);
      assert.deepEqual(await listing(outside), before);
    }));

  test('a condition is met by version or digest, and by nothing else', () =>
    inPlace(async ({ mesh }) => {
      const first = await mesh.write({ pointer: page, content: '1', expect: 'absent' });
      const wrong = [['absent'], [[]], [[2]], [[sha256('2')]], [['1']]] as any[][];
      for (const [expect] of wrong) {
        const refused = (thrown: unknown) => {
          assert.ok(isError(thrown, PreconditionFailed));
          assert.deepEqual(thrown.fields.found, { version: 1, digest: first.digest });
          return true;
        };
        await assert.rejects(mesh.write({ pointer: page, content: 'x', expect }), refused);
        await assert.rejects(mesh.put({ pointer: page, content: Buffer.from('x'), expect }), refused);
        await assert.rejects(mesh.delete(page, { expect }), refused);
      }
      await mesh.write({ pointer: page, content: '2', expect: [1] });
      await mesh.write({ pointer: page, content: '3', expect: [7, sha256('2')] });
      await mesh.put({ pointer: page, content: Buffer.from('4'), expect: 'present' });
      await mesh.delete(page, { expect: [4] });
      for (const expect of ['present', [5], [4]] as const) {
        await assert.rejects(mesh.write({ pointer: page, content: 'x', expect }), (thrown) => {
          return isError(thrown, PreconditionFailed) && thrown.fields.found === null;
        });
      }
      assert.equal((await mesh.write({ pointer: page, content: 'new', expect: 'absent' })).version, 6);
    }));

  test('of many who write over the same version one wins, and each loser is told', () =>
    inPlace(async ({ mesh, reopen }) => {
      const second = await reopen();
      let version = 0;
      for (let round = 0; round < 5; round++) {
        const expect = version === 0 ? ('absent' as const) : [version];
        const all = await Promise.allSettled(
          Array.from({ length: 12 }, (_, at) =>
            (at % 2 ? mesh : second).write({ pointer: page, content: `${round} ${at}`, expect }),
          ),
        );
        const won = all.filter((one) => one.status === 'fulfilled');
        assert.equal(won.length, 1);
        for (const one of all) if (one.status === 'rejected') assert.ok(isError(one.reason, PreconditionFailed));
        version += 1;
        const found = await mesh.resolve(page);
        assert.deepEqual([found.version, found.digest], [version, won[0]!.value.digest]);
      }
    }));

  test('a watcher hears of writes and deletions under its prefix, from any revision that is remembered', () =>
    inPlace(async ({ mesh }) => {
      const changes = mesh.watch('gem-pointer://wiki/p/');
      const { revision } = await mesh.write({ pointer: page, content: '1' });
      await mesh.write({ pointer: 'gem-pointer://wiki/other/page', content: 'x' });
      await mesh.write({ pointer: 'gem-pointer://wiki/P/Upper', content: '2' });
      await mesh.delete(page);
      const seen = [];
      while (seen.length < 3) seen.push((await changes.next()).value);
      assert.deepEqual(
        seen.map((one) => [one.pointer, one.version, one.deleted]),
        [
          [page, 1, undefined],
          ['gem-pointer://wiki/P/Upper.md', 1, undefined],
          [page, 2, true],
        ],
      );
      const later = mesh.watch('gem-pointer://', { after: revision });
      assert.equal((await later.next()).value.pointer, 'gem-pointer://wiki/other/page.md');
      const { revision: listed } = await mesh.list('gem-pointer://');
      assert.equal(listed, await mesh.revision());
      assert.throws(() => mesh.watch('gem-pointer://', { after: listed + 1 }), is(ChangesMissed));
      assert.throws(() => mesh.watch('wiki/'), is(PointerInvalid));
    }));

  test('space comes back: of superseded, deleted and never committed content, and of nothing else', () =>
    inPlace(async ({ mesh, backplane }) => {
      const pointer = 'gem-pointer://data/counter';
      const orphan = await backplane.objects.put(randomBytes(100_000));
      for (let at = 1; at <= MESHFS_LIMITS.kept_versions + 5; at++)
        await mesh.write({ pointer, content: `version ${at}` });
      assert.deepEqual(await mesh.collect(), {
        kept: MESHFS_LIMITS.kept_versions,
        removed: 6,
        removed_bytes: 100_000 + 45,
      });
      assert.equal(await backplane.objects.size(orphan), undefined);
      await assert.rejects(mesh.resolve(pointer, { version: 5 }), (thrown) => {
        return isError(thrown, VersionUnknown) && thrown.fields.oldest === 6 && thrown.fields.newest === 1029;
      });
      assert.equal((await mesh.resolve(pointer, { version: 6 })).content, 'version 6');
      assert.equal((await mesh.history(pointer, { limit: 1000, before: 29 })).versions.length, 23);
      const [one, two] = await Promise.all([mesh.collect(), mesh.collect()]);
      assert.equal(one, two, 'two who ask at once share one run');
    }));

  test('a collection holds for all that was there when it was asked for, also while another runs', () =>
    inPlace(async ({ mesh, backplane }) => {
      for (let at = 0; at < 200; at++) await backplane.objects.put(Buffer.from(`content ${at}`));
      const first = mesh.collect();
      await new Promise((resolve) => setImmediate(resolve));
      const late = await backplane.objects.put(randomBytes(50_000));
      await mesh.collect();
      assert.equal(await backplane.objects.size(late), undefined);
      assert.equal((await first).removed, 200);
    }));

  test('space comes back by itself: when much has lost its name, and when a little has for long', async () => {
    const trim = async ({ mesh, backplane }: Place, large: number) => {
      const pointer = 'gem-pointer://data/trimmed';
      const digests: string[] = [];
      for (let at = 0; at < 3; at++) digests.push((await mesh.put({ pointer, content: randomBytes(large) })).digest);
      for (let at = 0; at < MESHFS_LIMITS.kept_versions; at++) await mesh.write({ pointer, content: `${at}` });
      // Nobody asks for it; what never comes ends with the test's own time.
      for (const digest of digests)
        while ((await backplane.objects.size(digest)) !== undefined) await new Promise((next) => setTimeout(next, 20));
      assert.equal((await mesh.history(pointer, { limit: 1 })).versions[0]!.version, MESHFS_LIMITS.kept_versions + 3);
      assert.equal((await mesh.resolve(pointer, { version: 4 })).content, '0');
    };
    await inPlace((place) => trim(place, MESHFS_LIMITS.collect_bytes / 2));
    await inPlace((place) => trim(place, 100_000), { collect_ms: 50 });
  });

  test('a write that failed leaves no content behind', () =>
    inPlace(async ({ mesh, backplane, root }) => {
      const pointer = 'gem-pointer://wiki/p/film.mp4';
      const first = randomBytes(100_000);
      await mesh.put({ pointer, content: first });
      const late = randomBytes(100_000);
      // The condition holds when the content begins to come, and does not when all of it is there.
      async function* content() {
        yield late.subarray(0, 90_000);
        await mesh.put({ pointer, content: first.subarray(1) });
        yield late.subarray(90_000);
      }
      await assert.rejects(mesh.put({ pointer, content: content(), expect: [1] }), is(PreconditionFailed));
      assert.equal(await backplane.objects.size(sha256(late)), undefined);
      // What somebody else has already stays, whoever fails with the same.
      await rm(join(root, 'area/wiki/p'), { recursive: true });
      await symlink(join(root, 'area/outside'), join(root, 'area/wiki/p'));
      await assert.rejects(mesh.put({ pointer, content: first }), is(StorageFailed));
      assert.deepEqual(await backplane.objects.get(sha256(first)), first);
    }));

  test('records of Hauki 0.1 are read, with their past, and go on', () =>
    inPlace(async ({ backplane, reopen, mesh }) => {
      const entry = async (version: number) => {
        const content = `v${version}`;
        const digest = await backplane.objects.put(Buffer.from(content));
        return { version, digest, bytes: 2, media_type: 'text/markdown', written_at: '2026-01-01T00:00:00.000Z' };
      };
      const [now, ...past] = [await entry(3), await entry(2), await entry(1)];
      const record = { format: 1, pointer: page, ...now, past, file: 'p/page.md' };
      await backplane.kv('meshfs').put('wiki/p/page', JSON.stringify(record));
      await reopen();
      await mesh.collect();
      assert.equal((await mesh.resolve(page)).content, 'v3');
      assert.equal((await mesh.resolve(page, { version: 1 })).content, 'v1');
      assert.equal((await mesh.history(page)).versions.length, 3);
      await mesh.write({ pointer: page, content: 'v4' });
      await mesh.collect();
      for (const version of [1, 2, 3, 4]) assert.equal((await mesh.resolve(page, { version })).content, `v${version}`);
      assert.deepEqual(
        (await mesh.history(page)).versions.map(({ version }) => version),
        [4, 3, 2, 1],
      );
    }));
});

describe('raw content', { concurrency: true }, () => {
  test('bytes of any kind are kept as they are, in the wiki as a file too', () =>
    inPlace(async ({ mesh, wiki }) => {
      const bytes = randomBytes(300_000);
      const cases = [
        ['wiki/p/logo.png', 'image/png', 'p/logo.png'],
        ['wiki/p/Makefile', 'application/octet-stream', 'p/Makefile.bin'],
        ['wiki/p/data.csv', 'text/csv; charset=utf-8', 'p/data.csv'],
        ['data/anything', 'application/octet-stream', undefined],
      ] as const;
      for (const [path, media_type, file] of cases) {
        const pointer = `gem-pointer://${path}`;
        const stream = async function* () {
          for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000);
        };
        const written = await mesh.put({ pointer, content: stream(), digest: sha256(bytes) });
        assert.deepEqual([written.pointer, written.media_type, written.digest], [pointer, media_type, sha256(bytes)]);
        const opened = await mesh.open(pointer);
        assert.deepEqual(await contentOf(opened.read()), bytes);
        assert.deepEqual(await contentOf(opened.read({ start: 7, end: 9 })), bytes.subarray(7, 9));
        if (file) assert.ok(file in (await listing(wiki)), file);
        await assert.rejects(mesh.resolve(pointer), is(NotText));
      }
    }));

  test('what is put over something is of its kind, unless it says otherwise', () =>
    inPlace(async ({ mesh }) => {
      const pointer = 'gem-pointer://wiki/w/scout';
      await mesh.write({ pointer, content: '1', language: 'typescript' });
      const put = await mesh.put({ pointer, content: Buffer.from('2') });
      assert.deepEqual([put.language, put.media_type, put.version], ['typescript', 'text/typescript', 2]);
      await assert.rejects(
        mesh.put({ pointer, content: Buffer.from('3'), media_type: 'image/png' }),
        is(PointerInvalid),
      );
      assert.equal((await mesh.resolve(pointer)).content, '2');
    }));

  test('a wrong digest, a broken stream and text that is too large change nothing', () =>
    inPlace(async ({ mesh, wiki, backplane }) => {
      await mesh.write({ pointer: page, content: 'old' });
      const content = Buffer.from('new');
      await assert.rejects(mesh.put({ pointer: page, content, digest: sha256('other') }), is(DigestMismatch));
      const broken = async function* () {
        yield randomBytes(200_000);
        throw new BadInput({ what: 'body', why: 'cut' });
      };
      await assert.rejects(mesh.put({ pointer: page, content: broken() }), is(BadInput));
      assert.deepEqual(await listing(wiki), { 'p/page.md': 'old' });
      assert.equal((await mesh.resolve(page)).version, 1);
      assert.deepEqual(await backplane.objects.parts(), []);
      const large = Buffer.alloc(MESHFS_LIMITS.content_bytes + 1, 'x');
      await mesh.put({ pointer: 'gem-pointer://data/large', content: large });
      await assert.rejects(mesh.resolve('gem-pointer://data/large'), is(TooLarge));
    }));

  test('large files of the wiki are repaired too', () =>
    inPlace(async ({ mesh, wiki, reopen, reports }) => {
      const bytes = randomBytes(9 * 1024 * 1024);
      await mesh.put({ pointer: 'gem-pointer://wiki/p/film.mp4', content: bytes });
      await writeFile(join(wiki, 'p/film.mp4'), 'cut');
      await reopen();
      assert.equal(sha256(await readFile(join(wiki, 'p/film.mp4'))), sha256(bytes));
      assert.deepEqual(reports, []);
    }));

  test('a damaged record is read from its newest version, and mended by the next write; of the wiki it is named', () =>
    inPlace(async ({ mesh, backplane, reports }) => {
      const pointer = 'gem-pointer://data/one';
      for (const content of ['1', '2']) await mesh.write({ pointer, content });
      await mesh.write({ pointer: page, content: 'page' });
      for (const key of ['data/one', 'wiki/p/page']) await backplane.kv('meshfs').put(key, 'z"format":2}');
      assert.equal((await mesh.resolve(pointer)).content, '2');
      assert.match(reports.join(), /The record of gem-pointer:\/\/data\/one is damaged/);
      assert.equal((await mesh.write({ pointer, content: '3' })).version, 3);
      reports.length = 0;
      assert.equal((await mesh.resolve(pointer)).content, '3');
      assert.deepEqual(reports, []);
      await assert.rejects(mesh.resolve(page), (thrown: Error) => {
        return isError(thrown, StorageFailed) && thrown.message.includes('gem-pointer://wiki/p/page is damaged');
      });
    }));

  test('a damaged version is left out of the history and named when it is asked for; the others stay', () =>
    inPlace(async ({ mesh, backplane, reports }) => {
      const pointer = 'gem-pointer://data/one';
      for (const content of ['1', '2', '3']) await mesh.write({ pointer, content });
      await backplane.kv('meshfs-versions').put('data/one//0000000002', 'z"version":2}');
      const { versions } = await mesh.history(pointer);
      assert.deepEqual(
        versions.map(({ version }) => version),
        [3, 1],
      );
      assert.match(reports.join(), /data\/one\/\/0000000002/);
      await assert.rejects(mesh.resolve(pointer, { version: 2 }), (thrown: Error) => {
        return isError(thrown, StorageFailed) && thrown.message.includes('version 2 of gem-pointer://data/one');
      });
      assert.equal((await mesh.resolve(pointer, { version: 1 })).content, '1');
    }));

  test('a collection goes on over damaged records and versions, keeps what they name, and tells which they are', () =>
    inPlace(async ({ mesh, backplane, reports }) => {
      const pointer = 'gem-pointer://data/one';
      for (const content of ['1', '2']) await mesh.write({ pointer, content });
      await backplane.objects.put(Buffer.from('of nobody'));
      for (const [namespace, key] of [
        ['meshfs', 'data/one'],
        ['meshfs-versions', 'data/one//0000000001'],
        ['meshfs-versions', 'data/one//0000000002'],
      ] as const) {
        const kv = backplane.kv(namespace);
        await kv.put(key, `z${(await kv.get(key))!.value.slice(1)}`);
      }
      assert.deepEqual([(await mesh.collect()).kept, (await mesh.collect()).removed], [2, 0]);
      assert.match(reports.join(), /data\/one\/\/0000000001/);
      for (const content of ['1', '2']) assert.ok(await backplane.objects.get(sha256(content)));
      assert.equal(await backplane.objects.get(sha256('of nobody')), undefined);
    }));
});
