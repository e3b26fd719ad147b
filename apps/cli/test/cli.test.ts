/** The command, as a person or a script uses it: every verb, its JSON, its exit codes. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { descendants, lives, until } from '../../../test/support/mesh.ts';

const BIN = fileURLToPath(new URL('../bin/hauki.js', import.meta.url));
const GREETER = fileURLToPath(new URL('../../../examples/workers/greeter.ts', import.meta.url));

describe('the hauki command', () => {
  let folder: string;
  let env: NodeJS.ProcessEnv;
  let up: ChildProcess;
  let url: string;

  const start = (args: string[], bin = BIN, more: NodeJS.ProcessEnv = {}) =>
    spawn(process.execPath, [bin, ...args], { env: { ...env, ...more }, stdio: ['pipe', 'pipe', 'pipe'] });
  const run = async (args: string[], input = '', bin = BIN, more: NodeJS.ProcessEnv = {}) => {
    const child = start(args, bin, more);
    let out = '';
    let err = '';
    child.stdout!.on('data', (d) => {
      out += d;
    });
    child.stderr!.on('data', (d) => {
      err += d;
    });
    child.stdin!.end(input);
    const [code] = await once(child, 'close');
    return { code, out, err };
  };
  const firstLine = async (child: ChildProcess) => {
    const [line] = await once(createInterface(child.stdout!), 'line');
    return JSON.parse(line as string);
  };

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-cli-'));
    env = { ...process.env, HAUKI_DATA: folder, NO_COLOR: '1' };
    delete env.HAUKI_TOKEN;
    up = start(['up', '--port', '0', '--driver', 'quickjs', '--label', 'zone=north', '--json']);
    url = (await firstLine(up)).url;
    env.HAUKI_URL = url;
  });
  after(async () => {
    if (up.exitCode === null) {
      up.kill('SIGINT');
      const [code] = await once(up, 'exit');
      assert.equal(code, 0, 'Ctrl-C ends hauki up cleanly');
    }
    rmSync(folder, { recursive: true, force: true });
  });

  it('teaches with --help, and exits 2 for wrong usage', async () => {
    const help = await run(['--help']);
    assert.equal(help.code, 0);
    for (const word of [
      'hauki up',
      'clone',
      'call',
      'ps',
      'kill',
      'run',
      'fs',
      'provision',
      'spool',
      'token',
      'Exit codes',
    ])
      assert.ok(help.out.includes(word), word);
    assert.equal((await run(['frobnicate'])).code, 2);
    assert.equal((await run(['call'])).code, 2);
    for (const [args, why] of [
      [['frobnicate', '--json'], /frobnicate/],
      [['call', '--json'], /missing required argument/],
      [['ps', '--wat', '--json'], /unknown option '--wat'/],
    ] as const) {
      const { code, err } = await run([...args]);
      const { name, message } = JSON.parse(err).error;
      assert.deepEqual([code, name], [2, 'BadInput'], err);
      assert.match(message, why);
    }
    assert.equal((await run(['clone', 'no/such/file.ts'])).code, 2);
  });

  /** With options that must be refused before any core is asked, naming the option. */
  const refusesAll = async (wrong: [string[], string][]) => {
    const nowhere = { HAUKI_URL: 'http://127.0.0.1:9' };
    for (let at = 0; at < wrong.length; at += 4)
      await Promise.all(
        wrong.slice(at, at + 4).map(async ([args, named]) => {
          const { code, err } = await run(args, '', BIN, nowhere);
          assert.equal(code, 2, `${args.join(' ')}: ${err}`);
          assert.ok(err.includes(`hauki: ${named}: `), `${args.join(' ')}: ${err}`);
        }),
      );
  };

  it('refuses what is no number, size, time or name of its kind where workers are made and called', () =>
    refusesAll([
      [['clone', GREETER, '--cpu', 'abc'], '--cpu'],
      [['clone', GREETER, '--volume', 'a=1=2'], '--volume'],
      [['clone', GREETER, '--clone', '1/2/3/4'], '--clone'],
      [['clone', GREETER, '--routing', 'sideways'], '--routing'],
      [['clone', GREETER, '--ttl', '5'], '--ttl'],
      [['clone', GREETER, '--ttl', '0s'], '--ttl'],
      [['clone', GREETER, '--max-life', '0s'], '--max-life'],
      [['clone', GREETER, '--idle', '0s'], '--idle'],
      [['provision', GREETER, '--memory', '1.5'], '--memory'],
      [['call', 'w-x', 'm', '--timeout', '0s'], '--timeout'],
      [['call', 'w-x', 'm', '--routing', 'sideways'], '--routing'],
      [['exec', 'w-x', '1', '--timeout', 'soon'], '--timeout'],
      [['logs', 'w-x', '--lines', 'many'], '--lines'],
      [['events', '--limit', '1e2'], '--limit'],
      [['spool', 'run', GREETER, 'greet', '--attempts', 'x'], '--attempts'],
      [['spool', 'run', GREETER, 'greet', '--timeout', '0s'], '--timeout'],
      [['spool', 'ls', '--limit', 'x'], '--limit'],
      [['spool', 'ls', '--state', 'lost'], '--state'],
      [['spool', 'wait', 'j-x', '--timeout', '5'], '--timeout'],
    ]));

  it('refuses it for tokens, nodes, documents and modules too', () =>
    refusesAll([
      [['token', 'create', '--name', 'n', '--scope', 'spawn', '--vaults', 'x'], '--vaults'],
      [['token', 'create', '--name', 'n', '--scope', 'spawn', '--memory', '0'], '--memory'],
      [['token', 'create', '--name', 'n', '--scope', 'spawn', '--clones', '-1'], '--clones'],
      [['token', 'create', '--name', 'n', '--scope', 'spawn', '--expires', '5 minutes'], '--expires'],
      [['up', '--memory', 'x'], '--memory'],
      [['up', '--driver', 'docker'], '--driver'],
      [['kernel', '--driver', 'docker'], '--driver'],
      [['up', '--data', '/proc/x'], '/proc/x'],
      [['up', '--nodes', '1.5'], '--nodes'],
      [['up', '--port', '0x50'], '--port'],
      [['fs', 'read', 'gem-pointer://wiki/x', '--at', '0'], '--at'],
      [['evolve', GREETER, '--weight', '101'], '--weight'],
      [['evolve', GREETER, '--max-error-rate', '2'], '--max-error-rate'],
      [['evolve', GREETER, '--memory', 'x'], '--memory'],
      [['rollback', 'm', '1.5'], 'version'],
      [['weights', 'm', '1=x'], 'share'],
      [['weights', 'm', '1'], 'share'],
    ]));

  it('finds the admin token by itself; its file is its owner’s alone', async () => {
    const { out } = await run(['token']);
    assert.match(out, /^hauki_[\w-]{43}\n$/);
    assert.equal(statSync(join(folder, 'core', 'admin.token')).mode & 0o777, 0o600);
  });

  it('keeps a worker alive while clone runs, and lets it be called and listed from elsewhere', async () => {
    const clone = start(['clone', GREETER, '--json']);
    const { worker, methods } = await firstLine(clone);
    assert.deepEqual(methods, ['greet', 'count']);
    assert.equal((await run(['call', worker, 'greet', 'ada'])).out, 'Hello, Ada!\n');
    assert.deepEqual(JSON.parse((await run(['call', worker, 'count', '--json'])).out), { result: 1 });
    assert.match((await run(['ps'])).out, new RegExp(`${worker} +\\S+ +quickjs \\(vm\\) +admin`));
    const unknown = await run(['call', worker, 'dance']);
    assert.equal(unknown.code, 3);
    assert.match(unknown.err, /Method not found: dance\. There is: greet, count/);
    clone.kill('SIGINT');
    assert.equal((await once(clone, 'exit'))[0], 0);
    const gone = await run(['call', worker, 'count']);
    assert.equal(gone.code, 3);
    assert.match(gone.err, /is dead: destructed/);
  });

  it('lets a worker outlive its command with --ttl, until it is killed', async () => {
    const { worker } = JSON.parse(
      (await run(['clone', GREETER, '--ttl', '5m', '--label', 'zone=north', '--json'])).out,
    );
    assert.equal((await run(['call', worker, 'greet', 'grace'])).out, 'Hello, Grace!\n');
    const killed = await run(['kill', '', 'w-nobody', worker, 'w-noone']);
    assert.deepEqual([killed.code, killed.out], [3, `${worker}\n`]);
    for (const unknown of ['a name is', 'w-nobody', 'w-noone'])
      assert.ok(killed.err.includes(unknown), 'each that fails is told of');
    assert.equal(JSON.parse((await run(['ps', '--json'])).out).workers.length, 0);
    assert.equal((await run(['kill', worker])).code, 3);
  });

  it('prints what a call gave, a stream item by item, and refuses as JSON what JSON would change', async () => {
    const file = join(folder, 'kinds.mjs');
    writeFileSync(
      file,
      `export const map = () => new Map([['a', 1n]]);
       export async function* items() { yield 'one'; yield { two: 2 }; yield [NaN]; }
       export const fn = () => () => 1; export const toString = () => 'its own';`,
    );
    const { worker } = JSON.parse((await run(['clone', file, '--ttl', '5m', '--json'])).out);
    assert.equal((await run(['call', worker, 'map'])).out, "Map(1) { 'a' => 1n }\n");
    assert.equal((await run(['call', worker, 'items'])).out, 'one\n{\n  "two": 2\n}\n[ NaN ]\n');
    assert.match((await run(['call', worker, 'fn'])).out, /function/i);
    assert.equal((await run(['call', worker, 'toString'])).out, 'its own\n');
    for (const method of ['map', 'items', 'fn']) {
      const { code, out, err } = await run(['call', worker, method, '--json']);
      assert.deepEqual([code, out], [1, method === 'items' ? '{"item":"one"}\n{"item":{"two":2}}\n' : '']);
      assert.match(JSON.parse(err).error.message, /^The call has run, but JSON cannot say its .*Without --json/);
    }
    assert.equal((await run(['kill', worker])).code, 0);
  });

  it('makes lasting workers, shows how they are, and deletes them', async () => {
    const made = JSON.parse((await run(['provision', GREETER, '--name', 'greeter', '--json'])).out);
    assert.deepEqual([made.worker, made.epoch, made.driver], ['greeter', 1, 'quickjs']);
    assert.equal((await run(['call', 'greeter', 'greet', 'ada'])).out, 'Hello, Ada!\n');
    assert.match((await run(['provision', 'ls'])).out, /greeter +running/);
    assert.match((await run(['ps'])).out, /greeter .* lasts/);
    const taken = await run(['provision', GREETER, '--name', 'greeter']);
    assert.equal(taken.code, 1);
    assert.match(taken.err, /There is a lasting worker greeter already/);
    assert.match((await run(['kill', 'greeter'])).err, /hauki provision rm/);
    assert.match((await run(['provision', 'show', 'greeter'])).out, /epoch 1, 0 restarts/);
    assert.equal((await run(['provision', 'rm', 'greeter'])).out, 'greeter\n');
    assert.equal((await run(['provision', 'rm', 'greeter'])).code, 3);
  });

  it('hands in jobs, waits for their results, lists and cancels them', async () => {
    assert.equal((await run(['spool', 'run', GREETER, 'greet', 'ada', '--wait'])).out, 'Hello, Ada!\n');
    const { job } = JSON.parse((await run(['spool', 'run', GREETER, 'greet', 'eve', '--key', 'k', '--json'])).out);
    const again = JSON.parse((await run(['spool', 'run', GREETER, 'greet', 'eve', '--key', 'k', '--json'])).out);
    assert.equal(again.job, job);
    assert.equal((await run(['spool', 'wait', job])).out, 'Hello, Eve!\n');
  });

  it('lists jobs, shows them, and cancels what has not ended', async () => {
    const { job } = JSON.parse((await run(['spool', 'run', GREETER, 'greet', 'eve', '--key', 'k', '--json'])).out);
    assert.match((await run(['spool', 'ls', '--state', 'done'])).out, new RegExp(`${job} +done +greet +1 of 3`));
    assert.match((await run(['spool', 'show', job])).out, /done\n +calls +greet\(\)/);
    const late = await run(['spool', 'cancel', job]);
    assert.equal(late.code, 1);
    assert.match(late.err, /has ended already/);
    const waits = JSON.parse(
      (await run(['spool', 'run', GREETER, 'greet', 'x', '--label', 'zone=south', '--json'])).out,
    );
    assert.equal((await run(['spool', 'cancel', waits.job])).code, 0);
    assert.equal(JSON.parse((await run(['spool', 'show', waits.job, '--json'])).out).state, 'cancelled');
    assert.equal((await run(['spool', 'show', 'j-nobody'])).code, 3);
    for (const wrong of [
      ['spool', 'run', GREETER],
      ['spool', 'run', GREETER, 'greet', '--attempts', 'many'],
    ])
      assert.equal((await run(wrong)).code, 2, wrong.join(' '));
  });

  it('writes, reads and lists documents', async () => {
    assert.equal((await run(['fs', 'write', 'gem-pointer://wiki/cli/hello'], '# Hello\n')).code, 0);
    assert.equal((await run(['fs', 'read', 'gem-pointer://wiki/cli/hello'])).out, '# Hello\n');
    assert.match(
      (await run(['fs', 'ls', 'gem-pointer://wiki/cli/'])).out,
      /gem-pointer:\/\/wiki\/cli\/hello\.md +8 +text\/markdown/,
    );
    assert.equal((await run(['fs', 'read', 'gem-pointer://wiki/cli/nothing'])).code, 3);
    assert.equal((await run(['fs', 'read', 'not-a-pointer'])).code, 2);
  });

  it('clones from a pointer that it wrote', async () => {
    const file = join(folder, 'sum.ts');
    writeFileSync(file, 'export const sum = (...all: number[]) => all.reduce((a, b) => a + b, 0);');
    assert.equal((await run(['fs', 'write', 'gem-pointer://wiki/workers/sum', file])).code, 0);
    const { worker } = JSON.parse(
      (await run(['clone', 'gem-pointer://wiki/workers/sum', '--ttl', '1m', '--json'])).out,
    );
    assert.equal((await run(['call', worker, 'sum', '1', '2', '3'])).out, '6\n');
    await run(['kill', worker]);
  });

  it('answers to its second name with the notes’ verbs', async () => {
    const second = join(folder, 'x-hauki-core');
    symlinkSync(BIN, second);
    await run(['meshfs_write', 'gem-pointer://wiki/cli/second'], 'by the second name', second);
    assert.equal(
      (await run(['meshfs_resolve', 'gem-pointer://wiki/cli/second'], '', second)).out,
      'by the second name',
    );
    assert.equal(JSON.parse((await run(['service_registry'], '', second)).out).nodes.length, 1);
  });

  it('runs a script against the mesh, wherever the script lies', async () => {
    const script = join(folder, 'script.ts');
    writeFileSync(
      script,
      `import { connect } from '@hauki/mesh';
       await using mesh = await connect();
       const twice = mesh.clone<{ twice(n: number): number }>({ source: 'export const twice = (n) => 2 * n' });
       console.log(await twice.twice(Number(process.argv[2])));`,
    );
    const { code, out, err } = await run(['run', script, '21']);
    assert.equal(err, '');
    assert.deepEqual([code, out], [0, '42\n']);
  });

  it('leaves nothing of a script when it is killed, and of its mesh nothing past the next one', async () => {
    const tmp = join(folder, 'tmp');
    mkdirSync(tmp);
    const alone = { HAUKI_URL: 'http://127.0.0.1:9', TMPDIR: tmp };
    const waits = join(folder, 'waits.ts');
    writeFileSync(waits, `console.log(JSON.stringify({ pid: process.pid })); setInterval(() => {}, 1_000);`);
    const running = start(['run', waits], BIN, alone);
    const { pid } = await firstLine(running);
    const below = descendants(running.pid!);
    assert.ok(below.includes(pid) && below.length >= 3, `a script, a core and a node: ${below.join()}`);
    assert.equal(readdirSync(tmp).length, 1);
    running.kill('SIGKILL');
    await until('all that it started has ended', () => !below.some(lives));
    const forks = join(folder, 'forks.ts');
    writeFileSync(
      forks,
      `import { fork } from 'node:child_process';
       if (process.send) process.send('from below');
       else fork(process.argv[1]!).on('message', (said) => console.log(said));`,
    );
    const { code, out } = await run(['run', forks], '', BIN, alone);
    assert.deepEqual([code, out], [0, 'from below\n']);
    assert.deepEqual(readdirSync(tmp), []);
  });

  it('says what cannot be bundled, with file and line', async () => {
    const file = join(folder, 'needs-node.ts');
    writeFileSync(
      file,
      "import { readFileSync } from 'node:fs';\nimport x from './missing.ts';\nexport const a = () => [readFileSync, x];",
    );
    const { code, err } = await run(['clone', file]);
    assert.equal(code, 1);
    assert.match(err, /needs-node\.ts:1:\d+: "node:fs" is a module of Node itself/);
    assert.match(err, /needs-node\.ts:2:\d+: Could not resolve "\.\/missing\.ts"/);
  });

  it('tells apart no core (5), a wrong token (4) and bad flags (2), in JSON too', async () => {
    const away = await run(['ps', '--core', 'http://127.0.0.1:9', '--json']);
    assert.equal(away.code, 5);
    assert.match(JSON.parse(away.err).error.message, /no core answers at http:\/\/127\.0\.0\.1:9/);
    assert.equal((await run(['ps'], '', BIN, { HAUKI_TOKEN: 'hauki_wrong' })).code, 4);
    assert.equal((await run(['clone', GREETER, '--ttl', 'soon'])).code, 2);
    const { code, err } = await run(['call', 'w-nobody', 'x']);
    assert.deepEqual([code, /There is no worker w-nobody/.test(err)], [3, true]);
    assert.equal((await run(['volumes', 'rm', 'nobody'])).code, 3);
    const in_folder = await run(['run', folder, '--json']);
    assert.deepEqual([in_folder.code, in_folder.out], [2, '']);
    assert.match(in_folder.err, /it is a folder; name a script in it/);
  });

  it('takes core and node along when it is killed with -9, and comes back over the same folder', async () => {
    const other = mkdtempSync(join(tmpdir(), 'hauki-cli-killed-'));
    const args = ['up', '--port', '0', '--driver', 'quickjs', '--json'];
    const first = start(args, BIN, { HAUKI_DATA: other });
    const { nodes, url: before_kill } = await firstLine(first);
    const children = descendants(first.pid!);
    assert.ok(children.length >= 3, 'core, node and vault host');
    first.kill('SIGKILL');
    await until('its processes are gone', () => children.every((pid) => !lives(pid)));
    await assert.rejects(fetch(`${before_kill}/health`));
    const second = start(args, BIN, { HAUKI_DATA: other });
    assert.deepEqual((await firstLine(second)).nodes, nodes, 'the node keeps its name');
    second.kill('SIGTERM');
    assert.equal((await once(second, 'exit'))[0], 0);
    rmSync(other, { recursive: true, force: true });
  });

  it('says so and fails where core or node has ended by itself', async () => {
    const other = mkdtempSync(join(tmpdir(), 'hauki-cli-ended-'));
    const mesh = start(['up', '--port', '0', '--driver', 'quickjs', '--json'], BIN, { HAUKI_DATA: other });
    let err = '';
    mesh.stderr!.on('data', (d) => {
      err += d;
    });
    await firstLine(mesh);
    const children = descendants(mesh.pid!);
    process.kill(children[0]!, 'SIGKILL');
    assert.equal((await once(mesh, 'close'))[0], 1);
    assert.match(err, /has ended by itself \(.+\), so the rest was ended too\. Its log: .*hauki\.log/);
    await until('its processes are gone', () => children.every((pid) => !lives(pid)));
    rmSync(other, { recursive: true, force: true });
  });

  it('ends quietly where nobody reads what it says any more', async () => {
    const child = start(['--help']);
    child.stdout!.destroy();
    let err = '';
    child.stderr!.on('data', (d) => {
      err += d;
    });
    assert.deepEqual([(await once(child, 'close'))[0], err], [0, '']);
  });

  it('joins further nodes', async () => {
    const node = start(['node', '--name', 'second', '--driver', 'quickjs', '--label', 'zone=south']);
    for (let i = 0; ; i++) {
      const { nodes } = JSON.parse((await run(['ps', '--json'])).out);
      if (nodes.length === 2) break;
      assert.ok(i < 40, 'the node joins');
    }
    const { worker } = JSON.parse(
      (await run(['clone', GREETER, '--ttl', '1m', '--label', 'zone=south', '--json'])).out,
    );
    assert.equal((await run(['kill', worker])).code, 0);
    node.kill('SIGTERM');
    assert.equal((await once(node, 'exit'))[0], 0);
  });
});
