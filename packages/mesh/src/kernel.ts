/** `connectKernel`: a microkernel as a script sees it. Every method is one request; errors are the kernel's own. */
import type {
  Evolved,
  EvolveRequest,
  JournalEntry,
  KernelInfo,
  KernelStatus,
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

const EVOLVE_MS = LIMITS.evolve_ms;

/** Kernels of a mesh: what `mesh.kernels` is. */
export interface Kernels {
  list(): Promise<(KernelInfo & { since: number; modules: ModuleSummary[] })[]>;
  /** Evolves a module on one kernel or several, in waves; the first wave that fails takes all back. */
  evolve(request: RolloutRequest): Promise<RolledOut>;
  /** Removes a module from the kernel that is named, or from all that hold it; what it has begun it finishes. */
  remove(module: string, kernel?: string): Promise<Removed>;
}

export function meshKernels(core: CoreClient): Kernels {
  const list = async () =>
    (await core.request<{ kernels: Awaited<ReturnType<Kernels['list']>> }>('GET', '/api/v2/kernels')).kernels;
  return {
    list,
    async evolve(request) {
      const { kernel, replicas, wave = 1, watch_ms = 0 } = request;
      // Each wave takes its time, and to take all back does.
      const count = kernel !== undefined ? 1 : typeof replicas === 'number' ? replicas : (await list()).length;
      const waves = Math.max(1, Math.ceil(count / wave));
      return core.request('POST', '/api/evolve_plugin', request, (waves + 1) * EVOLVE_MS + waves * watch_ms);
    },
    remove(module, kernel) {
      const query = kernel === undefined ? '' : `?kernel=${encodeURIComponent(kernel)}`;
      return core.request('DELETE', `/api/v2/modules/${encodeURIComponent(module)}${query}`, undefined, EVOLVE_MS);
    },
  };
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
  const at = (module: string) => `/api/modules/${encodeURIComponent(module)}`;
  return {
    url,
    status: () => kernel.request('GET', '/api/status'),
    evolve: (request) => kernel.request('POST', '/api/evolve_plugin', request, EVOLVE_MS),
    rollback: (module, version) =>
      kernel.request('POST', `${at(module)}/rollback`, version === undefined ? {} : { version }, EVOLVE_MS),
    weigh: (module, versions) => kernel.request('POST', `${at(module)}/weights`, { versions }, EVOLVE_MS),
    async pin(module, pinned) {
      await kernel.request('POST', `${at(module)}/pin`, { pinned });
    },
    async remove(module) {
      await kernel.request('DELETE', at(module));
    },
    versions: async (module) =>
      (await kernel.request<{ versions: VersionFacts[] }>('GET', `${at(module)}/versions`)).versions,
    version: (module, version) => kernel.request('GET', `${at(module)}/versions/${version}`),
    diff: async (module, from, to) =>
      (await kernel.request<{ diff: string }>('GET', `${at(module)}/diff?from=${from}&to=${to}`)).diff,
    history: async (module) => {
      const query = module === undefined ? '' : `?module=${encodeURIComponent(module)}`;
      return (await kernel.request<{ entries: JournalEntry[] }>('GET', `/api/history${query}`)).entries;
    },
  };
}
