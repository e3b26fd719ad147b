/** What became of a worker, as the core knows it. */
import { type MeshError, WorkerDied } from '@hauki/protocol';
import type { CoreClient } from './http.ts';
import { pause } from './pause.ts';
import { workerPath } from './route.ts';

const EVERY_MS = 50;
const TIMEOUT_MS = 2_000;

interface State {
  state: 'alive' | 'dead' | 'node_lost';
  node?: string;
  fate?: { cause: string; reason: string };
}

/** Why a worker is gone, asked so often at most; undefined while it is alive. Rejects as requests to the core do. */
export async function fateOf(core: CoreClient, worker: string, tries: number): Promise<MeshError | undefined> {
  for (let i = 1; ; i++) {
    const { state, fate, node } = await core.request<State>('GET', workerPath(worker), undefined, TIMEOUT_MS);
    const known = state === 'node_lost' ? { cause: state, reason: `its node ${node} is gone` } : fate;
    if (known) return new WorkerDied({ worker, cause: known.cause, reason: known.reason }) as MeshError;
    if (i >= tries) return undefined;
    await pause(EVERY_MS);
  }
}
