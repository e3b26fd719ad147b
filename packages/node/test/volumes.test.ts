/** Volumes of a node by themselves: what a killed agent left stands in nobody's way. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { describe, it } from 'node:test';
import { killedAt } from '../../../test/support/last-moment.ts';
import { lives, processes, traces, until } from '../../../test/support/mesh.ts';
import { volumeEffects } from '../../vault/src/effects/volume.ts';
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

describe('a volume of a node that is full', { skip: no_root }, () => {
  it('holds its quota at most, and is given again with the same grant, with a larger one, and refused to a smaller one', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-volumes-'));
    const volumes = new Volumes({ node: `full${process.pid}`, data_dir, log: () => {} });
    const acquire = (quota_mib: number) => volumes.acquire('ada', { name: 'home', quota_mib }, 'worker');
    const MIB = 1024 * 1024;
    /** How many bytes it says that it holds when no more fit. */
    const filled = async (quota_mib: number) => {
      const { path, release } = await acquire(quota_mib);
      const fill = () => {
        for (;;) appendFileSync(join(path, `full${quota_mib}`), Buffer.alloc(MIB / 32, 1));
      };
      assert.throws(fill, { code: 'ENOSPC' });
      await release();
      return (await volumes.list())[0]!.used_bytes;
    };
    try {
      await volumes.probe();
      await volumes.start();
      for (const quota_mib of [1, 7, 8, 16]) {
        const used_bytes = await filled(quota_mib);
        const told = `${used_bytes} bytes of ${quota_mib} MiB`;
        assert.ok(used_bytes > 0.9 * quota_mib * MIB && used_bytes <= quota_mib * MIB, told);
        assert.ok((await filled(quota_mib)) <= quota_mib * MIB, 'it was full from the beginning');
      }
      await assert.rejects(acquire(8), /it holds 16 MiB, more than 8/);
      // One whose file system is larger than its quota.
      const [file] = readdirSync(join(data_dir, 'volumes')).filter((name) => name.endsWith('.img'));
      const image = join(data_dir, 'volumes', file!);
      execFileSync('truncate', ['-s', '+4M', image]);
      // It says 1 where it has made `lost+found` again.
      spawnSync('e2fsck', ['-f', '-p', image]);
      execFileSync('resize2fs', [image], { stdio: 'ignore' });
      assert.ok((await filled(16)) > 18 * MIB);
      await (await acquire(16)).release();
    } finally {
      await volumes.close();
      rmSync(data_dir, { recursive: true, force: true });
    }
  });
});

