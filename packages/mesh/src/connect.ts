/** `connect`: a mesh as a script sees it. */
import {
  BadInput,
  type GrantRequest,
  type IsolationLevel,
  type Language,
  type NodeInfo,
  type NodeLoad,
  type SecretRequests,
  type SessionInfo,
  Unauthorised,
  type WorkerInfo,
} from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import {
  type Ghost,
  type GhostSource,
  ghost,
  makeCallerKey,
  type PendingGhost,
  pendingGhost,
  sourceOf,
} from '@hauki/rpc/client';
import { services, stay } from '#parts';
import { powers } from '#powers';
import { RemoteWorker } from '#worker';
import { createCoreClient } from './http.ts';
import type { Routing } from './powers.ts';
import { workerPath } from './route.ts';
import type { Services } from './services.ts';
import type { Ask, Spawned } from './worker.ts';

export interface ConnectOptions {
  /** URL of the core. HAUKI_URL, else http://127.0.0.1:8000. */
  core?: string;
  /** HAUKI_TOKEN, else, for a core on this machine, its admin token. */
  token?: string;
}

/** What to clone: a pointer, a module's text, or a file (Node only), bundled with all that it imports. */
export type Origin = string | { source: string; language?: Language } | { file: string };

export interface CloneOptions {
  driver?: 'lxc' | 'quickjs' | 'process';
  /** No vault that holds less strongly will do; rejects with NoNodeFits rather than go below it. */
  min_isolation?: IsolationLevel;
  /** The node must carry these. */
  labels?: Record<string, string>;
  memory_mib?: number;
  /** Share of a core, from 0.05 to 1; from 0.1 in a quickjs vault. */
  cpu?: number;
  /** What one turn of its code (a call until it waits, a timer) may compute; with the driver quickjs alone. */
  turn_ms?: number;
  /** What the worker may do; nothing when left out. */
  grants?: GrantRequest;
  /** Values that the node puts into the worker's requests for it, where that writes `{{secret:NAME}}`. */
  secrets?: SecretRequests;
  routing?: Routing;
  /** Without a sign of this script for so long, the worker ends. */
  lease_ms?: number;
  heartbeat_ms?: number;
  /** The worker lives at least so long, also without this script. */
  ttl_ms?: number;
  /** It ends so long after its birth for certain, whoever wants it. */
  max_life_ms?: number;
  /** It ends when it has had no call for so long. */
  idle_ms?: number;
  /** For calls that name no deadline of their own. */
  timeout_ms?: number;
  /** How long the module may take to load. */
  load_timeout_ms?: number;
}

export interface RegistryView {
  nodes: (NodeInfo & NodeLoad & { load: number; since: number })[];
  workers: (WorkerInfo & { node: string })[];
  relay_bytes: number;
}

export type SessionView = SessionInfo & { node: string };

export interface MeshStats {
  /** Bytes of Mesh-RPC that went straight to workers, and over the core, since `connect`. */
  direct_bytes: number;
  relay_bytes: number;
}

export interface Mesh extends AsyncDisposable, Services {
  readonly core: string;
  /**
   * Clones a worker. Returns at once something to call (calls wait for the worker) or to await (to its ghost).
   * Rejects with NoNodeFits, SourceRejected, VaultFailed, PointerUnknown, BadInput, Unauthorised, ConnectionLost.
   */
  clone<T = Record<string, (...args: any[]) => any>>(origin: Origin, options?: CloneOptions): PendingGhost<T>;
  /** The notes' name for `clone`. */
  cloneDistributed<T = Record<string, (...args: any[]) => any>>(
    origin: Origin,
    options?: CloneOptions,
  ): PendingGhost<T>;
  /** A session with a worker that somebody else owns: calls it, does not keep it alive, cannot end it by leaving. */
  visit<T = Record<string, (...args: any[]) => any>>(
    worker: string,
    options?: Pick<CloneOptions, 'routing' | 'timeout_ms'>,
  ): PendingGhost<T>;
  /** Kills a worker at once, by ghost or by name. Resolves when nothing of it is left. */
  destruct(worker: object | string): Promise<void>;
  /**
   * Resolves when the connection to a ghost's worker has ended, whoever ended it: with the reason, which is the worker's
   * own end where it has ended. The process stays until then.
   */
  ended(worker: object): Promise<string>;
  stats(): MeshStats;
  /** Lets go of everything: destructs the workers that this mesh owns (those with a `ttl_ms` live on), ends sessions. */
  close(): Promise<void>;
}

/** What stands behind a worker's ghosts. */
interface WorkerSource extends GhostSource {
  opening: Promise<RemoteWorker>;
}

const workerBehind = (thing: object): Promise<RemoteWorker> => {
  const source = sourceOf(thing) as WorkerSource | undefined;
  if (!source?.opening) throw new BadInput({ what: 'worker', why: 'this is no ghost of a mesh' });
  return source.opening;
};

