/** The pool: how many are kept ready, that each is used once, and that what is ready gives way and goes. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { missing, traces, until } from '../../../test/support/mesh.ts';
import type { Driver, VaultSpec } from '../src/driver.ts';
import { Cgroups } from '../src/drivers/lxc/cgroups.ts';
import { createDrivers } from '../src/drivers.ts';
import { POOL, Pool, wanted } from '../src/pool.ts';
import { driverConformance } from './driver-conformance.ts';

suite('how many vaults are kept ready', () => {
  test('none for who asks once, more with what is asked for, never more than the bound', () => {
    assert.equal(wanted([], 0), 0);
    assert.equal(wanted([5], 10), 0);
    assert.equal(wanted([5, 6], 10), 1);
    assert.equal(
      wanted(
        Array.from({ length: 60 }, () => 5),
        10,
      ),
      POOL.vaults,
    );
  });

  test('none any more when nobody has asked for a while', () => {
    assert.equal(wanted([0, 1, 2, 3], POOL.demand_ms + 4), 0);
    assert.equal(wanted([0, 1, POOL.demand_ms, POOL.demand_ms], POOL.demand_ms + 4), 1);
  });
});

const folder = mkdtempSync(join(tmpdir(), 'hauki-pool-'));
after(() => rmSync(folder, { recursive: true, force: true }));

async function lxc(node_id: string): Promise<Driver> {
  const [driver] = await createDrivers({ node_id, data_dir: join(folder, node_id), log: () => {}, only: ['lxc'] });
  return driver!;
}

suite('a pool of lxc vaults', { skip: missing('lxc') }, () => {
  const node_id = `tpool${process.pid}`;
  let room_mib = 10_000;
  let pool: Pool;
  let inner: Driver;
  let driver: Driver;
  let serial = 0;
  const spec = (more: Partial<VaultSpec> = {}): VaultSpec => ({
    id: `${node_id}-${serial++}`,
    owner: 'tester',
    listen_host: '127.0.0.1',
    memory_mib: 64,
    ...more,
  });
  const cgroups = new Cgroups();
  /** Containers of this node by the name of their payload. */
  const containers = () => cgroups.containers(`hauki.${node_id}.`);
  before(async () => {
    pool = new Pool({ room_mib: () => room_mib });
    inner = await lxc(node_id);
    driver = pool.wrap(inner);
  });
  after(async () => {
    await driver.close();
    assert.deepEqual(traces(node_id), []);
  });

  test('is filled by demand, hands each vault out once with its limits, and leaves no trace of any', async () => {
    const cold = [await driver.start(spec()), await driver.start(spec())];
    await until('one vault is ready', () => pool.size === 1);
    assert.equal(pool.memory_mib >= 64, true);
    const given = spec({ cpu: 0.5 });
    const vault = await driver.start(given);
    assert.equal(vault.id, given.id);
    const container = containers().find((name) => cgroups.payloadPids(name).includes(vault.pid))!;
    assert.match(container, /\.pool-/);
    assert.deepEqual(cgroups.mismatches(container, cgroups.limits(64, 0.5)), []);
    assert.ok(traces(given.id).length > 0, 'it can be found by its own name');
    await until('its place was taken by another', () => pool.size === 1);
    const next = await driver.start(spec());
    assert.notEqual(next.pid, vault.pid);
    for (const one of [...cold, vault, next]) await one.kill('enough');
    assert.deepEqual(traces(given.id), []);
    assert.equal((await vault.exited).cause, 'killed');
  });

  test('is not asked for a vault that must be fresh, or has another memory', async () => {
    await until('one vault is ready', () => pool.size > 0);
    for (const asked of [spec({ fresh: true }), spec({ memory_mib: 80 })]) {
      const vault = await driver.start(asked);
      assert.ok(containers().includes(`hauki.${node_id}.${asked.id}`));
      await vault.kill('enough');
    }
  });

  test('hands out no vault that has died', async () => {
    await until('one vault is ready', () => pool.size > 0);
    for (const name of containers()) cgroups.kill(name);
    const vault = await driver.start(spec());
    assert.equal((await vault.usage!()).memory_bytes > 0, true);
    await vault.kill('enough');
  });

  test('refuses, and ends, a vault whose limits are not as asked', async () => {
    await until('one vault is ready', () => pool.size > 0);
    await assert.rejects(driver.start(spec({ cpu: 0 })), /share of 0 of a core/);
  });

  test('gives way when its memory is promised to somebody', async () => {
    await until('one vault is ready', () => pool.size > 0);
    room_mib = 0;
    const vault = await driver.start(spec({ memory_mib: 96 }));
    assert.equal(pool.size, 0);
    assert.equal(pool.memory_mib, 0);
    room_mib = 10_000;
    await vault.kill('enough');
  });
});

suite('a pool on a node where somebody always waits for a worker', { skip: missing('lxc') }, () => {
  test('is filled all the same', async () => {
    const node_id = `tbusy${process.pid}`;
    const inner = await lxc(node_id);
    const pool = new Pool({ room_mib: () => 10_000, calm_ms: () => 0 });
    const driver = pool.wrap(inner);
    const spec = { owner: 'tester', listen_host: '127.0.0.1', memory_mib: 64 };
    await Promise.all(['a', 'b'].map((id) => driver.start({ ...spec, id: `${node_id}-${id}` })));
    await until('a vault is ready', () => pool.size > 0);
    await driver.close();
    assert.deepEqual(traces(node_id), []);
  });
});

suite('a pool whose agent is killed', { skip: missing('lxc') }, () => {
  test('leaves vaults that the next sweep clears, those that were handed out too', async () => {
    const node_id = `tswept${process.pid}`;
    const { spawn } = await import('node:child_process');
    const script = `
      const { createDrivers } = await import(${JSON.stringify(new URL('../src/drivers.ts', import.meta.url).href)});
      const { Pool } = await import(${JSON.stringify(new URL('../src/pool.ts', import.meta.url).href)});
      const [inner] = await createDrivers({ node_id: '${node_id}', data_dir: ${JSON.stringify(join(folder, node_id))}, log() {}, only: ['lxc'] });
      const pool = new Pool({ room_mib: () => 10000 });
      const driver = pool.wrap(inner);
      const start = (id) => driver.start({ id, owner: 'o', listen_host: '127.0.0.1', memory_mib: 64 });
      await start('a'); await start('b');
      while (pool.size === 0) await new Promise((resolve) => setTimeout(resolve, 10));
      await start('${node_id}-given');
      while (pool.size === 0) await new Promise((resolve) => setTimeout(resolve, 10));
      console.log('ready');
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    assert.ok(traces(`${node_id}-given`).length > 0);
    child.kill('SIGKILL');
    const next = await lxc(node_id);
    await next.sweep();
    await until('nothing is left', () => traces(node_id).length === 0);
    await next.close();
  });
});

driverConformance('lxc-pool', {
  skip: missing('lxc'),
  memory_mib: 96,
  nothingLeft: (id) => assert.deepEqual(traces(id), []),
  make: async () => {
    const pool = new Pool({ room_mib: () => 10_000 });
    const driver = pool.wrap(await lxc(`tp${process.pid}-${Math.random().toString(36).slice(2, 8)}`));
    return driver;
  },
});
