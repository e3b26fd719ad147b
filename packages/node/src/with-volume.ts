/** A vault and the volume that it has, as one: apart from the volumes, which know of no vaults. */
import type { Vault } from '@hauki/vault';
import type { HeldVolume } from './volumes.ts';

/** A vault that has ended only when its volume is let go of, too. */
export function withVolume(vault: Vault, volume: HeldVolume | undefined): Vault {
  if (!volume) return vault;
  const exited = vault.exited.then(async (exit) => {
    await volume.release();
    return exit;
  });
  const { id, port, control } = vault;
  return {
    ...{ id, port, control, exited },
    get pid() {
      return vault.pid;
    },
    async kill(reason) {
      await vault.kill(reason);
      await exited;
    },
    ...(vault.pause ? { pause: () => vault.pause!() } : {}),
    ...(vault.resume ? { resume: () => vault.resume!() } : {}),
    ...(vault.usage ? { usage: () => vault.usage!() } : {}),
  };
}
