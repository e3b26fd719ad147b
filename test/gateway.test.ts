/** Kernels of a mesh: the core's gateway serves what they hold, and its roll-outs go in waves. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { before, describe, it } from 'node:test';
import { startKernel } from '@hauki/cli';
import { BadInput, connectKernel, EvolveRejected, isError, NoNodeFits, PointerUnknown } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { useJoinedKernels } from './support/kernel.ts';
import { restartCore, until, useMesh } from './support/mesh.ts';

const WHO = (version: string) =>
  `export default { fetch: (request) => Response.json({ version: '${version}', path: new URL(request.url).pathname, auth: request.headers.get('authorization') }) };`;

describe('kernels of a mesh', () => {
  const used = useMesh({ nodes: [] });
  const { all: kernels, start } = useJoinedKernels(used, 'g');
  before(async () => {
    await Promise.all([start(0), start(1), start(2)]);
  });
  const get = (path: string, init: RequestInit = {}) =>
    fetch(`${used.local.url}/api/plugins/${path}`, {
      ...init,
      headers: { authorization: `Bearer ${used.local.token}`, ...init.headers },
    });

  it('are listed with what they hold', async () => {
    const list = await used.mesh.kernels.list();
    assert.deepEqual(
      list.map(({ kernel }) => kernel),
      kernels.map(({ id }) => `Microkernel-${id}`),
    );
  });

  it('serve a module through the gateway, in turn, with its own path and without the mesh’s token', async () => {
    const { kernels: on } = await used.mesh.kernels.evolve({ target_module: 'who', content: WHO('1'), replicas: 3 });
    assert.equal(on.length, 3);
    const seen = new Set<string>();
    for (let i = 0; i < 6; i++) {
      const answer = await get('who/a/b');
      seen.add(answer.headers.get('x-hauki-kernel')!);
      assert.deepEqual(await answer.json(), { version: '1', path: '/a/b', auth: null });
    }
    assert.equal(seen.size, 3);
    const sticky = new Set<string>();
    for (let i = 0; i < 6; i++)
      sticky.add((await get('who/', { headers: { 'x-hauki-key': 'ada' } })).headers.get('x-hauki-kernel')!);
    assert.equal(sticky.size, 1);
  });

  it('need a token, and answer for no other spelling of a path', async () => {
    assert.equal((await fetch(`${used.local.url}/api/plugins/who/`)).status, 401);
    assert.equal((await get('nobody/')).status, 404);
    assert.equal((await get('WHO/')).status, 404);
  });

  it('look up what a token may do at each request of a connection, and tell each module its own prefix', async () => {
    const content = `export default { fetch: (request) => Response.json(Object.fromEntries(request.headers)) };`;
    for (const target_module of ['heads_a', 'heads_b']) await used.mesh.kernels.evolve({ target_module, content });
    const { token, id } = await used.mesh.tokens.create({ name: 'caller', scopes: ['evolve'] });
    const { host, hostname, port } = new URL(used.local.url);
    const socket = connect(Number(port), hostname);
    let text = '';
    let more = () => {};
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      more();
    });
    // The headers are the same each time, letter by letter, but for what is added.
    const ask = async (path: string, added = '') => {
      text = '';
      socket.write(
        `GET /api/plugins/${path} HTTP/1.1\r\nhost: ${host}\r\nx-a: b\r\nauthorization: Bearer ${token}\r\n${added}\r\n`,
      );
      for (;;) {
        const [answer = '', body] = text.split('\r\n\r\n', 2);
        const [, length] = /content-length: (\d+)/i.exec(answer) ?? [];
        if (body !== undefined && body.length >= Number(length))
          return { status: Number(answer.split(' ')[1]), body: JSON.parse(body) };
        await new Promise<void>((resolve) => {
          more = resolve;
        });
      }
    };
    const heard = (module: string) => ({ host, 'x-a': 'b', 'x-forwarded-prefix': `/api/plugins/${module}` });
    for (const module of ['heads_a', 'heads_b', 'heads_b', 'heads_a'])
      assert.deepEqual(await ask(`${module}/x`), { status: 200, body: heard(module) });
    assert.deepEqual((await ask('heads_a/', 'x-c: d\r\n')).body, { ...heard('heads_a'), 'x-c': 'd' });
    assert.deepEqual((await ask('heads_a/')).body, heard('heads_a'));
    assert.equal((await ask('nobody/')).status, 404);
    await used.mesh.tokens.revoke(id);
    assert.equal((await ask('heads_a/')).status, 401);
    socket.destroy();
  });

  it('end what streams with the token that it was asked for with, in both directions', async () => {
    const content = `export default { async fetch(request) {
      if (request.method === 'POST') for await (const chunk of request.body) void chunk;
      return new Response(new ReadableStream({ start: (all) => all.enqueue(new TextEncoder().encode('begun')) }));
    } };`;
    await used.mesh.kernels.evolve({ target_module: 'endless', content });
    const under_way = async () => {
      const status = await Promise.all(
        kernels.map((one) => connectKernel({ url: one.url, token: one.token }).status()),
      );
      const live = status.flatMap(({ modules }) => modules.filter(({ module }) => module === 'endless'));
      return live.flatMap((one) => one.live).reduce((sum, { in_flight }) => sum + in_flight, 0);
    };
    // Without a header of its own, one is read directly and one by node:http.
    for (const more of [{}, { method: 'OPTIONS' }]) {
      const { token, id } = await used.mesh.tokens.create({ name: 'short', scopes: ['evolve'] });
      const { body } = await get('endless/', { ...more, headers: { authorization: `Bearer ${token}` } });
      const reader = body!.getReader();
      assert.equal(String(Buffer.from((await reader.read()).value!)), 'begun');
      await used.mesh.tokens.revoke(id);
      await assert.rejects(reader.read());
      await until('the module hears that it has ended', async () => (await under_way()) === 0);
    }
    const { token } = await used.mesh.tokens.create({ name: 'short', scopes: ['evolve'], expires_in_ms: 1_000 });
    const uploaded = get('endless/', {
      method: 'POST',
      body: new ReadableStream({ start: (all) => all.enqueue(new Uint8Array(1)) }),
      duplex: 'half',
      headers: { authorization: `Bearer ${token}` },
    } as RequestInit);
    await assert.rejects(uploaded);
    await until('the module hears that the upload has ended', async () => (await under_way()) === 0);
  });

  it('answer for their own routes through the core as at their port: to HEAD, with any query, in absolute form', async () => {
    const { kernel } = (await used.mesh.kernels.list())[0]!;
    const own = `/api/v2/kernels/${kernel}/status`;
    const headers = { authorization: `Bearer ${used.local.token}` };
    for (const asked of [`HEAD ${own}`, `GET ${own}/`, `GET ${own}?x=y`, `GET ${used.local.url}${own}`]) {
      const [method, path] = asked.split(' ');
      const [answer] = await once(request(used.local.url, { method, path, headers }).end(), 'response');
      assert.equal(answer.statusCode, 200, asked);
      assert.equal((await text(answer)).length > 0, method === 'GET');
    }
  });

  it('halt a roll-out after the first wave that fails, and have what they had', async () => {
    const bad = `export default { fetch: () => new Response('x', { status: 500 }) };`;
    const tests = [{ path: '/', expect: { status: 200 } }];
    await assert.rejects(
      used.mesh.kernels.evolve({ target_module: 'who', content: bad, tests, replicas: 'all', wave: 2 }),
      (error) => isError(error, EvolveRejected) && error.fields.stage === 'tests',
    );
    for (let i = 0; i < 3; i++) assert.equal((await (await get('who/')).json()).version, '1');
  });

  it('take a roll-out back when a later wave fails', async () => {
    // Only one of the kernels refuses: there the module is pinned.
    const [, , last] = await used.mesh.kernels.list();
    const refusing = kernels.find(({ id }) => `Microkernel-${id}` === last!.kernel)!;
    const door = connectKernel({ url: refusing.url, token: refusing.token });
    await door.pin('who', true);
    await assert.rejects(
      used.mesh.kernels.evolve({ target_module: 'who', content: WHO('2'), replicas: 'all', wave: 1 }),
      (error) =>
        isError(error, EvolveRejected) &&
        error.fields.stage === 'pin' &&
        new RegExp(`\\(on ${last!.kernel}, in wave \\d of 3\\)\\. Nothing was changed$`).test(error.message),
    );
    await door.pin('who', false);
    for (let i = 0; i < 6; i++) assert.equal((await (await get('who/')).json()).version, '1');
    await used.mesh.kernels.evolve({ target_module: 'who', content: WHO('2'), replicas: 'all', wave: 2 });
    for (let i = 0; i < 6; i++) assert.equal((await (await get('who/')).json()).version, '2');
  });

  it('keep what one roll-out has brought when another of the module is refused after it', async () => {
    const both = (version: string, more: { alias?: string } = {}) =>
      used.mesh.kernels.evolve({ target_module: 'both', content: WHO(version), replicas: 'all', wave: 1, ...more });
    const { kernels: on } = await both('1');
    const last = used.mesh.kernels.door(on[2]!.kernel);
    // Only the last of them refuses the second.
    const alias = '/api/v2/both/';
    await last.evolve({ target_module: 'holder', content: WHO('1'), alias });
    const first = both('2');
    await until('it is under way', async () => (await (await get('both/')).json()).version === '2');
    await assert.rejects(both('3', { alias }), (error) => isError(error, BadInput));
    assert.equal((await first).kernels.length, 3);
    for (let i = 0; i < 6; i++) assert.equal((await (await get('both/')).json()).version, '2');
    await last.remove('holder');
    for (const { id } of kernels) await used.mesh.kernels.door(id).weigh('both', { 1: 10, 2: 90 });
    await last.pin('both', true);
    await assert.rejects(both('4'), (error) => isError(error, EvolveRejected) && error.fields.stage === 'pin');
    for (const { id } of kernels) {
      const { modules } = await used.mesh.kernels.door(id).status();
      const live = modules.find(({ module }) => module === 'both')!.live.filter(({ draining }) => !draining);
      assert.deepEqual(
        live.map(({ version, weight }) => [version, weight]),
        [
          [1, 10],
          [2, 90],
        ],
      );
    }
    await last.pin('both', false);
  });

  it('say which of them halted a roll-out, whatever the reason', async () => {
    const [first] = kernels;
    const door = connectKernel({ url: first!.url, token: first!.token });
    await door.evolve({ target_module: 'elsewhere', content: WHO('1'), alias: '/api/v2/taken/' });
    await assert.rejects(
      used.mesh.kernels.evolve({ target_module: 'late', content: WHO('1'), replicas: 'all', alias: '/api/v2/taken/' }),
      (error) =>
        isError(error, BadInput) &&
        error.message.includes('elsewhere is served at /api/v2/taken/') &&
        new RegExp(
          `\\(on Microkernel-${first!.id}, in wave \\d of 3\\)(?:\\. What it had changed on other kernels is taken back)?$`,
        ).test(error.message),
    );
    assert.equal((await get('late/')).status, 404);
    await door.remove('elsewhere');
  });

  it('take no roll-out that is none, and keep nothing of it', async () => {
    const content = WHO('x');
    const wrong: [object, RegExp][] = [
      [{ content, bounds: 'none' }, /bounds/],
      [{ content, memory_mib: -5 }, /memory_mib/],
      [{ content, alias: 5 }, /alias/],
      [{ content, dry_run: 'yes' }, /dry_run/],
      [{ content, bogus: 1 }, /bogus/],
      [{ content, tests: [{ path: '/', method: 5, expect: {} }] }, /tests\[0\]\.method: 5 was given/],
      [{ content: 5 }, /content/],
      [{ content, pointer: 'gem-pointer://wiki/x/y' }, /one of content, pointer and edits/],
    ];
    for (const [request, why] of wrong)
      await assert.rejects(
        used.mesh.kernels.evolve({ target_module: 'wrong', ...request } as never),
        (error) => isError(error, BadInput) && why.test(error.message),
        JSON.stringify(request),
      );
    assert.equal((await get('wrong/')).status, 404);
  });

  it('take a module from the mesh’s MeshFS, in the language that it was written in', async () => {
    const pointer = 'gem-pointer://wiki/modules/by_pointer';
    const content = 'const text: string = "typed"; export default { fetch: () => new Response(text) };';
    await used.mesh.meshfs.write(pointer, content, { language: 'typescript' });
    const { prefix, routes, report, diff, dry_run } = await used.mesh.kernels.evolve({
      target_module: 'by_pointer',
      pointer,
      replicas: 2,
    });
    assert.deepEqual([prefix, routes, diff, dry_run], ['/api/plugins/by_pointer/', ['* /*'], undefined, false]);
    assert.ok(report.stages.length > 0);
    assert.equal(await (await get('by_pointer/')).text(), 'typed');
    await assert.rejects(
      used.mesh.kernels.evolve({ target_module: 'nothing', pointer: 'gem-pointer://wiki/modules/nothing' }),
      (error) => isError(error, PointerUnknown),
    );
  });

  it('say on a dry run what would change, and change nothing', async () => {
    const before = await (await get('who/')).json();
    const tried = await used.mesh.kernels.evolve({ target_module: 'who', content: WHO('9'), dry_run: true });
    assert.equal(tried.dry_run, true);
    assert.match(tried.diff ?? '', /^\+.*9/m);
    assert.equal(tried.kernels.length, 3);
    assert.equal((await (await get('who/')).json()).version, before.version);
  });

  it('are left out when they die, and asked again when they are back', async () => {
    const [first] = kernels;
    await first!.kill();
    await until('its death is known', async () => (await used.mesh.kernels.list()).length === 2);
    for (let i = 0; i < 6; i++) assert.equal((await get('who/')).status, 200);
    await start(0);
    const back = (await used.mesh.kernels.list()).find(({ kernel }) => kernel.endsWith('-0'));
    assert.ok(back?.modules.some(({ module }) => module === 'who'));
  });

  it('see requests as their clients make them, hear when one leaves, and trace what fails', async () => {
    await used.mesh.kernels.evolve({
      target_module: 'edge',
      content: `console.log('here'); let [began, left] = [0, 0]; export default { fetch(request) {
        request.signal.addEventListener('abort', () => left++);
        const { host, pathname } = new URL(request.url);
        if (pathname === '/throw') throw new Error('on purpose');
        if (pathname === '/breaks') return new Response((async function* () {
          yield new TextEncoder().encode('begun');
          throw new Error('on purpose');
        })());
        if (pathname !== '/waits') return Response.json({ host, began, left });
        began++;
        return new Promise(() => {});
      } };`,
    });
    const seen = async () => (await get('edge/')).json();
    assert.deepEqual(await seen(), { host: new URL(used.local.url).host, began: 0, left: 0 });
    const leaving = new AbortController();
    const waits = get('edge/waits', { signal: leaving.signal });
    const refused = assert.rejects(waits);
    await until('it is served', async () => (await seen()).began === 1);
    leaving.abort();
    await refused;
    await until('it heard that', async () => (await seen()).left === 1);
    const failed = await get('edge/throw');
    assert.equal(failed.status, 500);
    assert.match(failed.headers.get('x-hauki-digest') ?? '', /^[0-9a-f]{64}$/);
    assert.match(failed.headers.get('x-hauki-kernel') ?? '', /^Microkernel-/);
    const broken = (await get('edge/breaks')).body!.getReader();
    assert.equal(String(Buffer.from((await broken.read()).value!)), 'begun');
    await assert.rejects(broken.read());
    const door = used.mesh.kernels.door(failed.headers.get('x-hauki-kernel')!);
    const said = async () =>
      (await door.logs('edge', 1)).map(({ version, lines }) => [version, lines.map(({ text }) => text).join('\n')]);
    await until('its log has both', async () => String(await said()).match(/on purpose/g)?.length === 2);
    assert.match(String(await said()), /^1,here\n/);
  });

  it('announce themselves and what they become on the mesh’s events', async () => {
    const lines: unknown[] = [];
    for await (const { fields } of used.mesh.events({ names: ['KERNEL_ONLINE', 'KERNEL_EVOLVED'], limit: 500 }))
      lines.push(fields.line);
    const id = kernels[1]!.id;
    assert.ok(lines.includes(`[Microkernel-${id}] Online. Awaiting DNA Injection.`));
    assert.ok(lines.includes(`[Microkernel-${id}] Evolved. New routes available at /api/plugins/who/`));
  });

  it('are refused by name where there is none', async () => {
    await assert.rejects(
      used.mesh.kernels.evolve({ target_module: 'x', content: WHO('1'), kernel: 'nobody' }),
      (error) => isError(error, NoNodeFits),
    );
  });
});

describe('what becomes of a kernel of a mesh', () => {
  const used = useMesh({ nodes: [] });
  const { all: kernels, name, start } = useJoinedKernels(used, 'l');
  const door = () => connectKernel({ url: kernels[0]!.url, token: kernels[0]!.token });
  const evolve = (target_module: string, version: string) => door().evolve({ target_module, content: WHO(version) });
  const lineOf = (module: string) => `[${name(0)}] Evolved. New routes available at /api/plugins/${module}/`;
  const told = async () => {
    const lines: unknown[] = [];
    for await (const { fields } of used.mesh.events({ names: ['KERNEL_EVOLVED'], limit: 500 })) lines.push(fields.line);
    return lines;
  };
  it('is told once and in order, also what becomes of it while the core is away and when it is killed there', async () => {
    await start(0);
    await evolve('before', '1');
    await until('that is told', async () => (await told()).length === 1);
    await used.local.core.kill();
    // More than one page of its journal, and one that is not announced.
    const many = Array.from({ length: 34 }, (_, i) => `away_${i}`);
    await evolve(many[0]!, '1');
    await door().pin(many[0]!, true);
    for (const module of many.slice(1)) await evolve(module, '1');
    await kernels[0]!.kill();
    const again = start(0);
    await restartCore(used.local);
    await again;
    await evolve('after', '1');
    await door().remove('after');
    const expected = [...many, 'after'].map(lineOf);
    expected.push(`[${name(0)}] Evolved. Routes removed from /api/plugins/after/`);
    await until('all is told', async () => (await told()).length >= expected.length);
    assert.deepEqual(await told(), expected);
    // A kernel that starts again has nothing to add.
    await kernels[0]!.stop();
    await start(0);
    await evolve('last', '1');
    await until('the last is told', async () => (await told()).includes(lineOf('last')));
    assert.deepEqual(await told(), [...expected, lineOf('last')]);
  });

  it('before it joined is not told', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-kernels-alone-'));
    const options = { data_dir, id: `alone${process.pid.toString(36)}`, port: 0, drivers: ['quickjs'] };
    const alone = await startKernel(options);
    await connectKernel(alone).evolve({ target_module: 'alone', content: WHO('1') });
    await alone.stop();
    const token_file = nodeTokenFile(used.local.data_dir);
    const joined = await startKernel({ ...options, core_url: used.local.url, token_file });
    await connectKernel(joined).evolve({ target_module: 'joined', content: WHO('1') });
    const of = (lines: unknown[]) => lines.filter((line) => String(line).startsWith('[Microkernel-alone'));
    await until('that is told', async () => of(await told()).length > 0);
    await joined.stop();
    rmSync(data_dir, { recursive: true, force: true });
    assert.deepEqual(
      of(await told()).map((line) => String(line).split(' ').at(-1)),
      ['/api/plugins/joined/'],
    );
  });
});
