/** `mesh.provision`: lasting workers, for the SDK. They are called by `mesh.visit(name)`, like anybody else's. */
import type { LastingWorker } from '@hauki/protocol';
import type { CloneOptions, Origin } from './connect.ts';
import type { CoreClient } from './http.ts';
import { pathPart } from './path.ts';

export interface ProvisionOptions
  extends Pick<
    CloneOptions,
    'driver' | 'min_isolation' | 'labels' | 'memory_mib' | 'cpu' | 'turn_ms' | 'grants' | 'secrets' | 'load_timeout_ms'
  > {
  /** `[a-z0-9-]`, at most 32 long, its own in the mesh; made up when left out. */
  name?: string;
}

export interface LastingDoor {
  /**
   * Makes a lasting worker: no heartbeat, started again with its node under a new epoch, until it is deleted. Resolves
   * when it runs and is durable. Rejects with NameTaken, or as `clone` does.
   */
  provision(
    origin: Origin,
    options?: ProvisionOptions,
  ): Promise<{ worker: string; node: string; epoch: number; driver: string }>;
  readonly lasting: {
    list(): Promise<LastingWorker[]>;
    get(worker: string): Promise<LastingWorker>;
    /** For good. Only its owner and an admin may. */
    delete(worker: string): Promise<void>;
  };
}

export type ModuleOf = (origin: Origin, driver: string | undefined) => Promise<object>;

const PATH = '/api/v2/lxc_provision';
/** A vault that fails on one node is tried on two more. */
const PROVISION_MS = 150_000;

/** The part of a mesh that has to do with lasting workers. */
export function lastingDoor(core: CoreClient, moduleOf: ModuleOf): LastingDoor {
  return {
    async provision(origin, options = {}) {
      const body = { ...(await moduleOf(origin, options.driver)), ...options };
      const { worker, node, epoch, driver } = await core.request<Awaited<ReturnType<LastingDoor['provision']>>>(
        'POST',
        PATH,
        body,
        PROVISION_MS,
      );
      return { worker, node, epoch, driver };
    },
    lasting: {
      list: async () => (await core.request<{ workers: LastingWorker[] }>('GET', PATH)).workers,
      async get(worker) {
        const { status: _status, ...found } = await core.request<LastingWorker & { status: string }>(
          'GET',
          `${PATH}/${pathPart('worker', worker)}`,
        );
        return found;
      },
      async delete(worker) {
        await core.request('DELETE', `${PATH}/${pathPart('worker', worker)}`);
      },
    },
  };
}
