/** `mesh.volumes`: private lasting folders of one's workers. They are made by the grant `volume`. */
import type { VolumeDetails } from '@hauki/protocol';
import type { CoreClient } from './http.ts';
import { pathPart } from './path.ts';

export interface Volumes {
  /** The mesh's own token's volumes and those of tokens below it; all of them for an admin. */
  list(): Promise<VolumeDetails[]>;
  /**
   * Deletes one with all that is in it. `owner`: by default the mesh's own token; `forget`: where its node is away, only
   * its name is let go of. Rejects with VolumeUnknown, VolumeInUse, Forbidden, NoNodeFits.
   */
  delete(name: string, options?: { owner?: string | undefined; forget?: boolean | undefined }): Promise<void>;
}

export function meshVolumes(core: CoreClient): Volumes {
  const path = '/api/v2/volumes';
  return {
    list: async () => (await core.request<{ volumes: VolumeDetails[] }>('GET', path)).volumes,
    async delete(name, { owner, forget } = {}) {
      const given = [...(owner === undefined ? [] : [['owner', owner]]), ...(forget ? [['forget', 'true']] : [])];
      await core.request('DELETE', `${path}/${pathPart('volume', name)}?${new URLSearchParams(given)}`);
    },
  };
}
