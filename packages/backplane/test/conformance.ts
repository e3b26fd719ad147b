/**
 * What every backplane must do, whatever lies beneath it. A backend's own test calls `backplaneConformance`.
 *
 * `open(folder)` opens the backend, and opens the same data again after `close`. `writer` is a script that a child
 * process runs with that folder: it writes as fast as it can and tells on its standard output, a line for each, what
 * was acknowledged: `kv <key> <value> <revision>` or `object <digest>`. The suite kills it and looks at what is left.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BadInput, isError, TooLarge } from '@hauki/protocol';
import fc from 'fast-check';
import { CompareFailed } from '../src/errors.ts';
import { BACKPLANE_LIMITS } from '../src/limits.ts';
import type { Backplane, Entry, Expectation, KeyValue } from '../src/types.ts';
import { contentConformance } from './content-conformance.ts';
import { watchConformance } from './watch-conformance.ts';

export type Opener = (folder: string) => Promise<Backplane>;
/** Opens a backplane in a folder of its own, and removes it afterwards. */
export type Fresh = (use: (backplane: Backplane, folder: string) => Promise<void>) => Promise<void>;

/** Registers the suite's tests under `name`. */
export function backplaneConformance(name: string, open: Opener, { writer }: { writer?: URL } = {}): void {
  const fresh: Fresh = async (use) => {
    const folder = await mkdtemp(join(tmpdir(), 'hauki-backplane-'));
    const backplane = await open(folder);
    try {
      await use(backplane, folder);
    } finally {
      await backplane.close();
      await rm(folder, { recursive: true, force: true });
    }
  };
  const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
  const conflict = (thrown: unknown) => thrown instanceof CompareFailed;

  describe(`${name} is a backplane`, { concurrency: true }, () => {
    test('what was put is there, in its namespace alone', () =>
      fresh(async (backplane) => {
        const [a, b] = [backplane.kv('a'), backplane.kv('b')];
        assert.equal(await a.get('x'), undefined);
        const revision = await a.put('x', 'a \u0000 value – 😀');
        assert.deepEqual(await a.get('x'), { value: 'a \u0000 value – 😀', revision });
        assert.equal(await b.get('x'), undefined);
        assert.deepEqual(await backplane.kv('a').get('x'), await a.get('x'));
      }));

    test('revisions only grow, also over a deletion', () =>
      fresh(async (backplane) => {
        const kv = backplane.kv('a');
        const first = await kv.put('x', '1');
        const other = await kv.put('y', '1');
        assert.equal(await kv.delete('x'), true);
        assert.equal(await kv.delete('x'), false);
        const again = await kv.put('x', '1');
        assert.ok(first < other && other < again);
        await assert.rejects(kv.put('x', '2', { expect: first }), conflict);
      }));

    test('a write whose expectation fails changes nothing and says what it found', () =>
      fresh(async (backplane) => {
        const kv = backplane.kv('a');
        const revision = await kv.put('x', '1', { expect: 'absent' });
        for (const expect of ['absent', revision + 1] as const) {
          const failed = (thrown: unknown) => conflict(thrown) && (thrown as CompareFailed).found === revision;
          await assert.rejects(kv.put('x', '2', { expect }), failed);
          await assert.rejects(kv.delete('x', { expect }), failed);
        }
        await assert.rejects(kv.put('y', '2', { expect: revision }), conflict);
        assert.deepEqual(await kv.get('x'), { value: '1', revision });
        assert.equal(await kv.delete('x', { expect: revision }), true);
        assert.equal(await kv.delete('x', { expect: 'absent' }), false);
      }));

    test('of many who write with the same expectation one wins', () =>
      fresh(async (backplane) => {
        const kv = backplane.kv('a');
        for (let round = 0; round < 5; round++) {
          const expect = (await kv.get('x'))?.revision ?? 'absent';
          const all = await Promise.allSettled(
            Array.from({ length: 20 }, (_, at) => backplane.kv('a').put('x', `${round} ${at}`, { expect })),
          );
          assert.equal(all.filter((one) => one.status === 'fulfilled').length, 1);
          const winner = all.findIndex((one) => one.status === 'fulfilled');
          assert.equal((await kv.get('x'))?.value, `${round} ${winner}`);
        }
      }));

    test('a list has every key with the prefix once, in byte order, page by page', () =>
      fresh(async (backplane) => {
        const kv = backplane.kv('a');
        const keys = ['a', 'a/', 'a/b', 'a/b/c', 'a/é', 'a/\uffee', 'a/😀', 'a0', 'b', 'A/b'];
        await Promise.all(keys.map((key) => kv.put(key, `value of ${key}`)));
        for (const prefix of ['', 'a', 'a/', 'a/b', 'b', 'nothing']) {
          const wanted = keys
            .filter((key) => key.startsWith(prefix))
            .sort((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)));
          for (const limit of [1, 3, 1000]) {
            assert.deepEqual(
              (await listAll(kv, prefix, limit)).map((entry) => entry.key),
              wanted,
            );
          }
        }
        assert.deepEqual((await kv.list('a/', { after: 'a/😀' })).entries, []);
        assert.equal((await kv.list('a/', { after: 'A' })).entries[0]?.value, 'value of a/');
        // What lies behind all that the prefix has, by its bytes; by UTF-16 it would not.
        assert.deepEqual((await kv.list('a/\uffee', { after: 'a/😀' })).entries, []);
      }));

    test('a page of large values ends early, and says where the next begins', () =>
      fresh(async (backplane) => {
        const kv = backplane.kv('a');
        const value = 'v'.repeat(BACKPLANE_LIMITS.value_bytes);
        const count = (2 * BACKPLANE_LIMITS.page_bytes) / value.length;
        const keys = Array.from({ length: count }, (_, at) => String(at).padStart(3, '0'));
        await Promise.all(keys.map((key) => kv.put(key, value)));
        const { entries, next } = await kv.list('');
        assert.ok(entries.length < count && next === entries.at(-1)!.key);
        const read = (await listAll(kv, '', 1000)).map((entry) => entry.key);
        assert.deepEqual(read, keys);
      }));

    test('keys, values and objects beyond their bounds are refused by name', () =>
      fresh(async (backplane) => {
        const kv = backplane.kv('a');
        await kv.put('é'.repeat(BACKPLANE_LIMITS.key_bytes / 2), 'x'.repeat(BACKPLANE_LIMITS.value_bytes));
        const large = (thrown: unknown) => isError(thrown, TooLarge);
        const bad = (thrown: unknown) => isError(thrown, BadInput);
        await assert.rejects(kv.put('k'.repeat(BACKPLANE_LIMITS.key_bytes + 1), ''), large);
        await assert.rejects(kv.put('k', 'x'.repeat(BACKPLANE_LIMITS.value_bytes + 1)), large);
        await assert.rejects(backplane.objects.put(new Uint8Array(BACKPLANE_LIMITS.object_bytes + 1)), large);
        for (const key of ['', 'a\0b', 'a\nb', '\ud800']) await assert.rejects(kv.put(key, ''), bad);
        await assert.rejects(kv.put('k', '\udc00'), bad);
        for (const digest of ['', 'x', '../../etc/passwd', 'A'.repeat(64), `${'a'.repeat(64)}/`]) {
          await assert.rejects(backplane.objects.get(digest), bad);
          await assert.rejects(backplane.objects.size(digest), bad);
        }
        for (const namespace of ['', '..', 'A', 'a/b']) assert.throws(() => backplane.kv(namespace), bad);
      }));

    test('a commit writes all of its entries and objects, or none', () =>
      fresh(async (backplane) => {
        const [a, b] = [backplane.kv('a'), backplane.kv('b')];
        const revision = await a.put('x', '1');
        using object = await backplane.objects.prepare(Buffer.from('with them'));
        const writes = [
          { namespace: 'a', key: 'x', value: '2', expect: revision },
          { namespace: 'b', key: 'y', value: 'new', expect: 'absent' as const },
          { namespace: 'b', key: 'nothing' },
        ];
        const [x, y, nothing] = await backplane.commit(writes, [object]);
        assert.deepEqual(await a.get('x'), { value: '2', revision: x });
        assert.deepEqual(await b.get('y'), { value: 'new', revision: y });
        assert.equal(nothing, 0);
        assert.equal(Buffer.from((await backplane.objects.get(object.digest))!).toString(), 'with them');
        using other = await backplane.objects.prepare(Buffer.from('refused'));
        await assert.rejects(backplane.commit(writes, [other]), conflict);
        assert.deepEqual(await b.get('y'), { value: 'new', revision: y });
        assert.equal(await backplane.objects.size(other.digest), undefined);
        assert.deepEqual(await backplane.commit([{ namespace: 'b', key: 'y' }]), [y! + 1]);
        assert.equal(await b.get('y'), undefined);
        assert.equal(await b.revision(), y! + 1);
        const many = Array.from({ length: BACKPLANE_LIMITS.commit_entries + 1 }, (_, at) => ({
          namespace: 'a',
          key: `k${at}`,
          value: '',
        }));
        await assert.rejects(backplane.commit(many), (thrown) => isError(thrown, BadInput));
      }));

    test('an object is kept under its SHA-256, also when many put it at once', () =>
      fresh(async ({ objects }) => {
        for (const bytes of [new Uint8Array(), Buffer.from('hello'), Buffer.alloc(300_000, 'x')]) {
          const digest = sha256(bytes);
          assert.equal(await objects.size(digest), undefined);
          assert.equal(await objects.get(digest), undefined);
          assert.deepEqual(
            new Set(await Promise.all(Array.from({ length: 8 }, () => objects.put(bytes)))),
            new Set([digest]),
          );
          assert.equal(await objects.size(digest), bytes.length);
          assert.deepEqual(Buffer.from((await objects.get(digest))!), Buffer.from(bytes));
        }
      }));

    test('an object is what was put, even if the caller goes on writing into its buffer', () =>
      fresh(async ({ objects }) => {
        const buffer = Buffer.from('before');
        const putting = objects.put(buffer);
        buffer.write('after!');
        assert.equal(Buffer.from((await objects.get(await putting))!).toString(), 'before');
      }));

    test('everything is there after closing and opening again; what is closed refuses', () =>
      fresh(async (backplane, folder) => {
        const kv = backplane.kv('a');
        const revision = await kv.put('x', '1');
        await kv.put('gone', '1');
        await kv.delete('gone');
        const digest = await backplane.objects.put(Buffer.from('content'));
        const unawaited = kv.put('y', 'begun before close');
        await backplane.close();
        await backplane.close();
        await unawaited;
        await assert.rejects(kv.put('x', '2'));
        await assert.rejects(kv.get('x'));
        await assert.rejects(backplane.objects.put(Buffer.from('late')));
        const again = await open(folder);
        try {
          assert.deepEqual(await again.kv('a').get('x'), { value: '1', revision });
          assert.equal((await again.kv('a').get('y'))?.value, 'begun before close');
          assert.equal(await again.kv('a').get('gone'), undefined);
          assert.ok((await again.kv('a').put('z', '')) > revision + 3, 'a revision was used twice');
          assert.equal(Buffer.from((await again.objects.get(digest))!).toString(), 'content');
        } finally {
          await again.close();
        }
      }));

    test('it behaves as a plain map with revisions does', () =>
      fresh(async (backplane) => {
        let run = 0;
        const key = fc.constantFrom('a', 'a/b', 'b', 'é', '😀');
        const step = fc.record({
          what: fc.constantFrom('put', 'put_expecting', 'delete', 'delete_expecting', 'list'),
          key,
          value: fc.string({ unit: 'grapheme' }),
          stale: fc.boolean(),
        });
        await fc.assert(
          fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
            const kv = backplane.kv(`run${run++}`);
            const model = new Map<string, { value: string; revision: number }>();
            let last = 0;
            for (const { what, key, value, stale } of steps) {
              const now = model.get(key);
              const expect: Expectation | undefined = what.endsWith('expecting')
                ? stale
                  ? last + 7
                  : (now?.revision ?? 'absent')
                : undefined;
              const options = expect === undefined ? {} : { expect };
              if (what === 'list') {
                assert.deepEqual(new Map((await listAll(kv, '', 2)).map(({ key, ...rest }) => [key, rest])), model);
              } else if (typeof expect === 'number' && expect !== now?.revision) {
                await assert.rejects(
                  what.startsWith('put') ? kv.put(key, value, options) : kv.delete(key, options),
                  conflict,
                );
              } else if (what.startsWith('put')) {
                const revision = await kv.put(key, value, options);
                assert.ok(revision > last);
                last = revision;
                model.set(key, { value, revision });
              } else {
                assert.equal(await kv.delete(key, options), model.delete(key));
              }
              assert.deepEqual(await kv.get(key), model.get(key));
            }
          }),
          { numRuns: 40 },
        );
      }));

    watchConformance(fresh);
    contentConformance(fresh, open);

    const no_writer = writer === undefined ? 'this backend gave no writer script' : false;
    test(
      'a writer killed at any moment loses nothing that was acknowledged and leaves nothing half',
      { skip: no_writer },
      () =>
        fresh(async (backplane, folder) => {
          await backplane.close();
          for (const after_ms of [5, 40, 90, 150]) {
            const told = await killedWriter(writer!, folder, after_ms);
            const again = await open(folder);
            try {
              assert.ok(told.length > 0, 'the writer acknowledged nothing');
              for (const [kind, ...rest] of told) {
                if (kind === 'kv') {
                  const [key, value, revision] = rest as [string, string, string];
                  assert.deepEqual(await again.kv('writer').get(key), { value, revision: Number(revision) });
                } else {
                  assert.ok(await again.objects.get(rest[0]!), `the object ${rest[0]} is lost`);
                }
              }
            } finally {
              await again.close();
            }
          }
        }),
    );
  });
}

async function listAll(kv: KeyValue, prefix: string, limit: number): Promise<Entry[]> {
  const all: Entry[] = [];
  let after: string | undefined = '';
  do {
    const page: Awaited<ReturnType<KeyValue['list']>> = await kv.list(prefix, { limit, after });
    assert.ok(page.entries.length <= limit);
    all.push(...page.entries);
    after = page.next;
  } while (after !== undefined);
  return all;
}

/** Runs the writer, kills it some time after its first acknowledgement, and returns what it had told by then. */
async function killedWriter(writer: URL, folder: string, after_ms: number): Promise<string[][]> {
  const child = spawn(process.execPath, [fileURLToPath(writer), folder, String(after_ms)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  const closed = new Promise((resolve) => child.once('close', resolve));
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    if (out === '') setTimeout(() => child.kill('SIGKILL'), after_ms);
    out += text;
  });
  await closed;
  // The last line may be cut: what was not told whole was not acknowledged.
  return out.split('\n').slice(0, -1).map((line) => line.split(' ')); // biome-ignore format: one thought
}
