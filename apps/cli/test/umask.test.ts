/** Who may read and change what a mesh and a kernel keep, whatever the umask of whoever starts them. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { missing, until } from '../../../test/support/mesh.ts';
import { startKernel, startMesh } from '../src/local-mesh.ts';

const BIN = fileURLToPath(new URL('../bin/hauki.js', import.meta.url));
const OTHERS_WRITE = 0o002;

const modeOf = (path: string) => statSync(path).mode & 0o777;
const umaskOf = (pid: number) => /^Umask:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
const writable = (folder: string) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => {
    const stat = lstatSync(join(folder, name));
    return !stat.isSymbolicLink() && (stat.mode & OTHERS_WRITE) !== 0;
  });

describe('what lies on the disk', { skip: process.platform === 'win32' }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-umask-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  async function under<T>(umask: number, work: () => T | Promise<T>): Promise<T> {
    const before = process.umask(umask);
    try {
      return await work();
    } finally {
      process.umask(before);
    }
  }

  for (const umask of [0o000, 0o077]) {
    it(`is passed by vaults’ users and changed by nobody else, also where the umask is ${umask.toString(8).padStart(3, '0')}`, async () => {
      const data_dir = join(folder, `of-${umask}`, 'data');
      const kernel_dir = join(data_dir, 'kernel-77');
      await under(umask, async () => {
        await using mesh = await startMesh({ data_dir, nodes: [{ drivers: ['quickjs'] }] });
        const kernel = await startKernel({ data_dir: kernel_dir, id: '77', port: 0, drivers: ['quickjs'] });
        const pids = [mesh.core, ...mesh.nodes, kernel].map(({ child }) => child.pid!);
        if (process.platform === 'linux') assert.deepEqual(pids.map(umaskOf), ['0022', '0022', '0022']);
        await kernel.stop();
        assert.equal(process.umask(), umask);
      });
      assert.deepEqual(writable(folder), []);
    });
  }

  it('in a kernel’s wiki is its owner’s alone to read, as a token is needed for it, also where an earlier version made it', async () => {
    const data_dir = join(folder, 'kernel-78');
    const start = async () => (await startKernel({ data_dir, id: '78', port: 0, drivers: ['quickjs'] })).stop();
    await start();
    assert.equal(modeOf(join(data_dir, 'wiki')), 0o700);
    chmodSync(join(data_dir, 'wiki'), 0o755);
    await start();
    assert.equal(modeOf(join(data_dir, 'wiki')), 0o700);
  });

  it('as the ways of a swarm’s kernels to the core is theirs alone, whatever the umask', {
    skip: missing('lxc'),
  }, async () => {
    const data_dir = join(folder, 'swarm');
    await using mesh = await startMesh({ data_dir, nodes: [] });
    const args = [BIN, 'swarm', 'up', '--count', '1', '--core', mesh.url, '--data', data_dir];
    const child = await under(0, () => spawn(process.execPath, args, { stdio: 'ignore' }));
    const ended = once(child, 'exit');
    try {
      const path = join(data_dir, 'swarm', '1', 'net', 'outside');
      await until('it listens', () => existsSync(path) || child.exitCode !== null);
      for (const name of ['core', 'outside']) assert.equal(modeOf(join(path, '..', name)) & OTHERS_WRITE, 0, name);
    } finally {
      child.kill('SIGTERM');
      await ended;
    }
  });

  it('as compiled code of the command is changed by nobody else, whatever the umask', async () => {
    const HOME = join(folder, 'home');
    mkdirSync(HOME);
    const { XDG_CACHE_HOME: _, ...env } = process.env;
    await under(0, () => execFileSync(process.execPath, [BIN, '--version'], { env: { ...env, HOME } }));
    assert.ok(readdirSync(join(HOME, '.cache', 'hauki', 'compiled')).length > 0);
    assert.deepEqual(writable(HOME), []);
  });
});
