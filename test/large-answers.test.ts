/** Answers of many MiB at once: a caller that reads gets all of them, and its worker stays within reach. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DRIVERS, missing, useMesh } from './support/mesh.ts';

const MIB = 2 ** 20;
const SOURCE = `export const bytes = (mib) => new Uint8Array(mib * ${MIB}).fill(mib); export const echo = (it) => it;`;

for (const driver of DRIVERS)
  describe(`large answers, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });

    it('come to a caller that reads, more at once than may be unsent', async () => {
      const worker: any = await used.mesh.clone({ source: SOURCE }, { driver, memory_mib: 512 });
      for (const [count, mib] of [
        [48, 1],
        [7, 6],
      ] as const) {
        const answers: Uint8Array[] = await Promise.all(Array.from({ length: count }, () => worker.bytes(mib)));
        for (const answer of answers) assert.deepEqual([answer.length, answer.at(-1)], [mib * MIB, mib]);
        assert.equal(await worker.echo('still there'), 'still there');
      }
      await used.mesh.destruct(worker);
    });
  });
