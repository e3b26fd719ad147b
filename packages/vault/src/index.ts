/** Vaults: drivers, and the effects that the host performs for guests. */
export * from './driver.ts';
export { boundTo } from './drivers/bound.ts';
export { closeInheritedDescriptors } from './drivers/lxc/descriptors.ts';
export { type Sandbox, Sandboxes, type SandboxOptions, sandboxObstacle } from './drivers/lxc/sandbox.ts';
export { ownerLives, ownName } from './drivers/owner.ts';
export { type Reaper, startReaper, UNMOUNT_ALL } from './drivers/reaper.ts';
export { createDrivers, DRIVER_NAMES } from './drivers.ts';
export type { FamilyPowers } from './effects/clone.ts';
export type { Allowance, EffectPowers, MeshFsClient } from './effects/effect.ts';
export * from './effects/effects.ts';
export { createNetwork, type Network } from './effects/network.ts';
export { createRates } from './effects/rates.ts';
export { sweepVolume } from './effects/volume.ts';
export type { Outside } from './guest/guest.ts';
export { GUEST_BOUNDS, serveOutside } from './guest/outside.ts';
export { POOL, Pool } from './pool.ts';
