/** Where no filter of system calls can be loaded: no socket is handed in, the gate stands outside, and all works so. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { traces } from '../../../test/support/mesh.ts';
import { createLxcDriver } from '../src/drivers/lxc/lxc.ts';
import { Gates } from '../src/gates/gates.ts';
import { writeNodeGuest } from '../src/guest/bundle.ts';
import { driverConformance } from './driver-conformance.ts';
import { bench, skip } from './lxc/harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'hauki-unfiltered-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const make = async (no_filter: boolean) => {
  const guest_file = join(folder, 'guest.mjs');
  await writeNodeGuest(guest_file);
  const node_id = `tu${process.pid}-${Math.random().toString(36).slice(2, 8)}`;
  return createLxcDriver({ node_id, data_dir: folder, guest_file, gates: new Gates(), trial: { no_filter } });
};

/** How many TCP sockets the process of a new vault has. */
async function tcpSockets(no_filter: boolean): Promise<number> {
  const driver = await make(no_filter);
  try {
    const vault = await driver.start({ id: 'v', owner: 'tester', listen_host: '127.0.0.1', memory_mib: 96 });
    const tcp = readFileSync('/proc/net/tcp', 'utf8') + readFileSync('/proc/net/tcp6', 'utf8');
    const inodes = new Set(tcp.split('\n').map((line) => line.trim().split(/\s+/)[9]));
    const held = readdirSync(`/proc/${vault.pid}/fd`).map((fd) => readlinkSync(`/proc/${vault.pid}/fd/${fd}`));
    return held.filter((target) => inodes.has(/^socket:\[(\d+)\]$/.exec(target)?.[1] ?? '-')).length;
  } finally {
    await driver.close();
  }
}

suite('a vault without a filter of system calls', { skip }, () => {
  test('has no socket of the host, where one with the filter has its listening socket', async () => {
    assert.equal(await tcpSockets(false), 1);
    assert.equal(await tcpSockets(true), 0);
  });

  test('is offered as what it is: of a weaker level, in words that say why', async () => {
    const b = bench({ no_filter: true });
    assert.equal(b.driver.level, 'process');
    assert.match(b.driver.isolation, /no filter of system calls/);
    await b.end();
  });
});

driverConformance('lxc-unfiltered', {
  skip,
  memory_mib: 96,
  nothingLeft: (id) => assert.deepEqual(traces(id), []),
  make: () => make(true),
});
