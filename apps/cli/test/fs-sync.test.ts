/** `hauki fs sync` where much happens at once, something fails, or something stands where files were. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { before, describe, it } from 'node:test';
import type { Mesh } from '@hauki/mesh';
import { until } from '../../../test/support/mesh.ts';
import { fsBench } from './support/fs-bench.ts';

describe('hauki fs sync', { concurrency: true }, () => {
  const bench = fsBench();
  const { start, run, json, local } = bench;
  let mesh: Mesh;
  before(() => {
    mesh = bench.mesh();
  });

  it('pulls folders with several files each into an empty folder, once and with --watch', async () => {
    const prefix = 'gem-pointer://wiki/several';
    const names = (folders: string[]) => folders.flatMap((one) => ['1', '2', '3', '4'].map((at) => `${one}/${at}.md`));
    const write = (paths: string[]) => Promise.all(paths.map((path) => mesh.meshfs.put(`${prefix}/${path}`, path)));
    const first = names(['deep', 'deep/er', 'other']);
    await write(first);
    const here = join(local('several'), 'new');
    const once_only = await run(['sync', here, prefix, '--pull', '--json']);
    assert.equal(once_only.code, 0, once_only.err);
    assert.deepEqual(JSON.parse(once_only.out).pulled.sort(), [...first].sort());
    for (const path of first) assert.equal(readFileSync(join(here, path), 'utf8'), path);

    const there = local('several-watched');
    const pulling = start(['sync', there, prefix, '--pull', '--watch', '--json']);
    const heard = createInterface(pulling.stdout!)[Symbol.asyncIterator]();
    assert.equal(JSON.parse((await heard.next()).value!).pulled.length, first.length);
    const later = names(['late', 'late/er']);
    await write(later);
    await until('the new folders are there', () => later.every((path) => existsSync(join(there, path))));
    pulling.kill('SIGINT');
    assert.equal((await once(pulling, 'exit'))[0], 0);
  });

  it('remembers and tells what was done when something else in the round failed', async () => {
    const prefix = 'gem-pointer://data/half';
    // Near the longest path that the system takes: the last of the pointers goes beyond it.
    const here = join(local('half'), ...Array(18).fill('x'.repeat(200)));
    mkdirSync(here, { recursive: true });
    const fine = ['a/1', 'a/2', 'b/1', 'b/2'];
    await Promise.all(fine.map((path) => mesh.meshfs.put(`${prefix}/${path}`, 'x'.repeat(500_000))));
    const long = `${prefix}/z/${Array(4).fill('y'.repeat(180)).join('/')}`;
    await mesh.meshfs.put(long, 'x');
    const failed = await run(['sync', here, prefix, '--pull', '--json']);
    assert.notEqual(failed.code, 0);
    assert.match(failed.err, /ENAMETOOLONG/);
    assert.deepEqual(JSON.parse(failed.out).pulled.sort(), fine);
    await mesh.meshfs.delete(long);
    const again = await json(['sync', here, prefix, '--pull']);
    assert.deepEqual([again.unchanged, again.pulled, again.conflicts], [4, [], []]);
    // The base, and not the contents being the same: what is deleted here was there, and is deleted in the mesh too.
    unlinkSync(join(here, 'a/1'));
    assert.deepEqual((await json(['sync', here, prefix])).deleted, ['a/1']);
  });

  it('tells which pointers a pull cannot write, where one lies below another or a folder has its name', async () => {
    const prefix = 'gem-pointer://data/nested';
    for (const path of ['a', 'a/b', 'a/b/c', 'd', 'e']) await mesh.meshfs.put(`${prefix}/${path}`, path);
    const here = local('nested');
    writeFileSync(join(here, 'd'), 'd');
    mkdirSync(join(here, 'e'));
    for (const flags of [['--dry-run'], [], [], ['--force']]) {
      if (flags.length === 0) await mesh.meshfs.put(`${prefix}/d/x`, 'x');
      const told = await json(['sync', here, prefix, '--pull', ...flags]);
      assert.deepEqual(told.refused, []);
      const of = (path: string) => told.conflicts.find((one: any) => one.path === path)?.why;
      assert.match(of('a'), /there is a\/b.* too/);
      assert.match(of('a/b'), /there is a\/b\/c too/);
      if (flags[0] === '--dry-run') continue;
      assert.match(of('d/x'), /d is a file here/);
      assert.match(of('e'), /a folder of that name is here/);
      assert.equal(readFileSync(join(here, 'a/b/c'), 'utf8'), 'a/b/c');
      assert.equal(readFileSync(join(here, 'd'), 'utf8'), 'd');
    }
  });

  it('deletes nothing in the mesh because a link stands in its place', async () => {
    const here = local('replaced');
    const prefix = 'gem-pointer://wiki/replaced';
    mkdirSync(join(here, 'deep'));
    for (const name of ['f.txt', 'deep/g.txt', 'plain.txt']) writeFileSync(join(here, name), name);
    assert.equal((await run(['sync', here, prefix])).code, 0);
    unlinkSync(join(here, 'f.txt'));
    symlinkSync('/etc/hostname', join(here, 'f.txt'));
    rmSync(join(here, 'deep'), { recursive: true });
    symlinkSync('/etc', join(here, 'deep'));
    unlinkSync(join(here, 'plain.txt'));
    for (const flags of [['--dry-run'], [], ['--force']]) {
      const told = await json(['sync', here, prefix, ...flags]);
      assert.deepEqual(told.deleted, flags[0] === '--force' ? [] : ['plain.txt']);
      assert.deepEqual(told.refused.map((one: any) => one.path).sort(), ['deep', 'deep/g.txt', 'f.txt']);
    }
    const kept = await mesh.meshfs.list(`${prefix}/`);
    assert.deepEqual(
      kept.map(({ pointer }) => pointer.slice(prefix.length + 1)),
      ['deep/g.txt', 'f.txt'],
    );
    // What comes back is what was synced: nothing was forgotten.
    unlinkSync(join(here, 'f.txt'));
    unlinkSync(join(here, 'deep'));
    assert.deepEqual((await json(['sync', here, prefix, '--pull', '--force'])).pulled.sort(), ['deep/g.txt', 'f.txt']);
  });
});
