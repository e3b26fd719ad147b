/** Both drivers, one suite. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { createDrivers } from '../src/drivers.ts';
import { driverConformance } from './driver-conformance.ts';

const folder = mkdtempSync(join(tmpdir(), 'hauki-drivers-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const make = async (name: string) => {
  const [driver] = await createDrivers({ node_id: `c${process.pid}`, data_dir: folder, log: () => {}, only: [name] });
  return driver!;
};

/** cgroups of any hierarchy, and claims of ids, that carry the text. */
function traces(text: string): string[] {
  const list = (at: string) => (existsSync(at) ? readdirSync(at) : []);
  const deeper = list('/sys/fs/cgroup').flatMap((name) => list2(`/sys/fs/cgroup/${name}`));
  return [...deeper, ...list('/run/hauki/idmap')].filter((name) => name.includes(text));
}

function list2(at: string): string[] {
  try {
    return readdirSync(at);
  } catch {
    return [];
  }
}

const nothingLeft = (id: string) => assert.deepEqual(traces(id), []);

const lxc_missing =
  process.env.CI === 'true'
    ? false
    : process.getuid?.() !== 0
      ? 'lxc vaults need root'
      : !existsSync('/usr/bin/lxc-start') && 'lxc is not installed';

driverConformance('quickjs', { skip: false, make: () => make('quickjs'), memory_mib: 16, nothingLeft });
driverConformance('lxc', { skip: lxc_missing, make: () => make('lxc'), memory_mib: 96, nothingLeft });
