/** What became of workers: bounded, and known again after a restart of the core. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BadInput, type Fate, isCause, StorageFailed } from '@hauki/protocol';
import { cleanFate, Fates } from '../src/fates.ts';
import { useStore } from './store.ts';

const fate = (worker: string, at: number, words = ''): Fate => ({
  worker,
  owner: 'ada',
  cause: 'exited',
  reason: 'it fell',
  at,
  lines: words === '' ? [] : [{ seq: 1, at, level: 'info', text: words }],
});

describe('fates', () => {
  const store = useStore();

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

  it('are on disk when `saved` resolves, at whatever moment of the write before they came', async () => {
    for (let steps = 0; steps < 24; steps++) {
      const name = `moments-${steps}`;
      const kv = store.kv(name);
      let written = Promise.resolve(1);
      const fates = new Fates({ ...kv, put: (...given) => (written = kv.put(...given)) });
      fates.set(fate('w-1', 1));
      await null;
      await written;
      for (let step = 0; step < steps; step++) await null;
      fates.set(fate('w-2', 2));
      await fates.saved();
      assert.ok((await reopened(name)).get('w-2'), `${steps} steps behind the write before`);
    }
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
    const bounds = { fates: 100, chars: 350 };
    const fates = await reopened('wordy', bounds);
    for (let i = 1; i <= 4; i++) {
      fates.set(fate(`w-${i}`, i, 'x'.repeat(100)));
      await fates.saved();
    }
    const onDisk = async (worker: string) => JSON.parse((await store.kv('wordy').get(`fate/${worker}`))!.value);
    assert.deepEqual([(await onDisk('w-1')).lines, (await onDisk('w-4')).lines.length], [[], 1]);
    for (const known of [fates, await reopened('wordy', bounds)])
      assert.deepEqual(
        [1, 2, 3, 4].map((i) => known.get(`w-${i}`)!.lines.length),
        [0, 0, 1, 1],
      );
    for (let i = 0; i < 10; i++) fates.set(fate('w-4', 5, 'y'.repeat(100)));
    assert.equal(fates.get('w-3')!.lines.length, 1, 'what was told anew counts once');
    await fates.saved();
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

  it('as a node tells them have levels that there are, and names that a worker and an owner can have', () => {
    const levels = ['error', 'L'.repeat(100_000), '__proto__', 7, undefined];
    const lines = levels.map((level, seq) => ({ seq, at: 1, level, text: 't' }));
    const told: any = { ...fate('w-1', 1), owner: 'ada-0a1b/eve-2c3d', lines };
    const clean = cleanFate(told, isCause);
    assert.deepEqual(
      clean.lines.map(({ level }) => level),
      ['error', 'vault', 'vault', 'vault', 'vault'],
    );
    assert.equal(clean.owner, told.owner);
    for (const worker of ['x'.repeat(5_000), 'a b/c\0', '', 5, null, { a: 1 }, '__proto__', undefined])
      assert.throws(() => cleanFate({ ...told, worker }, isCause), BadInput);
    for (const owner of ['o'.repeat(100_000), Array(9).fill('o').join('/'), '', '/', 'O', null, ['a']])
      assert.throws(() => cleanFate({ ...told, owner }, isCause), BadInput);
  });

  it('that the disk refuses for a while are on it as soon as it takes them', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const kv = store.kv('later');
    let full = true;
    const stuck: typeof kv = Object.assign(Object.create(kv), {
      put: (...args: Parameters<typeof kv.put>) =>
        full ? Promise.reject(new StorageFailed({ what: 'the disk is full' })) : kv.put(...args),
    });
    const fates = new Fates(stuck);
    fates.set(fate('w-1', 1));
    await fates.saved();
    assert.equal(await kv.get('fate/w-1'), undefined);
    full = false;
    t.mock.timers.tick(1_000);
    await fates.saved();
    assert.ok(await kv.get('fate/w-1'));
  });

  it('that the store takes never are tried once, told of, and stand in no other’s way', async () => {
    const told: string[] = [];
    const kv = store.kv('refused');
    let tries = 0;
    const counting: typeof kv = Object.assign(Object.create(kv), {
      put: (...args: Parameters<typeof kv.put>) => {
        tries++;
        return kv.put(...args);
      },
    });
    const fates = new Fates(counting, undefined, (line, fields) => told.push(`${line} ${JSON.stringify(fields)}`));
    await fates.open();
    fates.set(fate('w-1', 1, 'x'.repeat(600_000)));
    fates.set(fate('w-2', 2));
    await fates.saved();
    fates.set(fate('w-3', 3));
    await fates.saved();
    await fates.close();
    assert.equal(tries, 3);
    assert.match(told.join('\n'), /^what became of a worker cannot be kept on disk \{"worker":"w-1","why":".*\}$/);
    assert.equal(fates.get('w-1')?.reason, 'it fell');
    const again = await reopened('refused');
    assert.deepEqual(
      ['w-1', 'w-2', 'w-3'].map((worker) => again.get(worker) !== undefined),
      [false, true, true],
    );
  });
});
