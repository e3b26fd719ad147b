/** `hauki evolve` from the command line: what it bundles, which saves it sees, and to which kernels it posts. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { kernelDataDir, kernelTokenFile } from '@hauki/mesh/data-dir';
import { useJoinedKernels, useKernel } from './support/kernel.ts';
import { missing, until, useMesh } from './support/mesh.ts';
import { no_fastapi } from './support/python-modules.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const HAUKI = join(ROOT, 'apps/cli/bin/hauki.js');
const folder = mkdtempSync(join(tmpdir(), 'hauki-evolve-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const file = (name: string, text: string | Buffer) => {
  const path = join(folder, name);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, text);
  return path;
};

describe('hauki evolve', { skip: missing('quickjs') }, () => {
  const kernel = useKernel({ drivers: ['quickjs'] });
  const env = () => ({ ...process.env, HAUKI_KERNEL: kernel.process.url, HAUKI_KERNEL_TOKEN: kernel.process.token });
  const hauki = (...args: string[]) => promisify(execFile)(process.execPath, [HAUKI, ...args], { env: env() });
  const evolve = (...args: string[]) => hauki('evolve', ...args);
  const serves = (path: string, text: string) => async () => {
    const answer = await kernel.get(path);
    return (await answer.text()) === text;
  };

  it('bundles a module of several files, however it imports them', async () => {
    file('parts/named.ts', `export const named: string = 'named';`);
    file('parts/effect.ts', `(globalThis as any).effect = 'effect';`);
    file('parts/late.ts', `export default 'late';`);
    const main = file(
      'parts/named_main.ts',
      `import { named } from './named.ts';\nexport default { fetch: () => new Response(named) };`,
    );
    const effect = file(
      'parts/effect_main.ts',
      `import './effect.ts';\nexport default { fetch: () => new Response((globalThis as any).effect) };`,
    );
    const late = file(
      'parts/late_main.ts',
      `export default { fetch: async () => new Response((await import('./late.ts')).default) };`,
    );
    const inline = file(
      'parts/inline_main.js',
      `"use strict";import{named}from"./named.ts";export default{fetch:()=>new Response(named+'!')}`,
    );
    file('parts/types.ts', 'export interface Named { name: string }');
    const typed = file(
      'parts/typed_main.ts',
      `import { Named } from './types.ts';\nconst named: Named = { name: 'typed' };
       export default { fetch: () => new Response(named.name) };`,
    );
    await Promise.all([evolve(main), evolve(effect), evolve(late), evolve(inline), evolve(typed)]);
    assert.ok(await serves('typed_main/', 'typed')());
    assert.ok(await serves('inline_main/', 'named!')());
    assert.ok(await serves('named_main/', 'named')());
    assert.ok(await serves('effect_main/', 'effect')());
    assert.ok(await serves('late_main/', 'late')());
  });

  it('refuses a module that is not in UTF-8, which would be posted as another text', () =>
    assert.rejects(evolve(file('latin.mjs', Buffer.from("'Zoë'", 'latin1'))), { code: 2, stderr: /is not in UTF-8/ }));

  it('tells of a bundle that is rejected by the lines of its files', async () => {
    file(
      'places/lib.ts',
      `interface A {\n  a: number;\n}\n\nexport const fails = (): A => {\n  throw new Error('no');\n};`,
    );
    const main = file('places_main.ts', `import { fails } from './places/lib.ts';\nfails();\nexport default {};`);
    await assert.rejects(evolve(main), ({ stderr }: { stderr: string }) => {
      assert.match(stderr, /stage load, line 6: .*places\/lib\.ts:6:\d+/);
      assert.ok(!stderr.includes('worker.mjs'), stderr);
      return true;
    });
  });

  it('shows what a version that is rejected logged, and the share of one that has a part', async () => {
    const main = file('said.js', `console.log('so far');\nthrow new Error('no');`);
    await assert.rejects(evolve(main), ({ stderr }: { stderr: string }) => {
      assert.match(stderr, /stage load, line 2: .*\nIt logged:\ninfo so far/);
      return true;
    });
    file('said.js', `export default { fetch: () => new Response('said') };`);
    assert.doesNotMatch((await evolve(main)).stdout, /share/);
    assert.match((await evolve(main, '--weight', '0')).stdout, /share {3}0 % of requests: .* x-hauki-version: 2/);
  });

  it('rejects what cannot be bundled in the words of a kernel, by file and line', async () => {
    const main = file('unmade.ts', `import './gone.ts';\nexport default { fetch: () => new Response('') };`);
    await assert.rejects(evolve(main), ({ stderr }: { stderr: string }) => {
      assert.match(
        stderr,
        /unmade\.ts was rejected at the stage bundle: .*unmade\.ts:1:\d+: .*gone\.ts.* Nothing was changed/,
      );
      return true;
    });
  });

  it('posts a file that only speaks of imports as it is', async () => {
    const main = file('speaks.js', `// from 'here'\nexport default { fetch: () => new Response("import './there'") };`);
    await evolve(main);
    assert.ok(await serves('speaks/', `import './there'`)());
    const { stdout } = await hauki('versions', 'speaks', '1');
    assert.match(stdout, /from 'here'/);
  });

  it('takes grants as the other verbs do', async () => {
    const main = file('granted.js', `export default { fetch: () => new Response('granted') };`);
    await evolve(main, '--fetch', 'GET@a.example:443/60', '--fetch', 'b.example:80');
    const { stdout } = await hauki('versions', 'granted', '--json');
    assert.deepEqual(JSON.parse(stdout).versions[0].grants.fetch, [
      { to: 'a.example:443', methods: ['GET'], per_minute: 60 },
      { to: 'b.example:80', methods: [], per_minute: 0 },
    ]);
    await assert.rejects(evolve(main, '--volume', 'home='), ({ stderr }) => /--volume: /.test(stderr));
  });

  it('bundles what is JSX or CommonJS, which no vault takes as it is', async () => {
    symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
    const page = file(
      'page.tsx',
      `/** @jsxRuntime automatic @jsxImportSource hono/jsx */
       import { Hono } from 'hono';
       const app = new Hono();
       app.get('/', (c) => c.html(<b>{'<x>' as string}</b>));
       export default app;`,
    );
    const common = file('common.cjs', `module.exports = { fetch: () => new Response('common') };`);
    await Promise.all([evolve(page), evolve(common)]);
    assert.ok(await serves('page/', '<b>&lt;x&gt;</b>')());
    assert.ok(await serves('common/', 'common')());
  });

  it('takes a file for what it is under any name', async () => {
    const main = file('typed.ts', `const n: number = 1; export default { fetch: () => new Response(String(n)) };`);
    await evolve(main, '--name', 'other_name');
    assert.ok(await serves('other_name/', '1')());
    await assert.rejects(evolve(main, '--name', 'other_name.py'), /its name says python, not typescript/);
  });

  it('says where a token comes from that a kernel does not know, or that is not there', async () => {
    const none = join(folder, 'none');
    for (const [token, why] of [
      ['', /A token is needed/],
      ['hauki_other', /not known here/],
    ] as const)
      await assert.rejects(
        promisify(execFile)(process.execPath, [HAUKI, 'modules', '--data', none], {
          env: { ...env(), HAUKI_KERNEL_TOKEN: token },
        }),
        ({ stderr, code }: { stderr: string; code: number }) => {
          assert.match(stderr, why);
          assert.match(stderr, /--id, --data.*HAUKI_KERNEL_TOKEN/);
          return code === 4;
        },
      );
  });

  it('tells the token of its data folder to a kernel of this machine, and to nobody else', async () => {
    const heard: (string | undefined)[] = [];
    const server = createServer((request, response) => {
      heard.push(request.headers.authorization);
      response.writeHead(503).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const data = join(folder, 'data');
    const token_file = kernelTokenFile(kernelDataDir(data, '7'));
    mkdirSync(join(token_file, '..'), { recursive: true });
    writeFileSync(token_file, 'hauki_of_the_folder\n');
    const { HAUKI_KERNEL_TOKEN: _, ...others } = env();
    const ask = (host: string, given = {}) =>
      assert.rejects(
        promisify(execFile)(
          process.execPath,
          [HAUKI, 'modules', '--to', `http://${host}:${port}`, '--id', '7', '--data', data],
          { env: { ...others, ...given } },
        ),
      );
    await ask('127.0.0.1');
    // By this name, which is not loopback's, it is reached all the same.
    await ask('0.0.0.0');
    await ask('0.0.0.0', { HAUKI_KERNEL_TOKEN: 'hauki_given' });
    assert.deepEqual(heard, ['Bearer hauki_of_the_folder', undefined, 'Bearer hauki_given']);
    server.close();
  });

  it('evolves at each save, of the file and of what it imports, and waits for a file that is not there yet', async () => {
    const main = join(folder, 'watched/watched_main.ts');
    mkdirSync(join(main, '..'));
    const watching = spawn(process.execPath, [HAUKI, 'evolve', main, '--watch'], { env: env() });
    let said = '';
    for (const stream of [watching.stdout, watching.stderr])
      stream.on('data', (text) => {
        said += text;
      });
    try {
      await until('it says that the file is missing', () => /no such file/.test(said), 60_000);
      file('watched/part.ts', `export const part = 'one';`);
      file(
        'watched/watched_main.ts',
        `import { part } from './part.ts';\nexport default { fetch: () => new Response(part) };`,
      );
      await until('the first', serves('watched_main/', 'one'), 60_000);
      file('watched/part.ts', `export const part = 'two';`);
      await until('the part’s save', serves('watched_main/', 'two'), 60_000);
      file('watched/part.ts', `export const part = 'thr`);
      await until('a mistake is told', () => /bundle/.test(said), 60_000);
      const at = new Date(0);
      file('watched/watched_main.ts', `export default { fetch: () => new Response('alone') };`);
      utimesSync(main, at, at);
      await until('the file’s save', serves('watched_main/', 'alone'), 60_000);
      // In place, of the same length and time as before.
      file('watched/watched_main.ts', `export default { fetch: () => new Response('again') };`);
      utimesSync(main, at, at);
      await until('the same size and time', serves('watched_main/', 'again'), 60_000);
    } finally {
      watching.kill('SIGTERM');
    }
  });

  it('evolves when what it imports is mended or made, though it never was a part of it, and when its tests are saved', async () => {
    const main = file(
      'mended/mended_main.ts',
      `import { part } from './part';\nimport { late } from './late.ts';\nexport default { fetch: () => new Response(part + late) };`,
    );
    file('mended/part.ts', `export const part = 'on`);
    const tests = file('mended/tests.json', '[]');
    const watching = spawn(process.execPath, [HAUKI, 'evolve', main, '--watch', '--tests', tests], { env: env() });
    let said = '';
    for (const stream of [watching.stdout, watching.stderr])
      stream.on('data', (text) => {
        said += text;
      });
    try {
      await until('the mistake is told', () => /late\.ts/.test(said), 60_000);
      file('mended/part.ts', `export const part = 'one';`);
      await until('the other is missed', () => (said.match(/late\.ts/g)?.length ?? 0) > 1, 60_000);
      file('mended/late.ts', `export const late = ' late';`);
      await until('both are there', serves('mended_main/', 'one late'), 60_000);
      file('mended/tests.json', JSON.stringify([{ path: '/', expect: { text: 'two' } }]));
      await until(
        'the tests’ save',
        () => /at the stage tests: GET \/: the body has no "two" in it/.test(said),
        60_000,
      );
    } finally {
      watching.kill('SIGTERM');
    }
  });

  it('ends at once when it is asked to, also while a version is tried, and says that this may still come', async () => {
    const main = file('held/held_main.ts', `export default { fetch: () => new Promise(() => {}) };`);
    const tests = file('held/tests.json', JSON.stringify([{ path: '/', expect: {} }]));
    const watching = spawn(process.execPath, [HAUKI, 'evolve', main, '--watch', '--tests', tests], { env: env() });
    let said = '';
    watching.stdout.once('data', () => setTimeout(() => watching.kill('SIGINT'), 500));
    watching.stderr.on('data', (text) => {
      said += text;
    });
    const [code, signal] = await once(watching, 'close');
    assert.deepEqual(
      [code, signal, said],
      [0, null, 'hauki: what was posted last may still come to serve; `hauki modules` tells\n'],
    );
  });

  it('does not wait for a save where the flags are wrong', async () => {
    const main = file('flags.ts', `export default { fetch: () => new Response('x') };`);
    const refused = async (why: RegExp, ...args: string[]) =>
      assert.rejects(evolve(main, '--watch', ...args), (error: any) => {
        assert.match(error.stderr, why);
        assert.deepEqual([error.code, error.stdout], [2, '']);
        return true;
      });
    await refused(/--driver: "foo" is none of lxc/, '--driver', 'foo');
    await refused(/with --replicas the core chooses/, '--to', 'Microkernel-1', '--replicas', '2');
    await refused(/--wave: it is for the core/, '--wave', '2');
    await refused(/--watch-for: it is for the core/, '--watch-for', '2s');
    await refused(/none\.json: there is no such file/, '--tests', join(folder, 'none.json'));
    await refused(/cannot be read \(EISDIR\)/, '--tests', folder);
  });

  it('says what is wrong with a kernel that is no URL', async () => {
    const main = file('x.ts', `export default { fetch: () => new Response('x') };`);
    await assert.rejects(
      evolve(main, '--to', 'ftp://x/'),
      /--to: "ftp:\/\/x\/" is no URL such as http:\/\/127\.0\.0\.1:8881/,
    );
    await assert.rejects(evolve(main, '--to', 'Microkernel-1', '--replicas', '2'), /with --replicas the core chooses/);
  });
});

