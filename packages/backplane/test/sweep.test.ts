/** What a sweep may not remove, moment by moment: what comes in, or is let go of, while it still looks for candidates. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Guard } from '../src/sweep.ts';

describe('the candidates of a sweep', () => {
  /** Of `a`, `b` and `c`, after something has happened while the second shelf is being read. */
  async function candidates(guard: Guard, meanwhile: () => void): Promise<string[]> {
    async function* shelves() {
      yield ['a', 'b'];
      meanwhile();
      yield ['c'];
    }
    for await (const group of guard.groups(shelves())) return [...group];
    return [];
  }

  test('are all that lies there, without what is held', async () => {
    const guard = new Guard();
    assert.deepEqual(await candidates(guard, () => {}), ['a', 'b', 'c']);
    const release = guard.hold('b');
    assert.deepEqual(await candidates(guard, () => {}), ['a', 'c']);
    release();
    assert.deepEqual(await candidates(guard, () => {}), ['a', 'b', 'c']);
  });

  test('are not what has come in and been let go of while the sweep looked', async () => {
    const guard = new Guard();
    assert.deepEqual(await candidates(guard, () => guard.hold('a')()), ['b', 'c']);
  });

  test('are not what was held before the sweep and let go of while it looked', async () => {
    const guard = new Guard();
    assert.deepEqual(await candidates(guard, guard.hold('a')), ['b', 'c']);
  });

  test('are held once by each who holds them, however often one lets go', async () => {
    const guard = new Guard();
    const [one, other] = [guard.hold('a'), guard.hold('a')];
    one();
    one();
    assert.deepEqual(await candidates(guard, () => {}), ['b', 'c']);
    other();
    assert.deepEqual(await candidates(guard, () => {}), ['a', 'b', 'c']);
  });

  test('are no candidates any more when the sweep was left', async () => {
    const guard = new Guard();
    await candidates(guard, () => {});
    assert.deepEqual([guard.sweeping, guard.take('a')], [false, false]);
  });
});
