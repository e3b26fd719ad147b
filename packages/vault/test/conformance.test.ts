/** All drivers, one suite. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { after } from 'node:test';
import { missing, traces } from '../../../test/support/mesh.ts';
import { createDrivers } from '../src/drivers.ts';
import { driverConformance } from './driver-conformance.ts';

const folder = mkdtempSync(join(tmpdir(), 'hauki-drivers-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const make = async (name: string) => {
  // Named from here, as a user may: what the driver starts is somewhere else.
  const data_dir = relative(process.cwd(), folder);
  const [driver] = await createDrivers({ node_id: `c${process.pid}`, data_dir, log: () => {}, only: [name] });
  return driver!;
};

const nothingLeft = (id: string) => assert.deepEqual(traces(id), []);

driverConformance('quickjs', { skip: false, make: () => make('quickjs'), memory_mib: 16, nothingLeft });
driverConformance('lxc', { skip: missing('lxc'), make: () => make('lxc'), memory_mib: 96, nothingLeft });
driverConformance('process', { skip: missing('process'), make: () => make('process'), memory_mib: 96, nothingLeft });
