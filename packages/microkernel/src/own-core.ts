/** The core that a kernel is to its own agent: MeshFS and itself to read for granted modules, and nobody to report to. */
import type { MeshFs } from '@hauki/meshfs';
import { type CoreForNode, GrantMissing, NoNodeFits } from '@hauki/protocol';
import { isInside, readInside } from './inside.ts';
import type { Kernel } from './kernel.ts';
import { SOURCES } from './names.ts';
import type { PluginHost } from './plugin-host.ts';

/** `kernel` gives the kernel, once there is one; `host` is told of vaults that are there, and of their ends. */
export function ownCore(meshfs: MeshFs, kernel: () => Kernel, host: Pick<PluginHost, 'ready' | 'ended'>): CoreForNode {
  return {
    announce: async () => {},
    register: async () => ({ keys: {}, core: 'kernel' }),
    report: async () => {},
    vault_ready: async (made) => host.ready(made),
    worker_died: async (fate) => host.ended(fate),
    async meshfs_write(_worker, pointer, content, media_type) {
      if (isInside(pointer) || pointer.startsWith(SOURCES))
        throw new GrantMissing({ grant: 'meshfs.write', wanted: pointer });
      return meshfs.write({ pointer, content, ...(media_type === undefined ? {} : { media_type }) });
    },
    meshfs_resolve: async (worker, pointer) =>
      isInside(pointer) ? readInside(kernel(), worker, pointer) : meshfs.resolve(pointer),
    clone: async () => {
      throw new NoNodeFits({ wanted: { clone: 'a worker' }, have: ['this kernel, which keeps modules only'] });
    },
  };
}
