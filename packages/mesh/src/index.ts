/**
 * The SDK: `connect()` to a mesh, `clone()` a worker, call it, `destruct()` it.
 *
 *     await using mesh = await connect();
 *     const scout = mesh.clone<WebScout>('gem-pointer://wiki/workers/web_scout');
 *     console.log(await scout.analyze('…'));
 */

export * from '@hauki/protocol';
export type {
  Child,
  Clone,
  Connection,
  GuestCloneOptions,
  GuestVolume,
  Hauki,
  HaukiCall,
  VolumeEntry,
} from '@hauki/rpc/client';
export { type Ghost, type PendingGhost, withOptions } from '@hauki/rpc/client';
export * from './connect.ts';
export type { EventsOptions } from './events.ts';
export { connectKernel, type KernelDoor, type Kernels } from './kernel.ts';
export type { ProvisionOptions } from './lasting.ts';
export type { LifeDoor, LogOptions, WorkerDetails, WorkerState } from './life.ts';
export type * from './meshfs.ts';
export type { Routing } from './powers.ts';
export type { SpooledJob, SpoolOptions } from './spool.ts';
export type { Tokens } from './tokens.ts';
