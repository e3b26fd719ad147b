/** Which drivers there are. The order is the order of preference: the strongest isolation first. */
import { join } from 'node:path';
import type { Driver, DriverName } from './driver.ts';
import { createLxcDriver } from './drivers/lxc/lxc.ts';
import { createQuickjsDriver } from './drivers/quickjs/quickjs.ts';
import { Gates } from './gates/gates.ts';
import { writeNodeGuest } from './guest/bundle.ts';

export interface DriverOptions {
  node_id: string;
  data_dir: string;
  log(line: string, fields?: object): void;
  /** Names to make; all when left out. */
  only?: string[] | undefined;
}

/** `gates`: for vaults without a listening socket; one host process for all drivers of a node. */
type MakerOptions = DriverOptions & { gates: Gates };

const MAKERS: Record<DriverName, (options: MakerOptions) => Promise<Driver>> = {
  async lxc({ node_id, data_dir, log }) {
    const guest_file = join(data_dir, 'guest.mjs');
    await writeNodeGuest(guest_file);
    return createLxcDriver({ node_id, data_dir, guest_file, log });
  },
  quickjs: async () => createQuickjsDriver(),
};

/** Names of all drivers. */
export const DRIVER_NAMES = Object.keys(MAKERS) as DriverName[];

/** Makes the drivers; whether each can be offered here, its `probe` tells. */
export function createDrivers(options: DriverOptions): Promise<Driver[]> {
  const names = DRIVER_NAMES.filter((name) => !options.only || options.only.includes(name));
  const gates = new Gates();
  return Promise.all(names.map((name) => MAKERS[name]({ ...options, gates })));
}
