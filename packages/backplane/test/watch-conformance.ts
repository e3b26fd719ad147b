/** What watching a key-value store promises, on every backend. Part of `conformance.ts`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BadInput, ChangesMissed, isError, Overloaded } from '@hauki/protocol';
import { BACKPLANE_LIMITS } from '../src/limits.ts';
import type { Change } from '../src/types.ts';
import type { Fresh } from './conformance.ts';

async function take(changes: AsyncIterator<Change>, count: number): Promise<Change[]> {
  const taken: Change[] = [];
  while (taken.length < count) taken.push((await changes.next()).value);
  return taken;
}

const missed = (thrown: unknown) => isError(thrown, ChangesMissed);

export function watchConformance(fresh: Fresh): void {
  test('a watcher sees each change under its prefix once, in order, deletions too', () =>
    fresh(async (backplane) => {
      const kv = backplane.kv('a');
      await kv.put('p/before', '');
      const [all, some] = [kv.watch(''), kv.watch('p/')];
      const first = await kv.put('p/x', '1');
      const second = await kv.put('q', '2');
      await kv.delete('p/x');
      await kv.delete('p/nothing');
      const [third] = await backplane.commit([{ namespace: 'a', key: 'p/y', value: '3' }]);
      await backplane.kv('b').put('p/elsewhere', '');
      const expected = [
        { key: 'p/x', revision: first, value: '1' },
        { key: 'q', revision: second, value: '2' },
        { key: 'p/x', revision: second + 1 },
        { key: 'p/y', revision: third!, value: '3' },
      ];
      assert.deepEqual(await take(all, 4), expected);
      assert.deepEqual(
        await take(some, 3),
        expected.filter(({ key }) => key !== 'q'),
      );
      for (const at of [0, 1, 2, 3])
        assert.deepEqual(await take(kv.watch('', { after: first - 1 + at }), 4 - at), expected.slice(at));
      // Also where nobody had watched before the first change.
      const unwatched = backplane.kv('c');
      const revision = await unwatched.put('x', '1');
      const [change] = await take(unwatched.watch('', { after: revision - 1 }), 1);
      assert.deepEqual(change, { key: 'x', revision, value: '1' });
    }));

  test('watchers are bounded in number, and one that has ended leaves its place', () =>
    fresh(async (backplane) => {
      const kv = backplane.kv('a');
      const all = Array.from({ length: BACKPLANE_LIMITS.watchers }, () => kv.watch(''));
      const refused = (thrown: unknown) => isError(thrown, Overloaded);
      assert.throws(() => kv.watch(''), refused);
      backplane.kv('b').watch('');
      for (const one of all.slice(0, 2)) await one.return!();
      await all[0]!.return!();
      for (let at = 0; at < 2; at++) kv.watch('');
      assert.throws(() => kv.watch(''), refused);
    }));

  test('a watcher waits for what comes, and ends when it is aborted, left, or the store closes', () =>
    fresh(async (backplane) => {
      const kv = backplane.kv('a');
      const waiting = kv.watch('').next();
      const revision = await kv.put('x', '1');
      assert.deepEqual((await waiting).value, { key: 'x', revision, value: '1' });
      const stop = new AbortController();
      const aborted = kv.watch('', { signal: stop.signal });
      const left = kv.watch('');
      const ended = [aborted.next(), left.next()];
      stop.abort();
      await left.return?.();
      for (const end of ended) assert.equal((await end).done, true);
      assert.equal((await kv.watch('', { signal: AbortSignal.abort() }).next()).done, true);
      const closed = kv.watch('').next();
      await backplane.close();
      assert.equal((await closed).done, true);
    }));

  test('a write that is refused is told to no watcher', () =>
    fresh(async (backplane) => {
      const kv = backplane.kv('a');
      const changes = kv.watch('');
      await kv.put('x', '1');
      await assert.rejects(kv.put('x', '2', { expect: 'absent' }));
      // Nor is a deletion that found nothing, the first of all.
      const none = backplane.kv('b');
      const later = none.watch('');
      await none.delete('x');
      const revision = await none.put('x', '');
      assert.deepEqual((await later.next()).value, { key: 'x', revision, value: '' });
      await kv.put('x', '3');
      assert.deepEqual(
        (await take(changes, 2)).map(({ value }) => value),
        ['1', '3'],
      );
    }));

  test('whoever is too slow, or begins too far back, is told to start again, and others go on', () =>
    fresh(async (backplane) => {
      const kv = backplane.kv('a');
      const first = await kv.put('x', '');
      const slow = kv.watch('');
      const value = 'v'.repeat(BACKPLANE_LIMITS.value_bytes);
      const fast = kv.watch('');
      const enough = BACKPLANE_LIMITS.remembered_chars / value.length + 2;
      for (let at = 0; at < enough; at++) {
        await kv.put('x', value);
        await fast.next();
      }
      await assert.rejects(slow.next(), missed);
      assert.equal((await slow.next()).done, true);
      assert.throws(() => kv.watch('', { after: first }), missed);
      assert.throws(() => kv.watch('', { after: 1e9 }), missed, 'a revision that never was');
      assert.throws(
        () => kv.watch('', { after: -1 }),
        (thrown) => isError(thrown, BadInput),
      );
      const now = kv.watch('', { after: await kv.revision() });
      await kv.put('x', 'after');
      assert.equal((await now.next()).value.value, 'after');
      assert.equal((await fast.next()).value.value, 'after');
    }));
}
