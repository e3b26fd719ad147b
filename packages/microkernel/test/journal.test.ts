import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Backplane, openEmbedded } from '@hauki/backplane';
import { faultOf, JOURNAL, Journal, type NewEntry } from '../src/journal.ts';

const deed = (module: string): NewEntry => ({ module, deed: 'evolve', by: 'ada', version: 1, digest: 'd', note: null });

describe('the journal', () => {
  let folder: string;
  let backplane: Backplane;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-journal-'));
    backplane = await openEmbedded(folder);
  });
  after(async () => {
    await backplane.close();
    rmSync(folder, { recursive: true });
  });

  it('is a chain that goes on after it is opened again', async () => {
    const first = await Journal.open(backplane.kv(JOURNAL));
    for (const module of ['a', 'b', 'a']) {
      const { write, done } = first.next(deed(module));
      await backplane.commit([write]);
      done();
    }
    const again = await Journal.open(backplane.kv(JOURNAL));
    const { write, done } = again.next(deed('c'));
    await backplane.commit([write]);
    done();
    const entries = await again.entries();
    assert.deepEqual(
      entries.map(({ seq, module }) => [seq, module]),
      [
        [1, 'a'],
        [2, 'b'],
        [3, 'a'],
        [4, 'c'],
      ],
    );
    assert.equal(faultOf(entries), undefined);
    assert.equal((await again.entries('a')).length, 2);
  });

  it('shows what was changed, left out, or put in between', async () => {
    const entries = await (await Journal.open(backplane.kv(JOURNAL))).entries();
    const changed = entries.map((entry) => (entry.seq === 2 ? { ...entry, by: 'eve' } : entry));
    assert.match(faultOf(changed)!, /entry 2 was changed/);
    assert.match(faultOf(entries.filter(({ seq }) => seq !== 2))!, /entry 2 is missing/);
    const last = entries.at(-1)!;
    assert.match(faultOf([...entries, { ...last, seq: 5 }])!, /entry 5 does not follow/);
  });

  it('is not opened where its chain is broken', async () => {
    const kv = backplane.kv(JOURNAL);
    const key = '000000000002';
    const whole = (await kv.get(key))!.value;
    await kv.put(key, whole.replace('"ada"', '"eve"'));
    await assert.rejects(Journal.open(kv), /entry 2 was changed/);
    await kv.put(key, whole);
    await Journal.open(kv);
  });
});
