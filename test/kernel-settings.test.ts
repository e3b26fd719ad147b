/** What a module has beside its source (tests, bounds, alias, weights): what changes it, and what goes back with a version. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BadInput, EditRefused, type EvolveRequest, isError, ModuleUnknown } from '@hauki/mesh';
import { defaultMemoryMib } from '@hauki/node';
import { useKernel } from './support/kernel.ts';
import { missing, until } from './support/mesh.ts';

const says = (word: string) => `export default { fetch: () => new Response('${word}') };`;
const FAILING = `export default { fetch: () => new Response('', { status: 500 }) };`;

describe('settings of a module', () => {
  const kernel = useKernel(missing('process') ? { drivers: ['quickjs'] } : { drivers: ['quickjs', 'process'] });
  const evolve = (target_module: string, content: string, more: Partial<EvolveRequest> = {}) =>
    kernel.door.evolve({ target_module, content, ...more });
  const view = async (name: string) => (await kernel.door.status()).modules.find(({ module }) => module === name)!;
  const text = async (path: string, init?: RequestInit) => (await kernel.get(path, init)).text();

  it('come back with the version that they came with', async () => {
    await evolve('back', says('one'), { tests: [{ path: '/', expect: { text: 'one' } }] });
    await evolve('back', says('two'), {
      alias: '/api/v2/back/',
      bounds: { max_error_rate: 0.5 },
      tests: [{ path: '/', expect: { text: 'two' } }],
    });
    assert.equal(await text('/api/v2/back/'), 'two');
    await kernel.door.rollback('back');
    const { alias, bounds, version } = await view('back');
    assert.deepEqual([alias, bounds, version], [null, null, 1]);
    assert.equal((await kernel.get('/api/v2/back/')).status, 404);
    await evolve('back', `${says('one')} // mended`);
    await kernel.door.rollback('back', 2);
    assert.equal(await text('/api/v2/back/'), 'two');
  });

  it('leave an alias with whoever has it by now', async () => {
    await evolve('early', says('early'), { alias: '/api/v2/shared/' });
    await evolve('early', says('early'), { alias: null });
    await evolve('late', says('late'), { alias: '/api/v2/shared/' });
    await kernel.door.rollback('early', 1);
    assert.equal((await view('early')).alias, null);
    assert.equal(await text('/api/v2/shared/'), 'late');
  });

  it('give an alias to one of two that ask for it at once, and that one keeps it', async () => {
    const both = await Promise.allSettled(
      ['first', 'second'].map((name) => evolve(name, says(name), { alias: '/api/v2/wanted/' })),
    );
    const refused = both.filter((one) => one.status === 'rejected');
    assert.equal(refused.length, 1);
    assert.ok(isError(refused[0]!.reason, BadInput) && /is taken/.test(refused[0]!.reason.message));
    const answered = await text('/api/v2/wanted/');
    await kernel.restart();
    assert.equal(await text('/api/v2/wanted/'), answered);
  });

  it('let go of tests that are not to be kept', async () => {
    await evolve('untested', says('one'), { tests: [{ path: '/', expect: { text: 'one' } }] });
    await assert.rejects(evolve('untested', says('two')), /the body/);
    await evolve('untested', says('two'), { keep_tests: false });
    await evolve('untested', says('three'));
    assert.equal(await text('untested/'), 'three');
  });

  it('say which of the tests that fail were kept, and how they are let go of', async () => {
    const tests = [{ path: '/', expect: { text: 'one' } }];
    await evolve('kept_tests', says('one'), { tests });
    await assert.rejects(
      evolve('kept_tests', says('two')),
      /GET \/ \(kept from an earlier version\): the body .* keep_tests: false \(--no-keep-tests\)/,
    );
    await assert.rejects(evolve('kept_tests', says('two'), { tests }), ({ message }: Error) => {
      assert.match(message, /stage tests: GET \/: the body/);
      return !/keep_tests/.test(message);
    });
    await evolve('kept_tests', says('two'), { tests: [{ path: '/', expect: { text: 'two' } }] });
    assert.equal(await text('kept_tests/'), 'two');
  });

  it('tell of a share what it is, and leave nothing of a version for which there is no share', async () => {
    assert.equal((await evolve('crowded', says('1'), { weight: 10 })).weight, undefined);
    for (const word of ['2', '3', '4']) assert.equal((await evolve('crowded', says(word), { weight: 10 })).weight, 10);
    const memory_mib = Math.floor(0.4 * defaultMemoryMib());
    for (let i = 0; i < 3; i++)
      await assert.rejects(evolve('crowded', says('5'), { weight: 10, memory_mib }), /versions that live at once/);
    assert.equal((await evolve('crowded', says('5'), { memory_mib })).version, 5);
    const notes = (await kernel.door.history('crowded')).map(({ note }) => note);
    assert.deepEqual(notes, [null, '1: 90, 2: 10', '1: 81, 2: 9, 3: 10', '1: 73, 2: 8, 3: 9, 4: 10', null]);
  });

  it('are those of what the sender knew where a whole source names its base', async () => {
    const { digest } = await evolve('based', says('one'));
    await evolve('based', says('two'), { base_digest: digest });
    await assert.rejects(
      evolve('based', says('three'), { base_digest: digest }),
      (error) =>
        isError(error, EditRefused) &&
        /which is version 1; .* runs/.test(error.message) &&
        /-.*one[\s\S]*\n\+.*two/.test(error.fields.diff ?? ''),
    );
    await assert.rejects(evolve('baseless', says('one'), { base_digest: digest }), /no such module/);
    assert.equal(await text('based/'), 'two');
  });

  it('take the memory that is usual where a version moves to other vaults', { skip: missing('process') }, async () => {
    await evolve('moves', says('small'), { driver: 'quickjs' });
    await evolve('moves', says('large'), { driver: 'process' });
    assert.equal(await text('moves/'), 'large');
  });

  const ask = async (name: string, count: number, headers = {}) => {
    for (let i = 0; i < count; i++) await kernel.get(`${name}/`, { headers });
  };

  it('go back to the version before the last where that one failed too', async () => {
    await evolve('good', says('good'));
    await evolve('good', FAILING);
    await ask('good', 25);
    await evolve('good', `${FAILING} // again`, { bounds: { max_error_rate: 0.5 } });
    await ask('good', 25);
    await until('the good one serves', async () => (await view('good')).version === 1);
    assert.equal(await text('good/'), 'good');
  });

  it('take out the one of several versions that leaves its bounds, and leave the others', async () => {
    await evolve('several', FAILING);
    await evolve('several', says('two'));
    await evolve('several', says('three'), { bounds: { max_error_rate: 0.5 } });
    await kernel.door.weigh('several', { 1: 0, 3: 100 });
    await ask('several', 45, { 'x-hauki-version': '1' });
    await until(
      'it is taken out',
      async () => (await view('several')).live.filter((one) => !one.draining).length === 1,
    );
    assert.equal(await text('several/'), 'three');
  });

  /** Fails from the first request for /bad on. */
  const TURNS_BAD = (word: string) =>
    `let bad = false; export default { fetch({ url }) {
      bad ||= url.endsWith('/bad');
      return new Response('${word}', { status: bad ? 500 : 200 });
    } };`;
  const served = async (name: string) =>
    (await view(name)).live.filter((one) => !one.draining).map(({ version, weight }) => [version, weight]);

  it('keep a version to its bounds also where it came back by hand', async () => {
    await evolve('again', says('one'));
    await evolve('again', TURNS_BAD('two'), { bounds: { max_error_rate: 0.1 } });
    await evolve('again', says('three'));
    await kernel.door.rollback('again');
    assert.deepEqual([(await view('again')).version, (await view('again')).good], [2, 1]);
    await kernel.get('again/bad');
    await ask('again', 40);
    await until('it is taken back', async () => (await view('again')).version === 1);
    await assert.rejects(kernel.door.rollback('again'), /nothing of again served before/);
  });

  it('keep the version that was there before to them as well, where the one beside it does well', async () => {
    const bounds = { max_error_rate: 0.1 };
    await evolve('older', TURNS_BAD('one'));
    await evolve('older', says('two'), { weight: 50, bounds });
    await ask('older', 25, { 'x-hauki-version': '2' });
    await kernel.get('older/bad', { headers: { 'x-hauki-version': '1' } });
    await ask('older', 60, { 'x-hauki-version': '1' });
    await until('the one that does well serves alone', async () => (await served('older')).length === 1);
    assert.deepEqual(await served('older'), [[2, 100]]);
    // One that nobody is sent to takes nobody's place.
    await evolve('only', TURNS_BAD('one'));
    await evolve('only', says('two'), { weight: 0, bounds });
    await ask('only', 25, { 'x-hauki-version': '2' });
    await kernel.get('only/bad');
    await ask('only', 45);
    assert.deepEqual(await served('only'), [
      [1, 100],
      [2, 0],
    ]);
  });

  it('go with the version that is taken back where several stay', async () => {
    await evolve('three', says('one'), { alias: '/api/one/' });
    await evolve('three', says('two'), { weight: 30 });
    await evolve('three', TURNS_BAD('three'), {
      weight: 30,
      alias: '/api/three/',
      bounds: { max_error_rate: 0.1 },
      tests: [{ path: '/', expect: { text: 'three' } }],
    });
    const third = { 'x-hauki-version': '3' };
    await kernel.get('three/bad', { headers: third });
    await ask('three', 45, third);
    await until('it is taken back', async () => (await served('three')).length === 2);
    assert.equal((await view('three')).bounds, null);
    assert.deepEqual([(await kernel.get('/api/one/')).status, (await kernel.get('/api/three/')).status], [200, 404]);
    await evolve('three', says('four'));
  });

  it('are no more than can be kept: tests beyond are refused, and none is dropped in silence', async () => {
    const tests = (from: number) =>
      Array.from({ length: 64 }, (_, i) => ({ path: `/${from + i}`, expect: { text: 'same' } }));
    for (let from = 0; from < 256; from += 64) await evolve('tested', says('same'), { tests: tests(from) });
    await assert.rejects(
      evolve('tested', says('same'), { tests: tests(256) }),
      (error) => isError(error, BadInput) && /they are 320, and 256 are kept; keep_tests: false/.test(error.message),
    );
    await evolve('tested', says('same'), { tests: tests(256), keep_tests: false });
  });

  it('have one test for one request, however its headers and body are written', async () => {
    const path = '/';
    const expect = (text: string) => ({ expect: { text } });
    const first = { path, method: 'post', headers: { Accept: 'a', 'x-b': 'b' }, body: { a: 1, b: { c: 2, d: 3 } } };
    const second = { path, method: 'POST', headers: { 'X-B': 'b', accept: 'a' }, body: { b: { d: 3, c: 2 }, a: 1 } };
    await evolve('written', says('one'), { tests: [{ ...first, ...expect('one') }] });
    await evolve('written', says('two'), { tests: [{ ...second, ...expect('two') }] });
    assert.equal(await text('written/'), 'two');
  });

  it('are not changed any more where a removal came first', async () => {
    const { door } = kernel;
    const gone = (error: unknown) => isError(error, ModuleUnknown);
    const changes = {
      pin: () => door.pin('removed', true),
      remove: () => door.remove('removed'),
      rollback: () => door.rollback('removed', 1),
      weigh: () => door.weigh('removed', { 1: 100 }),
    };
    for (const [what, change] of Object.entries(changes)) {
      await evolve('removed', says('one'));
      const [removed, changed] = await Promise.allSettled([door.remove('removed'), change()]);
      assert.equal(removed.status, 'fulfilled', what);
      assert.ok(changed.status === 'rejected' && gone(changed.reason), what);
      assert.equal((await kernel.get('removed/')).status, 404, what);
    }
    await evolve('removed', says('again'));
    assert.equal(await text('removed/'), 'again');
  });
});
