/** A process forked ahead, like every child that makes a container, ends with its agent, whenever that is killed. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { boundTo } from '../src/drivers/bound.ts';
import { Launcher } from '../src/drivers/lxc/launcher.ts';
import { alive, mentioning, skip, until } from './lxc/harness.ts';

/** The kernel's list of sockets of TCP that somebody listens on: port and inode. */
const listening = () =>
  readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , , state]) => state === '0A')
    .map((words) => ({ port: Number.parseInt(words[1]!.split(':')[1]!, 16), inode: words[9]! }));

/** Those that a process has open. */
const socketsOf = (pid: number) => {
  const links = execFileSync('/bin/ls', ['-l', `/proc/${pid}/fd`], { encoding: 'utf8' });
  return listening().filter(({ inode }) => links.includes(`socket:[${inode}]`));
};

suite('a process forked ahead', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-ahead-'));
  after(() => rmSync(folder, { recursive: true }));
  const waiting = (files_dir: string) =>
    mentioning(files_dir).filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('hauki-launcher'));

  test('ends with an agent that is killed, and its socket with it', async () => {
    const files_dir = join(folder, 'waits');
    const options = JSON.stringify({ lxc_dir: folder, files_dir });
    const agent = spawn(process.execPath, [fileURLToPath(new URL('./lxc/launching.ts', import.meta.url)), options]);
    let pid: number | undefined;
    let socket: ReturnType<typeof listening>[number] | undefined;
    await until(() => {
      [pid] = waiting(files_dir);
      [socket] = pid === undefined ? [] : socketsOf(pid);
      return socket !== undefined;
    });
    // It waits with a socket that nobody accepts on yet.
    const caller = connect(socket!.port, '127.0.0.1');
    await once(caller, 'connect');
    caller.on('error', () => {});
    agent.kill('SIGKILL');
    // A process that ends has no command line any more a moment before its sockets are closed.
    await until(
      () =>
        mentioning(files_dir).length === 0 && !alive(pid!) && !listening().some(({ inode }) => inode === socket!.inode),
    );
    caller.destroy();
  });

  test('ends with an agent that is killed at any moment of making it', async () => {
    for (let delay_ms = 80; delay_ms <= 140; delay_ms += 6) {
      const files_dir = join(folder, `made-${delay_ms}`);
      const options = JSON.stringify({ lxc_dir: folder, files_dir });
      const agent = spawn(process.execPath, [fileURLToPath(new URL('./lxc/launching.ts', import.meta.url)), options]);
      await once(agent.stdout, 'data');
      await new Promise((resolve) => setTimeout(resolve, delay_ms));
      agent.kill('SIGKILL');
      await until(() => mentioning(files_dir).length === 0);
    }
  });

  test('is gone when the launcher is closed, ready or in the making', async () => {
    const files_dir = join(folder, 'closed');
    const ready = new Launcher(folder, files_dir);
    ready.soon('127.0.0.1');
    await until(() => waiting(files_dir).length === 1);
    await ready.close();
    assert.deepEqual(mentioning(files_dir), []);
    const early = new Launcher(folder, files_dir);
    early.soon('127.0.0.1');
    await early.close();
    assert.deepEqual(mentioning(files_dir), []);
  });

  test('that has ended meanwhile is not handed out', async () => {
    const files_dir = join(folder, 'ended');
    const launcher = new Launcher(folder, files_dir);
    launcher.soon('127.0.0.1');
    // While one command is replaced by the next it has none to be known by: a second look may not find it.
    let pid: number | undefined;
    await until(() => {
      [pid] = waiting(files_dir);
      return pid !== undefined;
    });
    process.kill(pid!, 'SIGKILL');
    // This process has heard of it when nothing stands for it any more.
    await until(() => !existsSync(`/proc/${pid}`));
    assert.equal(launcher.take('127.0.0.1'), undefined);
    await launcher.close();
  });
});

suite('a child whose parent died before it asked to die with it', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-born-'));
  after(() => rmSync(folder, { recursive: true }));
  /** The parent ends at once; its child goes on when nobody of that pid is left. Resolves when the child has ended. */
  const late = async (command: (parent: string) => string) => {
    const script = `(while [ -e /proc/$$ ]; do sleep 0.02; done; exec ${command('$$')}) & exit 0`;
    const parent = spawn('/bin/sh', ['-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    // Its output ends with the last process that holds it.
    await once(parent.stdout.resume(), 'close');
  };
  const quoted = (args: string[]) => args.map((arg) => `'${arg}'`).join(' ');

  test('runs nothing, where it would run without a look at its parent', async () => {
    const [made, control] = [join(folder, 'made'), join(folder, 'control')];
    await late((parent) => `${quoted(boundTo(0).slice(0, -1))} ${parent} /bin/touch ${made}`);
    await late(() => `${quoted(boundTo(0).slice(0, 3))} /bin/touch ${control}`);
    assert.ok(existsSync(control), 'the signal alone does not stop it');
    assert.ok(!existsSync(made));
  });

  test('runs where the parent lives', () => {
    const [command, ...args] = [...boundTo(process.pid), '/bin/echo', 'it runs'];
    assert.equal(execFileSync(command!, args, { encoding: 'utf8' }), 'it runs\n');
  });
});
