/**
 * What the lxc driver's tests share: a skip with its reason (a failure in CI), a driver with a guest that evaluates
 * expressions, and the check that nothing was left behind.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Driver, Vault } from '../../src/driver.ts';
import { Cgroups } from '../../src/drivers/lxc/cgroups.ts';
import type { Trial } from '../../src/drivers/lxc/config.ts';
import { listClaims } from '../../src/drivers/lxc/idmap.ts';
import { createLxcDriver } from '../../src/drivers/lxc/lxc.ts';
import { obstacle } from '../../src/drivers/lxc/probe.ts';

export const GUEST_FILE = fileURLToPath(new URL('./guest.mjs', import.meta.url));

/** The reason to skip, or false. In CI a machine without LXC is a mistake, so nothing is skipped there. */
export const skip: string | false = process.env.CI === 'true' ? false : (obstacle() ?? false);

export interface Bench {
  node_id: string;
  data_dir: string;
  driver: Driver;
  start(memory_mib?: number): Promise<Guest>;
  /** Closes the driver and asserts that no trace is left. */
  end(): Promise<void>;
}

export interface Guest {
  vault: Vault;
  /** Evaluates an expression inside; `fs` and `get(module)` are at hand. */
  ask(expression: string): Promise<any>;
  closed: Promise<string>;
}

export function bench(trial?: Trial): Bench {
  const node_id = `t${randomBytes(4).toString('hex')}`;
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-lxc-'));
  const driver = createLxcDriver({ node_id, data_dir, guest_file: GUEST_FILE, ...(trial ? { trial } : {}) });
  let count = 0;
  return {
    node_id,
    data_dir,
    driver,
    async start(memory_mib = 96) {
      const id = `v${count++}`;
      const vault = await driver.start({ id, owner: 'tester', listen_host: '127.0.0.1', memory_mib });
      return converse(vault);
    },
    async end() {
      await driver.close();
      assertNoTrace(node_id);
      assert.deepEqual(existsSync(join(data_dir, 'lxc')) ? readdirSync(join(data_dir, 'lxc')) : [], []);
      rmSync(data_dir, { recursive: true });
    },
  };
}

export function converse(vault: Vault): Guest {
  const waiting: ((answer: any) => void)[] = [];
  const early: any[] = [];
  let told: (reason: string) => void = () => {};
  const closed = new Promise<string>((resolve) => {
    told = resolve;
  });
  vault.control.start({
    message(text) {
      const taker = waiting.shift();
      if (taker) taker(JSON.parse(text));
      else early.push(JSON.parse(text));
    },
    close(reason) {
      told(reason);
      for (const taker of waiting.splice(0)) taker({ error: `closed: ${reason}` });
    },
  });
  const next = () => new Promise<any>((resolve) => (early.length > 0 ? resolve(early.shift()) : waiting.push(resolve)));
  const ready = next();
  return {
    vault,
    closed,
    async ask(expression) {
      assert.deepEqual(await ready, { value: 'ready' });
      const answer = next();
      vault.control.send(expression);
      const { value, error } = await answer;
      if (error !== undefined) throw new Error(error);
      return value;
    },
  };
}

/** No process, cgroup, id range or folder of LXC is left of this node's vaults. Dead, unreaped processes do not count. */
export function assertNoTrace(node_id: string): void {
  const prefix = `hauki.${node_id}.`;
  assert.deepEqual(new Cgroups().containers(prefix), []);
  assert.deepEqual(listClaims(prefix), []);
  assert.deepEqual(processesOf(node_id), []);
  const folders = existsSync('/run/hauki/lxc') ? readdirSync('/run/hauki/lxc') : [];
  assert.deepEqual(
    folders.filter((name) => name.startsWith(prefix)),
    [],
  );
}

/** Living monitors and guests of a node: by command line, and by what is in the cgroups. */
export function processesOf(node_id: string): number[] {
  const cgroups = new Cgroups();
  const inside = cgroups.containers(`hauki.${node_id}.`).flatMap((name) => cgroups.payloadPids(name));
  const monitors = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      const line = read(`/proc/${pid}/cmdline`);
      // What clears up after an agent knows these names too.
      return line.includes('lxc-start') && line.includes(`hauki.${node_id}.`) && !line.includes('hauki-reaper');
    });
  return [...inside, ...monitors.map(Number)].filter(alive);
}

/** Living processes that have the text in their command line, but for what clears up after an agent. */
export function mentioning(text: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
    .filter((pid) => {
      const line = read(`/proc/${pid}/cmdline`);
      return line.includes(text) && !line.includes('hauki-reaper') && alive(pid);
    });
}

/** Whether all its threads have the policy SCHED_BATCH (proc(5), /proc/pid/stat, field 41). */
export function isPatient(pid: number): boolean {
  const policy = (tid: string) => readFileSync(`/proc/${pid}/task/${tid}/stat`, 'utf8').split(') ')[1]!.split(' ')[38];
  return readdirSync(`/proc/${pid}/task`).every((tid) => policy(tid) === '3');
}

export function alive(pid: number): boolean {
  const state = /\) (\S)/.exec(read(`/proc/${pid}/stat`))?.[1];
  return state !== undefined && state !== 'Z' && state !== 'X';
}

/** Waits until `check` holds; tells how long it took. */
export async function until(check: () => boolean, timeout_ms = 20_000): Promise<number> {
  const began = performance.now();
  while (!check()) {
    assert.ok(performance.now() - began < timeout_ms, `not within ${timeout_ms} ms`);
    await sleep(5);
  }
  return performance.now() - began;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
