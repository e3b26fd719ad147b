/** What a mesh offers besides calling workers. `services-late.ts` offers the same to pages, and loads this on first use. */
import type { MeshEvent } from '@hauki/protocol';
import type { RegistryView, SessionView } from './connect.ts';
import { type EventsOptions, meshEvents } from './events.ts';
import type { CoreClient } from './http.ts';
import { type Kernels, meshKernels } from './kernel.ts';
import { type LastingDoor, lastingDoor, type ModuleOf } from './lasting.ts';
import { type LifeDoor, lifeDoor } from './life.ts';
import { type MeshFsClient, meshFsClient } from './meshfs.ts';
import { type SpoolDoor, spoolDoor } from './spool.ts';
import { meshTokens, type Tokens } from './tokens.ts';
import { meshVolumes, type Volumes } from './volumes.ts';
import type { RemoteWorker } from './worker.ts';

export interface Services extends LastingDoor, LifeDoor, SpoolDoor {
  registry(): Promise<RegistryView>;
  /** Callers' sessions with workers: how each is connected, and what it has done. */
  sessions(): Promise<SessionView[]>;
  readonly meshfs: MeshFsClient;
  /** What happens in the mesh: what the core remembers or, with `follow`, as it happens. Leave it with `break`. */
  events(options?: EventsOptions): AsyncGenerator<MeshEvent, void>;
  /** Narrower tokens than this mesh's own. */
  readonly tokens: Tokens;
  /** Private lasting folders of one's workers. */
  readonly volumes: Volumes;
  /** The mesh's microkernels. */
  readonly kernels: Kernels;
}

/** The worker behind a ghost. Rejects with BadInput for anything else. */
export type WorkerOf = (worker: object) => Promise<RemoteWorker>;

export const services = (core: CoreClient, moduleOf: ModuleOf, workerOf: WorkerOf): Services => ({
  ...lifeDoor(core, workerOf),
  ...lastingDoor(core, moduleOf),
  ...spoolDoor(core, moduleOf),
  registry: () => core.request<RegistryView>('GET', '/api/v2/service_registry'),
  sessions: async () => (await core.request<{ sessions: SessionView[] }>('GET', '/api/v2/sessions')).sessions,
  meshfs: meshFsClient(core),
  events: (given) => meshEvents(core, given),
  tokens: meshTokens(core),
  volumes: meshVolumes(core),
  kernels: meshKernels(core),
});
