/** What writing and resolving promise: names, kinds, versions, errors. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import {
  BadInput,
  type ErrorClass,
  isError,
  Overloaded,
  PayloadLost,
  PointerInvalid,
  PointerMissing,
  PointerUnknown,
  StorageFailed,
  TooLarge,
} from '@hauki/protocol';
import { MESHFS_LIMITS } from '../src/index.ts';
import { places, queue } from '../src/queue.ts';
import { inPlace, listing } from './support.ts';

const is =
  (kind: ErrorClass<any>, message = /./) =>
  (thrown: unknown) =>
    isError(thrown, kind) && message.test((thrown as Error).message);
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

describe('MeshFS', { concurrency: true }, () => {
  test('what was written is resolved, with its digest and media type', () =>
    inPlace(async ({ mesh, wiki }) => {
      const content = '\ufeff# Notes\r\n\0 😀 e\u0301';
      const written = await mesh.write({ pointer: 'gem-pointer://wiki/p/notes', content });
      const { revision, ...rest } = written;
      assert.ok(revision > 0);
      assert.deepEqual(rest, {
        pointer: 'gem-pointer://wiki/p/notes.md', digest: sha256(content), version: 1,
        bytes: Buffer.byteLength(content), media_type: 'text/markdown', written_at: '1970-01-01T00:00:00.000Z',
      }); // biome-ignore format: one value
      assert.deepEqual(await mesh.resolve('gem-pointer://wiki/p/notes'), {
        ...written,
        content,
      });
      assert.deepEqual(await listing(wiki), { 'p/notes.md': content });
    }));

  test('a page, the page with .md and the default document are one each', () =>
    inPlace(async ({ mesh, wiki }) => {
      await mesh.write({ pointer: 'gem-pointer://wiki/p/notes', content: '1' });
      await mesh.write({ pointer: 'gem-pointer://wiki/p/notes.md', content: '2' });
      await mesh.write({ pointer: 'gem-pointer://wiki/p', content: 'home' });
      for (const spelling of ['p/notes', 'p/notes.md', 'p/notes.MD']) {
        const { content, version } = await mesh.resolve(`gem-pointer://wiki/${spelling}`);
        assert.deepEqual([content, version], ['2', 2]);
      }
      for (const spelling of ['p', 'p/', 'p/readme', 'p/readme.md']) {
        assert.equal((await mesh.resolve(`gem-pointer://wiki/${spelling}`)).content, 'home');
      }
      assert.deepEqual(await listing(wiki), { 'p/notes.md': '2', 'p/readme.md': 'home' });
    }));

  test("a worker's source keeps its pointer, and its file gets the language's ending", () =>
    inPlace(async ({ mesh, wiki }) => {
      const endings = { typescript: '.ts', javascript: '.js', python: '.py', lpc: '.c' };
      for (const [language, ending] of Object.entries(endings)) {
        const pointer = `gem-pointer://wiki/workers/${language}_scout`;
        assert.equal((await mesh.write({ pointer, content: language, language })).pointer, pointer);
        const found = await mesh.resolve(pointer);
        assert.deepEqual([found.pointer, found.content, found.language], [pointer, language, language]);
        assert.ok(`workers/${language}_scout${ending}` in (await listing(wiki)));
      }
      const media = async (path: string) => (await mesh.resolve(`gem-pointer://wiki/workers/${path}`)).media_type;
      assert.equal(await media('lpc_scout'), 'text/x-lpc');
      assert.equal(await media('python_scout'), 'text/x-python');
    }));

  test('the language can be told from the ending, in the wiki and elsewhere', () =>
    inPlace(async ({ mesh, wiki }) => {
      const cases = {
        'a.ts': 'typescript',
        'b.js': 'javascript',
        'c.mjs': 'javascript',
        'd.py': 'python',
        'e.c': 'lpc',
        'f.lpc': 'lpc',
      };
      for (const [page, language] of Object.entries(cases)) {
        for (const space of ['wiki/p', 'workers']) {
          const pointer = `gem-pointer://${space}/${page}`;
          const written = await mesh.write({ pointer, content: page });
          assert.deepEqual([written.pointer, written.language], [pointer, language]);
        }
      }
      assert.deepEqual(
        Object.keys(await listing(wiki)).sort(),
        Object.keys(cases).map((page) => `p/${page}`),
      );
    }));

  test('media types are as said, or the usual ones', () =>
    inPlace(async ({ mesh, wiki }) => {
      const type = async (pointer: string, media_type?: string) =>
        (await mesh.write({ pointer: `gem-pointer://${pointer}`, content: 'x', ...(media_type && { media_type }) }))
          .media_type;
      assert.equal(await type('wiki/p/a.txt'), 'text/plain; charset=utf-8');
      assert.equal(await type('cache/a'), 'text/plain; charset=utf-8');
      assert.equal(await type('cache/b', 'application/json'), 'application/json');
      assert.equal(await type('wiki/p/data.json', 'application/json'), 'application/json');
      assert.equal(await type('wiki/p/table', 'text/csv'), 'text/csv');
      assert.deepEqual(Object.keys(await listing(wiki)).sort(), ['p/a.txt', 'p/data.json', 'p/table.txt']);
      for (const bad of ['x', 'a/b\nc', 'a/b; é', 'a'.repeat(200)])
        await assert.rejects(type('cache/c', bad), is(BadInput));
    }));

  test('a source and a document of one name cannot shadow one another', () =>
    inPlace(async ({ mesh, wiki }) => {
      const write = (path: string, language?: string) =>
        mesh.write({
          pointer: `gem-pointer://wiki/w/${path}`,
          content: `${path} ${language}`,
          ...(language && { language }),
        });
      await write('scout', 'typescript');
      await write('page');
      await write('tool.py');
      const before = await listing(wiki);
      for (const [path, language] of [
        ['scout'],
        ['scout.md'],
        ['scout', 'python'],
        ['scout.ts'],
        ['page', 'typescript'],
        ['page.md', 'python'],
        ['tool', 'python'],
        ['tool.py', 'typescript'],
        ['other.md', 'lpc'],
        ['other.txt', 'lpc'],
        ['Scout', 'typescript'],
        ['PAGE'],
      ] as [string, string?][]) {
        // biome-ignore format: a table
        await assert.rejects(write(path, language), is(PointerInvalid), `${path} as ${language} was written`);
      }
      await assert.rejects(write('scout'), is(PointerInvalid, /kept as w\/scout\.ts.*with language typescript/));
      assert.deepEqual(await listing(wiki), before);
      await assert.rejects(mesh.resolve('gem-pointer://wiki/w/scout.md'), is(PointerUnknown, /There is .*\/scout$/));
      await assert.rejects(mesh.resolve('gem-pointer://wiki/w/Page'), is(PointerUnknown, /There is .*\/page\.md$/));
      assert.equal((await write('scout', 'typescript')).version, 2);
      await write('tool'); // a document beside tool.py hides nothing
    }));

  test('a source and a document that race for one name: one wins, the other is told', () =>
    inPlace(async ({ mesh, wiki }) => {
      for (let round = 0; round < 10; round++) {
        const pointer = `gem-pointer://wiki/w/r${round}`;
        const all = await Promise.allSettled([
          mesh.write({ pointer, content: 'source', language: 'typescript' }),
          mesh.write({ pointer, content: 'document' }),
          mesh.write({ pointer: `${pointer}.ts`, content: 'explicit' }),
        ]);
        const won = all.filter((one) => one.status === 'fulfilled').map((one) => one.value.pointer);
        const files = Object.keys(await listing(wiki)).filter((file) => file.startsWith(`w/r${round}.`));
        assert.equal(files.length, won.length);
        for (const one of won) assert.ok((await mesh.resolve(one)).content);
      }
    }));

  test('two processes that race for one name with different kinds: one wins, the other is told', () =>
    inPlace(async ({ mesh, reopen }) => {
      const second = await reopen();
      for (let round = 0; round < 10; round++) {
        const pointer = `gem-pointer://wiki/w/r${round}`;
        const all = await Promise.allSettled([
          mesh.write({ pointer, content: 'source', language: 'typescript' }),
          second.write({ pointer, content: 'document' }),
        ]);
        const [won, ...rest] = all.filter((one) => one.status === 'fulfilled');
        assert.equal(rest.length, 0, 'both were told that they had the name');
        assert.equal((await mesh.resolve(pointer)).digest, won!.value.digest);
      }
    }));

  test('pointers outside the wiki live under their digest alone, and keep letter case apart', () =>
    inPlace(async ({ mesh, wiki, backplane }) => {
      const a = await mesh.write({ pointer: 'gem-pointer://workers/scout', content: 'a' });
      await mesh.write({ pointer: 'gem-pointer://workers/Scout', content: 'b' });
      await mesh.write({ pointer: 'gem-pointer://workers/scout.md', content: 'c' });
      assert.equal((await mesh.resolve('gem-pointer://workers/scout')).content, 'a');
      assert.equal(Buffer.from((await backplane.objects.get(a.digest))!).toString(), 'a');
      assert.deepEqual(await listing(wiki), {});
    }));

  test('no pointer, an unknown pointer and lost content are three errors', () =>
    inPlace(async ({ mesh, root }) => {
      await assert.rejects(mesh.resolve(''), is(PointerMissing));
      await assert.rejects(mesh.write({ content: 'x' } as never), is(PointerMissing));
      await assert.rejects(mesh.resolve('gem-pointer://wiki/p/nothing'), is(PointerUnknown));
      await assert.rejects(mesh.resolve('gem-pointer://other/nothing'), is(PointerUnknown));
      const pointer = 'gem-pointer://wiki/p/lost.md';
      const content = 'lost '.repeat(10_000); // too large for a row: kept as a file
      const { digest } = await mesh.write({ pointer, content });
      await unlink(join(root, 'data', 'objects', digest.slice(0, 2), digest.slice(2)));
      await assert.rejects(mesh.resolve(pointer), (thrown) => {
        assert.ok(isError(thrown, PayloadLost));
        assert.deepEqual(thrown.fields, { pointer, digest });
        return true;
      });
      await mesh.write({ pointer, content });
      assert.equal((await mesh.resolve(pointer)).content, content);
    }));

  test('content is a text of at most 8 MiB', () =>
    inPlace(async ({ mesh }) => {
      const pointer = 'gem-pointer://wiki/p/large';
      const most = 'é'.repeat(MESHFS_LIMITS.content_bytes / 2);
      await mesh.write({ pointer, content: most });
      assert.equal((await mesh.resolve(pointer)).content, most);
      await assert.rejects(mesh.write({ pointer, content: `${most}x` }), is(TooLarge, /8388609 bytes/));
      for (const content of [undefined, 7, null, '\ud800']) {
        await assert.rejects(mesh.write({ pointer, content: content as never }), is(BadInput));
      }
      assert.equal((await mesh.resolve(pointer)).version, 1);
    }));

  test('of many who write at once each gets a version of its own, and the last is read in table and file', () =>
    inPlace(async ({ mesh, wiki, backplane, reopen }) => {
      const second = await reopen(); // another writer of the same table, which knows nothing of the first one's turns
      const pointer = 'gem-pointer://wiki/p/busy';
      const all = await Promise.all(
        Array.from({ length: 60 }, (_, at) => (at % 4 ? mesh : second).write({ pointer, content: `content ${at}` })),
      );
      assert.deepEqual(
        all.map((one) => one.version).sort((a, b) => a - b),
        all.map((_, at) => at + 1),
      );
      const last = all.find((one) => one.version === all.length)!;
      assert.equal((await mesh.resolve(pointer)).digest, last.digest);
      for (const { digest } of all) assert.ok(await backplane.objects.size(digest));
      const { content } = await (await reopen()).resolve(pointer);
      assert.deepEqual(await listing(wiki), { 'p/busy.md': content });
    }));

  test('a store that is full refuses the write, and the old version stays', () =>
    inPlace(async ({ mesh, wiki, backplane, reopen }) => {
      const pointer = 'gem-pointer://wiki/p/page.md';
      await mesh.write({ pointer, content: 'old' });
      const full = async () => {
        throw new StorageFailed({ what: 'the disk is full' });
      };
      const without_objects = await reopen({ ...backplane, objects: { ...backplane.objects, prepare: full } });
      const without_keys = await reopen({ ...backplane, commit: full });
      for (const broken of [without_objects, without_keys]) {
        await assert.rejects(broken.write({ pointer, content: 'new' }), is(StorageFailed));
        assert.equal((await broken.resolve(pointer)).content, 'old');
        assert.deepEqual(await listing(wiki), { 'p/page.md': 'old' });
      }
    }));

  test('a record that cannot be read is left out of lists, and told, and hides no other', () =>
    inPlace(async ({ mesh, backplane, reports }) => {
      const pointers = ['a', 'b', 'c'].map((name) => `gem-pointer://data/${name}`);
      for (const pointer of pointers) await mesh.write({ pointer, content: 'x' });
      await backplane.kv('meshfs').put('data/b', '{"format":2,"poi');
      const listed = async (options: object) => (await mesh.list('gem-pointer://data/', options)).entries;
      assert.deepEqual(
        (await listed({})).map(({ pointer }) => pointer),
        [pointers[0], pointers[2]],
      );
      assert.match(reports.at(-1)!, /gem-pointer:\/\/data\/b$/);
      assert.equal((await listed({ limit: 1, after: 'data/b' }))[0]?.pointer, pointers[2]);
    }));

  test('writes wait in order, a failed one lets the next run, and what waits is bounded', async () => {
    const run = queue(2, 10);
    const seen: number[] = [];
    const open = Promise.withResolvers<void>();
    const first = run('a', 4, () => open.promise.then(() => Promise.reject(new Error('failed'))));
    const others = [1, 2, 3].map((at) => run('a', 2, async () => void seen.push(at)));
    await assert.rejects(
      run('b', 1, async () => {}),
      is(Overloaded),
    );
    open.resolve();
    await assert.rejects(first, /failed/);
    await Promise.all(others);
    assert.deepEqual(seen, [1, 2, 3]);
    await run('b', 10, async () => {});
  });

  test('places are few: work waits as it came, and is refused when too many wait or it takes too long', async () => {
    const inPlaceOf = places(1, 2, 50);
    const open = Promise.withResolvers<void>();
    const seen: number[] = [];
    const first = inPlaceOf(() => open.promise.then(() => Promise.reject(new Error('failed'))));
    const second = inPlaceOf(async () => void seen.push(2));
    const third = inPlaceOf(async () => void seen.push(3));
    await assert.rejects(
      inPlaceOf(async () => {}),
      is(Overloaded),
    );
    open.resolve();
    await assert.rejects(first, /failed/);
    await Promise.all([second, third]);
    assert.deepEqual(seen, [2, 3]);
    const never = inPlaceOf(() => new Promise<void>(() => {}));
    void never;
    await assert.rejects(
      inPlaceOf(async () => {}),
      is(Overloaded),
    );
  });
});
