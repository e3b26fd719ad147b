/** Where Hauki keeps things on this machine, unless told otherwise. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

/** Whether a URL's host is this machine: a token that lies here is sent to no other. */
export const isThisMachine = (url: string): boolean =>
  /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/.test(URL.parse(url)?.hostname ?? '');

/** HAUKI_DATA, else /var/lib/hauki for root, else the user's own data folder (XDG). */
export function defaultDataDir(): string {
  if (process.env.HAUKI_DATA) return resolve(process.env.HAUKI_DATA);
  if (process.getuid?.() === 0) return '/var/lib/hauki';
  return join(process.env.XDG_DATA_HOME ?? join(homedir(), '.local', 'share'), 'hauki');
}

/** The file with the admin token of a core that keeps its data there. */
export const adminTokenFile = (data_dir: string) => join(data_dir, 'core', 'admin.token');
/** The file with the token for node agents. */
export const nodeTokenFile = (data_dir: string) => join(data_dir, 'core', 'node.token');
/** The file with the token of a microkernel that keeps its data there. */
export const kernelTokenFile = (data_dir: string) => join(data_dir, 'kernel.token');
/** Where the microkernel of a number keeps its data. */
export const kernelDataDir = (data_dir: string, id: string) => join(data_dir, `kernel-${id}`);
