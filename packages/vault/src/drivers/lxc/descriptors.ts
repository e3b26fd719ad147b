/**
 * Keeps descriptors that the agent inherited (from a shell, a supervisor, an editor) out of its children and vaults.
 *
 * Node opens its own descriptors close-on-exec and marks those it inherited so too, but only up to the first gap above
 * 15; so what lacks that flag came from outside. LXC passes everything it inherits into the container, and its option to
 * close descriptors would close the handed-in socket too; so the agent closes them here, once, at its start, before it
 * opens anything.
 */
import { closeSync, readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';

const O_CLOEXEC = 0o2000000;

/** Closes every descriptor above 2 that would survive an exec, but Node's own IPC channel; tells which they were. */
export function closeInheritedDescriptors(keep: Iterable<number> = []): number[] {
  if (process.platform !== 'linux') return [];
  const kept = new Set(keep);
  const channel = Number(process.env.NODE_CHANNEL_FD ?? ipcDescriptor() ?? Number.NaN);
  if (Number.isInteger(channel)) kept.add(channel);
  const closed: number[] = [];
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name);
    // In this order: a descriptor may have become another file's since it was listed.
    if (fd <= 2 || kept.has(fd) || !survivesExec(fd) || isOfCertificates(fd)) continue;
    try {
      closeSync(fd);
      closed.push(fd);
    } catch {
      // Already closed: the listing itself had a descriptor.
    }
  }
  return closed;
}

function survivesExec(fd: number): boolean {
  try {
    const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
    return flags !== undefined && (Number.parseInt(flags, 8) & O_CLOEXEC) === 0;
  } catch {
    return false;
  }
}

/**
 * Whether a thread of Node's reads further certificates by it, as it does at the start, and closes it itself: closed here,
 * its number would be another file's by then.
 */
function isOfCertificates(fd: number): boolean {
  const file = process.env.NODE_EXTRA_CA_CERTS;
  try {
    return file !== undefined && readlinkSync(`/proc/self/fd/${fd}`) === realpathSync(file);
  } catch {
    return false;
  }
}

/** Node removes NODE_CHANNEL_FD from the environment, but keeps the channel's handle. */
function ipcDescriptor(): number | undefined {
  const channel = (process as { channel?: { fd?: number } | null }).channel;
  return typeof channel?.fd === 'number' ? channel.fd : undefined;
}
