/**
 * The gate of a kernel: bad plugins, planted on purpose, are rejected at the right stage or harm nobody but themselves;
 * good ones come in. Meanwhile the kernel and a neighbour go on answering, all the time.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { BadInput, EvolveRejected, isError } from '@hauki/mesh';
import { useKernel } from './support/kernel.ts';
import { missing, until } from './support/mesh.ts';
import { type Cell, CONTAINED, GOOD, REJECTED, serving } from './support/planted.ts';

const NODE = missing('lxc') ? 'process' : 'lxc';
const DRIVER: Record<Cell, string> = { vm: 'quickjs', node: NODE };
const NEIGHBOUR = serving('return new Response("neighbour");');
/** Several at once: most of them wait for a deadline. */
const AT_ONCE = { concurrency: 6 };

describe('the gate of a kernel', () => {
  const kernel = useKernel({ drivers: missing(NODE) ? ['quickjs'] : ['quickjs', NODE] });
  const cells = (['vm', 'node'] as const).filter((cell) => cell === 'vm' || !missing(NODE));
  const failures: string[] = [];
  let asked = 0;
  let pinging = true;
  let pinger: Promise<void>;
  let pid: number;
  let count = 0;
  const unused = (cell: Cell) => `${cell}_${++count}`;

  before(async () => {
    for (const cell of cells)
      await kernel.door.evolve({ target_module: `neighbour_${cell}`, content: NEIGHBOUR, driver: DRIVER[cell] });
    pid = kernel.process.child.pid!;
    pinger = (async () => {
      while (pinging) {
        for (const path of [...cells.map((cell) => `neighbour_${cell}/`), '/health']) {
          const said = await kernel.get(path).then(
            async (answer) => `${answer.status} ${await answer.text()}`,
            (error) => String(error),
          );
          asked++;
          if (!/^200 .*(?:neighbour|ok)/.test(said)) failures.push(`${path}: ${said}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    })();
  });
  after(() => {
    pinging = false;
  });

  /** Every request to it is answered, or its connection is cut; status 0 then. */
  const ask = async (path: string): Promise<{ status: number; text: string; headers?: Headers }> => {
    try {
      const answer = await kernel.get(path, { signal: AbortSignal.timeout(100_000) });
      return { status: answer.status, text: await answer.text(), headers: answer.headers };
    } catch (error) {
      if ((error as Error).name === 'TimeoutError') throw new Error(`${path} was not answered`);
      return { status: 0, text: String(error) };
    }
  };

  describe('lets in', AT_ONCE, () => {
    for (const cell of cells)
      for (const { name, source, more, says } of GOOD)
        it(`${name} (${DRIVER[cell]})`, async () => {
          const target_module = unused(cell);
          await kernel.door.evolve({ target_module, content: source, driver: DRIVER[cell], ...more });
          assert.equal((await ask(`${target_module}/`)).text, says);
          await kernel.door.remove(target_module);
        });
  });

  describe('rejects what', AT_ONCE, () => {
    for (const { name, cells: in_cells, source, stage, why, more, before: served } of REJECTED)
      for (const cell of in_cells.filter((one) => cells.includes(one)))
        it(`${name} (${DRIVER[cell]})`, async () => {
          const target_module = unused(cell);
          const post = (content: string, rest = {}) =>
            kernel.door.evolve({ target_module, content, driver: DRIVER[cell], ...rest });
          if (served !== undefined) await post(served);
          await assert.rejects(post(source, more), (error) => {
            assert.ok(isError(error, EvolveRejected), String(error));
            assert.match(error.fields.stage, stage, error.message);
            assert.match(error.message, why);
            return true;
          });
          const { status, text } = await ask(`${target_module}/`);
          assert.deepEqual(served === undefined ? status : text, served === undefined ? 404 : '1');
          if (served !== undefined) await kernel.door.remove(target_module);
        });
  });

  describe('contains what', AT_ONCE, () => {
    for (const { name, cells: in_cells, source, more, path = '', ends, says, recovers } of CONTAINED)
      for (const cell of in_cells.filter((one) => cells.includes(one)))
        it(`${name} (${DRIVER[cell]})`, async () => {
          const target_module = unused(cell);
          await kernel.door.evolve({ target_module, content: source, driver: DRIVER[cell], ...more });
          const { status, text, headers } = await ask(`${target_module}/${path}`);
          assert.ok(ends.includes(status), `${status} ${text.slice(0, 300)}`);
          if (status >= 500) assert.match(text, /"error":\{/);
          if (says) assert.match(text, says);
          assert.equal(headers?.get('x-injected') ?? null, null);
          const well = async () => (await ask(`${target_module}/well`)).text === 'well';
          if (recovers) await until('it answers again', well, 60_000);
          await kernel.door.remove(target_module);
        });

    for (const cell of cells) {
      it(`forges the kernel’s own headers (${DRIVER[cell]})`, async () => {
        const target_module = unused(cell);
        const content = serving(
          `return new Response('x', { headers: { 'X-Hauki-Digest': 'forged', 'x-hauki-version': '99', 'x-hauki-kernel': 'forged' } });`,
        );
        const { digest } = await kernel.door.evolve({ target_module, content, driver: DRIVER[cell] });
        const { headers } = await ask(`${target_module}/`);
        assert.deepEqual(
          ['digest', 'version', 'kernel'].map((name) => headers!.get(`x-hauki-${name}`)),
          [digest, '1', null],
        );
        await kernel.door.remove(target_module);
      });

      it(`streams without end, for as long as somebody reads (${DRIVER[cell]})`, async () => {
        const target_module = unused(cell);
        const content = serving(
          `return new Response(new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(64 * 1024)); } }));`,
        );
        await kernel.door.evolve({ target_module, content, driver: DRIVER[cell] });
        const left = new AbortController();
        const answer = await kernel.get(`${target_module}/`, { signal: left.signal });
        const reader = answer.body!.getReader();
        for (let i = 0; i < 10; i++) assert.equal((await reader.read()).done, false);
        left.abort();
        const live = async () =>
          (await kernel.door.status()).modules.find(({ module }) => module === target_module)!.live[0]!;
        await until('nothing of it is under way', async () => (await live()).in_flight === 0);
        await kernel.door.remove(target_module);
      });
    }

    it('would write over a neighbour’s source in the kernel’s MeshFS', async () => {
      const target_module = unused('vm');
      const content = serving(
        `await hauki.meshfs.write('gem-pointer://plugins/neighbour_vm/1', 'taken'); return new Response('written');`,
      );
      for (const prefix of ['gem-pointer://plugins/', 'gem-pointer://plugins/neighbour_vm/1'])
        await assert.rejects(
          kernel.door.evolve({ target_module, content, grants: { meshfs: { write: [prefix] } } }),
          (error) => isError(error, BadInput) && /is the kernel’s|is the kernel's/.test(error.message),
        );
      await kernel.door.evolve({ target_module, content });
      const { status, text } = await ask(`${target_module}/`);
      assert.equal(status, 502);
      assert.match(text, /PluginFailed.*meshfs\.write/);
    });
  });

  it('refuses names and aliases that lead elsewhere', async () => {
    const names = [
      '../status',
      'a/../b',
      'A',
      '__proto__',
      'a%2fb',
      'a.b.js',
      'é',
      '',
      ' a',
      'a\n',
      'x.exe',
      'constructor.',
      'a'.repeat(49),
      'a'.repeat(1_000),
    ];
    for (const target_module of names)
      await assert.rejects(
        kernel.door.evolve({ target_module, content: NEIGHBOUR }),
        (error) => isError(error, EvolveRejected) && error.fields.stage === 'name',
        target_module,
      );
    const aliases = [
      '/',
      '/api/',
      '/health/',
      '/docs/',
      '/api/plugins/',
      '/api/plugins/neighbour_vm/',
      '/a/../b/',
      '/a',
      'a/',
      '/%61/',
    ];
    for (const alias of aliases)
      await assert.rejects(
        kernel.door.evolve({ target_module: 'alias', content: NEIGHBOUR, alias }),
        (error) => isError(error, BadInput),
        alias,
      );
  });

  it('lets a module go that never lets its state go, by removing it first', async () => {
    const stuck = 'export const dehydrate = () => new Promise(() => {}); export const hydrate = () => {};';
    const post = (content: string) => kernel.door.evolve({ target_module: 'stuck', content });
    await post(`${stuck} ${serving('return new Response("stuck");')}`);
    await kernel.door.remove('stuck');
    await post(serving('return new Response("free");'));
    assert.equal((await ask('stuck/')).text, 'free');
  });

  it('has kept the kernel and the neighbours answering all the time', async () => {
    pinging = false;
    await pinger;
    assert.deepEqual(failures.slice(0, 5), []);
    assert.ok(asked > 100, `${asked} requests`);
    assert.equal(kernel.process.child.pid, pid);
    assert.equal(kernel.process.child.exitCode, null);
    const { modules } = await kernel.door.status();
    assert.deepEqual(
      modules.filter(({ module }) => module.startsWith('neighbour')).map(({ live }) => live[0]!.errors),
      cells.map(() => 0),
    );
    const history = await kernel.door.history();
    assert.equal(history.at(-1)!.seq, history.length);
  });
});
