/**
 * The network as effects use it: names are looked up once, the answers are checked, and the connection goes to one of
 * those and to nothing else. So no answer can change between the check and the connection ("DNS rebinding").
 */
import { lookup as systemLookup } from 'node:dns/promises';
import { isIP, type LookupFunction, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { GrantMissing, LIMITS, Overloaded, RemoteError } from '@hauki/protocol';
import { closedRange, namesOf, sameAddress } from './addresses.ts';
import { LOOKUPS } from './limits.ts';
import { type Asker, lookupsInTurn } from './lookups.ts';

/** Makes room for bytes that are held in memory for guests, and gives how to let go of it; throws Overloaded. */
export type Hold = (bytes: number) => () => void;

/** Room for so much at once; `more` is asked for the same room. */
export function roomFor(what: string, limit: number, more: Hold = () => () => {}): Hold {
  let held_bytes = 0;
  return (bytes) => {
    if (held_bytes + bytes > limit) throw new Overloaded({ what, limit });
    let letGo: (() => void) | undefined = more(bytes);
    held_bytes += bytes;
    return () => {
      letGo?.();
      if (letGo) held_bytes -= bytes;
      letGo = undefined;
    };
  };
}

/**
 * The same for many: nobody may hold more than all of them leave free. Who is alone has half of it; whatever some take,
 * there is room for whoever comes next.
 */
export function roomForEach(what: string, limit: number): (who: string) => Hold {
  let free_bytes = limit;
  const held = new Map<string, number>();
  const take = (who: string, bytes: number) => {
    const holds = (held.get(who) ?? 0) + bytes;
    free_bytes -= bytes;
    if (holds > 0) held.set(who, holds);
    else held.delete(who);
  };
  return (who) => (bytes) => {
    const holds = held.get(who) ?? 0;
    if (holds + bytes > free_bytes - bytes) throw new Overloaded({ what, limit: Math.floor((holds + free_bytes) / 2) });
    take(who, bytes);
    let letGo = () => take(who, -bytes);
    return () => {
      letGo();
      letGo = () => {};
    };
  };
}

/** What all vaults of a node share of the network. */
export interface Network {
  /** All addresses of a name, when it is the asker's turn. Rejects as `node:dns` does, or as `signal` says. */
  lookup(host: string, asker: Asker, signal: AbortSignal): Promise<string[]>;
  /** Room for what is held for vaults of an owner: a token and all below it are one. */
  holdFor(owner: string): Hold;
  /** Addresses of this machine: what listens there for its own network is not public, whatever the address looks like. */
  own(): readonly string[];
  /** Where this process has no way out itself: a stream to a granted `host:port`, from who has one. */
  dial?: ((target: string, signal: AbortSignal) => Promise<Socket>) | undefined;
}

/** Of an owner's name the token that is above all others of it. */
export const topOf = (owner: string): string => owner.split('/')[0]!;

/** The machine's own network; each part can be given by those who know better. */
export function createNetwork({
  lookup = async (host: string) => (await systemLookup(host, { all: true })).map(({ address }) => address),
  limit_bytes = LIMITS.fetched_bytes as number,
  own = () => Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => address)),
  dial = undefined as Network['dial'],
} = {}): Network {
  const each = roomForEach('bytes that this node holds for one owner’s fetches and connections', limit_bytes);
  return { lookup: lookupsInTurn(lookup, LOOKUPS), own, dial, holdFor: (owner) => each(topOf(owner)) };
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
  asker: Asker;
  /** The kind of grant, for the words of a refusal. */
  grant: 'fetch' | 'connect';
  /** `host:port`s of the grant that apply: an address that is not public must be among them. */
  listed: readonly string[];
  signal: AbortSignal;
}

const rangeOf = (network: Network, address: string): string | undefined =>
  closedRange(address) ?? (network.own().some((own) => sameAddress(own, address)) ? 'this machine' : undefined);

/** Whether an address may be connected to: it is public, or listed by itself. */
export const reachable = (network: Network, listed: readonly string[], address: string, port: number): boolean =>
  namesOf(address, port).some((name) => listed.includes(name)) || rangeOf(network, address) === undefined;

/** The name and port of a canonical `host:port`. */
export function partsOf(target: string): { host: string; port: number } {
  const at = target.lastIndexOf(':');
  return { host: target.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(target.slice(at + 1)) };
}

/**
 * Finds the way to a canonical `host:port` that was granted. Rejects with GrantMissing where it leads to no public
 * address and to none that is listed, RemoteError where there is no such name.
 */
export async function routeTo(target: string, asking: Asking): Promise<Route> {
  const { network, grant, listed } = asking;
  const { host, port } = partsOf(target);
  const addresses = isIP(host) ? [host] : await lookedUp(host, asking);
  const open = addresses.filter((address) => reachable(network, listed, address, port));
  const [refused] = addresses;
  if (open.length === 0 && refused !== undefined) {
    const wanted = namesOf(refused, port).at(-1)!;
    throw new GrantMissing(
      { grant, wanted },
      `${target} is at ${refused}, which is not a public address (${rangeOf(network, refused)}). If that is meant, grant ${grant} ${wanted} too: such an address must be listed by itself, with its port`,
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

async function lookedUp(host: string, { network, asker, grant, signal }: Asking): Promise<string[]> {
  signal.throwIfAborted();
  const { promise: given_up, reject } = Promise.withResolvers<never>();
  const give_up = () => reject(signal.reason);
  signal.addEventListener('abort', give_up);
  try {
    const found = await Promise.race([network.lookup(host, asker, signal), given_up]);
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
