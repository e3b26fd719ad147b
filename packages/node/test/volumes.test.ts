/** Volumes of a node by themselves: what a killed agent left stands in nobody's way. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { mountsOf, Volumes } from '../src/volumes.ts';

const no_root = process.getuid?.() === 0 ? false : 'volumes need root';

describe('the volumes of a node', { skip: no_root }, () => {
  it('are offered again where an agent was killed in the middle of its trial, and nothing of that stays mounted', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-volumes-'));
    const node = `trial${process.pid}`;
    const volumes = () => new Volumes({ node, data_dir, log: () => {} });
    const mounts = () =>
      readFileSync('/proc/self/mounts', 'utf8')
        .split('\n')
        .filter((line) => line.includes(mountsOf(data_dir)));
    try {
      assert.deepEqual(await volumes().probe(), { available: true });
      assert.deepEqual(mounts(), []);
      const [folder, at] = [join(data_dir, 'volumes'), `${mountsOf(data_dir)}-${node}.trial`];
      const image = join(folder, 'trial.img');
      mkdirSync(at);
      writeFileSync(image, '');
      execFileSync('truncate', ['-s', '4M', image]);
      execFileSync('mkfs.ext4', ['-q', '-F', image]);
      execFileSync('mount', ['-o', 'loop', image, at]);
      assert.equal(mounts().length, 1);
      const next = volumes();
      assert.deepEqual(await next.probe(), { available: true });
      await next.start();
      assert.deepEqual(mounts(), []);
      assert.ok(!existsSync(at));
    } finally {
      rmSync(data_dir, { recursive: true, force: true });
    }
  });
});

describe('the volumes of a node in a sandbox, where nothing can be mounted', () => {
  it('are folders, which last, are one worker’s, and are refused where they hold more than their quota', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-volumes-'));
    const open = async () => {
      const volumes = new Volumes({ node: 'plain', data_dir, plain: true, log: () => {} });
      assert.deepEqual(await volumes.probe(), { available: true });
      await volumes.start();
      return volumes;
    };
    try {
      const volumes = await open();
      const first = await volumes.acquire('ada', { name: 'home', quota_mib: 2 }, 'w1');
      writeFileSync(join(first.path, 'a.txt'), 'kept');
      await assert.rejects(volumes.acquire('ada', { name: 'home', quota_mib: 2 }, 'w2'), { name: 'VolumeInUse' });
      const other = await volumes.acquire('bob', { name: 'home', quota_mib: 2 }, 'w3');
      assert.notEqual(other.path, first.path);
      await Promise.all([first.release(), other.release()]);

      const again = await open();
      const second = await again.acquire('ada', { name: 'home', quota_mib: 4 }, 'w4');
      assert.equal(readFileSync(join(second.path, 'a.txt'), 'utf8'), 'kept');
      mkdirSync(join(second.path, 'deep'));
      writeFileSync(join(second.path, 'deep', 'b'), Buffer.alloc(5 * 1024 * 1024, 1));
      await second.release();
      const [info] = (await again.list()).filter(({ owner }) => owner === 'ada');
      assert.ok(info!.used_bytes >= 5 * 1024 * 1024, String(info!.used_bytes));
      await assert.rejects(again.acquire('ada', { name: 'home', quota_mib: 4 }, 'w5'), /it holds 6 MiB, more than 4/);
      assert.equal(await again.remove('ada', 'home'), true);
      assert.equal(existsSync(second.path), false);
      assert.deepEqual(
        (await again.list()).map(({ owner }) => owner),
        ['bob'],
      );
    } finally {
      rmSync(data_dir, { recursive: true, force: true });
    }
  });
});
