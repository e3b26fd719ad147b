/** What became of workers: bounded, and known again after a restart of the core. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openEmbedded } from '@hauki/backplane';
import { type Fate, isCause } from '@hauki/protocol';
import { cleanFate, Fates } from '../src/fates.ts';

const fate = (worker: string, at: number, words = ''): Fate => ({
  worker,
  owner: 'ada',
  cause: 'exited',
  reason: 'it fell',
  at,
  lines: words === '' ? [] : [{ seq: 1, at, level: 'info', text: words }],
});

describe('fates', () => {
  let folder: string;
  let store: Awaited<ReturnType<typeof openEmbedded>>;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-fates-'));
    store = await openEmbedded(join(folder, 'store'));
  });
  after(async () => {
    await store.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const reopened = async (name: string, bounds?: ConstructorParameters<typeof Fates>[1]) => {
    const fates = new Fates(store.kv(name), bounds);
    await fates.open();
    return fates;
  };

  it('are on disk when `saved` resolves', async () => {
    const fates = await reopened('durable');
    fates.set(fate('w-1', 1, 'farewell'));
    fates.set(fate('w-2', 2));
    fates.set(fate('w-2', 3, 'again'));
    await fates.saved();
    const again = await reopened('durable');
    assert.deepEqual(again.get('w-1'), fate('w-1', 1, 'farewell'));
    assert.deepEqual(again.get('w-2'), fate('w-2', 3, 'again'));
    again.delete('w-1');
    await again.saved();
    assert.equal((await reopened('durable')).get('w-1'), undefined);
  });

  it('are bounded in number, also on disk; the oldest go first', async () => {
    const bounds = { fates: 3, chars: 1000 };
    const fates = await reopened('few', bounds);
    for (let i = 1; i <= 10; i++) fates.set(fate(`w-${i}`, i));
    await fates.saved();
    const again = await reopened('few', bounds);
    assert.deepEqual(
      Array.from({ length: 10 }, (_, i) => again.get(`w-${i + 1}`) !== undefined),
      [...Array(7).fill(false), true, true, true],
    );
  });

  it('lose their last words, oldest first, where all together are too long', async () => {
    const bounds = { fates: 100, chars: 250 };
    const fates = await reopened('wordy', bounds);
    for (let i = 1; i <= 4; i++) fates.set(fate(`w-${i}`, i, 'x'.repeat(100)));
    await fates.saved();
    for (const known of [fates, await reopened('wordy', bounds)])
      assert.deepEqual(
        [1, 2, 3, 4].map((i) => known.get(`w-${i}`)!.lines.length),
        [0, 0, 1, 1],
      );
  });

  it('as a node tells them are cut to their kind', () => {
    const told: any = {
      ...fate('w-1', 1, 'x'.repeat(1e6)),
      cause: 'magic',
      epoch: 'two',
      extra: 1,
      usage: { cpu_ms: -1 },
    };
    const clean = cleanFate(told, isCause);
    assert.deepEqual(Object.keys(clean).toSorted(), ['at', 'cause', 'lines', 'owner', 'reason', 'usage', 'worker']);
    assert.deepEqual([clean.cause, clean.usage!.cpu_ms, clean.lines[0]!.text.length], ['killed', null, 8 * 1024]);
    assert.deepEqual(cleanFate({ ...told, lines: 'none' }, isCause).lines, []);
  });
});
