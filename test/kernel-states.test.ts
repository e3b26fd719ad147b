/** States of modules where a swap is no plain one: a dead vault, a stream that goes on, shares, and bounds. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing, until } from './support/mesh.ts';

/** Ends a vault: of the memory that it takes, or else of code that never returns. */
const END = `try { for (const all = []; ; ) all.push(new Uint8Array(1e7).fill(1)); } catch {} for (;;);`;
/** Counts; `/end` ends its vault, and `/stream` never ends. */
const COUNTER = (version: string) => `
  export const state = { n: 0 };
  export default { fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === '/end') { ${END} }
    if (pathname === '/stream') return new Response(new ReadableStream({
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        controller.enqueue(new TextEncoder().encode('${version} '));
      },
    }));
    return Response.json({ version: '${version}', n: ++state.n });
  } };`;

for (const driver of DRIVERS)
  describe(`states, with ${driver} vaults`, { skip: missing(driver), concurrency: true }, () => {
    const kernel = useKernel({ drivers: [driver] });
    const view = async (name: string) => (await kernel.door.status()).modules.find(({ module }) => module === name)!;

    it('are taken over from what a version began with when its vault is dead', async () => {
      await kernel.door.evolve({ target_module: 'dead', content: COUNTER('a') });
      for (let i = 0; i < 3; i++) await kernel.json('dead/');
      await kernel.door.evolve({ target_module: 'dead', content: COUNTER('b') });
      const dead = async () => {
        await kernel.get('dead/end');
        return (await view('dead')).state === 'failed';
      };
      await until('its vault is dead', dead, 150_000);
      const { digest, language } = await view('dead');
      assert.match(digest ?? '', /^[0-9a-f]{64}$/);
      assert.equal(language, 'javascript');
      await kernel.door.evolve({ target_module: 'dead', content: COUNTER('c') });
      assert.deepEqual(await kernel.json('dead/'), { version: 'c', n: 4 });
    });

    it('are whatever a module exports by that name at that moment, also what had no members or no value at first', async () => {
      const WORDS = (version: string) => `
        class Words { said = {}; last = null; say(word) { this.said[word] = 1; this.last = { word }; } }
        export let state = new Words();
        export default { fetch(request) {
          const word = new URL(request.url).pathname.slice(1);
          if (word === 'anew') state = Object.assign(new Words(), { last: 'anew' });
          else if (word) state.say(word);
          return Response.json({ version: '${version}', ...state });
        } };`;
      await kernel.door.evolve({ target_module: 'words', content: WORDS('a') });
      await kernel.json('words/constructor');
      await kernel.json('words/__proto');
      await kernel.door.evolve({ target_module: 'words', content: WORDS('b') });
      const said = { constructor: 1, __proto: 1 };
      assert.deepEqual(await kernel.json('words/'), { version: 'b', said, last: { word: '__proto' } });
      await kernel.json('words/anew');
      await kernel.door.evolve({ target_module: 'words', content: WORDS('c') });
      assert.deepEqual(await kernel.json('words/'), { version: 'c', said: {}, last: 'anew' });
      await kernel.door.rollback('words', 1);
      assert.deepEqual(await kernel.json('words/'), { version: 'a', said, last: { word: '__proto' } });
    });

    it('are taken over while a stream goes on, which the old version goes on with', async () => {
      await kernel.door.evolve({ target_module: 'stream', content: COUNTER('a') });
      await kernel.json('stream/');
      const reader = (await kernel.get('stream/stream')).body!.getReader();
      await reader.read();
      await kernel.door.evolve({ target_module: 'stream', content: COUNTER('b') });
      assert.deepEqual(await kernel.json('stream/'), { version: 'b', n: 2 });
      assert.match(new TextDecoder().decode((await reader.read()).value), /a /);
      assert.equal((await view('stream')).live.filter(({ draining }) => draining).length, 1);
      await reader.cancel();
      await until('the old version is ended', async () => (await view('stream')).live.length === 1);
    });

    it('go along when all requests are given to another version', async () => {
      await kernel.door.evolve({ target_module: 'shares', content: COUNTER('a') });
      await kernel.json('shares/');
      await kernel.door.evolve({ target_module: 'shares', content: COUNTER('b') });
      await kernel.json('shares/');
      await kernel.door.weigh('shares', { 1: 100 });
      assert.deepEqual(await kernel.json('shares/'), { version: 'a', n: 3 });
    });

    it('come back with the version before when one dies again and again that has bounds', async () => {
      const DYING = `export const state = { n: 0 }; export default { fetch() { ${END} } };`;
      await kernel.door.evolve({ target_module: 'dying', content: COUNTER('a') });
      await kernel.json('dying/');
      await kernel.door.evolve({ target_module: 'dying', content: DYING, bounds: { max_error_rate: 0.5 } });
      await until(
        'it is taken back',
        async () => {
          await kernel.get('dying/');
          return (await view('dying')).version === 1;
        },
        150_000,
      );
      assert.equal((await kernel.json('dying/')).version, 'a');
      const [last] = (await kernel.door.history('dying')).slice(-1);
      assert.equal(last?.deed, 'abort');
    });

    it('come back with the version before also where the one that left its bounds gives none', async () => {
      const KEEPING = `export const dehydrate = () => { throw new Error('not now'); };
        export const hydrate = () => {};
        export default { fetch() { throw new Error('never'); } };`;
      await kernel.door.evolve({ target_module: 'keeping', content: COUNTER('a') });
      await kernel.json('keeping/');
      await kernel.door.evolve({ target_module: 'keeping', content: KEEPING, bounds: { max_error_rate: 0.5 } });
      // Who posts another is told why it cannot go on from there.
      const next = kernel.door.evolve({ target_module: 'keeping', content: COUNTER('c') });
      await assert.rejects(next, /dehydrate failed: .*not now/);
      await until('it is taken back', async () => {
        await kernel.get('keeping/');
        return (await view('keeping')).version === 1;
      });
      // Some of those that asked meanwhile were answered by it.
      const { version, n } = await kernel.json('keeping/');
      assert.equal(version, 'a');
      assert.ok(n > 1, 'it begins with what it had before');
    });

    it('come back by hand too where the one that is left gives none', async () => {
      await kernel.door.evolve({ target_module: 'stuck', content: COUNTER('a') });
      await kernel.json('stuck/');
      const content = COUNTER('b').replace(
        'export const state',
        'export const state = { n: 0, f: () => {} }; const other',
      );
      await kernel.door.evolve({ target_module: 'stuck', content });
      await assert.rejects(kernel.door.evolve({ target_module: 'stuck', content: COUNTER('c') }), /dehydrate failed/);
      assert.equal((await kernel.door.rollback('stuck')).version, 1);
      assert.deepEqual(await kernel.json('stuck/'), { version: 'a', n: 2 });
    });

    it('that could not be given are refused where tests come with the version', async () => {
      const content = `export const dehydrate = () => { throw new Error('never'); };
        export const hydrate = () => {};
        export default { fetch: () => new Response('ok') };`;
      const tests = [{ path: '/', expect: { text: 'ok' } }];
      for (const dry_run of [true, false])
        await assert.rejects(
          kernel.door.evolve({ target_module: 'ungiven', content, tests, dry_run }),
          /stage state: dehydrate failed: .*never/,
        );
      await assert.rejects(kernel.door.rollback('ungiven'), /no module/);
    });
  });
