/** A worker that is ended while its module is being loaded: at once, also where that never returns. Real meshes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, type Mesh, WorkerDied } from '@hauki/mesh';
import { DRIVERS, missing, traces, until, useMesh } from './support/mesh.ts';

/** The name of the clone that is being made, which is none of these. */
async function beingMade(mesh: Mesh, known: ReadonlySet<string>): Promise<string> {
  let found: string | undefined;
  await until('it is being made', async () => {
    for await (const { fields } of mesh.events({ names: ['SPAWN_DISTRIBUTED'] }))
      if (!known.has(String(fields.worker))) found = String(fields.worker);
    return found !== undefined;
  });
  return found!;
}

for (const driver of DRIVERS) {
  describe(`a worker that is still being loaded in a ${driver} vault`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });
    const known = new Set<string>();

    it('is ended by its name, and whoever waits for it hears by whom, not that its source was refused', async () => {
      for (const source of ['for (;;) {}', 'await new Promise(() => {})']) {
        const waits = Promise.resolve(
          used.mesh.clone(
            { source },
            { driver, load_timeout_ms: 60_000, ...(driver === 'quickjs' ? { turn_ms: 10_000 } : {}) },
          ),
        );
        const refused = assert.rejects(
          waits,
          (error) => isError(error, WorkerDied) && error.fields.cause === 'destructed',
        );
        const worker = await beingMade(used.mesh, known);
        known.add(worker);
        await used.mesh.destruct(worker);
        await refused;
        const state = await used.mesh.why(worker);
        assert.ok(state.state === 'dead', 'its fate is kept');
        assert.deepEqual([state.fate.cause, state.fate.reason], ['destructed', 'destructed by admin']);
        await until('nothing is left of it', () => traces(worker).length === 0);
      }
    });
  });
}
