/** Volumes: private folders with a quota that outlast their workers, in every kind of vault, whatever is killed. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { copyFileSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, describe, it } from 'node:test';
import { startNode } from '@hauki/cli';
import {
  BadInput,
  connect,
  type ErrorClass,
  Forbidden,
  GrantMissing,
  isError,
  LIMITS,
  type Mesh,
  NoNodeFits,
  VolumeFailed,
  VolumeInUse,
  VolumeUnknown,
} from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { mountsOf } from '@hauki/node';
import {
  DRIVERS,
  type DriverName,
  missing,
  processes,
  restartCore,
  type TestMesh,
  traces,
  until,
  useMesh,
} from './support/mesh.ts';

const refused = (promise: PromiseLike<unknown>, kind: ErrorClass<any>, pattern: RegExp) =>
  assert.rejects(Promise.resolve(promise), (error: Error) => {
    assert.ok(isError(error, kind), `${error.name}: ${error.message}`);
    assert.match(error.message, pattern);
    return true;
  });

const SOURCE = `
  const { volume } = hauki;
  export const read = (path) => volume.read(path);
  export const bytes = async (path) => [...await volume.readBytes(path)];
  export const write = (path, content) => volume.write(path, content);
  export const odd = (path) => volume.write(path, { not: 'text' });
  export const wide = (path) => volume.write(path, new Uint16Array([0x6968]));
  export const put = (path, list) => volume.write(path, Uint8Array.from(list));
  export const list = (path) => volume.list(path);
  export const remove = (path) => volume.delete(path);
  export const again = async (text, times) => {
    await volume.write('again', text.repeat(times));
    const back = await volume.read('again');
    return [back.length, back.startsWith(text), back.endsWith(text)];
  };
  export const zeros = async (length) => {
    await volume.write('zeros', new Uint8Array(length));
    const back = await volume.readBytes('zeros');
    return [back.length, back.indexOf(1)];
  };
  export const fill = async (mib) => {
    const piece = 'x'.repeat(1024 * 1024);
    for (let n = 0; n < mib; n++) await volume.write('filler/' + n, piece);
  };`;
/** What Node vaults can do besides: files. */
const FILES = `${SOURCE}
  import fs from 'node:fs';
  import os from 'node:os';
  export const home = () => [os.homedir(), process.env.HOME, process.getuid(), fs.statSync('/root/.').uid];
  export const link = (to, path) => fs.symlinkSync(to, '/root/' + path);
  export const save = (path, text) => fs.writeFileSync('/root/' + path, text);
  export const load = (path) => fs.readFileSync('/root/' + path, 'utf8');
  export const many = () => { for (let n = 0; ; n++) fs.writeFileSync('/root/many' + n, ''); };
  export const code = (run, ...args) => { try { ({ save, many })[run](...args); } catch (error) { return error.code; } };
  export const tmp = () => fs.writeFileSync('/tmp/fine', 'fine');`;

interface Keeper {
  [method: string]: (...args: any[]) => any;
}

const volume_of = (volume: string | { name: string; quota_mib: number }) => ({ grants: { volume } });
const keeper = (used: { mesh: Mesh }, driver: DriverName, volume: Parameters<typeof volume_of>[0]) =>
  used.mesh.clone<Keeper>({ source: driver === 'quickjs' ? SOURCE : FILES }, { driver, ...volume_of(volume) });

const restartNode = async ({ local }: TestMesh) => {
  await local.nodes[0]!.kill();
  const data_dir = join(local.data_dir, 'node');
  const left = () => [...traces(basename(mountsOf(data_dir))), ...traces(join(data_dir, 'volumes'))];
  await until('its volumes are unmounted and their devices free, with nobody starting it', () => left().length === 0);
  local.nodes[0] = await startNode({
    core_url: local.url,
    data_dir,
    token_file: nodeTokenFile(local.data_dir),
  });
};

const no_root = process.getuid?.() === 0 ? false : 'volumes need root';