/** Kills the worker behind a ghost at once. Resolves when nothing of it is left on its node. */
export async function destruct(ghost_of_worker: object): Promise<void> {
  await (await workerBehind(ghost_of_worker)).destruct();
}

/** What of a request tells which module. */
async function moduleOf(origin: Origin, driver: string | undefined): Promise<object> {
  // What is neither is refused by the core.
  if (typeof origin !== 'object' || !origin) return { pointer: origin };
  return 'file' in origin ? powers.bundle(origin.file, driver) : origin;
}

/** Connects to a mesh. Rejects with ConnectionLost when no core answers, Unauthorised when no token is found. */
export async function connect(options: ConnectOptions = {}): Promise<Mesh> {
  const defaults = powers.defaults(options.core);
  const base = options.core ?? defaults.core;
  const token = options.token ?? defaults.token;
  if (!token)
    throw new Unauthorised({ why: 'No token: give connect({ token }), or set HAUKI_TOKEN. `hauki token` prints it' });
  const core = createCoreClient(base, token, powers);
  const [key] = await Promise.all([makeCallerKey(), core.request('GET', '/health', undefined, LIMITS.handshake_ms)]);
  const done: MeshStats = { direct_bytes: 0, relay_bytes: 0 };
  const workers = new Map<RemoteWorker, () => Promise<void>>();
  const count = (sum: MeshStats, worker: RemoteWorker) => {
    for (const route of ['direct', 'relay'] as const) sum[`${route}_bytes`] += worker.way.carried_bytes(route);
  };

  /** A worker whose ticket is on its way, as its ghost to be. `owned`: letting go of it ends it; `lasts`: not at `close`. */
  const embody = <T>(
    label: string,
    ask: Ask,
    { routing = 'p2p_preferred', timeout_ms }: CloneOptions,
    owned: boolean,
    lasts: boolean,
  ): PendingGhost<T> => {
    const worker = new RemoteWorker(routing, { core, key, powers, timeout_ms });
    const opening = worker.open(ask);
    // One that could not be opened has told why already; there is nothing to let go of.
    const letGo = (ends: boolean) =>
      opening.then(
        () => (ends ? worker.destruct() : worker.leave()),
        () => {},
      );
    workers.set(worker, () => letGo(owned && !lasts));
    void worker.session.closed.then(() => {
      workers.delete(worker);
      count(done, worker);
    });
    const source: WorkerSource & { ready: Promise<Ghost<T>> } = {
      label,
      opening,
      ready: opening.then(() => {
        source.label = worker.body.worker;
        return ghost<T>({ ...source, ready: undefined });
      }),
      call: (method, args, call_options) => worker.session.call(method, args, call_options),
      dispose: () => letGo(owned),
    };
    // Whoever calls or awaits hears of a failure; a clone that nobody looks at fails quietly.
    source.ready.catch(() => {});
    return pendingGhost<T>(source);
  };

  const ticketFrom = (path: string, wanted: object, timeout_ms?: number) =>
    core.request<Spawned>('POST', path, wanted, timeout_ms);
  const audience = key.thumbprint;

  const clone = <T>(origin: Origin, given: CloneOptions = {}): PendingGhost<T> => {
    const { routing: _r, timeout_ms: _t, ...wanted } = given;
    const spawn: Ask = async (more) => {
      const module = await moduleOf(origin, given.driver);
      const asked = { ...module, ...wanted, ...more?.(), audience };
      return powers.clone
        ? powers.clone(core, asked, LIMITS.clone_ms)
        : ticketFrom('/api/v2/swarm_spawn_ephemeral', asked, LIMITS.clone_ms);
    };
    return embody<T>('being provisioned', spawn, given, true, (given.ttl_ms ?? 0) > 0);
  };

  const close = async () => {
    stopIdle();
    await Promise.allSettled([...workers.values()].map((letGo) => letGo()));
  };
  const stopIdle = powers.onIdle(() => {
    if (workers.size > 0) void close();
  });

  return {
    core: base,
    clone,
    cloneDistributed: clone,
    ...services(core, moduleOf, async (thing) => workerBehind(thing)),
    visit<T>(worker: string, given: Pick<CloneOptions, 'routing' | 'timeout_ms'> = {}) {
      const visiting = async () => {
        if (!/^[a-z0-9-]{1,64}$/.test(worker)) throw new BadInput({ what: 'worker', why: 'a name is like w-abc123' });
        return ticketFrom(`${workerPath(worker)}/ticket`, { audience });
      };
      return embody<T>(worker, visiting, given, false, false);
    },
    async destruct(worker) {
      if (typeof worker !== 'string') return destruct(worker);
      await core.request('DELETE', workerPath(worker));
    },
    ended: async (thing) => stay((await workerBehind(thing)).session.closed),
    stats() {
      const sum = { ...done };
      for (const worker of workers.keys()) count(sum, worker);
      return sum;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}
