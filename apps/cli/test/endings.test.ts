/** How commands end that start processes: whenever they are asked to, however they are killed, and with what they say. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { descendants, lives, until } from '../../../test/support/mesh.ts';

const BIN = fileURLToPath(new URL('../bin/hauki.js', import.meta.url));
/** No core answers there. */
const NOWHERE = 'http://127.0.0.1:9';
/** What makes this Node say that it is an old one, so that the command goes on under another. */
const OLD = [
  '--import',
  `data:text/javascript,Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.0.0' } })`,
];

describe('a command that starts processes', () => {
  let folder: string;
  const running: ChildProcess[] = [];
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-endings-'));
    writeFileSync(join(folder, 'token'), 'nobody answers to it');
  });
  after(() => {
    for (const child of running) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });

  /** In a group of its own, so that all of it can be sent a signal, as a terminal does. */
  const start = (args: string[], more: NodeJS.ProcessEnv = {}, flags: string[] = []) => {
    const env = { ...process.env, HAUKI_DATA: join(folder, 'data'), HAUKI_URL: NOWHERE, NO_COLOR: '1', ...more };
    const child = spawn(process.execPath, [...flags, BIN, ...args], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    running.push(child);
    let err = '';
    child.stderr!.on('data', (data) => {
      err += data;
    });
    return { child, pid: child.pid!, err: () => err };
  };
  const firstLine = async (child: ChildProcess) => {
    const [line] = await once(createInterface(child.stdout!), 'line');
    return JSON.parse(line as string);
  };
  /** Its processes, when there are so many. */
  const below = async (pid: number, count: number) => {
    await until(`${count} processes are below it`, () => descendants(pid).length >= count);
    return descendants(pid);
  };
  const ended = async (child: ChildProcess): Promise<unknown> =>
    child.exitCode ?? child.signalCode ?? (await once(child, 'exit')).find((one) => one !== null);
  const gone = (pids: number[]) => until('its processes are gone', () => !pids.some(lives));

  for (const how of ['it alone', 'its group'] as const)
    for (const signal of ['SIGTERM', 'SIGINT'] as const)
      it(`ends at once where ${how} gets ${signal} while a node waits for its core`, async () => {
        const name = `${how === 'it alone' ? 'alone' : 'group'}-${signal.toLowerCase()}`;
        const args = ['node', '--name', name, '--token-file', join(folder, 'token'), '--driver', 'quickjs'];
        const { child, pid, err } = start(args);
        await until('the node has tried', () => /core/.test(err()));
        const children = await below(pid, 1);
        process.kill(how === 'it alone' ? pid : -pid, signal);
        assert.equal(await ended(child), 0, err());
        await gone(children);
        assert.doesNotMatch(err(), /hauki: /);
      });

  it('says so where its kernel has ended by itself, and ends cleanly where it is asked to', async () => {
    const args = ['kernel', '--port', '0', '--id', `e${process.pid}`, '--open', '--driver', 'quickjs', '--json'];
    const first = start(args);
    process.kill((await firstLine(first.child)).pid, 'SIGKILL');
    assert.equal(await ended(first.child), 1);
    assert.match(first.err(), /hauki: the kernel has ended by itself \(SIGKILL\)/);
    const second = start(args);
    const children = await below(second.pid, 1);
    second.child.kill('SIGTERM');
    assert.equal(await ended(second.child), 0, second.err());
    await gone(children);
  });

  it('says what to try next as it must be typed, with the data folder that it was given', async () => {
    const data = join(folder, 'with a space');
    for (const args of [
      ['up', '--port', '0', '--nodes', '0', '--data', data],
      ['kernel', '--port', '0', '--id', `t${process.pid}`, '--driver', 'quickjs', '--data', data],
    ]) {
      const { child, err } = start(args);
      let said = '';
      for await (const line of createInterface(child.stdout!)) {
        said = line;
        if (line.includes('  try ')) break;
      }
      assert.ok(said.endsWith(` --data '${data}'`), said);
      child.kill('SIGTERM');
      assert.equal(await ended(child), 0, err());
    }
  });

  it('leaves nothing of a script’s own mesh where its terminal is closed, also while the mesh starts', async () => {
    const script = join(folder, 'waits.ts');
    writeFileSync(script, 'console.log("{}"); setInterval(() => {}, 1_000);');
    const tmp = join(folder, 'tmp');
    mkdirSync(tmp);
    const starting = async (signal: NodeJS.Signals) => {
      const { child, pid } = start(['run', script], { TMPDIR: tmp });
      const children = await below(pid, 1);
      process.kill(pid, signal);
      assert.equal(await ended(child), 1);
      await gone(children);
      assert.deepEqual(readdirSync(tmp), [], signal);
    };
    for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const) await starting(signal);
    const { child, pid } = start(['run', script], { TMPDIR: tmp });
    await firstLine(child);
    const children = descendants(pid);
    process.kill(pid, 'SIGHUP');
    assert.equal(await ended(child), 1);
    await gone(children);
    assert.deepEqual(readdirSync(tmp), []);
  });

  describe('under an old Node, where it goes on under another', () => {
    const up = async () => {
      const args = ['up', '--port', '0', '--nodes', '0', '--json'];
      const started = start(args, {}, OLD);
      await firstLine(started.child);
      const children = descendants(started.pid);
      assert.ok(children.length >= 2, 'the command itself and a core');
      return { ...started, children };
    };

    for (const how of ['it alone', 'its group'] as const)
      it(`ends cleanly where ${how} gets Ctrl-C`, async () => {
        const { child, pid, children, err } = await up();
        process.kill(how === 'it alone' ? pid : -pid, 'SIGINT');
        assert.equal(await ended(child), 0, err());
        await gone(children);
      });

    it('ends with the process that was started, when that is killed with -9', async () => {
      const { child, children } = await up();
      child.kill('SIGKILL');
      await gone(children);
    });

    it('ends by Ctrl-C where it does not listen for it', async () => {
      // Nobody writes to its standard input.
      const env = { ...process.env, HAUKI_URL: NOWHERE, HAUKI_TOKEN: 'x', HAUKI_DATA: join(folder, 'data') };
      const child = spawn(process.execPath, [...OLD, BIN, 'fs', 'write', 'gem-pointer://data/x'], { env });
      running.push(child);
      const children = await below(child.pid!, 1);
      child.kill('SIGINT');
      assert.equal(await ended(child), 1);
      await gone(children);
    });
  });
});

describe('a command', () => {
  it('says in one line that its output cannot be written, and fails', {
    skip: process.platform !== 'linux' && 'no /dev/full',
  }, async () => {
    const child = spawn(process.execPath, [BIN, '--help'], { stdio: ['ignore', openSync('/dev/full', 'w'), 'pipe'] });
    let err = '';
    child.stderr!.on('data', (data) => {
      err += data;
    });
    assert.equal((await once(child, 'close'))[0], 1);
    assert.match(err, /^hauki: standard output cannot be written: ENOSPC[^\n]*\n$/);
  });

  it('that joins a node names the token file that is not there, and what to do', async () => {
    const child = spawn(process.execPath, [BIN, 'node', '--token-file', '/no/such/token', '--core', NOWHERE]);
    let err = '';
    child.stderr!.on('data', (data) => {
      err += data;
    });
    assert.equal((await once(child, 'close'))[0], 2);
    assert.match(err, /^hauki: --token-file: \/no\/such\/token is not there\. It is core\/node\.token in [^\n]*\n$/);
  });
});