describe('a copy of a node’s volume', { skip: no_root }, () => {
  const MIB = 1024 * 1024;
  const of = (quota_mib: number) => ({ name: 'home', quota_mib });
  const made = async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-volumes-'));
    const volumes = new Volumes({ node: `copy${process.pid}`, data_dir, log: () => {} });
    await volumes.probe();
    await volumes.start();
    const close = async () => {
      await volumes.close();
      rmSync(data_dir, { recursive: true, force: true });
    };
    return { data_dir, volumes, [Symbol.asyncDispose]: close };
  };

  it('holds what the volume held when it was made, is another’s alone, grows as any, and goes with its worker', async () => {
    await using made_here = await made();
    const { volumes, data_dir } = made_here;
    const own = await volumes.acquire('ada', of(8), 'one');
    mkdirSync(join(own.path, 'folder'));
    for (let i = 0; i < 100; i++) writeFileSync(join(own.path, 'folder', `${i}`), `${i}`.repeat(2_000));
    assert.equal(await volumes.copy('ada', 'home', 'ada/trial'), true);
    writeFileSync(join(own.path, 'later'), '');
    const copy = await volumes.acquire('ada/trial', of(32), 'two');
    assert.deepEqual(readdirSync(copy.path), ['folder']);
    for (let i = 0; i < 100; i++)
      assert.equal(readFileSync(join(copy.path, 'folder', `${i}`), 'utf8'), `${i}`.repeat(2_000));
    writeFileSync(join(copy.path, 'large'), Buffer.alloc(16 * MIB));
    assert.deepEqual(readdirSync(own.path).sort(), ['folder', 'later']);
    await own.release();
    await copy.release();
    assert.deepEqual(
      (await volumes.list()).map(({ owner, quota_mib }) => [owner, quota_mib]),
      [['ada', 8]],
    );
    const files = readdirSync(join(data_dir, 'volumes'));
    assert.deepEqual(files.map((name) => name.split('.')[1]).sort(), ['img', 'json']);
  });

  it('is whole, and of each file has what was written or less, where it was made in the middle of writing', async () => {
    await using made_here = await made();
    const { volumes } = made_here;
    const own = await volumes.acquire('ada', of(16), 'one');
    const writer = spawn('bash', [
      '-c',
      `cd "${own.path}"; while :; do for i in {0..50}; do echo $RANDOM > f$i; mkdir -p d$i; mv f$i d$i; done; rm -r d*; done`,
    ]);
    try {
      await until('it writes', async () => readdirSync(own.path).length > 1);
      for (let n = 0; n < 5; n++) {
        assert.equal(await volumes.copy('ada', 'home', 'ada/trial'), true);
        const copy = await volumes.acquire('ada/trial', of(16), 'two');
        for (const file of readdirSync(copy.path, { recursive: true, withFileTypes: true }))
          if (file.isFile()) assert.match(readFileSync(join(file.parentPath, file.name), 'utf8'), /^[\d\n\0]*$/);
        writeFileSync(join(copy.path, 'mine'), 'x'.repeat(MIB));
        await copy.release();
      }
    } finally {
      writer.kill('SIGKILL');
      await once(writer, 'close');
      await own.release();
    }
    assert.equal((await volumes.list()).length, 1);
  });

  it('is empty of a volume that there is none of, is not made of a very large one, and is nobody’s after a crash', async () => {
    await using made_here = await made();
    const { volumes, data_dir } = made_here;
    const folder = join(data_dir, 'volumes');
    assert.equal(await volumes.copy('ada', 'home', 'ada/trial'), true);
    const empty = await volumes.acquire('ada/trial', of(4), 'one');
    assert.deepEqual(readdirSync(empty.path), []);
    await empty.release();
    assert.deepEqual([await volumes.list(), readdirSync(folder)], [[], []]);
    const large = await volumes.acquire('ada', of(1_100), 'one');
    execFileSync('fallocate', ['-l', '1030M', join(large.path, 'large')]);
    assert.equal(await volumes.copy('ada', 'home', 'ada/trial'), false);
    rmSync(join(large.path, 'large'));
    assert.equal(await volumes.copy('ada', 'home', 'ada/trial'), true);
    await large.release();
    assert.equal(readdirSync(folder).length, 3);
    const next = new Volumes({ node: `next${process.pid}`, data_dir, log: () => {} });
    await next.probe();
    await next.start();
    assert.equal(readdirSync(folder).length, 2);
    await next.close();
    assert.equal(await volumes.remove('ada/trial', 'home'), true);
  });
});

describe('a volume of a node whose data folder has any name', { skip: no_root }, () => {
  it('is made, given again and grown, whatever tools of file systems read into that name', async () => {
    const above = mkdtempSync(join(tmpdir(), 'hauki-volumes-'));
    const volumes = new Volumes({
      node: `named${process.pid}`,
      data_dir: join(above, 'a b%41#?offset=4,c:"d\'\\e\nü'),
      log: () => {},
    });
    try {
      assert.deepEqual(await volumes.probe(), { available: true });
      await volumes.start();
      for (const [quota_mib, kept] of [
        [4, '.'],
        [4, '..'],
        [8, '...'],
      ] as const) {
        const { path, release } = await volumes.acquire('ada', { name: 'home', quota_mib }, 'worker');
        appendFileSync(join(path, 'kept'), '.');
        assert.equal(readFileSync(join(path, 'kept'), 'utf8'), kept);
        await release();
      }
    } finally {
      await volumes.close();
      rmSync(above, { recursive: true, force: true });
    }
  });
});

describe('what a vault writes to its volume', { skip: no_root }, () => {
  it('is on the disk when it is answered, name and folders too: a power cut loses none of it', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-volumes-'));
    const volumes = new Volumes({ node: `cut${process.pid}`, data_dir, log: () => {} });
    try {
      await volumes.probe();
      await volumes.start();
      const held = await volumes.acquire('ada', { name: 'home', quota_mib: 8 }, 'worker');
      const vault = { volume: held.path, grants: { volume: { name: 'home', quota_mib: 8 } } };
      const effects = volumeEffects(vault as Parameters<typeof volumeEffects>[0]);
      await effects['volume.write']!(['a/b/fresh', { text: 'kept' }], undefined as never);
      const image = readdirSync(join(data_dir, 'volumes')).find((name) => name.endsWith('.img'))!;
      const copy = join(data_dir, 'copy');
      execFileSync('cp', ['--sparse=always', join(data_dir, 'volumes', image), copy]);
      spawnSync('e2fsck', ['-p', copy]);
      assert.equal(execFileSync('debugfs', ['-R', 'cat a/b/fresh', copy], { encoding: 'utf8', stdio: 'pipe' }), 'kept');
      await held.release();
    } finally {
      await volumes.close();
      rmSync(data_dir, { recursive: true, force: true });
    }
  });
});