describe('hauki evolve, by the core', { skip: missing('quickjs') }, () => {
  const used = useMesh({ nodes: [] });
  const kernels = useJoinedKernels(used, 'e');
  before(async () => {
    await Promise.all([kernels.start(0), kernels.start(1)]);
  });

  it('posts to the kernel of the mesh that is named, and shows on a dry run what would change', async () => {
    const main = file('named.ts', `export default { fetch: () => new Response('named') };`);
    const env = { ...process.env, HAUKI_URL: used.local.url, HAUKI_TOKEN: used.local.token };
    const evolve = async (...args: string[]) =>
      (await promisify(execFile)(process.execPath, [HAUKI, 'evolve', main, ...args], { env })).stdout;
    assert.match(await evolve('--to', kernels.name(1)), new RegExp(`serves on ${kernels.name(1)}`));
    const [first, second] = await used.mesh.kernels.list();
    assert.deepEqual([first!.modules, second!.modules.map(({ module }) => module)], [[], ['named']]);
    file('named.ts', `export default { fetch: () => new Response('other') };`);
    const dry = await evolve('--replicas', '1', '--dry-run');
    assert.match(dry, /would serve on/);
    assert.match(dry, /^\+.*other/m);
  });

  it('shows and changes what the kernel that is named has, as its own port would', async () => {
    const env = { ...process.env, HAUKI_URL: used.local.url, HAUKI_TOKEN: used.local.token };
    const hauki = async (...args: string[]) =>
      (await promisify(execFile)(process.execPath, [HAUKI, ...args, '--to', kernels.name(0)], { env })).stdout;
    const main = file('asked.ts', `export default { fetch: () => new Response('one') };`);
    await hauki('evolve', main);
    file('asked.ts', `export default { fetch: () => new Response('two') };`);
    await hauki('evolve', main);
    assert.match(await hauki('modules'), /^asked +2 +serving/m);
    assert.match(await hauki('rollback', 'asked'), /serves as version 1/);
    assert.match(await hauki('weights', 'asked', '1=30', '2=70'), /version 2 {2}70 %/);
    assert.match(await hauki('versions', 'asked', '1', '2'), /^\+.*two/m);
    assert.match(await hauki('versions', 'asked', '1'), /'one'/);
    await hauki('pin', 'asked');
    await assert.rejects(hauki('evolve', main), /it is pinned/);
    const entries = (await hauki('history', 'asked')).trim().split('\n').slice(1);
    assert.deepEqual(
      entries.map((line) => /asked +(\w+) .* admin /.exec(line)?.[1]),
      ['evolve', 'evolve', 'rollback', 'weights', 'pin'],
    );
    const refused = async (code: number, why: RegExp, ...args: string[]) =>
      assert.rejects(hauki(...args), (error: any) => {
        assert.match(error.stderr, why);
        assert.equal(error.code, code);
        return true;
      });
    await refused(3, /There is no module nobody here\. There is: asked/, 'history', 'nobody');
    await refused(3, /no version 9/, 'versions', 'asked', '9');
    await refused(3, /There is no module nobody here/, 'versions', 'nobody', '1');
  });

  it('shows sources, and lets others serve, to those alone who may do everything', async () => {
    const { token } = await used.mesh.tokens.create({
      name: 'evolver',
      scopes: ['evolve'],
      targets: { nodes: [kernels.name(0).toLowerCase()] },
    });
    const ask = async (kernel: string, path: string, method = 'GET') => {
      const url = `${used.local.url}/api/v2/kernels/${kernel}/${path}`;
      return (await fetch(url, { method, headers: { authorization: `Bearer ${token}` } })).status;
    };
    const named = kernels.name(0);
    assert.deepEqual([await ask(named, 'status'), await ask(named, 'history?module=asked')], [200, 200]);
    assert.equal(await ask(kernels.name(1), 'status'), 403);
    assert.deepEqual(
      [await ask(named, 'modules/asked/versions/1'), await ask(named, 'modules/asked/rollback', 'POST')],
      [403, 403],
    );
    const admin = { authorization: `Bearer ${used.local.token}`, 'content-type': 'application/json' };
    const body = JSON.stringify({ target_module: 'x.js', content: 'export default { fetch: () => new Response() }' });
    for (const path of ['modules/../evolve', 'modules/..%2fevolve/rollback', 'modules/%2e%2e/evolve', 'modules/x']) {
      const url = `${used.local.url}/api/v2/kernels/${named}/${path}`;
      const { status } = await fetch(url, { method: 'POST', headers: admin, body });
      assert.ok([400, 404].includes(status), `${path}: ${status}`);
    }
  });
});

describe('hauki evolve of Python', { skip: missing('process') || no_fastapi }, () => {
  const kernel = useKernel({ drivers: ['process'] });

  it('brings along what a module imports from beside it', async () => {
    const main = file(
      'snake/snake.py',
      'from fastapi import APIRouter\nfrom parts.words import WORD\nrouter = APIRouter()\n@router.get("/")\ndef say(): return WORD\n',
    );
    file('snake/parts/words.py', 'WORD = "of two files"\n');
    const env = { ...process.env, HAUKI_KERNEL: kernel.process.url, HAUKI_KERNEL_TOKEN: kernel.process.token };
    await promisify(execFile)(process.execPath, [HAUKI, 'evolve', main], { env });
    assert.equal(await kernel.json('snake/'), 'of two files');
  });
});
