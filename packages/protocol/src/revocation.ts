/**
 * Less of what was granted: whether grants are within others, what is left of them within others, and what is left when
 * some are revoked. Pure. What always holds: what is left is within what was there.
 */
import { BadInput } from './caller-errors.ts';
import { canonicalTarget, type FetchGrant, type Grants, type SecretGrant } from './grants.ts';
import { LIMITS } from './limits.ts';
import { canonicalPrefix, reachesAll } from './prefix.ts';

const within = (limit: number, asked: number): boolean => limit === 0 || (asked !== 0 && asked <= limit);

const fetchWithin = (has: FetchGrant, asked: FetchGrant): boolean =>
  has.to === asked.to &&
  (has.methods.length === 0 || (asked.methods.length > 0 && asked.methods.every((one) => has.methods.includes(one)))) &&
  within(has.per_minute, asked.per_minute);

const secretWithin = (has: Grants, { name, to }: SecretGrant): boolean => {
  const own = has.secrets.find((one) => one.name === name);
  return own !== undefined && to.every((target) => own.to.includes(target));
};

/** The first grant that goes too far, and what there is of its kind, both in words. */
export interface Beyond {
  wanted: string;
  has: string;
}

const fetchText = ({ to, methods, per_minute }: FetchGrant) =>
  `${to}${methods.length > 0 ? ` by ${methods.join(', ')}` : ''}${per_minute > 0 ? `, ${per_minute} a minute` : ''}`;
const volumeText = ({ name, quota_mib }: NonNullable<Grants['volume']>) => `${name} of ${quota_mib} MiB`;

/** What of `asked` goes beyond `has`; undefined where all of it is within. */
export function grantsWithin(has: Grants, asked: Grants): Beyond | undefined {
  const beyond = (kind: string, wanted: string, held: readonly string[]): Beyond => ({
    wanted: `${kind} ${wanted}`.trim(),
    has: held.length > 0 ? `${kind} ${held.join('; ')}`.trim() : `no ${kind}`,
  });
  const fetch = asked.fetch.find((one) => !has.fetch.some((other) => fetchWithin(other, one)));
  if (fetch) return beyond('fetch', fetchText(fetch), has.fetch.map(fetchText));
  const connect = asked.connect.find((target) => !has.connect.includes(target));
  if (connect !== undefined) return beyond('connect', connect, has.connect);
  for (const right of ['read', 'write'] as const) {
    const prefix = asked.meshfs[right].find((one) => !reachesAll(has.meshfs[right], one));
    if (prefix !== undefined) return beyond(`meshfs.${right}`, prefix, has.meshfs[right]);
  }
  const { volume, clone } = asked;
  if (volume && (volume.name !== has.volume?.name || volume.quota_mib > has.volume.quota_mib))
    return beyond('volume', volumeText(volume), has.volume ? [volumeText(has.volume)] : []);
  for (const kind of ['live', 'total', 'memory_mib'] as const)
    if (clone && clone[kind] > (has.clone?.[kind] ?? 0))
      return beyond(`clone.${kind}`, `${clone[kind]}`, has.clone ? [`${has.clone[kind]}`] : []);
  const secret = asked.secrets.find((one) => !secretWithin(has, one));
  if (secret)
    return beyond(
      'secret',
      secret.name,
      has.secrets.map(({ name }) => name),
    );
  for (const kind of ['time', 'random'] as const) if (asked[kind] && !has[kind]) return beyond(kind, '', []);
  return undefined;
}

/** What of `present` is within `most`. The clock and entropy stay: they cannot be taken from code that has them. */
export function cutGrants(most: Grants, present: Grants): Grants {
  const { volume, clone } = present;
  const less = (kind: keyof NonNullable<typeof clone>) => Math.min(clone?.[kind] ?? 0, most.clone?.[kind] ?? 0);
  const pointers = (right: 'read' | 'write') =>
    present.meshfs[right].filter((prefix) => reachesAll(most.meshfs[right], prefix));
  return {
    ...present,
    fetch: present.fetch.filter((one) => most.fetch.some((other) => fetchWithin(other, one))),
    connect: present.connect.filter((target) => most.connect.includes(target)),
    meshfs: { read: pointers('read'), write: pointers('write') },
    volume: volume?.name === most.volume?.name ? volume : null,
    clone: clone && most.clone ? { live: less('live'), total: less('total'), memory_mib: less('memory_mib') } : null,
    secrets: present.secrets.filter((one) => secretWithin(most, one)),
  };
}

/** What to take away: `true` for all of a kind, else entries as they were granted (of `fetch` and `connect`: host:port). */
export interface Revocation {
  fetch?: true | string[];
  connect?: true | string[];
  meshfs?: { read?: true | string[]; write?: true | string[] };
  secrets?: true | string[];
  volume?: true;
  clone?: true;
}

/** What is named to be revoked, as grants have it. */
function spelled(name: string): string {
  const target = canonicalTarget(name);
  if (target !== undefined || !name.startsWith('gem-pointer://')) return target ?? name;
  try {
    return canonicalPrefix(name);
  } catch {
    return name;
  }
}

/** The grants without what is revoked. Throws BadInput for what is not granted, so that a slip does not look like success. */
export function revokeGrants(grants: Grants, what: Revocation): Grants {
  const without = <T>(kind: string, list: T[], asked: true | string[] | undefined, nameOf: (one: T) => string): T[] => {
    if (asked === undefined) return list;
    if (asked === true) return [];
    const names = asked.map(spelled);
    const missing = names.find((name) => !list.some((one) => nameOf(one) === name));
    if (missing !== undefined || names.length > LIMITS.grants)
      throw new BadInput({
        what: `revoke ${kind}`,
        why: `it has no such grant as ${missing}; it has ${list.map(nameOf).join(', ') || 'none'}`,
      });
    return list.filter((one) => !names.includes(nameOf(one)));
  };
  const itself = (text: string) => text;
  const { meshfs = {} } = what;
  return {
    ...grants,
    fetch: without('fetch', grants.fetch, what.fetch, ({ to }) => to),
    connect: without('connect', grants.connect, what.connect, itself),
    meshfs: {
      read: without('meshfs.read', grants.meshfs.read, meshfs.read, itself),
      write: without('meshfs.write', grants.meshfs.write, meshfs.write, itself),
    },
    secrets: without('secrets', grants.secrets, what.secrets, ({ name }) => name),
    volume: what.volume ? null : grants.volume,
    clone: what.clone ? null : grants.clone,
  };
}