for (const driver of DRIVERS)
  describe(`a volume in a ${driver} vault`, { skip: missing(driver) || no_root }, () => {
    const used = useMesh({ nodes: [{}], below: 'my data: ä, \\ and "b"' });

    it('keeps what is written for the next worker that is granted it, and for no other', async () => {
      const one = keeper(used, driver, 'notes');
      await one.write!('a/b/greeting.txt', 'hello ✓');
      await one.put!('a/raw', [0, 255, 128]);
      assert.deepEqual(
        (await one.list!('a')).toSorted((x: { name: string }, y: { name: string }) => (x.name < y.name ? -1 : 1)),
        [
          { name: 'b', kind: 'folder', bytes: 0 },
          { name: 'raw', kind: 'file', bytes: 3 },
        ],
      );
      await used.mesh.destruct(one);
      const two = keeper(used, driver, 'notes');
      assert.equal(await two.read!('a/b/greeting.txt'), 'hello ✓');
      assert.deepEqual(await two.bytes!('a/raw'), [0, 255, 128]);
      const other = keeper(used, driver, 'other');
      assert.deepEqual(await other.list!(), []);
      await two.remove!('a/raw');
      await refused(two.read!('a/raw'), VolumeFailed, /nothing of that name/);
      await refused(two.remove!('a/b'), VolumeFailed, /not empty/);
      await refused(two.read!('a'), VolumeFailed, /no plain file/);
      await refused(two.list!('nowhere'), VolumeFailed, / nowhere: there is nothing/);
      await refused(two.odd!('a/odd'), BadInput, /text or bytes/);
      await two.wide!('a/wide');
      assert.equal(await two.read!('a/wide'), 'hi');
      for (const path of ['', '..', 'a/../../x', '/etc/passwd', 'a//b', './a', 'x'.repeat(300), 'a\0b'])
        await refused(two.read!(path), BadInput, /path/);
      await refused(two.write!('.hauki-0123456789ab.tmp', 'mine'), BadInput, /such names are .* swept away/);
      await two.write!('a/.hauki-0123456789ab.tmp', 'mine');
      await Promise.all([one, two, other].map((worker) => used.mesh.destruct(worker).catch(() => {})));
      const none = used.mesh.clone<Keeper>({ source: SOURCE }, { driver });
      await refused(none.write!('a', 'b'), GrantMissing, /volume/);
      await used.mesh.destruct(none);
    });

    it('has one living worker at a time; the next one waits for nothing once that is gone', async () => {
      const one = keeper(used, driver, 'single');
      await one.write!('who', 'one');
      const { worker } = await used.mesh.details(one);
      await refused(keeper(used, driver, 'single'), VolumeInUse, new RegExp(worker));
      const [listed] = (await used.mesh.volumes.list()).filter((v) => v.name === 'single');
      assert.deepEqual([listed!.worker, listed!.quota_mib, listed!.owner], [worker, 64, 'admin']);
      await refused(used.mesh.volumes.delete('single'), VolumeInUse, new RegExp(worker));
      for (let version = 0; version < 3; version++) {
        const ending = used.mesh.destruct(version === 0 ? one : (await used.mesh.registry()).workers[0]!.worker);
        await ending;
        assert.equal(await keeper(used, driver, 'single').read!('who'), 'one');
      }
      for (const w of (await used.mesh.registry()).workers) await used.mesh.destruct(w.worker);
      await used.mesh.volumes.delete('single');
      await refused(used.mesh.volumes.delete('single'), VolumeUnknown, /single/);
      assert.deepEqual(
        (await used.mesh.volumes.list()).filter((v) => v.name === 'single'),
        [],
      );
      const anew = keeper(used, driver, 'single');
      assert.deepEqual(await anew.list!(), []);
      await used.mesh.destruct(anew);
    });

    it('takes and gives back whatever file keeps to the limit in bytes, also where JSON would escape each of them', async () => {
      const most = LIMITS.volume_file_bytes;
      const source = driver === 'quickjs' ? SOURCE : FILES;
      const used_by = used.mesh.clone<Keeper>({ source }, { driver, memory_mib: 256, ...volume_of('escaped') });
      assert.deepEqual(await used_by.zeros!(most), [most, -1]);
      for (const text of ['\n', '"', '\0', 'ä"'])
        assert.deepEqual(
          await used_by.again!(text, Math.floor(most / Buffer.byteLength(text))),
          [Math.floor(most / Buffer.byteLength(text)) * text.length, true, true],
          JSON.stringify(text),
        );
      await used_by.put!('raw', [0, 0, 0, 255]);
      await assert.rejects(used_by.read!('raw'), /raw is not text: use readBytes/);
      await used_by.put!('nothing', [0, 0, 0, 0, 10]);
      assert.equal(await used_by.read!('nothing'), '\0\0\0\0\n');
      assert.deepEqual(await used_by.again!('\ufeff\0ä\ud83d\ude00', 3), [15, true, true]);
      await used.mesh.destruct(used_by);
    });

    it('holds its quota: a full one says so, everything else goes on, and a larger grant makes it grow', async () => {
      const small = { name: 'small', quota_mib: 8 };
      const full = keeper(used, driver, small);
      await full.write!('first', 'kept');
      await refused(full.fill!(64), VolumeFailed, /it is full/);
      if (driver !== 'quickjs') {
        assert.equal(await full.code!('save', 'more', 'x'.repeat(4 * 1024 * 1024)), 'ENOSPC');
        await full.tmp!();
      }
      assert.equal(await full.read!('first'), 'kept');
      const [listed] = (await used.mesh.volumes.list()).filter((v) => v.name === 'small');
      assert.ok(listed!.used_bytes! > 7e6 && listed!.used_bytes! <= 8 * 1024 * 1024, String(listed!.used_bytes));
      await used.mesh.destruct(full);
      const still = keeper(used, driver, small);
      assert.equal(await still.read!('first'), 'kept', 'a full one is still given to those with its grant');
      await used.mesh.destruct(still);
      await refused(keeper(used, driver, { name: 'small', quota_mib: 4 }), VolumeFailed, /more than 4/);
      const grown = keeper(used, driver, { name: 'small', quota_mib: 24 });
      const names = (await grown.list!()).map((entry: { name: string }) => entry.name);
      assert.ok(!names.includes('lost+found'), 'what its checker makes is not the worker’s');
      await grown.fill!(12);
      assert.equal(await grown.read!('first'), 'kept');
      await used.mesh.destruct(grown);
      if (driver !== 'quickjs') {
        const tiny = keeper(used, driver, { name: 'tiny', quota_mib: 1 });
        assert.equal(await tiny.code!('many'), 'ENOSPC', 'files are counted too');
        await used.mesh.destruct(tiny);
      }
    });

    if (driver === 'lxc')
      it('is the vault’s home and root’s own; links in it lead the host nowhere', async () => {
        const files = keeper(used, driver, 'home');
        assert.deepEqual(await files.home!(), ['/root', '/root', 0, 0]);
        await files.save!('by-file', 'one');
        await files.write!('by-effect', 'two');
        assert.deepEqual([await files.read!('by-file'), await files.load!('by-effect')], ['one', 'two']);
        await files.link!('/etc/passwd', 'passwd');
        await files.link!('/etc', 'etc');
        await files.link!('by-file', 'near');
        await used.mesh.destruct(files);
        // Another range of ids, or none at all: what is in it is the vault's root's.
        const effects = used.mesh.clone<Keeper>({ source: SOURCE }, { driver: 'quickjs', ...volume_of('home') });
        for (const path of ['passwd', 'near', 'etc/passwd', 'etc/hauki-was-here'])
          await refused(effects.read!(path), VolumeFailed, /link/);
        await refused(effects.write!('etc/hauki-was-here', 'x'), VolumeFailed, /link/);
        assert.equal(await effects.read!('by-file'), 'one');
        await effects.write!('passwd', 'a file in its place');
        assert.equal(await effects.read!('passwd'), 'a file in its place');
        await effects.remove!('etc');
        await used.mesh.destruct(effects);
        const again = keeper(used, driver, 'home');
        assert.deepEqual([await again.load!('by-file'), await again.load!('by-effect')], ['one', 'two']);
        await used.mesh.destruct(again);
      });

    if (driver === 'process')
      it('is the vault’s home and its own, whichever id the vault has', async () => {
        for (const round of ['one', 'two']) {
          const files = keeper(used, driver, 'home');
          assert.deepEqual((await files.home!()).slice(0, 3), ['/root', '/root', 0]);
          await files.save!(`by-file-${round}`, round);
          await files.write!(`by-effect-${round}`, round);
          for (const path of ['by-file-one', 'by-effect-one'])
            assert.deepEqual([await files.read!(path), await files.load!(path)], ['one', 'one']);
          await used.mesh.destruct(files);
        }
        if (missing('lxc')) return;
        const other = keeper(used, 'lxc', 'home');
        await other.save!('by-file-one', 'also here');
        assert.equal(await other.load!('by-file-two'), 'two');
        await used.mesh.destruct(other);
      });

    if (driver === 'process')
      it('is held by no other vault that was started while it was mounted', async () => {
        const one = keeper(used, driver, 'held-by-none');
        await one.write!('who', 'one');
        const other = used.mesh.clone<Keeper>({ source: SOURCE }, { driver });
        await other;
        const images = join(used.local.data_dir, 'node', 'volumes');
        const devices = () => traces(images).filter((trace) => trace.startsWith('/dev/'));
        assert.equal(devices().length, 1);
        await used.mesh.destruct(one);
        await until('its device is free', () => devices().length === 0);
        await used.mesh.destruct(other);
      });

    it('survives kill -9 of its vault, its agent, and the core', async () => {
      const name = `kept-${driver}`;
      const worker = `keeper-${driver}-${crypto.randomUUID().slice(0, 8)}`;
      await used.mesh.provision({ source: SOURCE }, { name: worker, driver, ...volume_of(name) });
      const visit = () => used.mesh.visit<Keeper>(worker);
      const epoch = (wanted: number) =>
        until(`epoch ${wanted} runs`, async () => {
          const { state, epoch } = await used.mesh.lasting.get(worker);
          return state === 'running' && epoch === wanted;
        });
      await visit().write!('diary', 'day one');
      let next = 2;
      if (driver !== 'quickjs') {
        const found = (await used.mesh.registry()).workers.find((w) => w.worker === worker)!;
        process.kill(found.pid, 'SIGKILL');
        await epoch(next++);
        assert.equal(await visit().read!('diary'), 'day one');
      }
      await restartCore(used.local);
      await until('it runs', async () => (await used.mesh.lasting.get(worker)).state === 'running');
      assert.equal(await visit().read!('diary'), 'day one');
      await refused(keeper(used, driver, name), VolumeInUse, new RegExp(worker));
      await restartNode(used);
      await epoch(next++);
      assert.equal(await visit().read!('diary'), 'day one');
      await used.mesh.lasting.delete(worker);
      // What is let go of is whole: nothing for the checker to do but what a mount does, since some stranger's vault that
      // is being started may have a copy of the mount.
      const folder = join(used.local.data_dir, 'node', 'volumes');
      const images = readdirSync(folder).filter((file) => file.endsWith('.img'));
      assert.ok(images.length >= 1);
      for (const image of images) {
        const copy = join(used.local.data_dir, `${driver}-${image}`);
        copyFileSync(join(folder, image), copy);
        spawnSync('e2fsck', ['-p', copy]);
        execFileSync('e2fsck', ['-n', '-f', copy], { stdio: 'pipe' });
      }
      assert.deepEqual(traces(basename(mountsOf(join(used.local.data_dir, 'node')))), []);
    });
  });

