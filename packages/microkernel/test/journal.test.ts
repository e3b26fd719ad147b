import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Backplane, CompareFailed, openEmbedded } from '@hauki/backplane';
import { createMeshFs } from '@hauki/meshfs';
import type { VersionFacts } from '@hauki/protocol';
import { faultOf, JOURNAL, Journal, type NewEntry } from '../src/journal.ts';
import { emptyRecord, Store } from '../src/store.ts';

const facts = (module: string) => ({ module, version: 1, digest: module, language: 'javascript' }) as VersionFacts;

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
    const seqs = async (seq: number, most: number) => (await again.after(seq, most)).map((entry) => entry.seq);
    assert.deepEqual([await seqs(0, 2), await seqs(2, 9), await seqs(4, 9)], [[1, 2], [3, 4], []]);
  });

  it('shows what was changed, left out, or put in between', async () => {
    const entries = await (await Journal.open(backplane.kv(JOURNAL))).entries();
    for (const change of [
      { by: 'eve' },
      { at: 0 },
      { module: 'c' },
      { deed: 'pin' as const },
      { version: 2 },
      { digest: 'e' },
      { note: 'x' },
    ]) {
      const changed = entries.map((entry) => (entry.seq === 2 ? { ...entry, ...change } : entry));
      assert.match(faultOf(changed)!, /entry 2 was changed/, JSON.stringify(change));
    }
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
    await kv.put(key, '{');
    await assert.rejects(Journal.open(kv), /The journal is damaged: entry 2 cannot be read/);
    await kv.put(key, whole);
    await Journal.open(kv);
  });

  it('tells whoever asks for its entries where its chain was broken or cut since', async () => {
    const kv = backplane.kv(JOURNAL);
    const journal = await Journal.open(kv);
    const key = '000000000004';
    const whole = (await kv.get(key))!.value;
    await kv.put(key, whole.replace('"ada"', '"eve"'));
    await assert.rejects(journal.entries('a'), /entry 4 was changed/);
    await kv.delete(key);
    await assert.rejects(journal.entries('a'), /it ends with entry 3 of 4/);
    await kv.put(key, whole);
    assert.equal((await journal.entries('a')).length, 2);
  });

  it('says what modules there are where it knows nothing of the one that is asked for', async () => {
    const journal = await Journal.open(backplane.kv(JOURNAL));
    await assert.rejects(journal.entries('nobody'), /no module nobody here. There is: a, b, c/);
  });

  it('takes no entry in the place of another', async () => {
    const [one, other] = await Promise.all([Journal.open(backplane.kv(JOURNAL)), Journal.open(backplane.kv(JOURNAL))]);
    const { write } = one.next(deed('c'));
    await backplane.commit([other.next(deed('c')).write]);
    await assert.rejects(backplane.commit([write]), CompareFailed);
  });

  it('that was cut at its end is known by what the modules’ records say', async () => {
    const other = mkdtempSync(join(tmpdir(), 'hauki-cut-'));
    const kept = await openEmbedded(join(other, 'store'));
    try {
      const meshfs = await createMeshFs(kept, { wiki_folder: join(other, 'wiki'), report() {} });
      const folder = join(other, 'uah_endpoints');
      const store = await Store.open(kept, meshfs, folder);
      for (const module of ['a', 'b']) await store.commit(emptyRecord(module), deed(module));
      await store.copy();
      await Store.open(kept, meshfs, folder);
      // As a version that knows no such number writes it: the journal goes on, the record's number stays.
      const record = (await kept.kv('modules').get('a'))!.value;
      await store.commit(emptyRecord('a'), deed('a'));
      await kept.kv('modules').put('a', record);
      await Store.open(kept, meshfs, folder);
      await kept.kv(JOURNAL).delete('000000000003');
      await kept.kv(JOURNAL).delete('000000000002');
      await assert.rejects(Store.open(kept, meshfs, folder), /The journal is damaged: entry 2 should be the last of b/);
      await kept.kv('modules').put('b', '{');
      await assert.rejects(Store.open(kept, meshfs, folder), /The record of the module b is damaged/);
    } finally {
      await kept.close();
      rmSync(other, { recursive: true });
    }
  });
});