/** A process over the data folder that kills itself; `acquire(name)` mounts a volume. */
const killed = (data_dir: string, node: string, program: string) =>
  killedAt(
    data_dir,
    {
      '{ Volumes }': import.meta.resolve('../src/volumes.ts'),
      '{ makeImage }': import.meta.resolve('../src/mounts.ts'),
      '{ volumeEffects }': import.meta.resolve('../../vault/src/effects/volume.ts'),
    },
    `const open = (plain = false) =>
       new Volumes({ node: ${JSON.stringify(node)}, data_dir: ${JSON.stringify(data_dir)}, plain, log() {} });
     const acquire = async (name, plain) => {
       const volumes = open(plain);
       await volumes.probe();
       await volumes.start();
       return { volumes, held: await volumes.acquire('ada', { name, quota_mib: 8 }, 'worker') };
     };
     ${program}`,
  );

describe('an agent that is killed and never starts again', { skip: no_root }, () => {
  const node = `unmount${process.pid}`;
  /** Mounts, mount points and loop devices. */
  const left = (data_dir: string) => [...traces(basename(mountsOf(data_dir))), ...traces(join(data_dir, 'volumes'))];

  it('leaves no volume mounted and no loop device, loses nothing that was synced, and others keep theirs', async () => {
    const [data_dir, another] = ['a', 'b'].map(() => mkdtempSync(join(tmpdir(), 'hauki-volumes-'))) as [string, string];
    const open = async (data_dir: string) => {
      const volumes = new Volumes({ node, data_dir, log: () => {} });
      await volumes.probe();
      await volumes.start();
      return volumes;
    };
    const living = await open(another);
    try {
      const kept = await living.acquire('ada', { name: 'home', quota_mib: 8 }, 'worker');
      await killed(
        data_dir,
        node,
        `const { held } = await acquire('home');
         fs.writeFileSync(held.path + '/synced', 'kept', { flush: true });
         die();`,
      );
      await until('nothing of it is mounted, with nobody starting', () => left(data_dir).length === 0);
      writeFileSync(join(kept.path, 'mine'), 'still mounted');
      assert.ok(left(another).length > 0);
      await kept.release();
      const next = await open(data_dir);
      const again = await next.acquire('ada', { name: 'home', quota_mib: 8 }, 'worker');
      assert.equal(readFileSync(join(again.path, 'synced'), 'utf8'), 'kept');
      await again.release();
      await next.close();
      assert.deepEqual(left(data_dir), []);
    } finally {
      await living.close();
      for (const dir of [data_dir, another]) rmSync(dir, { recursive: true, force: true });
    }
  });

  it('leaves nothing of the trial that it was killed in', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-volumes-'));
    try {
      await killed(
        data_dir,
        node,
        `const mounted = () => fs.readFileSync('/proc/self/mounts', 'utf8').includes(${JSON.stringify(mountsOf(data_dir))});
         setInterval(() => mounted() && die(), 1);
         for (;;) await open().probe();`,
      );
      await until('nothing of it is mounted, with nobody starting', () => left(data_dir).length === 0);
    } finally {
      rmSync(data_dir, { recursive: true, force: true });
    }
  });

  it('leaves no tool at work on an image, beside which the next agent’s would write', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-volumes-'));
    const image = join(data_dir, 'large.img');
    try {
      // The tool is caught at work, and stands still: by itself it would not end.
      await killed(
        data_dir,
        node,
        `const children = () => fs.readFileSync('/proc/self/task/' + process.pid + '/children', 'utf8').trim().split(' ');
         const name = (pid) => { try { return fs.readFileSync('/proc/' + pid + '/comm', 'utf8').trim(); } catch {} };
         for (;;) {
           const made = makeImage(${JSON.stringify(image)}, 2_048).catch(() => {});
           let over = false;
           void made.then(() => { over = true; });
           while (!over) {
             const tool = children().find((pid) => name(pid) === 'mkfs.ext4');
             if (tool) {
               process.kill(Number(tool), 'SIGSTOP');
               if (name(tool)) die();
             }
             await new Promise(setImmediate);
           }
         }`,
      );
      const at_work = () => processes(image).filter(({ pid }) => lives(pid));
      await until('no tool has the image', () => at_work().length === 0);
    } finally {
      for (const { pid } of processes(image)) process.kill(pid, 'SIGKILL');
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

  for (const [what, program] of [
    [
      'making it',
      `dieAt('rename', (from) => from.endsWith('.json.making'));
       await acquire('home', true);`,
    ],
    [
      'writing to it',
      `const { held } = await acquire('home', true);
       dieAt('rename', (from) => from.startsWith('/proc/self/fd/'));
       await volumeEffects({ volume: held.path, grants: { volume: {} } })['volume.write'](['a/b', { text: 'half' }]);`,
    ],
    [
      'deleting it',
      `const { volumes, held } = await acquire('home', true);
       fs.writeFileSync(held.path + '/old', 'old');
       await held.release();
       dieAt('rm', (path) => path.endsWith('.d'));
       await volumes.remove('ada', 'home');`,
    ],
  ] as const)
    it(`hold nothing half done where the agent was killed ${what}`, async () => {
      const data_dir = mkdtempSync(join(tmpdir(), 'hauki-volumes-'));
      const folder = join(data_dir, 'volumes');
      try {
        await killed(data_dir, 'plain', program);
        assert.notDeepEqual(readdirSync(folder), []);
        const volumes = new Volumes({ node: 'plain', data_dir, plain: true, log: () => {} });
        await volumes.probe();
        await volumes.start();
        if (what !== 'writing to it') assert.deepEqual(readdirSync(folder), []);
        const { path } = await volumes.acquire('ada', { name: 'home', quota_mib: 8 }, 'worker');
        const files = readdirSync(path, { recursive: true });
        assert.deepEqual(files, what === 'writing to it' ? ['a'] : []);
      } finally {
        rmSync(data_dir, { recursive: true, force: true });
      }
    });
});

describe('the room for volumes', () => {
  it('is nobody’s alone: an owner, with all tokens below it, leaves as much as it has, but for the admin', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-volumes-'));
    const volumes = new Volumes({ node: 'n', data_dir, plain: true, log: () => {} });
    const { bavail, bsize } = statfsSync(data_dir);
    const share = (part: number) => Math.floor((bavail * bsize * part) / 1024 / 1024);
    const take = async (owner: string, name: string, part: number) =>
      (await volumes.acquire(owner, { name, quota_mib: share(part) }, 'worker')).release();
    try {
      await volumes.probe();
      await volumes.start();
      await assert.rejects(take('ada', 'most', 0.6), /one owner’s volumes, who leaves as much to others/);
      await take('ada', 'home', 0.3);
      await take('ada', 'home', 0.3);
      await assert.rejects(take('ada/below', 'more', 0.3), { name: 'Overloaded' });
      await take('bob', 'home', 0.2);
      await take('admin', 'home', 0.3);
      await assert.rejects(take('admin', 'more', 0.3), /on disk for this node’s volumes/);
    } finally {
      await volumes.close();
      rmSync(data_dir, { recursive: true, force: true });
    }
  });
});

