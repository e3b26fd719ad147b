/** The mesh under attack, as the attempts use it. */

import type { LocalMesh } from '@hauki/cli';
import { connect, type GrantRequest, type Mesh } from '@hauki/mesh';
import { type DriverName, traces, until } from '../support/mesh.ts';
import type { Facts } from './host.ts';

export const MEMORY_MIB: Record<DriverName, number> = { lxc: 96, process: 96, quickjs: 16 };

type Methods = Record<string, (...args: unknown[]) => unknown>;

export interface World {
  facts: Facts;
  local: LocalMesh;
  mesh: Mesh;
  /** A folder that vaults' own roots may enter. */
  folder: string;
  clone(
    driver: DriverName,
    source: string,
    options?: { grants?: GrantRequest; timeout_ms?: number; lease_ms?: number },
  ): any;
  /** Makes a worker with `driver`, calls `attempt`, and lets it go. */
  ask(
    driver: DriverName,
    source: string,
    facts: Facts,
    options?: { grants?: GrantRequest; timeout_ms?: number },
  ): Promise<unknown>;
  /** A worker of another owner in the same driver answers. */
  neighbourAnswers(driver: DriverName): Promise<number>;
  /** Destructs, and rejects unless nothing of the worker is left. */
  vanishes(ghost: object): Promise<void>;
  close(): Promise<void>;
}

const CALL_MS = 30_000;

export async function openWorld(facts: Facts, local: LocalMesh, folder: string): Promise<World> {
  const mesh = await connect({ core: local.url, token: local.token });
  const { token } = await mesh.tokens.create({ name: 'neighbour', scopes: ['spawn'] });
  const others = await connect({ core: local.url, token });
  const neighbours = new Map<DriverName, Methods>();
  const world: World = {
    ...{ facts, local, mesh, folder },
    clone: (driver, source, options = {}) =>
      // A clock and entropy are granted, so that no attempt fails for want of them.
      mesh.clone<Methods>(
        { source },
        {
          ...{ driver, memory_mib: MEMORY_MIB[driver], timeout_ms: CALL_MS, ...options },
          grants: { time: true, random: true, ...options.grants },
        },
      ),
    async ask(driver, source, told, options) {
      const ghost = world.clone(driver, source, options);
      try {
        return await ghost.attempt(told);
      } finally {
        await mesh.destruct(ghost).catch(() => {});
      }
    },
    async neighbourAnswers(driver) {
      let ghost = neighbours.get(driver);
      if (!ghost) {
        ghost = others.clone<Methods>({ source: 'export const here = () => 42;' }, { driver }) as unknown as Methods;
        neighbours.set(driver, ghost);
        await ghost.here!();
      }
      const began = performance.now();
      if ((await ghost.here!()) !== 42) throw new Error('the neighbour answered wrongly');
      return Math.round(performance.now() - began);
    },
    async vanishes(ghost) {
      const { worker } = await mesh.details(ghost);
      await mesh.destruct(ghost);
      await until(`nothing of ${worker} is left`, () => traces(worker).length === 0);
    },
    async close() {
      await others.close();
      await mesh.close();
    },
  };
  return world;
}