describe('a change of a module', () => {
  it('is told, and counts, when it is durable and not before; one that could not be kept changes nothing', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hauki-change-'));
    const kept = await openEmbedded(join(folder, 'store'));
    try {
      const meshfs = await createMeshFs(kept, { wiki_folder: join(folder, 'wiki'), report() {} });
      /** What is to be written, and what lets it or does not. */
      const asked: PromiseWithResolvers<void>[] = [];
      const slow: Backplane['commit'] = async (writes, objects) => {
        const gate = Promise.withResolvers<void>();
        asked.push(gate);
        await gate.promise;
        return kept.commit(writes, objects);
      };
      const backplane = { ...kept, commit: slow };
      const store = await Store.open(backplane, meshfs, join(folder, 'uah_endpoints'));
      const record = { ...emptyRecord('a'), pinned: true };
      let told = false;
      const first = store.commit(record, deed('a')).then(() => {
        told = true;
      });
      const second = store.commit({ ...record, pinned: false }, deed('a'));
      await new Promise((resolve) => setImmediate(resolve));
      assert.deepEqual([told, store.record('a'), store.journal.last, asked.length], [false, undefined, 0, 1]);
      asked[0]!.resolve();
      await first;
      assert.deepEqual([store.record('a')?.pinned, store.journal.last], [true, 1]);
      await new Promise((resolve) => setImmediate(resolve));
      asked[1]!.reject(new Error('the disk is full'));
      await assert.rejects(second, /the disk is full/);
      assert.deepEqual([store.record('a')?.pinned, store.journal.last], [true, 1]);
      const third = store.commit({ ...record, pinned: false }, deed('a'));
      await new Promise((resolve) => setImmediate(resolve));
      asked[2]!.resolve();
      await third;
      assert.deepEqual([store.record('a')?.pinned, store.record('a')?.seq], [false, 2]);
      await store.copy();
    } finally {
      await kept.close();
      rmSync(folder, { recursive: true });
    }
  });

  it('leaves no state for its next start but that of the version that serves alone by then', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hauki-state-'));
    const kept = await openEmbedded(join(folder, 'store'));
    try {
      const meshfs = await createMeshFs(kept, { wiki_folder: join(folder, 'wiki'), report() {} });
      const store = await Store.open(kept, meshfs, join(folder, 'uah_endpoints'));
      const live = (...versions: number[]) => versions.map((version) => ({ version, weight: 100 / versions.length }));
      const state = (from: number) => ({ pointer: `state of ${from}`, from });
      for (const [versions, from, wanted] of [
        [[1], 1, state(1)],
        [[2], 1, undefined],
        [[1, 2], 1, undefined],
      ] as const) {
        void store.commit({ ...emptyRecord('a'), live: live(...versions) }, deed('a'));
        await store.keepPresent('a', state(from));
        assert.deepEqual(store.record('a')?.state, wanted, versions.join());
      }
      await store.copy();
    } finally {
      await kept.close();
      rmSync(folder, { recursive: true });
    }
  });
});

describe('the readable copies of modules', () => {
  it('keep no kernel from starting where one cannot be made, and the others are made', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hauki-copies-'));
    const kept = await openEmbedded(join(folder, 'store'));
    try {
      const meshfs = await createMeshFs(kept, { wiki_folder: join(folder, 'wiki'), report() {} });
      const copies = join(folder, 'uah_endpoints');
      const store = await Store.open(kept, meshfs, copies);
      for (const module of ['bad', 'good']) {
        const record = { ...emptyRecord(module), live: [{ version: 1, weight: 100 }] };
        await store.commit(record, deed(module), [facts(module)], `// ${module}`);
      }
      await store.copy();
      for (const name of ['bad.js', 'good.js']) rmSync(join(copies, name));
      for (const name of ['bad.js', 'bad.js.tmp']) mkdirSync(join(copies, name, 'deep'), { recursive: true });
      await Store.open(kept, meshfs, copies);
      assert.equal(readFileSync(join(copies, 'good.js'), 'utf8'), '// good');
    } finally {
      await kept.close();
      rmSync(folder, { recursive: true });
    }
  });
});
