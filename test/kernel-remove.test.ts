/** Modules that are taken away: what they have begun they finish, and nothing of them serves any more, after a restart either. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { connectKernel, EvolveRejected, Forbidden, isError, ModuleUnknown } from '@hauki/mesh';
import { useJoinedKernels, useKernel } from './support/kernel.ts';
import { missing, until, useMesh } from './support/mesh.ts';

const HAUKI = join(fileURLToPath(new URL('..', import.meta.url)), 'apps/cli/bin/hauki.js');
const hauki = (env: NodeJS.ProcessEnv, ...args: string[]) =>
  promisify(execFile)(process.execPath, [HAUKI, ...args], { env: { ...process.env, ...env } });

/** Takes its time at `/slow`: longer than it takes to be seen under way, shorter than a drain. Counts what it was asked. */
const SLOW = `
  let count = 0;
  export default { async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === '/count') return Response.json(count);
    count++;
    if (pathname === '/slow') await new Promise((resolve) => setTimeout(resolve, 5_000));
    return new Response('whole');
  } };`;

describe('a module that is removed', { skip: missing('quickjs') }, () => {
  const kernel = useKernel({ drivers: ['quickjs'] });
  const env = () => ({ HAUKI_KERNEL: kernel.process.url, HAUKI_KERNEL_TOKEN: kernel.process.token });
  const under_way = async (module: string) =>
    (await kernel.door.status()).modules.find((one) => one.module === module)?.live[0]?.in_flight ?? 0;

  it('finishes what it has begun, is in the journal, and stays away when its kernel starts again', async () => {
    await kernel.door.evolve({ target_module: 'goes', content: SLOW, alias: '/api/v2/goes/' });
    await kernel.door.evolve({ target_module: 'stays', content: SLOW });
    const slow = kernel.get('goes/slow');
    await until('it is under way', async () => (await under_way('goes')) === 1);
    assert.equal((await hauki(env(), 'remove', 'goes')).stdout, 'goes is removed\n');
    assert.equal(await (await slow).text(), 'whole');
    const gone = async () => {
      for (const path of ['goes/', '/api/v2/goes/']) assert.equal((await kernel.get(path)).status, 404);
      assert.deepEqual(
        (await kernel.door.status()).modules.map(({ module }) => module),
        ['stays'],
      );
      assert.equal((await kernel.get('stays/')).status, 200);
    };
    await gone();
    const { deed, by, version } = (await kernel.door.history('goes')).at(-1)!;
    assert.deepEqual([deed, by, version], ['remove', 'admin', null]);
    const copy = join(kernel.data_dir, 'uah_endpoints', 'goes.js');
    await until('its readable copy is gone', () => !existsSync(copy));
    await kernel.restart();
    await gone();
    // What it was can be read, and posted again, under another number.
    assert.equal((await kernel.door.version('goes', 1)).source, SLOW);
    assert.equal((await kernel.door.evolve({ target_module: 'goes', content: SLOW })).version, 2);
  });

  it('loses none of the requests that are made meanwhile: each is answered, or told that there is no such module', async () => {
    await kernel.door.evolve({ target_module: 'busy', content: SLOW });
    const seen: number[] = [];
    let over = false;
    const askers = Array.from({ length: 8 }, async () => {
      while (!over) {
        const answer = await kernel.get('busy/');
        if (answer.status === 200) assert.equal(await answer.text(), 'whole');
        else await answer.arrayBuffer();
        seen.push(answer.status);
      }
    });
    await until('it is asked', () => seen.length > 50);
    await kernel.door.remove('busy');
    await until('it is gone', () => seen.at(-1) === 404);
    over = true;
    await Promise.all(askers);
    assert.deepEqual([...new Set(seen)].sort(), [200, 404]);
  });

  it('must be there, and not pinned', async () => {
    await assert.rejects(hauki(env(), 'remove', 'nobody'), (error: any) => {
      assert.deepEqual([error.code, /nobody/.test(error.stderr)], [3, true]);
      return true;
    });
    await kernel.door.evolve({ target_module: 'pinned', content: SLOW });
    await kernel.door.pin('pinned', true);
    await assert.rejects(
      kernel.door.remove('pinned'),
      (error) => isError(error, EvolveRejected) && error.fields.stage === 'pin',
    );
    assert.equal((await kernel.get('pinned/')).status, 200);
    await kernel.door.pin('pinned', false);
    await kernel.door.remove('pinned');
  });
});

