/** `connectKernel`: a microkernel as a script sees it. Every method is one request; errors are the kernel's own. */
import type {
  Evolved,
  EvolveRequest,
  JournalEntry,
  KernelInfo,
  KernelStatus,
  ModuleLog,
  ModuleSummary,
  ModuleView,
  Removed,
  RolledOut,
  RolloutRequest,
  VersionFacts,
} from '@hauki/protocol';
import { ConnectionLost, isError } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { powers } from '#powers';
import { type CoreClient, createCoreClient } from './http.ts';
import { pathPart } from './path.ts';

const EVOLVE_MS = LIMITS.evolve_ms;

/** Kernels of a mesh: what `mesh.kernels` is. */
export interface Kernels {
  list(): Promise<(KernelInfo & { since: number; modules: ModuleSummary[] })[]>;
  /** Evolves a module on one kernel or several, in waves; the first wave that fails takes all back. */
  evolve(request: RolloutRequest): Promise<RolledOut>;
  /** Removes a module from the kernel that is named, or from all that hold it; what it has begun it finishes. */
  remove(module: string, kernel?: string): Promise<Removed>;
  /** One of them by name, as its own door: what it serves, its journal and versions, rollbacks. */
  door(kernel: string): Omit<KernelDoor, 'url'>;
}

export function meshKernels(core: CoreClient): Kernels {
  const list = async () =>
    (await core.request<{ kernels: Awaited<ReturnType<Kernels['list']>> }>('GET', '/api/v2/kernels')).kernels;
  const kernels: Kernels = {
    list,
    door(kernel) {
      const base = `/api/v2/kernels/${pathPart('kernel', kernel)}`;
      return {
        ...doorOf(core.request, base),
        async evolve(request) {
          const { kernels: on, waves: _, ...common } = await kernels.evolve({ ...request, kernel });
          const [{ version, digest }] = on as [RolledOut['kernels'][number]];
          return { ...common, version, digest };
        },
        remove: async (module) => void (await kernels.remove(module, kernel)),
      };
    },
    async evolve(request) {
      const { kernel, replicas, wave = 1, watch_ms = 0 } = request;
      // Each wave takes its time, and to take all back does.
      const count = kernel !== undefined ? 1 : typeof replicas === 'number' ? replicas : (await list()).length;
      const waves = Math.max(1, Math.ceil(count / wave));
      return core.request('POST', '/api/evolve_plugin', request, (waves + 1) * EVOLVE_MS + waves * watch_ms);
    },
    async remove(module, kernel) {
      const query = kernel === undefined ? '' : `?kernel=${encodeURIComponent(kernel)}`;
      return core.request('DELETE', `/api/v2/modules/${pathPart('module', module)}${query}`, undefined, EVOLVE_MS);
    },
  };
  return kernels;
}

export interface KernelDoor {
  readonly url: string;
  status(): Promise<KernelStatus>;
  /**
   * Posts a module, or edits of one. Resolves when it serves. Rejects with EvolveRejected (stage, why, line, log),
   * EditRefused, BadInput; then nothing has changed.
   */
  evolve(request: EvolveRequest): Promise<Evolved>;
  /** An earlier version serves again; the last good one where none is named. */
  rollback(module: string, version?: number): Promise<Evolved>;
  /** Weights by version; they add up to 100. */
  weigh(module: string, versions: Record<number, number>): Promise<ModuleView>;
  pin(module: string, pinned: boolean): Promise<void>;
  remove(module: string): Promise<void>;
  versions(module: string): Promise<VersionFacts[]>;
  version(module: string, version: number): Promise<VersionFacts & { source: string }>;
  diff(module: string, from: number, to: number): Promise<string>;
  /** What its versions say that live, and what the one that ended last said: print, console and tracebacks. */
  logs(module: string, version?: number): Promise<ModuleLog[]>;
  /** The journal, of one module or of all. */
  history(module?: string): Promise<JournalEntry[]>;
}

/** `token`: the kernel's own, or none for a kernel that was started open on this machine. Asks nobody yet. */
export function connectKernel({ url, token = '' }: { url: string; token?: string }): KernelDoor {
  const { request } = createCoreClient(url, token, powers);
  const kernel: Pick<CoreClient, 'request'> = {
    request: (...asked) =>
      request<any>(...asked).catch((error) => {
        if (!isError(error, ConnectionLost)) throw error;
        const [why = ''] = /\([^()]*\)/.exec(error.fields.why) ?? [];
        throw new ConnectionLost({ why: `no kernel answers at ${url} ${why}. Start one with: hauki kernel` });
      }),
  };
  return { url, ...doorOf(kernel.request, '/api'), ...changesOf(kernel.request) };
}

type Request = CoreClient['request'];

const changesOf = (request: Request): Pick<KernelDoor, 'evolve' | 'remove'> => ({
  evolve: (asked) => request('POST', '/api/evolve_plugin', asked, EVOLVE_MS),
  async remove(module) {
    await request('DELETE', `/api/modules/${pathPart('module', module)}`);
  },
});

/** A kernel's own routes below `base`: its port has them, and a core for the kernels of its mesh. */
function doorOf(request: Request, base: string): Omit<KernelDoor, 'url' | 'evolve' | 'remove'> {
  const at = (module: string) => `${base}/modules/${pathPart('module', module)}`;
  return {
    status: () => request('GET', `${base}/status`),
    rollback: async (module, version) =>
      request('POST', `${at(module)}/rollback`, version === undefined ? {} : { version }, EVOLVE_MS),
    weigh: async (module, versions) => request('POST', `${at(module)}/weights`, { versions }, EVOLVE_MS),
    async pin(module, pinned) {
      await request('POST', `${at(module)}/pin`, { pinned });
    },
    versions: async (module) => (await request<{ versions: VersionFacts[] }>('GET', `${at(module)}/versions`)).versions,
    version: async (module, version) => request('GET', `${at(module)}/versions/${version}`),
    diff: async (module, from, to) =>
      (await request<{ diff: string }>('GET', `${at(module)}/diff?from=${from}&to=${to}`)).diff,
    logs: async (module, version) => {
      const query = version === undefined ? '' : `?version=${version}`;
      return (await request<{ logs: ModuleLog[] }>('GET', `${at(module)}/log${query}`)).logs;
    },
    history: async (module) => {
      const query = module === undefined ? '' : `?module=${encodeURIComponent(module)}`;
      return (await request<{ entries: JournalEntry[] }>('GET', `${base}/history${query}`)).entries;
    },
  };
}
