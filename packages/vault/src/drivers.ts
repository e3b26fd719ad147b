/** Which drivers there are. The order is the order of preference. */
import { join, resolve } from 'node:path';
import type { Driver, DriverName } from './driver.ts';
import { createLxcDriver } from './drivers/lxc/lxc.ts';
import { createProcessDriver } from './drivers/process/process.ts';
import { createQuickjsDriver } from './drivers/quickjs/quickjs.ts';
import { Gates } from './gates/gates.ts';
import { writeNodeGuest } from './guest/bundle.ts';

export interface DriverOptions {
  node_id: string;
  data_dir: string;
  log(line: string, fields?: object): void;
  /** Names to make; all when left out. */
  only?: string[] | undefined;
  /** This process is in a sandbox itself. */
  contained?: boolean;
}

/**
 * `gates`: for vaults without a listening socket; one host process for all drivers of a node. `guest`: the module that
 * Node runs in a vault, written once for all.
 */
type MakerOptions = DriverOptions & { gates: Gates; guest(): Promise<string> };

const MAKERS: Record<DriverName, (options: MakerOptions) => Promise<Driver>> = {
  async lxc({ node_id, data_dir, log, guest, gates }) {
    return createLxcDriver({ node_id, data_dir, guest_file: await guest(), log, gates });
  },
  quickjs: async () => createQuickjsDriver(),
  async process({ node_id, data_dir, log, guest, gates, contained = false }) {
    return createProcessDriver({ node_id, data_dir, guest_file: await guest(), log, gates, contained });
  },
};

/** Names of all drivers. */
export const DRIVER_NAMES = Object.keys(MAKERS) as DriverName[];

/** Makes the drivers; whether each can be offered here, its `probe` tells. */
export function createDrivers({ only, ...given }: DriverOptions): Promise<Driver[]> {
  // Programs that start in another folder are told of it.
  const options = { ...given, data_dir: resolve(given.data_dir) };
  const names = DRIVER_NAMES.filter((name) => !only || only.includes(name));
  const gates = new Gates();
  let written: Promise<string> | undefined;
  const guest = () => {
    const file = join(options.data_dir, 'guest.mjs');
    written ??= writeNodeGuest(file).then(() => file);
    return written;
  };
  return Promise.all(names.map((name) => MAKERS[name]({ ...options, gates, guest })));
}
