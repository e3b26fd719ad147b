/** The readable files: repaired when they differ, and never a way out of their folder. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { openEmbedded } from '@hauki/backplane';
import { isError, StorageFailed } from '@hauki/protocol';
import { createMeshFs } from '../src/index.ts';
import { inPlace, listing } from './support.ts';

const failed = (thrown: unknown) => isError(thrown, StorageFailed);
const write = (path: string, content: string) => ({ pointer: `gem-pointer://wiki/${path}`, content });

describe('the wiki folder', { concurrency: true }, () => {
  test('opening sets right what is missing, different or half written, and leaves strangers alone', () =>
    inPlace(async ({ mesh, wiki, reopen }) => {
      for (const page of ['p/same', 'p/missing', 'p/changed', 'p/deep/gone']) await mesh.write(write(page, page));
      const right = await listing(wiki);
      await unlink(join(wiki, 'p/missing.md'));
      await writeFile(join(wiki, 'p/changed.md'), 'edited by hand');
      await rm(join(wiki, 'p/deep'), { recursive: true });
      await writeFile(join(wiki, 'p/.hauki-12-3.tmp'), 'hal');
      await writeFile(join(wiki, 'p/mine.txt'), 'a file of a person');
      await reopen();
      assert.deepEqual(await listing(wiki), { ...right, 'p/mine.txt': 'a file of a person' });
    }));

  test('a lost content is reported at opening and the rest repaired', () =>
    inPlace(async ({ mesh, wiki, root, reopen, reports }) => {
      const { digest } = await mesh.write(write('p/a', 'lost '.repeat(10_000))); // kept as a file, not as a row
      await mesh.write(write('p/b', 'kept'));
      await rm(join(root, 'data/objects', digest.slice(0, 2)), { recursive: true });
      await rm(join(wiki, 'p'), { recursive: true });
      await reopen();
      assert.deepEqual(await listing(wiki), { 'p/b.md': 'kept' });
      assert.match(reports.join(), /wiki\/p\/a could not be repaired: its content .* is gone/);
    }));

  test('a planted link to a folder is not followed: the write fails and says why', () =>
    inPlace(async ({ mesh, wiki, root, reopen, reports }) => {
      await mesh.write(write('p/sub/page', 'old'));
      const outside = join(root, 'area/outside');
      const before = await listing(outside);
      await rename(join(wiki, 'p/sub'), join(wiki, 'p/moved'));
      await symlink(outside, join(wiki, 'p/sub'));
      await symlink(outside, join(wiki, 'linked'));
      await symlink(join(root, 'area/nowhere'), join(wiki, 'dangling'));
      for (const page of ['p/sub/page', 'p/sub/secret', 'p/sub/new/page', 'linked/secret', 'dangling/page']) {
        await assert.rejects(mesh.write(write(page, 'new')), (thrown) => failed(thrown) && /link/.test(`${thrown}`));
      }
      assert.equal((await mesh.resolve('gem-pointer://wiki/p/sub/page')).content, 'old');
      await writeFile(join(outside, '.hauki-1-1.tmp'), 'not ours to sweep');
      await reopen();
      assert.match(reports.join(), /sub is a link/);
      assert.deepEqual(await listing(outside), { ...before, '.hauki-1-1.tmp': 'not ours to sweep' });
      assert.ok(!('nowhere' in (await listing(join(root, 'area')))));
    }));

  test('a planted link in the place of a file is replaced, not written or read through', () =>
    inPlace(async ({ mesh, wiki, root, reopen }) => {
      const secret = join(root, 'area/outside/secret.md');
      await mesh.write(write('p/page', 'first'));
      for (const step of ['write', 'reopen']) {
        await unlink(join(wiki, 'p/page.md'));
        await symlink(secret, join(wiki, 'p/page.md'));
        if (step === 'write') await mesh.write(write('p/page', 'second'));
        else await reopen();
        assert.deepEqual(await listing(wiki), { 'p/page.md': 'second' });
        assert.equal(await readFile(secret, 'utf8'), 'not of the wiki');
      }
    }));

  test('a link to the very same content, or a pipe, is no readable file and is replaced at opening', () =>
    inPlace(async ({ mesh, wiki, root, reopen }) => {
      await mesh.write(write('p/link', 'same'));
      await mesh.write(write('p/pipe', 'content'));
      await writeFile(join(root, 'area/outside/same.md'), 'same');
      await unlink(join(wiki, 'p/link.md'));
      await unlink(join(wiki, 'p/pipe.md'));
      await symlink(join(root, 'area/outside/same.md'), join(wiki, 'p/link.md'));
      await promisify(execFile)('mkfifo', [join(wiki, 'p/pipe.md')]);
      await reopen();
      assert.deepEqual(await listing(wiki), { 'p/link.md': 'same', 'p/pipe.md': 'content' });
    }));

  test('while a folder is swapped for a link again and again, nothing is ever written outside', () =>
    inPlace(async ({ mesh, wiki, root }) => {
      const outside = join(root, 'area/outside');
      const before = await listing(outside);
      await mkdir(join(wiki, 'p/sub'), { recursive: true });
      await symlink(outside, join(wiki, 'p/link'));
      // A tight loop, so that it strikes between one step of a write and the next.
      const shuffle = `const { renameSync: mv, rmSync } = require('node:fs');
        process.chdir(process.argv[1]);
        for (;;) try {
          rmSync('real', { recursive: true, force: true });
          mv('sub', 'real'); mv('link', 'sub'); mv('sub', 'link'); mv('real', 'sub');
        } catch {} // MeshFS made the folder anew in between`;
      const attacker = spawn(process.execPath, ['-e', shuffle, join(wiki, 'p')], { stdio: 'ignore' });
      const ended = once(attacker, 'exit');
      let written = 0;
      let refused = 0;
      for (let at = 0; at < 300; at++) {
        await mesh.write(write(`p/sub/page${at % 9}`, `${at}`)).then(
          () => written++,
          (thrown) => {
            assert.ok(failed(thrown), String(thrown));
            refused++;
          },
        );
      }
      attacker.kill('SIGKILL');
      await ended;
      assert.ok(refused > 0, 'the attack never struck');
      assert.ok(written > 0);
      assert.deepEqual(await listing(outside), before);
    }));

  test('what stands in the way of a file after the commit is reported; the write holds', () =>
    inPlace(async ({ mesh, wiki, reports }) => {
      await mkdir(join(wiki, 'p/page.md/x'), { recursive: true });
      await mesh.write(write('p/page', 'content'));
      assert.equal((await mesh.resolve('gem-pointer://wiki/p/page')).content, 'content');
      assert.match(reports.join(), /p\/page\.md is written, but not its file/);
    }));

  test('a wiki folder that cannot be one is refused at opening', () =>
    inPlace(async ({ backplane, root }) => {
      const wiki_folder = join(root, 'area/outside/secret.md');
      await assert.rejects(createMeshFs(backplane, { wiki_folder }), failed);
    }));

  test('a writer killed at any moment leaves whole files and every acknowledged version', async () => {
    const root = await mkdtemp(join(tmpdir(), 'hauki-meshfs-kill-'));
    try {
      for (const after_ms of [10, 60, 120]) {
        const script = fileURLToPath(new URL('./writer.ts', import.meta.url));
        const child = spawn(process.execPath, [script, root], { stdio: ['ignore', 'pipe', 'inherit'] });
        let out = '';
        child.stdout.setEncoding('utf8').on('data', (text: string) => {
          if (out === '') setTimeout(() => child.kill('SIGKILL'), after_ms);
          out += text;
        });
        await once(child, 'close');
        const told = out.split('\n').slice(0, -1).map((line) => line.split(' ')) as [string, string, string][]; // biome-ignore format: one thought
        assert.ok(told.length > 0);
        const backplane = await openEmbedded(join(root, 'data'));
        const mesh = await createMeshFs(backplane, { wiki_folder: join(root, 'wiki') });
        for (const [pointer, version, digest] of told) {
          assert.ok((await mesh.resolve(pointer)).version >= Number(version), `${pointer} went back`);
          assert.ok(await backplane.objects.get(digest), 'an acknowledged version is lost');
        }
        for (const [file, content] of Object.entries(await listing(join(root, 'wiki')))) {
          assert.equal((await mesh.resolve(`gem-pointer://wiki/${file}`)).content, content);
        }
        await backplane.close();
      }
    } finally {
      await rm(root, { recursive: true, force: true });
    }
  });

  test('on a full disk the old version stays, in the table and in the file', async (t) => {
    const root = await mkdtemp(join(tmpdir(), 'hauki-meshfs-full-'));
    try {
      const unshare = (script: string, ...rest: string[]) =>
        promisify(execFile)('unshare', ['-rm', 'sh', '-c', script, 'sh', root, ...rest]);
      const mount = 'mount -t tmpfs -o size=1m none "$1"';
      const can = await unshare(mount).then(
        () => true,
        () => false,
      );
      if (!can) return t.skip('this host lets nobody mount a small file system to fill');
      const script = fileURLToPath(new URL('./full-disk.ts', import.meta.url));
      const { stdout } = await unshare(
        `mkdir "$1/wiki" && mount -t tmpfs -o size=1m none "$1/wiki" && exec "$2" "$3" "$1"`,
        process.execPath,
        script,
      );
      assert.match(stdout, /refused after [1-9]\d*, old version stays/);
    } finally {
      await rm(root, { recursive: true, force: true });
    }
  });
});
