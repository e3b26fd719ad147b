/**
 * The network as effects use it: names are looked up once, the answers are checked, and the connection goes to one of
 * those and to nothing else. So no answer can change between the check and the connection ("DNS rebinding").
 */
import { lookup as systemLookup } from 'node:dns/promises';
import { isIP, type LookupFunction } from 'node:net';
import { GrantMissing, LIMITS, Overloaded, RemoteError } from '@hauki/protocol';
import { closedRange, namesOf } from './addresses.ts';

/** What all vaults of a node share of the network. */
export interface Network {
  /** All addresses of a name. Rejects as `node:dns` does. */
  lookup(host: string): Promise<string[]>;
  /** Makes room for bytes that are held in memory for guests; throws Overloaded where there is none. */
  hold(bytes: number): () => void;
}

/** The machine's own network. `lookup` and `limit_bytes` are for those who know better. */
export function createNetwork({
  lookup = async (host: string) => (await systemLookup(host, { all: true })).map(({ address }) => address),
  limit_bytes = LIMITS.fetched_bytes as number,
} = {}): Network {
  let held_bytes = 0;
  return {
    lookup,
    hold(bytes) {
      if (held_bytes + bytes > limit_bytes)
        throw new Overloaded({ what: 'bytes that this node holds for fetches and connections', limit: limit_bytes });
      held_bytes += bytes;
      let held = true;
      return () => {
        if (held) held_bytes -= bytes;
        held = false;
      };
    },
  };
}

/** Where a connection may go. */
export interface Route {
  /** Without brackets. */
  host: string;
  port: number;
  /** For `node:net` and `node:http`: gives the addresses that were checked, whatever it is asked. */
  lookup: LookupFunction;
}

export interface Asking {
  network: Network;
  /** The kind of grant, for the words of a refusal. */
  grant: 'fetch' | 'connect';
  /** `host:port`s of the grant that apply: an address that is not public must be among them. */
  listed: readonly string[];
  signal: AbortSignal;
}

/** Whether an address may be connected to: it is public, or listed by itself. */
export const reachable = (listed: readonly string[], address: string, port: number): boolean =>
  closedRange(address) === undefined || namesOf(address, port).some((name) => listed.includes(name));

/** The name and port of a canonical `host:port`. */
export function partsOf(target: string): { host: string; port: number } {
  const at = target.lastIndexOf(':');
  return { host: target.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(target.slice(at + 1)) };
}

/**
 * Finds the way to a canonical `host:port` that was granted. Rejects with GrantMissing where it leads to no public
 * address and to none that is listed, RemoteError where there is no such name.
 */
export async function routeTo(target: string, { network, grant, listed, signal }: Asking): Promise<Route> {
  const { host, port } = partsOf(target);
  const addresses = isIP(host) ? [host] : await lookedUp(network, host, grant, signal);
  const open = addresses.filter((address) => reachable(listed, address, port));
  const [refused] = addresses;
  if (open.length === 0 && refused !== undefined) {
    const wanted = namesOf(refused, port).at(-1)!;
    throw new GrantMissing(
      { grant, wanted },
      `${target} is at ${refused}, which is not a public address (${closedRange(refused)}). If that is meant, grant ${grant} ${wanted} too: such an address must be listed by itself, with its port`,
    );
  }
  const pinned = open.map((address) => ({ address, family: isIP(address) }));
  return {
    host,
    port,
    lookup: (_host, options, done) => {
      if (options.all) return done(null, pinned);
      done(null, pinned[0]!.address, pinned[0]!.family);
    },
  };
}

async function lookedUp(network: Network, host: string, grant: string, signal: AbortSignal): Promise<string[]> {
  signal.throwIfAborted();
  const { promise: given_up, reject } = Promise.withResolvers<never>();
  const give_up = () => reject(signal.reason);
  signal.addEventListener('abort', give_up);
  try {
    const found = await Promise.race([network.lookup(host), given_up]);
    // As many as anybody tries; a name server may say anything.
    if (found.length > 0) return found.slice(0, 16);
    throw Object.assign(new Error('no address'), { code: 'ENODATA' });
  } catch (error) {
    signal.throwIfAborted();
    const { code = 'ENOTFOUND' } = error as NodeJS.ErrnoException;
    throw new RemoteError({ error_name: 'TypeError' }, `${grant} failed: ${host}: ${code}`);
  } finally {
    signal.removeEventListener('abort', give_up);
  }
}
