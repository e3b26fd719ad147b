/**
 * Limits, freezer and use on each generation of cgroups, on layouts as machines have them: all v1, hybrid, all v2. The
 * machine that runs this has one of them; folders and words of the others are recorded here, in a temporary folder.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { Cgroups } from '../src/drivers/lxc/cgroups.ts';
import { renderConfig } from '../src/drivers/lxc/config.ts';
import type { Layout } from '../src/drivers/lxc/hierarchies.ts';

const root = mkdtempSync(join(tmpdir(), 'hauki-cgroups-'));
after(() => rmSync(root, { recursive: true, force: true }));
const NAME = 'hauki.n.v';
const BYTES = String(128 * 1024 * 1024);

// What is overwritten is no longer than what is written: a file keeps its tail, the kernel's files do not.
const V1 = ['cpu,cpuacct', 'memory', 'pids', 'freezer', 'devices'];
const V1_FILES: Record<string, Record<string, string>> = {
  'cpu,cpuacct': { 'cpu.cfs_period_us': '100000', 'cpu.cfs_quota_us': '-1', 'cpuacct.usage': '1234567890' },
  memory: {
    'memory.limit_in_bytes': '-1',
    'memory.memsw.limit_in_bytes': '-1',
    'memory.usage_in_bytes': '4096000',
    'memory.oom_control': 'oom_kill 0',
  },
  pids: { 'pids.max': '1' },
  freezer: { 'freezer.state': 'THAWED' },
  devices: {},
};
const V2_FILES = {
  'cpu.max': 'max 100000',
  'cpu.stat': 'usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000',
  'memory.max': 'max',
  'memory.swap.max': '1',
  'memory.current': '8192000',
  'memory.events': 'oom 0\noom_kill 0',
  'pids.max': '1',
  'cgroup.freeze': '0',
  'cgroup.events': 'populated 1\nfrozen 0',
  'cgroup.procs': '',
};

/** A folder with the kernel's files in it. */
function folder(path: string, files: Record<string, string>): void {
  mkdirSync(path, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), `${text}\n`);
}

/** All controllers on v1; `unified`: with an empty v2 hierarchy beside them. */
function v1(name: string, unified: boolean): Layout {
  const mounts = V1.map((options, i) => {
    const point = join(root, name, options);
    folder(join(point, `lxc.payload.${NAME}`), { ...V1_FILES[options]!, 'cgroup.procs': '' });
    return `${30 + i} 25 0:${30 + i} / ${point} rw,relatime - cgroup cgroup rw,${options}`;
  });
  const paths = V1.map((options, i) => `${i + 2}:${options}:/`);
  if (unified) {
    const point = join(root, name, 'unified');
    folder(join(point, `lxc.payload.${NAME}`), {
      'cgroup.procs': '',
      'cgroup.freeze': '0',
      'cgroup.events': 'frozen 0',
    });
    writeFileSync(join(point, 'cgroup.controllers'), '\n');
    mounts.push(`50 25 0:50 / ${point} rw,relatime - cgroup2 cgroup2 rw`);
    paths.push('0::/');
  }
  return { mountinfo: mounts.join('\n'), own: paths.join('\n'), init: paths.join('\n') };
}

/** All on v2, as systemd has it: PID 1 in a scope, this process in a service. */
function v2(name = 'v2', peak: Record<string, string> = { 'memory.peak': '9000000' }): Layout {
  const point = join(root, name);
  folder(join(point, `lxc.payload.${NAME}`), { ...V2_FILES, ...peak });
  folder(join(point, 'system.slice/hauki.service'), {});
  folder(join(point, 'init.scope'), {});
  writeFileSync(join(point, 'cgroup.controllers'), 'cpuset cpu io memory hugetlb pids rdma misc\n');
  writeFileSync(join(point, 'cgroup.subtree_control'), 'cpu memory pids\n');
  return {
    mountinfo: `30 25 0:30 / ${point} rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate`,
    own: '0::/system.slice/hauki.service',
    init: '0::/init.scope',
  };
}

const said = (limits: { file: string; value: string }[]) => Object.fromEntries(limits.map((l) => [l.file, l.value]));

for (const [name, layout] of [
  ['v1', v1('v1', false)],
  ['the hybrid of v1 and v2', v1('hybrid', true)],
] as const)
  suite(`cgroups on ${name}`, () => {
    const cgroups = new Cgroups(undefined, layout);
    const file = (controller: string, name_of: string) =>
      readFileSync(
        join(root, name === 'v1' ? 'v1' : 'hybrid', controller, `lxc.payload.${NAME}`, name_of),
        'utf8',
      ).trim();

    test('are limited in the words of v1, with the share of the CPU as a quota', () => {
      assert.deepEqual(said(cgroups.limits(128, 0.5)), {
        'memory.limit_in_bytes': BYTES,
        'memory.memsw.limit_in_bytes': BYTES,
        'pids.max': '64',
        'cpu.cfs_period_us': '100000',
        'cpu.cfs_quota_us': '50000',
      });
      assert.equal(cgroups.devicesVersion, 1);
    });

    test('differ until the limits are written, and are read back', () => {
      const limits = cgroups.limits(128, 2);
      assert.equal(cgroups.mismatches(NAME, limits).length, 4);
      cgroups.write(NAME, limits);
      assert.deepEqual(cgroups.mismatches(NAME, limits), []);
      assert.equal(file('cpu,cpuacct', 'cpu.cfs_quota_us'), '200000');
      writeFileSync(join(root, name === 'v1' ? 'v1' : 'hybrid', 'pids', `lxc.payload.${NAME}`, 'pids.max'), 'max\n');
      assert.match(cgroups.mismatches(NAME, limits).join(), /pids\.max is max, asked for 64/);
      assert.match(cgroups.mismatches('hauki.n.other', limits).join(), /not there/);
      assert.throws(() => cgroups.write('hauki.n.other', limits), /no cgroup/);
    });

    test('are frozen by the freezer of v1, and tell what was used', () => {
      assert.equal(cgroups.freeze(NAME, true), true);
      assert.equal(file('freezer', 'freezer.state'), 'FROZEN');
      assert.equal(cgroups.isFrozen(NAME), true);
      cgroups.freeze(NAME, false);
      assert.equal(cgroups.isFrozen(NAME), false);
      assert.deepEqual(cgroups.usage(NAME), { cpu_ms: 1234.56789, memory_bytes: 4096000 });
    });

    test('are found by the container’s name, in every hierarchy', () => {
      assert.deepEqual(cgroups.containers('hauki.n.'), [NAME]);
      assert.equal(cgroups.folders(NAME).length, name === 'v1' ? 5 : 6);
      assert.match(cgroups.oomFile(NAME)!, /memory\.oom_control$/);
    });
  });

