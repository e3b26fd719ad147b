/** What streams, parts and sweeps of the object store promise, on every backend. Part of `conformance.ts`. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { BadInput, DigestMismatch, isError, Overloaded, StorageFailed, TooLarge } from '@hauki/protocol';
import fc from 'fast-check';
import { BACKPLANE_LIMITS } from '../src/limits.ts';
import type { ObjectStore } from '../src/types.ts';
import type { Fresh, Opener } from './conformance.ts';

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const bytesOf = (length: number, seed = 0) => Buffer.from(Array.from({ length }, (_, at) => (at * 31 + seed) % 251));

async function* streamOf(bytes: Uint8Array, chunk = 1000, then?: Error): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunk) yield bytes.subarray(at, at + chunk);
  if (then) throw then;
}

async function contentOf(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk)); // a copy: the next piece may overwrite it
  return Buffer.concat(chunks);
}

const SMALL = BACKPLANE_LIMITS.small_object_bytes;
const CHUNK = BACKPLANE_LIMITS.chunk_bytes;

export function contentConformance(fresh: Fresh, open: Opener): void {
  test('a stream of unknown length is kept under its digest, whatever its size', () =>
    fresh(async ({ objects }) => {
      for (const length of [0, 1, SMALL, SMALL + 1, 3 * CHUNK + 7]) {
        const bytes = bytesOf(length, length);
        assert.equal(await objects.put(streamOf(bytes, 4099)), sha256(bytes));
        assert.equal(await objects.size(sha256(bytes)), length);
        assert.deepEqual(await contentOf(objects.read(sha256(bytes))), bytes);
        assert.deepEqual(Buffer.from((await objects.get(sha256(bytes)))!), bytes);
      }
    }));

  test('any range of an object can be read', () =>
    fresh(async ({ objects }) => {
      const all = await Promise.all(
        [100, 2 * CHUNK + 10].map(async (length) => ({
          bytes: bytesOf(length),
          digest: await objects.put(bytesOf(length)),
        })),
      );
      const place = fc.oneof(fc.nat(120), fc.nat(2 * CHUNK + 20));
      await fc.assert(
        fc.asyncProperty(fc.constantFrom(...all), place, place, async ({ bytes, digest }, start, end) => {
          assert.deepEqual(await contentOf(objects.read(digest, { start, end })), bytes.subarray(start, end));
          assert.deepEqual(await contentOf(objects.read(digest, { start })), bytes.subarray(start));
        }),
        { numRuns: 60 },
      );
      await assert.rejects(contentOf(objects.read('0'.repeat(64))), (thrown) => isError(thrown, StorageFailed));
    }));

  test('a stream that fails, is too long or has another digest leaves nothing', () =>
    fresh(async ({ objects }) => {
      const broken = new Error('the sender is gone');
      for (const length of [10, 5 * SMALL]) {
        const bytes = bytesOf(length, 7);
        await assert.rejects(objects.put(streamOf(bytes, 1000, broken)), broken);
        const large = (thrown: unknown) => isError(thrown, TooLarge);
        await assert.rejects(objects.put(streamOf(bytes), { limit_bytes: length - 1 }), large);
        await assert.rejects(objects.put(bytes, { limit_bytes: length - 1 }), large);
        for (const content of [bytes, streamOf(bytes)])
          await assert.rejects(objects.put(content, { digest: '0'.repeat(64) }), (thrown) => {
            return isError(thrown, DigestMismatch) && thrown.fields.got === sha256(bytes);
          });
        assert.equal(await objects.size(sha256(bytes)), undefined);
        assert.equal(await objects.put(streamOf(bytes), { limit_bytes: length, digest: sha256(bytes) }), sha256(bytes));
      }
      for (const content of ['text', 7, undefined])
        await assert.rejects(objects.put(content as never), (thrown) => isError(thrown, BadInput));
    }));

  test('content comes in parts, over restarts too, and becomes an object once', () =>
    fresh(async (backplane, folder) => {
      const bytes = bytesOf(5 * SMALL);
      const id = 'upload-1';
      const part = backplane.objects.part(id);
      assert.equal(await part.size(), 0);
      assert.equal(await part.append(streamOf(bytes.subarray(0, SMALL))), SMALL);
      const broken = new Error('cut');
      await assert.rejects(part.append(streamOf(bytes.subarray(SMALL, 2 * SMALL), 1000, broken)), broken);
      assert.equal(await part.size(), 2 * SMALL, 'what came before the cut is kept');
      assert.deepEqual((await backplane.objects.parts()).map(({ id, bytes }) => [id, bytes]), [[id, 2 * SMALL]]); // biome-ignore format: one thought
      await backplane.close();
      const again = await open(folder);
      try {
        const part = again.objects.part(id);
        assert.equal(await part.append(streamOf(bytes.subarray(2 * SMALL))), bytes.length);
        await assert.rejects(part.append(streamOf(bytes), { limit_bytes: bytes.length }), (t) => isError(t, TooLarge));
        using object = await part.finish({ digest: sha256(bytes) });
        assert.deepEqual([object.digest, object.bytes], [sha256(bytes), bytes.length]);
        assert.deepEqual(await contentOf(again.objects.read(object.digest)), bytes);
        assert.deepEqual(await again.objects.parts(), []);
        await part.append(streamOf(bytes));
        await assert.rejects(part.finish({ digest: '0'.repeat(64) }), (thrown) => isError(thrown, DigestMismatch));
        assert.equal(await part.size(), 0, 'a part with another digest is of no use');
        await part.append(streamOf(bytes));
        await part.discard();
        await part.discard();
        assert.deepEqual(await again.objects.parts(), []);
        for (const bad of ['short', '../../etc/passwd', 'a'.repeat(65), `${id}/x`])
          assert.throws(
            () => again.objects.part(bad),
            (thrown) => isError(thrown, BadInput),
          );
      } finally {
        await again.close();
      }
    }));

  test('a sweep removes what is not wanted, and says how much', () =>
    fresh(async ({ objects }) => {
      const wanted = new Set<string>();
      const lengths = [5, 50, SMALL, SMALL + 1, 3 * SMALL, 4 * SMALL];
      for (const [at, length] of lengths.entries()) {
        const digest = await objects.put(bytesOf(length));
        if (at % 2 === 0) wanted.add(digest);
      }
      const kept = await objects.sweep(async () => Promise.reject(new Error('could not look'))).catch(() => 'nothing');
      assert.equal(kept, 'nothing');
      const strike = async (candidates: Set<string>) => {
        for (const digest of wanted) candidates.delete(digest);
      };
      assert.deepEqual(await objects.sweep(strike), { kept: 3, removed: 3, removed_bytes: 50 + SMALL + 1 + 4 * SMALL });
      assert.deepEqual(await objects.sweep(strike), { kept: 3, removed: 0, removed_bytes: 0 });
      for (const length of lengths) {
        const digest = sha256(bytesOf(length));
        assert.equal(await objects.size(digest), wanted.has(digest) ? length : undefined);
      }
    }));

  test('a sweep spares what is held, and what comes in while it looks', () =>
    fresh(async (backplane) => {
      const { objects } = backplane;
      for (const length of [20, 2 * SMALL]) {
        const [held, again, late] = [1, 2, 3].map((seed) => bytesOf(length, seed)) as [Buffer, Buffer, Buffer];
        const garbage = await objects.put(bytesOf(length, 4));
        await objects.put(again); // unwanted when the sweep begins
        {
          using one = await objects.prepare(held);
          await backplane.commit([], [one]);
          await objects.sweep(async () => {
            await objects.put(again);
            using other = await objects.prepare(late);
            await backplane.commit([{ namespace: 'named', key: `x${length}`, value: other.digest }], [other]);
          });
        }
        for (const bytes of [held, again, late])
          assert.deepEqual(Buffer.from((await objects.get(sha256(bytes)))!), bytes);
        assert.equal(await objects.size(garbage), undefined);
        await objects.sweep(async () => {});
        assert.equal(await objects.size(sha256(held)), undefined, 'let go of, it is swept');
      }
    }));

  test('whatever is put while sweeps run is there when its put has resolved', () =>
    fresh(async (backplane) => {
      const { objects } = backplane;
      let over = false;
      const sweeping = (async () => {
        let rounds = 0;
        for (; !over; rounds++) await objects.sweep(async () => {});
        return rounds;
      })();
      // A few contents again and again: each is mostly garbage that a sweep is just about to remove.
      const lane = async (seed: number) => {
        for (let at = 0; at < 60; at++) {
          using object = await objects.prepare(bytesOf(at % 2 ? 30 : SMALL + 30, (at + seed) % 3));
          await backplane.commit([], [object]);
          assert.ok(await objects.get(object.digest), 'gone although it is held');
        }
      };
      await Promise.all([lane(0), lane(1), lane(2)]);
      over = true;
      assert.ok((await sweeping) > 0);
    }));

  test('what is discarded is gone, unless it was there before or somebody else brought it too', () =>
    fresh(async ({ objects }) => {
      const alone = await objects.prepare(bytesOf(SMALL + 1, 1));
      assert.ok(await alone.discard());
      assert.equal(await objects.size(alone.digest), undefined);
      const before = await objects.put(bytesOf(SMALL + 1, 2));
      for (const same of [bytesOf(SMALL + 1, 2), streamOf(bytesOf(SMALL + 1, 2))]) {
        assert.ok(await (await objects.prepare(same)).discard());
        assert.equal(await objects.size(before), SMALL + 1);
      }
      const one = await objects.prepare(bytesOf(SMALL + 1, 3));
      {
        using _other = await objects.prepare(bytesOf(SMALL + 1, 3));
      }
      assert.equal(await one.discard(), false, 'it says that a sweep has to look');
      assert.equal(await objects.size(one.digest), SMALL + 1);
      await objects.sweep(async (candidates) => void candidates.delete(before));
      assert.equal(await objects.size(one.digest), undefined);
      const kept = await objects.prepare(bytesOf(SMALL + 1, 4));
      kept[Symbol.dispose]();
      assert.ok(await kept.discard());
      assert.equal(await objects.size(kept.digest), SMALL + 1, 'let go of, it is no longer this one’s to remove');
    }));

  test('whatever is put while others discard the same is there when its put has resolved', () =>
    fresh(async (backplane) => {
      const { objects } = backplane;
      let turn = 0;
      const lane = async (seed: number) => {
        for (let at = 0; at < 40; at++) {
          const bytes = bytesOf(SMALL + 30, Math.floor(turn++ / 4));
          if ((at + seed) % 2) await (await objects.prepare(bytes)).discard();
          else {
            using object = await objects.prepare(bytes);
            await backplane.commit([], [object]);
            object[Symbol.dispose]();
            assert.ok(await objects.get(object.digest), 'somebody else’s discard took it');
          }
        }
      };
      await Promise.all([lane(0), lane(1), lane(2), lane(3)]);
    }));

  test('two sweeps at once are one too many', () =>
    fresh(async ({ objects }: { objects: ObjectStore }) => {
      await objects.put(bytesOf(10));
      await objects.sweep(async () => {
        await assert.rejects(
          objects.sweep(async () => {}),
          (thrown) => isError(thrown, Overloaded),
        );
      });
    }));
}
