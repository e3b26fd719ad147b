/** Names that the core makes for what nobody has named. */
import { randomText } from '@hauki/rpc';

/** Random small letters and digits. `bytes` of randomness go in. */
export const randomName = (bytes: number): string =>
  randomText(bytes)
    .toLowerCase()
    .replaceAll(/[^a-z0-9]/g, 'x');

/** Whether it is a name that the core makes for a clone (`w-`) or a job's worker (`s-`). No lasting worker is called so. */
export const isMadeUp = (name: string): boolean => /^[ws]-/.test(name);
