/** What `hauki fs` says, and with which exit code, where a file or a prefix that was named cannot be. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fsBench } from './support/fs-bench.ts';

describe('hauki fs, given what cannot be', { concurrency: true }, () => {
  const bench = fsBench();
  const { run, local } = bench;

  it('ends at once where a copy’s file cannot be created, and names that file', async () => {
    const here = local('refused');
    writeFileSync(join(here, 'file'), 'x');
    mkdirSync(join(here, 'folder', 'taken'), { recursive: true });
    const pointer = 'gem-pointer://data/refused/taken';
    await bench.mesh().meshfs.put(pointer, new Uint8Array(300_000));
    for (const [to, why] of [
      [join(here, 'none', 'x'), 'there is no such file or folder (ENOENT)'],
      [join(here, 'file', 'x'), 'one of its folders is a file (ENOTDIR)'],
      [join(here, 'folder'), 'it is a folder (EISDIR)'],
    ] as const) {
      const { code, err } = await run(['cp', pointer, to]);
      const named = to.endsWith('folder') ? join(to, 'taken') : to;
      assert.deepEqual([code, err], [2, `hauki: ${named}: ${why}\n`]);
    }
    assert.deepEqual(readdirSync(join(here, 'folder')), ['taken']);
  });

  it('never puts a copy in the place of a pipe or of a link that leads nowhere', {
    skip: process.platform === 'win32',
  }, async () => {
    const here = local('no-place');
    const pointer = 'gem-pointer://data/no/place';
    await bench.mesh().meshfs.put(pointer, 'new');
    execFileSync('mkfifo', [join(here, 'pipe')]);
    symlinkSync('nowhere', join(here, 'link'));
    for (const name of ['pipe', 'link']) {
      const { code, err } = await run(['cp', pointer, join(here, name)]);
      assert.equal(code, 2);
      assert.match(err, /it is neither a file nor a folder/);
    }
    assert.ok(lstatSync(join(here, 'pipe')).isFIFO());
    assert.deepEqual(readdirSync(here).sort(), ['link', 'pipe']);
  });

  it('leaves a file that it copies over to those who might read it, and a link in its place', {
    skip: process.platform === 'win32',
  }, async () => {
    const here = local('kept');
    const pointer = 'gem-pointer://data/kept/new';
    await bench.mesh().meshfs.put(pointer, 'new');
    const [secret, link] = [join(here, 'secret'), join(here, 'link')];
    writeFileSync(secret, 'old');
    chmodSync(secret, 0o640);
    symlinkSync('secret', link);
    assert.equal((await run(['cp', pointer, link])).code, 0);
    assert.ok(lstatSync(link).isSymbolicLink());
    assert.equal(readFileSync(secret, 'utf8'), 'new');
    assert.equal(statSync(secret).mode & 0o777, 0o640);
    chmodSync(secret, 0o600);
    assert.equal((await run(['cp', pointer, secret])).code, 0);
    assert.equal(statSync(secret).mode & 0o777, 0o600);
  });

  it('refuses to write what is no file, with the exit code of wrong input', async () => {
    const here = local('no-file');
    for (const [file, why] of [
      [join(here, 'none'), 'there is no such file or folder (ENOENT)'],
      [here, 'it is a folder (EISDIR)'],
    ] as const) {
      const { code, err } = await run(['write', 'gem-pointer://data/none', file]);
      assert.deepEqual([code, err], [2, `hauki: ${file}: ${why}\n`]);
    }
  });

  it('says of a prefix that it is none, before any right to it is asked for', async () => {
    for (const verb of ['ls', 'watch']) {
      const { code, err } = await run([verb, 'notapointer']);
      assert.equal(code, 2);
      assert.match(err, /notapointer.*does not begin with gem-pointer:\/\//);
    }
  });

  it('ends where home, or the folder to pull into, is one that takes no folders, as /proc', {
    skip: process.platform !== 'linux' && 'there is no /proc',
  }, async () => {
    const pulled = await run(['sync', '/proc/nowhere/here', 'gem-pointer://data/x', '--pull'], '', undefined, '/proc');
    assert.equal(pulled.code, 2, pulled.err);
    assert.match(pulled.err, /^hauki: \/proc\/nowhere\/here: .*\(ENOENT\)/);
  });
});