describe('a volume whose note is damaged', () => {
  it('is kept, told of, given to nobody, and stands in no other’s way, until its note is mended or it is deleted', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-volumes-'));
    const told: string[] = [];
    const open = async () => {
      const log = (line: string, fields: object = {}) => told.push(`${line} ${JSON.stringify(fields)}`);
      const volumes = new Volumes({ node: 'n', data_dir, plain: true, log });
      await volumes.probe();
      await volumes.start();
      return volumes;
    };
    const acquire = (volumes: Volumes, name: string) => volumes.acquire('ada', { name, quota_mib: 8 }, 'worker');
    const folder = join(data_dir, 'volumes');
    const notes = () => readdirSync(folder).filter((file) => file.endsWith('.json'));
    try {
      const first = await open();
      const held = await acquire(first, 'home');
      writeFileSync(join(held.path, 'file'), 'kept');
      await held.release();
      const note = join(folder, notes()[0]!);
      await (await acquire(first, 'other')).release();
      const whole = readFileSync(note, 'utf8');
      for (const damaged of ['', whole.slice(0, 20), 'null', '{}', whole.replace('ada', 'eve')]) {
        writeFileSync(note, damaged);
        told.length = 0;
        const volumes = await open();
        assert.match(told.join('\n'), /^a volume’s note is damaged.*start the node again.*\.json/);
        assert.ok(told[0]!.includes(note));
        assert.equal(readFileSync(join(held.path, 'file'), 'utf8'), 'kept');
        await assert.rejects(acquire(volumes, 'home'), /its note is damaged/);
        await (await acquire(volumes, 'other')).release();
      }
      writeFileSync(note, whole);
      const again = await acquire(await open(), 'home');
      assert.equal(readFileSync(join(again.path, 'file'), 'utf8'), 'kept');
      await again.release();
      writeFileSync(note, '');
      const last = await open();
      assert.equal(await last.remove('ada', 'home'), true);
      assert.ok(!existsSync(held.path) && !existsSync(note));
      await (await acquire(last, 'home')).release();
    } finally {
      rmSync(data_dir, { recursive: true, force: true });
    }
  });
});