describe('volumes of several owners and nodes', { skip: no_root }, () => {
  const used = useMesh({
    nodes: [
      { drivers: ['quickjs'], name: 'node-1' },
      { drivers: ['quickjs'], name: 'node-2' },
    ],
  });
  const meshes: Mesh[] = [];
  after(() => Promise.all(meshes.map((mesh) => mesh.close())));
  const holder = async (name: string) => {
    const { token } = await used.mesh.tokens.create({ name, scopes: ['spawn'] });
    const mesh = await connect({ core: used.local.url, token });
    meshes.push(mesh);
    return { mesh };
  };

  it('are each owner’s own by name, also in lists', async () => {
    const [ann, bob] = [await holder('ann'), await holder('bob')];
    await keeper(ann, 'quickjs', 'data').write!('whose', 'ann');
    await keeper(bob, 'quickjs', 'data').write!('whose', 'bob');
    assert.equal((await ann.mesh.volumes.list()).length, 1);
    const all = (await used.mesh.volumes.list()).filter((v) => v.name === 'data');
    assert.equal(all.length, 2, 'the admin sees all');
    const [of_bob] = await bob.mesh.volumes.list();
    await refused(ann.mesh.volumes.delete('data', { owner: of_bob!.owner }), Forbidden, /not this token/);
    await refused(used.mesh.volumes.delete('data'), VolumeUnknown, /data/);
  });

  it('are had again at once, and lose nothing, while somebody else’s mount namespace has a copy of the mount', async () => {
    const one = keeper(used, 'quickjs', 'copied');
    await one.write!('who', 'one');
    const mounted = () => /\S*\/volumes\/mounted\/\S*/.exec(readFileSync('/proc/self/mountinfo', 'utf8'));
    const stranger = spawn('unshare', ['--mount', '--propagation=private', 'sleep', '120']);
    try {
      const table = () => readFileSync(`/proc/${stranger.pid}/mountinfo`, 'utf8');
      const copied = () => used.local.nodes.some(({ node }) => table().includes(`-${node}.`));
      assert.ok(mounted(), 'volumes are mounted where this test looks for them');
      await until('the stranger has its copy', () => processes('sleep 120').length > 0 && copied());
      for (const [before, after] of [
        ['one', 'two'],
        ['two', 'three'],
      ] as const) {
        await used.mesh.destruct((await used.mesh.volumes.list()).find((v) => v.name === 'copied')!.worker!);
        const next = keeper(used, 'quickjs', 'copied');
        assert.equal(await next.read!('who'), before);
        await next.write!('who', after);
      }
      assert.ok(copied(), 'it still has it');
    } finally {
      stranger.kill('SIGKILL');
    }
    const { worker } = (await used.mesh.volumes.list()).find((v) => v.name === 'copied')!;
    await used.mesh.destruct(worker!);
    const last = keeper(used, 'quickjs', 'copied');
    assert.equal(await last.read!('who'), 'three');
    await used.mesh.destruct(last);
  });

  it('draw their workers to where they are, and to nowhere else', async () => {
    const first = keeper(used, 'quickjs', 'anchor');
    await first.write!('x', 'y');
    const { node } = await used.mesh.details(first);
    await used.mesh.destruct(first);
    for (let n = 0; n < 6; n++) {
      const worker = keeper(used, 'quickjs', 'anchor');
      assert.equal(await worker.read!('x'), 'y');
      assert.equal((await used.mesh.details(worker)).node, node);
      await used.mesh.destruct(worker);
    }
    const at = used.local.nodes.findIndex((one) => one.node === node);
    await used.local.nodes[at]!.stop();
    await until('the node is away', async () => !(await used.mesh.registry()).nodes.some((n) => n.node === node));
    await refused(keeper(used, 'quickjs', 'anchor'), NoNodeFits, /has the volume anchor, is away/);
    const [listed] = (await used.mesh.volumes.list()).filter((v) => v.name === 'anchor');
    assert.deepEqual([listed!.node_away, listed!.used_bytes], [true, null]);
    await refused(used.mesh.volumes.delete('anchor'), NoNodeFits, /is away/);
    await used.mesh.volumes.delete('anchor', { forget: true });
    assert.deepEqual(await keeper(used, 'quickjs', 'anchor').list!(), []);
  });
});
