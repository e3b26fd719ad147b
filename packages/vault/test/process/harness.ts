/** What the process driver's tests share: a driver with the guest that evaluates expressions, and what it leaves. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { missing, traces, until } from '../../../../test/support/mesh.ts';
import type { Driver } from '../../src/driver.ts';
import { createProcessDriver, type ProcessOptions } from '../../src/drivers/process/process.ts';
import { converse, GUEST_FILE, type Guest } from '../lxc/harness.ts';

export const skip = missing('process');

export interface Bench {
  node_id: string;
  driver: Driver;
  start(memory_mib?: number, more?: object): Promise<Guest>;
  end(): Promise<void>;
}

export function bench(options: Partial<ProcessOptions> = {}): Bench {
  const node_id = `p${randomBytes(4).toString('hex')}`;
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-process-'));
  const driver = createProcessDriver({ node_id, data_dir, guest_file: GUEST_FILE, ...options });
  let count = 0;
  return {
    node_id,
    driver,
    async start(memory_mib = 96, more = {}) {
      const spec = { id: `v${count++}`, owner: 'tester', listen_host: '127.0.0.1', memory_mib };
      return converse(await driver.start({ ...spec, ...more }));
    },
    async end() {
      await driver.close();
      // What clears up after a dead agent is being ended too.
      await until('nothing is left', () => traces(node_id).length === 0).catch(() => {});
      assert.deepEqual(traces(node_id), []);
      rmSync(data_dir, { recursive: true });
    },
  };
}