suite('cgroups on v2', () => {
  const cgroups = new Cgroups(undefined, v2());
  const dir = join(root, 'v2', `lxc.payload.${NAME}`);

  test('are limited in the words of v2', () => {
    assert.deepEqual(said(cgroups.limits(128, 0.5)), {
      'memory.max': BYTES,
      'memory.swap.max': '0',
      'pids.max': '64',
      'cpu.max': '50000 100000',
    });
    assert.equal(cgroups.devicesVersion, 2);
  });

  test('differ until the limits are written, and are read back', () => {
    const limits = cgroups.limits(128, 1);
    assert.equal(cgroups.mismatches(NAME, limits).length, 4);
    cgroups.write(NAME, limits);
    assert.deepEqual(cgroups.mismatches(NAME, limits), []);
    assert.equal(readFileSync(join(dir, 'cpu.max'), 'utf8').trim(), '100000 100000');
  });

  test('are frozen by the freezer of v2, and tell what was used', () => {
    assert.equal(cgroups.freeze(NAME, true), true);
    assert.equal(readFileSync(join(dir, 'cgroup.freeze'), 'utf8').trim(), '1');
    assert.equal(cgroups.isFrozen(NAME), false, 'the kernel has not said so yet');
    writeFileSync(join(dir, 'cgroup.events'), 'populated 1\nfrozen 1\n');
    assert.equal(cgroups.isFrozen(NAME), true);
    assert.deepEqual(cgroups.usage(NAME), { cpu_ms: 2500, memory_bytes: 8192000 });
  });

  test('are kept for the last account: the most memory, or what the kernel tells instead before 5.19', () => {
    const kept = () => cgroups.keeps(NAME).map((file) => file.slice(dir.length + 1));
    assert.deepEqual(kept(), ['memory.events', 'memory.peak', 'cpu.stat']);
    const older = new Cgroups(undefined, v2('v2-older', {}));
    const last = (path: string) => path.slice(path.lastIndexOf('/') + 1);
    assert.deepEqual(older.keeps(NAME).map(last), ['memory.events', 'memory.current', 'cpu.stat']);
  });

  test('are written into the configuration of a container, with the rules of devices, in the words of v2', () => {
    const text = renderConfig({
      ...{ name: NAME, rootfs: '/r', ids: { base: 1, size: 2 }, memory_mib: 128, apparmor: 'unconfined' as const },
      ...{ limits: cgroups.limits(128, 1), devices_version: cgroups.devicesVersion },
    });
    for (const line of [
      `lxc.cgroup2.memory.max = ${BYTES}`,
      'lxc.cgroup2.memory.swap.max = 0',
      'lxc.cgroup2.pids.max = 64',
      'lxc.cgroup2.cpu.max = 100000 100000',
      'lxc.cgroup2.devices.deny = a',
      'lxc.cgroup2.devices.allow = c 1:3 rw',
      'lxc.apparmor.profile = unconfined',
    ])
      assert.ok(text.includes(`\n${line}\n`), line);
    assert.doesNotMatch(text, /lxc\.cgroup\.(?!dir)/, 'nothing of v1');
  });

  test('are killed at one word', () => {
    writeFileSync(join(dir, 'cgroup.kill'), '');
    cgroups.kill(NAME);
    assert.equal(readFileSync(join(dir, 'cgroup.kill'), 'utf8'), '1');
    assert.match(cgroups.oomFile(NAME)!, /memory\.events$/);
    assert.ok(existsSync(dir));
  });
});

suite('a machine without a controller', () => {
  test('is refused, since nothing would be limited', () => {
    const layout = v1('less', false);
    const less = {
      ...layout,
      mountinfo: layout.mountinfo
        .split('\n')
        .filter((l) => !l.includes('pids'))
        .join('\n'),
    };
    assert.throws(() => new Cgroups(undefined, less).limits(128), /no cgroup controller "pids"/);
  });

  test('is refused on v2, with the reason, where the controller cannot be had below', () => {
    const layout = v2('v2-busy');
    // The kernel refuses what is written there while processes stand in the cgroup.
    rmSync(join(root, 'v2-busy', 'cgroup.subtree_control'));
    assert.throws(
      () => new Cgroups(undefined, layout).limits(128),
      /"memory" cannot be limited below .*processes stand/,
    );
  });
});
