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
