/**
 * kill -9 of a kernel at every stage of a swap. A version under trial tells the test from the inside how far it is, and
 * waits there; then the kernel is killed, and started again over the same folder. It must serve the old version or the
 * new one, whole: its source, its routes, the state it began with, and a journal whose chain holds.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { startKernel } from '@hauki/cli';
import type { EvolveRequest } from '@hauki/mesh';
import { faultOf } from '../packages/microkernel/src/journal.ts';
import { useKernel } from './support/kernel.ts';
import { killedAt } from './support/last-moment.ts';
import { seeded } from './support/seeded.ts';

/** Where a version tells that it is. */
type Place = 'load' | 'routes' | 'tests' | 'dehydrate' | 'hydrate' | 'drain';

const SEED = process.env.CRASH_SEED ?? '20261121';

describe('a kernel that is killed in the middle of a swap', () => {
  const kernel = useKernel({ drivers: ['quickjs'] });
  const here = new Map<string, () => void>();
  /** What was told; one that is listed here is answered at once. */
  const passing = new Set<string>();
  const server = createServer((request, response) => {
    const place = request.url!.slice(1);
    here.get(place)?.();
    // Otherwise it waits for an answer until it is no more.
    if (passing.has(place)) response.end('go on');
  });
  let grants: EvolveRequest['grants'];
  before(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    grants = { fetch: [`127.0.0.1:${(server.address() as AddressInfo).port}`] };
  });
  after(() => {
    server.closeAllConnections();
    server.close();
  });

  /** A counter that tells at one place that it is there. */
  const counter = (module: string, version: number, place?: Place) => {
    const { port } = server.address() as AddressInfo;
    const tell = (at: Place) => (at === place ? `await fetch('http://127.0.0.1:${port}/${module}-${at}');` : '');
    return `let n = 0;
      ${tell('load')} ${tell('routes')}
      export const dehydrate = async () => { ${tell('dehydrate')} return { n }; };
      export const hydrate = async (given) => { ${tell('hydrate')} n = given.n; };
      export default {
        get routes() { ${place === 'routes' ? 'for (;;);' : ''} return ['GET /v${version}']; },
        async fetch(request) {
          const { pathname } = new URL(request.url);
          if (pathname === '/trial') { ${tell('tests')} }
          if (pathname === '/slow') { ${tell('drain')} }
          if (pathname === '/add') n++;
          return Response.json({ version: ${version}, n });
        },
      };`;
  };
  const digestOf = (source: string) => createHash('sha256').update(source).digest('hex');
  const told = (place: string) => new Promise<void>((resolve) => here.set(place, resolve));
  const post = (module: string, content: string, more: Partial<EvolveRequest> = {}) =>
    kernel.door.evolve({ target_module: module, content, grants, ...more });

  /** The first version counts to 3; the second takes that over, and counts on to 5. */
  const prepare = async (module: string, second: string) => {
    await post(module, counter(module, 1));
    for (let i = 0; i < 3; i++) await kernel.json(`${module}/add`);
    await post(module, second);
    for (let i = 0; i < 2; i++) await kernel.json(`${module}/add`);
    assert.deepEqual(await kernel.json(`${module}/`), { version: 2, n: 5 });
  };

  /** Everything that can be seen of the module belongs to one version. Gives which. */
  const whole = async (module: string, sources: Record<number, string>, began_with?: number): Promise<number> => {
    const answer = await kernel.get(`${module}/`);
    const { version, n } = (await answer.json()) as { version: number; n: number };
    const source = sources[version]!;
    assert.equal(answer.headers.get('x-hauki-version'), String(version));
    assert.equal(answer.headers.get('x-hauki-digest'), digestOf(source));
    const view = (await kernel.door.status()).modules.find((one) => one.module === module)!;
    assert.deepEqual(
      view.live.map((live) => [live.version, live.weight, live.digest, live.routes]),
      [[version, 100, digestOf(source), [`GET /v${version}`]]],
    );
    // The state that it began with: the second had taken over 3, the third takes over 5.
    assert.equal(n, began_with ?? (version === 2 ? 3 : 5));
    assert.equal((await kernel.door.version(module, version)).source, source);
    assert.equal(readFileSync(join(kernel.data_dir, 'uah_endpoints', `${module}.js`), 'utf8'), source);
    const { paths } = await kernel.json('/docs/json');
    assert.ok(paths[`/api/plugins/${module}/v${version}`]);
    const entries = await kernel.door.history();
    assert.equal(faultOf(entries), undefined);
    const last = entries.findLast((entry) => entry.module === module)!;
    assert.deepEqual([last.deed, last.version, last.digest], ['evolve', version, digestOf(source)]);
    return version;
  };

  /** It can be changed as if nothing had happened, and go back. */
  const goesOn = async (module: string, serving: number) => {
    const next = await post(module, counter(module, 9), { tests: [] });
    assert.ok(next.version > serving);
    await kernel.door.rollback(module);
    const { version } = (await kernel.json(`${module}/`)) as { version: number };
    assert.equal(version, serving);
  };

  for (const place of ['load', 'routes', 'tests', 'dehydrate', 'hydrate'] as const)
    it(`at the stage ${place} serves the old version, whole`, async () => {
      const module = `at_${place}`;
      const second = counter(module, 2, place === 'dehydrate' ? place : undefined);
      const third = counter(module, 3, place === 'dehydrate' ? undefined : place);
      await prepare(module, second);
      // The routes are read in one turn, in which nobody is told anything: right before it, it may go on.
      if (place === 'routes') passing.add(`${module}-routes`);
      const there = told(`${module}-${place}`);
      const tests = [{ path: '/trial', expect: { status: 200 } }];
      const posted = post(module, third, place === 'tests' ? { tests } : {}).catch((error) => error);
      await there;
      await kernel.restart();
      assert.ok((await posted) instanceof Error);
      assert.equal(await whole(module, { 2: second, 3: third }), 2);
      if (place !== 'dehydrate') await goesOn(module, 2);
      await kernel.door.remove(module);
    });

  it('while the old version drains serves the new one, whole', async () => {
    const stateless = (version: number, place?: Place) =>
      counter('at_drain', version, place).replaceAll(/export const (?=(?:de)?hydrate)/g, 'const ');
    const third = stateless(3);
    await post('at_drain', stateless(1));
    await post('at_drain', stateless(2, 'drain'));
    const there = told('at_drain-drain');
    const slow = kernel.get('at_drain/slow').catch((error) => error);
    await there;
    await post('at_drain', third);
    const { live } = (await kernel.door.status()).modules.find(({ module }) => module === 'at_drain')!;
    assert.deepEqual(
      live.map(({ version, draining, in_flight }) => [version, draining, in_flight]),
      [
        [3, false, 0],
        [2, true, 1],
      ],
    );
    await kernel.restart();
    assert.ok((await slow) instanceof Error);
    assert.equal(await whole('at_drain', { 3: third }, 0), 3);
    await goesOn('at_drain', 3);
  });

  it(`at any moment around the commit serves one of the two, whole (seed ${SEED})`, async () => {
    const random = seeded(SEED);
    for (let i = 0; i < 6; i++) {
      const module = `around_${i}`;
      const second = counter(module, 2);
      const third = counter(module, 3, 'hydrate');
      await prepare(module, second);
      passing.add(`${module}-hydrate`);
      const there = told(`${module}-hydrate`);
      const posted = post(module, third).catch((error) => error);
      await there;
      await new Promise((resolve) => setTimeout(resolve, random() * 120));
      await kernel.restart();
      const answered = !((await posted) instanceof Error);
      const version = await whole(module, { 2: second, 3: third });
      // What was acknowledged stays.
      if (answered) assert.equal(version, 3);
      await kernel.door.remove(module);
    }
  });

  it('at its own end keeps the states for the next start', async () => {
    await post('kept', counter('kept', 1));
    for (let i = 0; i < 4; i++) await kernel.json('kept/add');
    await kernel.restart({ kill: false });
    assert.deepEqual(await kernel.json('kept/'), { version: 1, n: 4 });
  });
});

describe('a kernel that is killed while it makes its token', () => {
  it('has made none: the next start makes it, whole', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-kernel-'));
    const options = { data_dir, id: `token${process.pid}`, port: 0, drivers: ['quickjs'] };
    try {
      // It is there then, and empty.
      await killedAt(
        data_dir,
        {},
        `dieAt('open', (path) => String(path).includes('kernel.token'), true);
         await import(${JSON.stringify(import.meta.resolve('@hauki/microkernel/main'))});`,
        { HAUKI_KERNEL_OPTIONS: JSON.stringify(options) },
      );
      const kernel = await startKernel(options);
      await kernel.stop();
      assert.match(kernel.token, /^hauki_[A-Za-z0-9_-]{43}$/);
    } finally {
      rmSync(data_dir, { recursive: true, force: true });
    }
  });
});
