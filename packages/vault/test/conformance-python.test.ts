/** The drivers that run Python hold what every driver must hold, with Python inside too. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { type DriverName, missing, traces } from '../../../test/support/mesh.ts';
import { createDrivers } from '../src/drivers.ts';
import { driverConformance } from './driver-conformance.ts';

const folder = mkdtempSync(join(tmpdir(), 'hauki-python-drivers-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const no_python = !existsSync('/usr/bin/python3') && process.env.CI !== 'true' && 'python3 is not installed';
const nothingLeft = (id: string) => assert.deepEqual(traces(id), []);

for (const name of ['lxc', 'process'] satisfies DriverName[])
  driverConformance(`${name}-python`, {
    skip: missing(name) || no_python,
    async make() {
      const [driver] = await createDrivers({
        node_id: `p${process.pid}`,
        data_dir: folder,
        log: () => {},
        only: [name],
      });
      return driver!;
    },
    memory_mib: 96,
    nothingLeft,
    language: 'python',
  });
