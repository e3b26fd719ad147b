/** Uploads in pieces: in order, once, over restarts, bounded. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import {
  BadInput,
  DigestMismatch,
  type ErrorClass,
  isError,
  Overloaded,
  PreconditionFailed,
  TooLarge,
  UploadOffset,
  UploadUnknown,
} from '@hauki/protocol';
import { MESHFS_LIMITS, type MeshFs, type Piece } from '../src/index.ts';
import { contentOf, inPlace } from './support.ts';

const is = (kind: ErrorClass<any>) => (thrown: unknown) => isError(thrown, kind);
const pointer = 'gem-pointer://data/film';
const bytes = randomBytes(100_000);
const digest = createHash('sha256').update(bytes).digest('hex');

async function* streamOf(content: Uint8Array, then?: Error): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += 7_000) yield content.subarray(at, at + 7_000);
  if (then) throw then;
}

/** Sends bytes `from` to `to`. */
const send = ({ uploads }: MeshFs, from: number, to: number, more: Partial<Piece> = {}) =>
  uploads.receive({
    pointer,
    upload: 'upload-1',
    start: from,
    length: to - from,
    total: bytes.length,
    content: () => streamOf(bytes.subarray(from, to)),
    ...more,
  });

describe('an upload in pieces', { concurrency: true }, () => {
  test('is there when its last piece has come, and not before', () =>
    inPlace(async ({ mesh }) => {
      assert.deepEqual(await send(mesh, 0, 40_000), { upload: 'upload-1', pointer, offset: 40_000 });
      await assert.rejects(mesh.open(pointer));
      await send(mesh, 40_000, 90_000, { total: undefined });
      const { written } = await send(mesh, 90_000, 100_000, { digest });
      assert.deepEqual([written?.digest, written?.version, written?.bytes], [digest, 1, 100_000]);
      assert.deepEqual(await contentOf((await mesh.open(pointer)).read()), bytes);
    }));

  test('goes on where it broke off, over restarts too', () =>
    inPlace(async ({ mesh, reopen }) => {
      const cut = new BadInput({ what: 'body', why: 'cut' });
      const broken = { content: () => streamOf(bytes.subarray(0, 21_000), cut) };
      await assert.rejects(send(mesh, 0, 40_000, broken), is(BadInput));
      const again = await reopen();
      const { offset } = await again.uploads.state('upload-1');
      assert.equal(offset, 21_000);
      await send(again, offset, bytes.length, { digest });
      assert.equal((await again.open(pointer)).digest, digest);
    }));

  test('says where it goes on to whoever sends other bytes, and keeps what it has', () =>
    inPlace(async ({ mesh }) => {
      await assert.rejects(send(mesh, 10, 20), is(UploadUnknown));
      await send(mesh, 0, 30_000);
      for (const start of [0, 29_999, 30_001])
        await assert.rejects(send(mesh, start, 40_000), (thrown) => {
          return isError(thrown, UploadOffset) && thrown.fields.offset === 30_000;
        });
      await assert.rejects(send(mesh, 30_000, 40_000, { pointer: 'gem-pointer://data/other' }), is(BadInput));
      for (const content of [() => streamOf(bytes.subarray(30_000, 35_000)), () => streamOf(bytes)])
        await assert.rejects(
          send(mesh, (await mesh.uploads.state('upload-1')).offset, 40_000, { content }),
          is(BadInput),
        );
      const { offset } = await mesh.uploads.state('upload-1');
      assert.ok(offset >= 35_000 && offset <= 40_000);
      const { written } = await send(mesh, offset, bytes.length);
      assert.equal(written?.bytes, bytes.length);
    }));

  test('tells what became of it to whoever lost the answer, and writes nothing twice', () =>
    inPlace(async ({ mesh, reopen }) => {
      const first = await send(mesh, 0, bytes.length);
      const again = await reopen();
      assert.deepEqual(await again.uploads.state('upload-1'), first);
      assert.deepEqual(await send(again, 90_000, bytes.length), first);
      assert.equal((await again.open(pointer)).version, 1);
    }));

  test('is not taken for done where its name is used again for another pointer or other content', () =>
    inPlace(async ({ mesh }) => {
      const first = await send(mesh, 0, bytes.length);
      const other = Buffer.from(bytes);
      other[99_999]! ^= 1;
      const last = { content: () => streamOf(other.subarray(90_000)) };
      for (const [from, to, more] of [
        [0, bytes.length, { pointer: 'gem-pointer://data/other' }],
        [0, bytes.length, { content: () => streamOf(other) }],
        [90_000, bytes.length, last],
        [90_000, bytes.length, { total: bytes.length + 1 }],
        [90_000, bytes.length, { total: undefined }],
        [80_000, 90_000, {}],
      ] as const)
        await assert.rejects(send(mesh, from, to, more), is(BadInput));
      const announced = createHash('sha256').update(other).digest('hex');
      await assert.rejects(send(mesh, 90_000, bytes.length, { ...last, digest: announced }), is(DigestMismatch));
      await assert.rejects(mesh.open('gem-pointer://data/other'));
      for (const from of [0, 90_000, bytes.length])
        assert.deepEqual(await send(mesh, from, bytes.length, { digest }), first);
      assert.equal((await mesh.open(pointer)).version, 1);
    }));

  test('is nobody’s to touch or to learn of who may not write to its pointer', () =>
    inPlace(async ({ mesh }) => {
      const stuck = Promise.withResolvers<void>();
      const gone = Promise.withResolvers<void>();
      const hanging = send(mesh, 0, bytes.length, {
        content: async function* (signal) {
          yield bytes.subarray(0, 20_000);
          stuck.resolve();
          await gone.promise;
          signal.throwIfAborted();
          yield bytes.subarray(20_000);
        },
      });
      await stuck.promise;
      const refused = new Error('not yours');
      const asStranger = (more: Partial<Piece>) =>
        mesh.uploads.receive(
          {
            pointer,
            upload: 'upload-1',
            start: 0,
            length: 0,
            total: undefined,
            content: () => streamOf(bytes),
            ...more,
          },
          () => {
            throw refused;
          },
        );
      const other = 'gem-pointer://mine/other';
      await assert.rejects(asStranger({ pointer: other }), refused);
      await assert.rejects(send(mesh, 0, 10, { pointer: other }), is(BadInput));
      gone.resolve();
      assert.equal((await hanging).written?.digest, digest, 'it was not cut off');
      await assert.rejects(asStranger({ pointer: other }), refused);
    }));

  test('keeps no place when its end has failed, nor when its bytes are gone', () =>
    inPlace(async ({ mesh, backplane, reopen }) => {
      const wrong = { digest: '0'.repeat(64) };
      for (let one = 0; one <= MESHFS_LIMITS.uploads; one++)
        await assert.rejects(send(mesh, 0, bytes.length, { ...wrong, upload: `mismatch-${one}` }), is(DigestMismatch));
      await assert.rejects(mesh.uploads.state('mismatch-1'), is(UploadUnknown));
      for (let one = 0; one < MESHFS_LIMITS.uploads; one++) {
        await send(mesh, 0, 10, { upload: `upload-${one}` });
        await backplane.objects.part(`upload-${one}`).discard(); // as a kill between its last two steps leaves it
      }
      assert.equal((await send(await reopen(), 0, bytes.length, { upload: 'one-more' })).written?.digest, digest);
    }));

  test('may end with an empty piece that says how long it was', () =>
    inPlace(async ({ mesh }) => {
      await send(mesh, 0, bytes.length, { total: undefined });
      const { written } = await send(mesh, bytes.length, bytes.length);
      assert.equal(written?.digest, digest);
    }));

  test('with another digest, or over what it did not expect, changes nothing', () =>
    inPlace(async ({ mesh }) => {
      await assert.rejects(send(mesh, 0, bytes.length, { digest: '0'.repeat(64) }), is(DigestMismatch));
      await assert.rejects(mesh.open(pointer));
      await mesh.put({ pointer, content: Buffer.from('old') });
      await assert.rejects(send(mesh, 0, 10, { upload: 'upload-2', expect: 'absent' }), is(PreconditionFailed));
      await assert.rejects(send(mesh, 0, 10, { upload: 'upload-2', total: MESHFS_LIMITS.raw_bytes + 1 }), is(TooLarge));
      await assert.rejects(mesh.uploads.state('upload-2'), is(UploadUnknown));
      assert.equal((await mesh.open(pointer)).version, 1);
    }));

  test('is cut off by whoever comes back for it: the first connection may be dead', () =>
    inPlace(async ({ mesh }) => {
      const stuck = Promise.withResolvers<void>();
      const hanging = send(mesh, 0, 50_000, {
        content: async function* (signal) {
          yield bytes.subarray(0, 20_000);
          stuck.resolve();
          await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('cut off'))));
        },
      });
      hanging.catch(() => {});
      await stuck.promise;
      assert.equal((await mesh.uploads.state('upload-1')).offset, 20_000);
      await assert.rejects(hanging, /cut off/);
      const { offset } = await mesh.uploads.state('upload-1');
      await send(mesh, offset, bytes.length, { digest });
    }));

  test('can be given up, and leaves nothing', () =>
    inPlace(async ({ mesh, backplane }) => {
      await send(mesh, 0, 10_000);
      await mesh.uploads.discard('upload-1');
      assert.deepEqual(await backplane.objects.parts(), []);
      for (const ask of [mesh.uploads.state('upload-1'), mesh.uploads.discard('upload-1'), send(mesh, 10_000, 20_000)])
        await assert.rejects(ask, is(UploadUnknown));
      for (const bad of ['x', '../../../etc/passwd', 'a'.repeat(100)])
        await assert.rejects(send(mesh, 0, 10, { upload: bad }), is(BadInput));
    }));

  test('is one of few, and given up after a day without a byte', () =>
    inPlace(async ({ mesh, backplane, at }) => {
      const begin = (name: string) => send(mesh, 0, 10, { upload: name });
      for (let one = 0; one < MESHFS_LIMITS.uploads; one++) await begin(`upload-${one}`);
      await assert.rejects(begin('one-too-many'), is(Overloaded));
      at(Date.now() + MESHFS_LIMITS.upload_ms + 60_000);
      await begin('later-again');
      assert.equal((await backplane.objects.parts()).length, 1);
      await assert.rejects(mesh.uploads.state('upload-1'), is(UploadUnknown));
    }));

  test('is one of few also where many begin at once', () =>
    inPlace(async ({ mesh }) => {
      const begin = (one: number) => send(mesh, 0, 10, { upload: `upload-${one}` });
      await begin(0);
      const begun = await Promise.allSettled(Array.from({ length: MESHFS_LIMITS.uploads }, (_, one) => begin(one + 1)));
      assert.equal(begun.filter(({ status }) => status === 'fulfilled').length, MESHFS_LIMITS.uploads - 1);
    }));

  test('is given up after a day also where the clock was far behind when MeshFS was opened', () =>
    inPlace(
      async ({ mesh, at }) => {
        await send(mesh, 0, 10, { upload: 'upload-1' });
        at(Date.now() + MESHFS_LIMITS.upload_ms + 60_000);
        await send(mesh, 0, 10, { upload: 'upload-2' });
        await assert.rejects(mesh.uploads.state('upload-1'), is(UploadUnknown));
      },
      { elapsed: () => 0 },
    ));

  test('is not given up by a clock that is set ahead for a moment', () =>
    inPlace(
      async ({ reopen, at }) => {
        at(Date.now());
        const mesh = await reopen();
        await send(mesh, 0, 10, { upload: 'upload-1' });
        at(Date.now() + MESHFS_LIMITS.upload_ms + 60_000);
        await send(mesh, 0, 10, { upload: 'upload-2' });
        assert.equal((await mesh.uploads.state('upload-1')).offset, 10);
      },
      { elapsed: () => 0 },
    ));

  test('is given up and told when its entry is damaged, and others go on', () =>
    inPlace(async ({ mesh, backplane, reports }) => {
      for (const upload of ['upload-1', 'upload-2']) await send(mesh, 0, 10, { upload });
      for (const upload of ['upload-1', 'upload-2']) await backplane.kv('meshfs-uploads').put(upload, 'z"format":1}');
      await send(mesh, 0, 10, { upload: 'upload-3' });
      await assert.rejects(mesh.uploads.state('upload-1'), is(UploadUnknown));
      assert.match(reports.join(), /upload-1 was given up.*upload-2 was given up/s);
      await send(mesh, 0, 10, { upload: 'upload-2' });
      assert.equal((await backplane.objects.parts()).length, 2);
    }));
});
