/** A microkernel from outside: what is posted serves, what is wrong changes nothing, what was before can come back. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { BadInput, EditRefused, EvolveRejected, isError, ModuleUnknown } from '@hauki/mesh';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing, until } from './support/mesh.ts';
import { assertEchoes, assertSpeaks, assertTakesPages, ECHO, openSocket, refusal, SPEAKER } from './support/sockets.ts';

const answers = (text: string) => `export default { fetch: () => new Response(${JSON.stringify(text)}) };`;
const rejected = (stage: string, why: RegExp) => (error: unknown) => {
  assert.ok(isError(error, EvolveRejected), String(error));
  assert.equal(error.fields.stage, stage, error.message);
  assert.match(error.message, why);
  return true;
};
const COUNTER = (version: string) => `
  export const state = { count: 0, seen: new Map() };
  export default { fetch(request) {
    state.count++;
    const { pathname } = new URL(request.url);
    state.seen.set(pathname, (state.seen.get(pathname) ?? 0) + 1);
    return Response.json({ version: '${version}', count: state.count, seen: state.seen.get(pathname) });
  } };`;

for (const driver of DRIVERS)
  describe(`a microkernel, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const kernel = useKernel({ drivers: [driver] });
    const text = async (path: string, init?: RequestInit) => (await kernel.get(path, init)).text();

    it('is empty at first, says so, and needs a token for everything but its health', async () => {
      const { status, modules } = await kernel.door.status();
      assert.deepEqual([status, modules], ['ok', []]);
      assert.equal((await fetch(`${kernel.process.url}/health`)).status, 200);
      for (const path of ['/api/status', '/api/plugins/x/', '/api/history', '/api/modules/x'])
        assert.ok([401, 404].includes((await fetch(kernel.process.url + path)).status), path);
      const post = await fetch(`${kernel.process.url}/api/evolve_plugin`, { method: 'POST', body: '{}' });
      assert.equal(post.status, 401);
    });

    it('serves what is posted below its prefix, tells it its prefix, and names version and digest', async () => {
      const { version, digest, prefix } = await kernel.door.evolve({
        target_module: 'first.ts',
        content: `export default { async fetch(request: Request): Promise<Response> {
          const { pathname, search } = new URL(request.url);
          const body = request.body ? await request.text() : null;
          return Response.json({ method: request.method, pathname, search, body, prefix: request.headers.get('x-forwarded-prefix'), mine: request.headers.get('x-mine'), token: request.headers.get('authorization') }, { status: 201, headers: { 'x-own': 'yes' } });
        } };`,
      });
      assert.deepEqual([version, prefix], [1, '/api/plugins/first/']);
      const answer = await kernel.get('first/a/b?c=1', { method: 'POST', body: 'hällo', headers: { 'x-mine': '1' } });
      assert.equal(answer.status, 201);
      assert.deepEqual(
        [answer.headers.get('x-own'), answer.headers.get('x-hauki-version'), answer.headers.get('x-hauki-digest')],
        ['yes', '1', digest],
      );
      assert.deepEqual(await answer.json(), {
        method: 'POST',
        pathname: '/a/b',
        search: '?c=1',
        body: 'hällo',
        prefix: '/api/plugins/first',
        mine: '1',
        token: null,
      });
      const copy = join(kernel.data_dir, 'uah_endpoints', 'first.ts');
      await until('the readable copy', () => existsSync(copy) && readFileSync(copy, 'utf8').includes('x-own'));
    });

    it('lets a new version take the place of one that serves, and goes back', async () => {
      await kernel.door.evolve({ target_module: 'swap', content: answers('one') });
      await kernel.door.evolve({ target_module: 'swap', content: answers('two') });
      assert.equal(await text('swap/'), 'two');
      await kernel.door.rollback('swap');
      assert.equal(await text('swap/'), 'one');
      assert.equal((await kernel.door.evolve({ target_module: 'swap', content: answers('three') })).version, 3);
      assert.deepEqual(
        (await kernel.door.versions('swap')).map(({ version, by }) => [version, by]),
        [
          [1, 'admin'],
          [2, 'admin'],
          [3, 'admin'],
        ],
      );
      assert.match(await kernel.door.diff('swap', 1, 3), /-.*one.*\n(?:.*\n)*?\+.*three/);
      assert.deepEqual(
        (await kernel.door.history('swap')).map(({ deed, version }) => [deed, version]),
        [
          ['evolve', 1],
          ['evolve', 2],
          ['rollback', 1],
          ['evolve', 3],
        ],
      );
    });

    it('changes nothing when a version fails, and says at which stage, why, and where', async () => {
      await kernel.door.evolve({ target_module: 'safe', content: answers('safe') });
      const evolve = (content: string, more = {}) => kernel.door.evolve({ target_module: 'safe', content, ...more });
      await assert.rejects(evolve('export default {\n  fetch( }'), (error) => {
        assert.ok(isError(error, EvolveRejected));
        return error.fields.stage === 'parse' && error.fields.line === 2;
      });
      await assert.rejects(evolve('throw new Error("late")'), rejected('load', /late/));
      await assert.rejects(evolve('export const x = 1'), rejected('exports', /default export has a method fetch/));
      await assert.rejects(
        evolve(answers('x'), { tests: [{ path: '/', expect: { text: 'y' } }] }),
        rejected('tests', /GET \/: the body has no "y" in it/),
      );
      await assert.rejects(evolve('console.log("told"); throw 1'), (error) => {
        assert.ok(isError(error, EvolveRejected));
        return /told/.test(error.fields.log ?? '');
      });
      await assert.rejects(evolve(''), rejected('size', /it is empty/));
      await assert.rejects(
        evolve(`//${'x'.repeat(2 ** 22)}`),
        rejected('size', /has 4194306 bytes, and may have 4194304/),
      );
      assert.equal(await text('safe/'), 'safe');
      assert.deepEqual(
        (await kernel.door.versions('safe')).map(({ version }) => version),
        [1],
      );
    });

    it('keeps the tests that were posted for the versions that come after', async () => {
      const tests = [{ path: '/', expect: { status: 200, json: { a: 1 } } }];
      await kernel.door.evolve({
        target_module: 'kept',
        content: 'export default { fetch: () => Response.json({ a: 1 }) }',
        tests,
      });
      await assert.rejects(
        kernel.door.evolve({
          target_module: 'kept',
          content: 'export default { fetch: () => Response.json({ a: 2 }) }',
        }),
        rejected('tests', /the body is \{"a":2\}, not \{"a":1\}/),
      );
    });

    it('tries without changing anything on a dry run, and shows the difference', async () => {
      await kernel.door.evolve({ target_module: 'dry', content: answers('old') });
      const { dry_run, diff } = await kernel.door.evolve({
        target_module: 'dry',
        content: answers('new'),
        dry_run: true,
      });
      assert.equal(dry_run, true);
      assert.match(diff!, /-.*old[\s\S]*\+.*new/);
      assert.equal(await text('dry/'), 'old');
    });

    it('makes surgical edits of what runs, and refuses stale and ambiguous ones', async () => {
      const first = await kernel.door.evolve({ target_module: 'op', edits: [{ find: '', replace: answers('aa') }] });
      const { digest } = await kernel.door.evolve({
        target_module: 'op',
        base_digest: first.digest,
        edits: [{ find: '"aa"', replace: '"ab"' }],
      });
      assert.equal(await text('op/'), 'ab');
      await assert.rejects(
        kernel.door.evolve({ target_module: 'op', base_digest: first.digest, edits: [{ find: 'ab', replace: '' }] }),
        (error) =>
          isError(error, EditRefused) &&
          error.fields.running === digest &&
          /-.*"aa"[\s\S]*\n\+.*"ab"/.test(error.fields.diff ?? ''),
      );
      await assert.rejects(
        kernel.door.evolve({ target_module: 'op', base_digest: digest, edits: [{ find: 'e', replace: '' }] }),
        (error) => isError(error, EditRefused) && /ambiguous/.test(error.message),
      );
    });

    it('hands the state over, and gives back what was there before on a rollback', async () => {
      await kernel.door.evolve({ target_module: 'count', content: COUNTER('a') });
      for (let i = 0; i < 3; i++) await kernel.json('count/x');
      await kernel.door.evolve({ target_module: 'count', content: COUNTER('b') });
      assert.deepEqual(await kernel.json('count/x'), { version: 'b', count: 4, seen: 4 });
      await kernel.json('count/x');
      await kernel.door.rollback('count');
      assert.deepEqual(await kernel.json('count/x'), { version: 'a', count: 4, seen: 4 });
    });

    it('loses no state when hydrating fails, and the old version goes on', async () => {
      const hooks = (hydrate: string) => `
        let n = 0;
        export const dehydrate = () => ({ n });
        export const hydrate = (state, from) => { ${hydrate} };
        export default { fetch: () => Response.json({ n: ++n }) };`;
      await kernel.door.evolve({ target_module: 'hooks', content: hooks('n = state.n') });
      await kernel.json('hooks/');
      const asked = kernel.door.evolve({ target_module: 'hooks', content: hooks('throw new Error("no")') });
      const meanwhile = Array.from({ length: 20 }, () => kernel.json('hooks/'));
      await assert.rejects(asked, rejected('swap', /hydrate failed: .*no/));
      const seen = (await Promise.all(meanwhile)).map(({ n }) => n).sort((a, b) => a - b);
      assert.deepEqual(
        seen,
        Array.from({ length: 20 }, (_, i) => i + 2),
      );
      await kernel.door.evolve({ target_module: 'hooks', content: hooks('n = state.n * 100') });
      assert.deepEqual(await kernel.json('hooks/'), { n: 2101 });
    });

    it('streams answers as they come, and finishes streams on the version that began them', async () => {
      const ticks = (word: string) => `
        export default { fetch() {
          let n = 0;
          return new Response(new ReadableStream({
            async pull(controller) {
              await new Promise((resolve) => setTimeout(resolve, 30));
              if (++n > 10) return controller.close();
              controller.enqueue(new TextEncoder().encode('data: ${word} ' + n + '\\n\\n'));
            },
          }), { headers: { 'content-type': 'text/event-stream' } });
        } };`;
      await kernel.door.evolve({ target_module: 'ticks', content: ticks('old') });
      const answer = await kernel.get('ticks/');
      const reader = answer.body!.getReader();
      const first = new TextDecoder().decode((await reader.read()).value);
      assert.match(first, /^data: old 1\n\n/);
      await kernel.door.evolve({ target_module: 'ticks', content: ticks('new') });
      let rest = '';
      for (let next = await reader.read(); !next.done; next = await reader.read())
        rest += new TextDecoder().decode(next.value);
      assert.match(rest, /old 10/);
      assert.doesNotMatch(rest, /new/);
      assert.match(await text('ticks/'), /new 10/);
      const drained = async () =>
        (await kernel.door.status()).modules.find(({ module }) => module === 'ticks')!.live.length === 1;
      await until('the old version is ended', drained);
    });

    it('tells a stream that its reader has left, though it has nothing to send', async () => {
      await kernel.door.evolve({
        target_module: 'leaves',
        content: `
          let left = 0;
          export default { fetch(request) {
            if (request.url.endsWith('/left')) return Response.json(left);
            return new Response(new ReadableStream({
              start(controller) { controller.enqueue(new TextEncoder().encode('first')); },
              cancel() { left++; },
            }));
          } };`,
      });
      const reader = (await kernel.get('leaves/')).body!.getReader();
      assert.equal(new TextDecoder().decode((await reader.read()).value), 'first');
      await reader.cancel();
      await until('it was told', async () => (await kernel.json('leaves/left')) === 1);
    });

    it('takes bodies of any size, as they come', async () => {
      await kernel.door.evolve({
        target_module: 'size',
        content: `export default { async fetch(request) {
          let bytes = 0;
          for await (const chunk of request.body) bytes += chunk.length;
          return Response.json({ bytes });
        } };`,
      });
      assert.deepEqual(await kernel.json('size/', { method: 'POST', body: 'x'.repeat(1000) }), { bytes: 1000 });
      const large = new Uint8Array(5 * 1024 * 1024);
      assert.deepEqual(await kernel.json('size/', { method: 'POST', body: large }), { bytes: large.length });
    });

    it('carries WebSockets of modules, both ways, and refuses them where a module does not', async () => {
      await kernel.door.evolve({ target_module: 'sockets', content: ECHO });
      await assertEchoes(await openSocket(kernel.process, 'sockets/x'));
      assert.equal((await kernel.get('sockets/')).status, 426);
      const open = await Promise.all(Array.from({ length: 96 }, () => openSocket(kernel.process, 'sockets/x')));
      await assert.rejects(openSocket(kernel.process, 'sockets/x'), /429/);
      // There is room for bodies in pieces all the same.
      assert.equal((await kernel.get('sockets/', { method: 'POST', body: new Uint8Array(200_000) })).status, 200);
      for (const socket of open) socket.terminate();
      await until('their places are free', () =>
        openSocket(kernel.process, 'sockets/x').then(
          () => true,
          () => false,
        ),
      );
      await kernel.door.evolve({ target_module: 'deaf', content: answers('no sockets here') });
      const authorization = `Bearer ${kernel.process.token}`;
      assert.equal(await refusal(`${kernel.process.url}/api/plugins/deaf/`, { authorization }), 200);
    });

    it('passes on subprotocols and how a WebSocket was closed, and takes pages by their first message', async () => {
      await kernel.door.evolve({ target_module: 'speaker', content: SPEAKER });
      await assertSpeaks(kernel.process, 'speaker/');
      await assertTakesPages(kernel.process, 'speaker/');
    });

    it('lets two versions serve side by side, one of them by header only', async () => {
      await kernel.door.evolve({ target_module: 'canary', content: answers('main') });
      await kernel.door.evolve({ target_module: 'canary', content: answers('canary'), weight: 0 });
      for (let i = 0; i < 20; i++) assert.equal(await text('canary/'), 'main');
      assert.equal(await text('canary/', { headers: { 'x-hauki-version': '2' } }), 'canary');
      await kernel.door.weigh('canary', { 1: 50, 2: 50 });
      const seen = new Set<string>();
      for (let i = 0; i < 60 && seen.size < 2; i++) seen.add(await text('canary/'));
      assert.deepEqual([...seen].sort(), ['canary', 'main']);
      assert.equal((await kernel.get('canary/', { headers: { 'x-hauki-version': '9' } })).status, 400);
    });

    it('takes a version back by itself when its answers leave the bounds', async () => {
      await kernel.door.evolve({ target_module: 'bound', content: answers('good') });
      const bad = 'export default { fetch: () => new Response("bad", { status: 500 }) };';
      await kernel.door.evolve({ target_module: 'bound', content: bad, bounds: { max_error_rate: 0.2 } });
      for (let i = 0; i < 40; i++) await text('bound/');
      await until('the good version serves again', async () => (await text('bound/')) === 'good');
      const last = (await kernel.door.history('bound')).at(-1)!;
      assert.deepEqual([last.deed, last.by, last.version], ['abort', 'kernel', 1]);
      assert.match(last.note!, /error rate is 100 %/);
    });

    it('serves an alias that it was granted, and refuses one that is taken', async () => {
      const content = 'export default { fetch: (request) => new Response(new URL(request.url).pathname) };';
      await kernel.door.evolve({ target_module: 'named', content, alias: `/api/v2/named/` });
      assert.equal(await text('/api/v2/named/x'), '/api/v2/named/x');
      assert.equal(await text('named/api/v2/named/x'), '/api/v2/named/x');
      await assert.rejects(
        kernel.door.evolve({ target_module: 'other', content, alias: `/api/v2/` }),
        (error) => isError(error, BadInput) && /is taken: named/.test(error.message),
      );
      await kernel.door.remove('named');
      assert.equal((await kernel.get('/api/v2/named/x')).status, 404);
      assert.equal((await kernel.get('named/')).status, 404);
    });

    it('keeps a module’s volume for all its versions, also while one takes another’s place', async () => {
      const content = (version: string) => `export default { async fetch() {
        const before = await hauki.volume.read('seen').catch(() => '');
        await hauki.volume.write('seen', before + '${version}');
        return new Response(before + '${version}');
      } };`;
      const grants = { volume: { name: 'notes', quota_mib: 4 } };
      await kernel.door.evolve({ target_module: 'volumes', content: content('a'), grants });
      assert.equal(await text('volumes/'), 'a');
      await kernel.door.evolve({ target_module: 'volumes', content: content('b') });
      assert.equal(await text('volumes/'), 'ab');
      // Another module's volume of the same name is another.
      await kernel.door.evolve({ target_module: 'others', content: content('x'), grants });
      assert.equal(await text('others/'), 'x');
    });

    it('tries a version on a copy of its module’s volume: nothing that it writes there before it serves is kept', async () => {
      const content = (version: string) => `
        const add = async (what) => hauki.volume.write('seen', (await hauki.volume.read('seen').catch(() => '')) + what);
        await add('${version}');
        export default { async fetch(request) {
          if (request.method === 'POST') await add(await request.text());
          return new Response(await hauki.volume.read('seen'));
        } };`;
      const evolve = (version: string, more: object) =>
        kernel.door.evolve({ target_module: 'tried', content: content(version), grants, ...more });
      const grants = { volume: { name: 'notes', quota_mib: 4 } };
      const writes = { path: '/', method: 'POST', body: '!' };
      const staged = await evolve('a', { tests: [{ ...writes, expect: { text: 'a!' } }] });
      assert.deepEqual(
        staged.report.stages.map(({ stage }) => stage),
        ['copy', 'start', 'routes', 'tests', 'home'],
      );
      assert.equal(await text('tried/'), 'a');
      // A dry run, also of tests that are kept; one that is refused by them; one that does not load.
      await assert.rejects(evolve('b', { dry_run: true }), rejected('tests', /a!/));
      await evolve('b', { dry_run: true, tests: [{ ...writes, expect: { text: 'ab!' } }] });
      await assert.rejects(evolve('c', {}), rejected('tests', /a!/));
      const tests = [{ path: '/', expect: { text: 'abx' } }];
      await assert.rejects(
        evolve('x', { content: `${content('x')}\nthrow new Error('no')`, tests }),
        rejected('load', /no/),
      );
      assert.equal(await text('tried/'), 'a');
      // What serves is as it was all the while, and what comes next loads on what that has written meanwhile.
      await kernel.get('tried/', { method: 'POST', body: 'm' });
      await evolve('d', { keep_tests: false, tests: [{ ...writes, expect: { text: 'amd!' } }] });
      assert.equal(await text('tried/'), 'amd');
      const volumes = readdirSync(join(kernel.data_dir, 'vaults', 'volumes'));
      assert.equal(volumes.filter((name) => !volumes.includes(name.replace(/\.\w+$/, '.json'))).length, 0);
    });

    it('refuses changes of a pinned module', async () => {
      await kernel.door.evolve({ target_module: 'pinned', content: answers('a') });
      await kernel.door.pin('pinned', true);
      await assert.rejects(
        kernel.door.evolve({ target_module: 'pinned', content: answers('b') }),
        rejected('pin', /pinned/),
      );
      await assert.rejects(kernel.door.rollback('pinned', 1), rejected('pin', /pinned/));
      await assert.rejects(kernel.door.weigh('pinned', { 1: 100 }), rejected('pin', /pinned/));
      await kernel.door.pin('pinned', false);
      await kernel.door.evolve({ target_module: 'pinned', content: answers('b') });
    });

    it('starts a version again when its vault dies', async () => {
      await kernel.door.evolve({
        target_module: 'mortal',
        content:
          'export default { fetch(request) { if (request.url.endsWith("die")) for (;;) ; return new Response("alive"); } };',
      });
      const died = await kernel.get('mortal/die', { signal: AbortSignal.timeout(40_000) }).then(
        ({ status }) => status,
        () => 0,
      );
      assert.ok([0, 502, 504].includes(died), String(died));
      await until('it serves again', async () => (await text('mortal/')) === 'alive', 60_000);
    });

    it('shows every module under its tag in its description', async () => {
      const content = `export const routes = ['GET /users/:id', 'POST /users', 'ALL /any']; ${answers('x')}`;
      await kernel.door.evolve({ target_module: 'listed', content });
      const { paths, tags } = await kernel.json('/docs/json');
      assert.ok(paths['/api/plugins/listed/users/{id}'].get);
      assert.ok(paths['/api/plugins/listed/users'].post);
      assert.deepEqual(Object.keys(paths['/api/plugins/listed/any']), ['get', 'post']);
      const named = (all: { name: string }[]) => all.filter(({ name }) => name === 'listed').length;
      assert.equal(named(tags), 1);
      await kernel.door.remove('listed');
      const later = await kernel.json('/docs/json');
      assert.deepEqual([named(later.tags), later.paths['/api/plugins/listed/users']], [0, undefined]);
    });

    it('says what it does not know', async () => {
      await assert.rejects(kernel.door.versions('nobody'), (error) => isError(error, ModuleUnknown));
      await assert.rejects(kernel.door.rollback('nobody'), (error) => isError(error, ModuleUnknown));
      assert.equal((await kernel.get('nobody/')).status, 404);
    });

    it('comes back from kill -9 with exactly the routes that it had', async () => {
      const shown = async () =>
        (await kernel.door.status()).modules.map(({ module, live }) => [
          module,
          live.filter(({ draining }) => !draining).map(({ version, weight, digest }) => [version, weight, digest]),
        ]);
      const before = await shown();
      const history = await kernel.door.history();
      await kernel.restart();
      assert.deepEqual(await shown(), before);
      assert.deepEqual(await kernel.door.history(), history);
      assert.equal(await text('swap/'), 'three');
      assert.equal(readdirSync(join(kernel.data_dir, 'uah_endpoints')).includes('swap.js'), true);
    });
  });
