/** A kernel over the data folder of an earlier version: what it served is served, and what was before can come back. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, it } from 'node:test';
import { EvolveRejected, isError } from '@hauki/mesh';
import { useKernel } from './support/kernel.ts';

describe('a kernel whose data folder an earlier version wrote', () => {
  const kernel = useKernel({
    drivers: ['quickjs'],
    prepare(data_dir) {
      mkdirSync(join(data_dir, 'store'));
      using db = new DatabaseSync(join(data_dir, 'store', 'kv.sqlite'));
      db.exec(readFileSync(new URL('./support/earlier-kernel.sql', import.meta.url), 'utf8'));
    },
  });
  const text = async (path: string, init?: RequestInit) => (await kernel.get(path, init)).text();
  const answers = (what: string) => `export default { fetch: () => new Response('${what}') };`;

  it('serves what was served, by the same shares, at the same routes, with the state that it had', async () => {
    const { modules } = await kernel.door.status();
    const shown = modules.map(({ module, state, alias, pinned, good, bounds, live }) => ({
      ...{ module, state, alias, pinned, good, bounds },
      live: live.map(({ version, weight }) => [version, weight]),
    }));
    const plain = { state: 'serving', alias: null, pinned: false, bounds: null };
    const hello = { ...plain, module: 'hello', alias: '/api/v2/hello/', good: 2, bounds: { max_error_rate: 0.5 } };
    assert.deepEqual(shown, [
      { ...plain, module: 'counter', good: 1, live: [[2, 100]] },
      {
        ...hello,
        live: [
          [2, 90],
          [3, 10],
        ],
      },
      { ...plain, module: 'kept', pinned: true, good: null, live: [[1, 100]] },
    ]);
    for (const path of ['hello/', '/api/v2/hello/']) assert.match(await text(path), /^hello [23]$/);
    assert.equal(await text('hello/', { headers: { 'x-hauki-version': '3' } }), 'hello 3');
    assert.equal(await text('counter/'), 'v2 4');
    assert.equal((await kernel.get('gone/')).status, 404);
  });

  it('has its versions with their sources, and a journal whose chain goes on', async () => {
    const digests = (await kernel.door.versions('hello')).map(({ version, digest }) => [version, digest.slice(0, 8)]);
    assert.deepEqual(digests, [
      [1, '84fd5c6c'],
      [2, '1c1df445'],
      [3, '6fed9f07'],
    ]);
    assert.equal((await kernel.door.version('gone', 1)).source, answers('hello gone'));
    await kernel.door.pin('kept', false);
    const entries = await kernel.door.history();
    assert.deepEqual(
      entries.slice(-2).map(({ seq, module, deed }) => [seq, module, deed]),
      [
        [9, 'gone', 'remove'],
        [10, 'kept', 'pin'],
      ],
    );
    assert.equal(entries[9]!.before, entries[8]!.hash);
  });

  it('holds new versions to the tests that were kept, hands states over, and goes back', async () => {
    await assert.rejects(
      kernel.door.evolve({ target_module: 'hello.js', content: answers('good day') }),
      (error) => isError(error, EvolveRejected) && error.fields.stage === 'tests',
    );
    await kernel.door.rollback('hello', 1);
    assert.equal(await text('hello/'), 'hello 1');
    await kernel.door.rollback('counter');
    // With the state that it had when it was left.
    assert.equal(await text('counter/'), 'v1 4');
    assert.equal((await kernel.door.evolve({ target_module: 'gone.js', content: answers('back') })).version, 2);
  });
});