describe('a module that is removed from kernels of a mesh', { skip: missing('quickjs') }, () => {
  const used = useMesh({ nodes: [] });
  const kernels = useJoinedKernels(used, 'r');
  const env = () => ({ HAUKI_URL: used.local.url, HAUKI_TOKEN: used.local.token });
  before(async () => {
    await Promise.all([kernels.start(0), kernels.start(1), kernels.start(2)]);
  });
  const get = (path: string, init: RequestInit = {}) =>
    fetch(`${used.local.url}/api/plugins/${path}`, {
      ...init,
      headers: { authorization: `Bearer ${used.local.token}`, ...init.headers },
    });
  /** Kernels that hold it, by their own word. */
  const holders = async (module: string) => {
    const held = await Promise.all(
      kernels.all.map(async ({ url, token }) => (await connectKernel({ url, token }).status()).modules),
    );
    return held.flatMap((modules, i) => (modules.some((one) => one.module === module) ? [kernels.name(i)] : []));
  };
  const everywhere = (module: string) =>
    used.mesh.kernels.evolve({ target_module: module, content: SLOW, replicas: 'all', wave: 3 });

  it('is taken from those that are too many for the replicas asked for, when all others serve', async () => {
    await everywhere('fewer');
    const dry = await used.mesh.kernels.evolve({ target_module: 'fewer', content: SLOW, replicas: 1, dry_run: true });
    assert.equal(dry.removed?.length, 2);
    assert.equal((await holders('fewer')).length, 3);
    const bad = { tests: [{ path: '/', expect: { text: 'other' } }] };
    await assert.rejects(
      used.mesh.kernels.evolve({ target_module: 'fewer', content: SLOW, replicas: 1, ...bad }),
      (error) => isError(error, EvolveRejected),
    );
    assert.equal((await holders('fewer')).length, 3, 'a roll-out that fails removes nothing');
    const slow = Promise.all(Array.from({ length: 3 }, () => get('fewer/slow')));
    const {
      kernels: on,
      removed,
      not_removed,
    } = await used.mesh.kernels.evolve({
      target_module: 'fewer',
      content: `${SLOW}//`,
      replicas: 1,
    });
    assert.deepEqual([on.length, removed?.length, not_removed], [1, 2, undefined]);
    assert.deepEqual(await holders('fewer'), [on[0]!.kernel]);
    for (const answer of await slow) assert.equal(await answer.text(), 'whole');
    for (let i = 0; i < 4; i++) assert.equal((await get('fewer/')).headers.get('x-hauki-kernel'), on[0]!.kernel);
    // Left out, they are as many as they were.
    assert.equal((await used.mesh.kernels.evolve({ target_module: 'fewer', content: SLOW })).kernels.length, 1);
  });

  it('is asked once for what it had begun, and leaves the others to serve', async () => {
    await everywhere('once');
    const key = { headers: { 'x-hauki-key': 'ada' } };
    const kernel = (await get('once/', key)).headers.get('x-hauki-kernel')!;
    const slow = get('once/slow', key);
    const { url, token } = kernels.all[[0, 1, 2].findIndex((i) => kernels.name(i) === kernel)]!;
    const door = connectKernel({ url, token });
    await until('it is under way', async () =>
      (await door.status()).modules.some(({ module, live }) => module === 'once' && live[0]?.in_flight === 1),
    );
    const said = await hauki(env(), 'remove', 'once', '--to', kernel, '--json');
    assert.deepEqual(JSON.parse(said.stdout), { module: 'once', removed: [kernel], not_removed: [] });
    const answer = await slow;
    assert.deepEqual([await answer.text(), answer.headers.get('x-hauki-kernel')], ['whole', kernel]);
    for (const i of [0, 1, 2].filter((one) => kernels.name(one) !== kernel)) {
      const other = kernels.all[i]!;
      const count = await fetch(`${other.url}/api/plugins/once/count`, {
        headers: { authorization: `Bearer ${other.token}` },
      });
      assert.equal(await count.text(), '0');
    }
    for (let i = 0; i < 4; i++) assert.notEqual((await get('once/')).headers.get('x-hauki-kernel'), kernel);
  });

  it('is gone from the gateway when it is removed everywhere, by who may', async () => {
    await everywhere('away');
    const { token } = await used.mesh.tokens.create({
      name: 'one-kernel',
      scopes: ['evolve'],
      targets: { nodes: [kernels.name(1).toLowerCase()] },
    });
    const narrow = (path: string) =>
      fetch(`${used.local.url}/api/v2/modules/${path}`, {
        method: 'DELETE',
        headers: { authorization: `Bearer ${token}` },
      });
    assert.equal((await narrow(`away?kernel=${kernels.name(0)}`)).status, new Forbidden({ why: '' }).status);
    const { removed }: any = await (await narrow('away')).json();
    assert.deepEqual(removed, [kernels.name(1)]);
    const { stdout } = await hauki(env(), 'remove', 'away', '--everywhere');
    assert.equal(stdout, `away is removed from ${[kernels.name(0), kernels.name(2)].join(', ')}\n`);
    assert.deepEqual(await holders('away'), []);
    await until('the gateway has heard', async () => (await get('away/')).status === 404);
    await assert.rejects(used.mesh.kernels.remove('away'), (error) => isError(error, ModuleUnknown));
    await assert.rejects(hauki(env(), 'remove', 'x', '--everywhere', '--to', '1'), /taken from all kernels/);
  });

  it('lists its kernels, and what each holds, by the command; one that is not there is not found', async () => {
    await everywhere('listed');
    const { stdout } = await hauki(env(), 'kernels', '--json');
    const { kernels: told } = JSON.parse(stdout);
    assert.deepEqual(
      told.map(({ kernel, url }: { kernel: string; url: string }) => [kernel, url]),
      kernels.all.map(({ url }, i) => [kernels.name(i), url]),
    );
    for (const { modules } of told)
      assert.ok(
        modules.some(({ module }: { module: string }) => module === 'listed'),
        stdout,
      );
    const page = await hauki(env(), 'kernels');
    assert.match(page.stdout, /^KERNEL +URL +SINCE +MODULES\n/);
    assert.match(page.stdout, new RegExp(`^${kernels.name(0)} .*\\blisted\\b`, 'm'));
    await assert.rejects(hauki(env(), 'modules', '--to', 'nobody'), { code: 3 });
  });
});
