/** Effects on a volume, performed in a folder: what they do, what they refuse, and that nothing leads out of it. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { BadInput, GrantMissing, LIMITS, normaliseGrants, TooLarge, VolumeFailed } from '@hauki/protocol';
import { createEffects } from '../src/effects/effects.ts';
import { TEMPORARIES } from '../src/effects/limits.ts';
import { createNetwork } from '../src/effects/network.ts';
import { sweepVolume } from '../src/effects/volume.ts';
import type { Outside } from '../src/guest/guest.ts';
import { createVolume } from '../src/guest/volume.ts';
import { refuses } from './outward-support.ts';

describe('a guest’s volume', { skip: process.platform !== 'linux' }, () => {
  let home: string;
  let root: string;
  const effects = () =>
    createEffects({
      owner: 'test',
      grants: normaliseGrants({ volume: { name: 'mine' } }),
      volume: root,
      network: createNetwork(),
      meshfs: { resolve: () => assert.fail(), write: () => assert.fail() },
      log: () => {},
    });
  const perform = (name: string, ...args: unknown[]): Promise<any> => effects().perform(`volume.${name}`, args);
  const write = (path: unknown, text = 'text') => perform('write', path, { text });
  const within = (path: string) => join(root, path);

  before(() => {
    home = mkdtempSync(join(tmpdir(), 'hauki-volume-'));
    root = join(home, 'root');
    mkdirSync(root);
    writeFileSync(join(home, 'secret'), 'not yours');
    mkdirSync(join(home, 'outside'));
  });
  after(() => {
    const left = readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)].filter((path) => path.startsWith(home));
      } catch {
        return [];
      }
    });
    assert.deepEqual(left, [], 'all that was opened is closed');
    rmSync(home, { recursive: true });
  });

  it('takes files and gives them back, lists them, and lets them go', async () => {
    await write('a/b/c.txt', 'one');
    await perform('write', 'a/bytes', { base64: Buffer.from([255, 0]).toString('base64') });
    assert.deepEqual(await perform('read', 'a/b/c.txt'), { text: 'one' });
    assert.deepEqual(await perform('read', 'a/bytes'), { base64: '/wA=' });
    const entries = [...(await perform('list', 'a'))].sort((one, other) => (one.name < other.name ? -1 : 1));
    assert.deepEqual(
      entries.map(({ name, kind }) => [name, kind]),
      [
        ['b', 'folder'],
        ['bytes', 'file'],
      ],
    );
    assert.equal(entries[1]!.bytes, 2);
    assert.deepEqual(
      (await perform('list')).map(({ name }: { name: string }) => name),
      ['a'],
    );
    await refuses(perform('delete', 'a'), VolumeFailed, /not empty/);
    for (const path of ['a/b/c.txt', 'a/b', 'a/bytes', 'a']) await perform('delete', path);
    assert.deepEqual(readdirSync(root), []);
    for (const path of ['none', 'none/deep'])
      await refuses(perform('read', path), VolumeFailed, /nothing of that name/);
    assert.deepEqual(readdirSync(root), [], 'who reads makes no folders');
  });

  it('is for whoever was granted one, as long as the grant lasts', async () => {
    const { perform, regrant } = effects();
    await perform('volume.write', ['mine', { text: 'x' }]);
    regrant(normaliseGrants());
    await refuses(perform('volume.read', ['mine']), GrantMissing);
    await refuses(perform('volume.list', ['']), GrantMissing, /more: volume \/\. Of/);
    rmSync(within('mine'));
  });

  it('has no path that leads out of it, or is none', async () => {
    const deep = Array(33).fill('a').join('/');
    const long = 'ä'.repeat(128);
    const bad = ['..', '../secret', 'a/../../secret', '/etc/passwd', '.', 'a//b', 'a/', 'a\0b', '\ud800', deep, long];
    for (const path of [...bad, 'a/'.repeat(600), 5, null, ''])
      for (const name of ['read', 'write', 'delete']) await refuses(perform(name, path, { text: '' }), BadInput);
    for (const path of [...bad, 5, null]) await refuses(perform('list', path), BadInput);
    for (const content of [undefined, null, 5, {}, { text: 5 }])
      await refuses(perform('write', 'x', content), BadInput, /must be text or bytes/);
    assert.deepEqual(readdirSync(root), []);
  });

  it('follows no link, whoever planted it', async () => {
    symlinkSync(join(home, 'secret'), within('file'));
    symlinkSync(join(home, 'outside'), within('folder'));
    await refuses(perform('read', 'file'), VolumeFailed, /a link is not followed/);
    for (const path of ['folder', 'folder/deeper'])
      await refuses(perform('list', path), VolumeFailed, /a link|no folder/);
    for (const name of ['read', 'write', 'delete'])
      await refuses(perform(name, 'folder/x', { text: '' }), VolumeFailed, /a link/);
    const kinds = (await perform('list')).map(({ kind, bytes }: { kind: string; bytes: number }) => [kind, bytes]);
    assert.deepEqual(kinds, Array(2).fill(['other', 0]));
    // What is written takes the link's place, and what is deleted is the link.
    await write('file', 'mine');
    await perform('delete', 'folder');
    assert.deepEqual([readFileSync(within('file'), 'utf8'), existsSync(within('folder'))], ['mine', false]);
    assert.deepEqual([readFileSync(join(home, 'secret'), 'utf8'), readdirSync(join(home, 'outside'))], ['not yours', []]); // biome-ignore format: one thought
    assert.ok(lstatSync(within('file')).isFile());
    rmSync(within('file'));
  });

  it('has plain files alone: a pipe holds nobody up', async () => {
    execFileSync('mkfifo', [within('pipe')]);
    mkdirSync(within('folder'));
    for (const path of ['pipe', 'folder']) await refuses(perform('read', path), VolumeFailed, /no plain file/);
    assert.equal((await perform('list')).find(({ name }: { name: string }) => name === 'pipe').kind, 'other');
    await perform('delete', 'pipe');
    await perform('delete', 'folder');
  });

  it('takes and gives files up to their bound', async () => {
    const limit = LIMITS.volume_file_bytes;
    await refuses(perform('write', 'large', { text: 'x'.repeat(limit + 1) }), TooLarge);
    writeFileSync(within('large'), 'x'.repeat(limit + 1));
    await refuses(perform('read', 'large'), TooLarge);
    truncateSync(within('large'), limit);
    assert.equal((await perform('read', 'large')).text.length, limit);
    await perform('delete', 'large');
  });

  it('lists folders up to their bound, and says of a larger one that it has too many entries', async () => {
    mkdirSync(within('links'));
    writeFileSync(within('links/0'), 'text');
    for (let i = 1; i < LIMITS.volume_entries; i++) linkSync(within('links/0'), within(`links/${i}`));
    assert.equal((await perform('list', 'links')).length, LIMITS.volume_entries);
    linkSync(within('links/0'), within('links/more'));
    await refuses(perform('list', 'links'), VolumeFailed, /: links: the folder has more than 10000 entries/);
    rmSync(within('links'), { recursive: true });
  });

  it('names the file that is too large, and its bound, also where it fits into no message', async () => {
    const { write } = createVolume({
      effect: async () => {
        throw new TooLarge({ what: 'A message', limit_bytes: LIMITS.message_bytes });
      },
    } as unknown as Outside);
    await refuses(write('film', new Uint8Array(3)), TooLarge, /^film is too large: more than 5242880 bytes/);
  });

  it('has a file whole or as it was, and nothing of one that came to nothing', async () => {
    await write('file', 'before');
    linkSync(within('file'), join(home, 'same'));
    await write('file', 'after');
    assert.equal(readFileSync(join(home, 'same'), 'utf8'), 'before', 'it is another file that took its place');
    mkdirSync(within('folder/deep'), { recursive: true });
    await refuses(write('folder'), VolumeFailed);
    await refuses(write('.hauki-0123456789ab.tmp'), BadInput, /swept away/);
    assert.deepEqual(readdirSync(root).sort(), ['file', 'folder']);
    rmSync(within('folder'), { recursive: true });
    rmSync(within('file'));
  });

  it('is swept of what was being written by as many names as there are, whatever else a guest called so', async () => {
    const temporary = (place: number) => `.hauki-${place.toString(16).padStart(12, '0')}.tmp`;
    const own = temporary(TEMPORARIES);
    for (let place = 1; place <= TEMPORARIES; place++) writeFileSync(within(temporary(place)), 'half');
    await write('file', 'beside them');
    writeFileSync(within(temporary(0)), 'half');
    await refuses(write('file', 'no more'), VolumeFailed, /: file: 256 files named \.hauki-….tmp are there/);
    await sweepVolume(root);
    assert.deepEqual(readdirSync(root).sort(), [own, 'file'], 'what it made itself is not looked for');
    await write('file', 'after');
    for (const name of [own, 'file']) rmSync(within(name));
  });
});
