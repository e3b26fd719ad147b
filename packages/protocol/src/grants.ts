/**
 * Grants: what a guest may do in the world, all deny by default. A grant is checked and its effect performed on the
 * host's side; the guest only asks. Here is what may be written, in its short and its whole form; whether somebody may
 * hand it on is the core's to say (`core/src/rights.ts`).
 */

import { BadInput, TooLarge } from './caller-errors.ts';
import type { Runtime } from './control.ts';
import { LIMITS } from './limits.ts';
import { canonicalPrefix, EVERYTHING } from './prefix.ts';

export interface FetchGrant {
  /** `host:port` in its one spelling; a redirect is checked like a new request. */
  to: string;
  /** Methods in capitals; none listed: all. */
  methods: string[];
  /** Requests in a minute, redirects included; 0: as many as the vault's own bounds let through. */
  per_minute: number;
}

export interface VolumeGrant {
  /** Its name among its owner's volumes. */
  name: string;
  quota_mib: number;
}

export interface CloneGrant {
  /** Children that may live at once. */
  live: number;
  /** Children ever. */
  total: number;
  /** Memory of the living ones together. */
  memory_mib: number;
}

/** Where a secret may be sent. Its value is never here. */
export interface SecretGrant {
  name: string;
  /** `host:port` as in `fetch`. */
  to: string[];
}

/** Grants made whole: every kind is there, every entry in its one spelling and once. */
export interface Grants {
  fetch: FetchGrant[];
  /** `host:port` to which a byte stream may be opened. */
  connect: string[];
  /** Pointer prefixes. `gem-pointer://wiki/a/` covers all below it, `gem-pointer://wiki/a` that pointer alone. */
  meshfs: { read: string[]; write: string[] };
  /** A private folder that lasts, kept for its owner by name. */
  volume: VolumeGrant | null;
  clone: CloneGrant | null;
  secrets: SecretGrant[];
  /** The wall clock. */
  time: boolean;
  /** Entropy. */
  random: boolean;
}

/** What a caller may write; whatever is left out is denied. Secrets stand beside it (`SecretRequests`). */
export interface GrantRequest {
  /** `host:port` is short for all methods at any rate. */
  fetch?: (string | { to: string; methods?: string[]; per_minute?: number })[];
  connect?: string[];
  meshfs?: { read?: string[]; write?: string[] };
  /** A name is short for one with the usual quota. */
  volume?: string | { name: string; quota_mib?: number } | null;
  /** A number is short for so many at once. */
  clone?: number | { live: number; total?: number; memory_mib?: number } | null;
  time?: boolean;
  random?: boolean;
}

/** Secrets by name: the value, which only the node gets to see, and the `host:port` that it may be sent to. */
export type SecretRequests = Record<string, { value: string; to: string[] }>;

/** What a grant gives when its request does not say. */
export const GRANT_DEFAULTS = { quota_mib: 64, clones_for_each_living: 16, clone_memory_mib: 128 } as const;

export const NO_GRANTS: Grants = {
  fetch: [],
  connect: [],
  meshfs: { read: [], write: [] },
  volume: null,
  clone: null,
  secrets: [],
  time: false,
  random: false,
};

const METHOD = /^[A-Z]{1,16}$/;
/** As a placeholder names it: `{{secret:NAME}}`. */
const SECRET_NAME = /^[A-Za-z_][A-Za-z0-9_]{0,63}$/;
const VOLUME_NAME = /^[a-z0-9][a-z0-9-]{0,31}$/;

function list(what: string, given: unknown, kind: string, fits: (entry: unknown) => boolean): unknown[] {
  if (given === undefined) return [];
  if (!Array.isArray(given) || given.length > LIMITS.grants || !given.every(fits))
    throw new BadInput({ what, why: `must be a list of at most ${LIMITS.grants} ${kind}` });
  return given;
}

const isText = (entry: unknown) => typeof entry === 'string' && entry.length < 1024;
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const strings = (what: string, given: unknown) => [...new Set(list(what, given, 'strings', isText) as string[])];

/** An object with no members but these; what is not understood may have been meant to deny something. */
function members(what: string, value: unknown, known: readonly string[]): Record<string, unknown> {
  if (!isObject(value)) throw new BadInput({ what, why: `must be an object with ${known.join(', ')}` });
  const unknown = Object.keys(value).find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new BadInput({ what, why: `has no ${JSON.stringify(unknown.slice(0, 64))}; there is: ${known.join(', ')}` });
  return value;
}

function whole(what: string, value: unknown, least: number, most: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most)
    throw new BadInput({ what, why: `must be a whole number from ${least} to ${most}` });
  return value;
}

function truth(what: string, value: unknown): boolean {
  if (value !== undefined && typeof value !== 'boolean') throw new BadInput({ what, why: 'must be true or false' });
  return value ?? false;
}

/**
 * Host and port as a URL would have them, so that what is compared is the same however it was written: in small letters,
 * without a last dot, an IPv4 address in decimal, an IPv6 address short and in brackets, the port without zeros before
 * it. Undefined for what is none.
 */
export function canonicalTarget(text: string): string | undefined {
  const parts = /^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,254}):(\d{1,5})$/.exec(text);
  if (!parts) return undefined;
  const port = Number(parts[2]);
  if (port < 1 || port > 65535) return undefined;
  try {
    // The URL parser knows all forms of an address (WHATWG URL, section 3.5), and clients use no other.
    const host = new URL(`http://${parts[1]!.replace(/\.$/, '')}/`).hostname;
    return host === '' || host.endsWith('.') ? undefined : `${host}:${port}`;
  } catch {
    return undefined;
  }
}

function targetOf(what: string, entry: string): string {
  const target = canonicalTarget(entry);
  if (target !== undefined) return target;
  throw new BadInput({ what, why: `${JSON.stringify(entry)} is not host:port, as in example.org:443` });
}

/** A list of `host:port` in their one spelling. Throws BadInput naming `what`. */
export const canonicalTargets = (what: string, given: unknown): string[] => [
  ...new Set(strings(what, given).map((entry) => targetOf(what, entry))),
];

function fetchGrant(entry: unknown): FetchGrant {
  const what = 'grants.fetch';
  if (typeof entry === 'string') return { to: targetOf(what, entry), methods: [], per_minute: 0 };
  const { to, methods, per_minute = 0 } = members(what, entry, ['to', 'methods', 'per_minute']);
  if (typeof to !== 'string')
    throw new BadInput({ what, why: 'each names host:port, as in { to: "example.org:443" }' });
  const verbs = strings(`${what}: methods`, methods).map((method) => method.toUpperCase());
  const wrong = verbs.find((method) => !METHOD.test(method));
  if (wrong !== undefined) throw new BadInput({ what, why: `${JSON.stringify(wrong)} is no method like GET` });
  return {
    to: targetOf(what, to),
    methods: [...new Set(verbs)].sort(),
    per_minute: whole(`${what}: per_minute`, per_minute, 0, LIMITS.fetches_per_minute),
  };
}

/** Entries with the same rule for the same target count once. */
function fetchGrants(given: unknown): FetchGrant[] {
  const entries = list(
    'grants.fetch',
    given,
    'strings or { to, methods, per_minute }',
    (e) => isText(e) || isObject(e),
  );
  const all = entries.map(fetchGrant).map((grant) => [JSON.stringify(grant), grant] as const);
  return [...new Map(all).values()];
}

function volumeGrant(given: unknown): VolumeGrant | null {
  if (given === undefined || given === null) return null;
  const what = 'grants.volume';
  const asked = typeof given === 'string' ? { name: given } : members(what, given, ['name', 'quota_mib']);
  const { name, quota_mib = GRANT_DEFAULTS.quota_mib } = asked as { name?: unknown; quota_mib?: unknown };
  if (typeof name !== 'string' || !VOLUME_NAME.test(name))
    throw new BadInput({ what, why: `${JSON.stringify(name)?.slice(0, 80)} is no name of a-z, 0-9 and -, at most 32` });
  return { name, quota_mib: whole(`${what}: quota_mib`, quota_mib, 1, LIMITS.volume_mib) };
}

function cloneGrant(given: unknown): CloneGrant | null {
  if (given === undefined || given === null || given === 0) return null;
  const what = 'grants.clone';
  const asked = typeof given === 'number' ? { live: given } : members(what, given, ['live', 'total', 'memory_mib']);
  const live = whole(`${what}: live`, asked.live, 1, LIMITS.clone_live);
  const { clones_for_each_living, clone_memory_mib } = GRANT_DEFAULTS;
  const {
    total = Math.min(live * clones_for_each_living, LIMITS.clone_total),
    memory_mib = Math.min(live * clone_memory_mib, LIMITS.clone_memory_mib),
  } = asked as { total?: unknown; memory_mib?: unknown };
  return {
    live,
    total: whole(`${what}: total`, total, live, LIMITS.clone_total),
    memory_mib: whole(`${what}: memory_mib`, memory_mib, 1, LIMITS.clone_memory_mib),
  };
}

function secretGrants(secrets: unknown): SecretGrant[] {
  if (!isObject(secrets))
    throw new BadInput({ what: 'secrets', why: 'must be an object, as in { NAME: { value, to } }' });
  const entries = Object.entries(secrets);
  if (entries.length > LIMITS.secrets) throw new BadInput({ what: 'secrets', why: `at most ${LIMITS.secrets}` });
  return entries.map(([name, secret]) => {
    if (!SECRET_NAME.test(name))
      throw new BadInput({
        what: 'secrets',
        why: `${JSON.stringify(name.slice(0, 80))} is no name of letters, digits and _`,
      });
    const what = `secrets.${name}`;
    const { value, to } = members(what, secret, ['value', 'to']);
    const { secret_least_chars: least, secret_chars: most } = LIMITS;
    if (typeof value !== 'string' || value.length < least || value.length > most)
      throw new BadInput({ what, why: `its value must be a text of ${least} to ${most} characters` });
    const grant = { name, to: canonicalTargets(`${what}: to`, to) };
    if (grant.to.length === 0) throw new BadInput({ what, why: 'names no host:port in `to`, so it could go nowhere' });
    return grant;
  });
}

const KINDS = ['fetch', 'connect', 'meshfs', 'volume', 'clone', 'time', 'random'];

/**
 * Makes grants whole and checks them; throws BadInput naming the grant that is wrong, and no secret's value, or TooLarge
 * for more than a ticket holds. Grants that are whole stay as they are (their secrets come of `secrets` alone).
 */
export function normaliseGrants(request: GrantRequest = {}, secrets: SecretRequests = {}): Grants {
  const given = members('grants', request, [...KINDS, 'secrets']);
  if (given.secrets !== undefined && !Array.isArray(given.secrets))
    throw new BadInput({ what: 'grants', why: 'secrets stand beside the grants, as in { grants, secrets }' });
  const meshfs = given.meshfs === undefined ? {} : members('grants.meshfs', given.meshfs, ['read', 'write']);
  const prefixes = (right: 'read' | 'write') => {
    const all = strings(`grants.meshfs.${right}`, meshfs[right]).map((prefix) => {
      const wrong = (why: string) =>
        new BadInput({
          what: `grants.meshfs.${right}`,
          why: `${JSON.stringify(prefix)} is not a pointer prefix, as in gem-pointer://wiki/reports/: ${why}`,
        });
      if (prefix === EVERYTHING) throw wrong('it names all spaces at once; name those that are needed');
      try {
        return canonicalPrefix(prefix);
      } catch (error) {
        throw wrong((error as { fields?: { why?: string } }).fields?.why ?? 'it names nothing');
      }
    });
    return [...new Set(all)];
  };
  const grants: Grants = {
    fetch: fetchGrants(given.fetch),
    connect: canonicalTargets('grants.connect', given.connect),
    meshfs: { read: prefixes('read'), write: prefixes('write') },
    volume: volumeGrant(given.volume),
    clone: cloneGrant(given.clone),
    secrets: secretGrants(secrets),
    time: truth('grants.time', given.time),
    random: truth('grants.random', given.random),
  };
  const got_bytes = new TextEncoder().encode(JSON.stringify(grants)).length;
  const limit_bytes = LIMITS.grants_bytes;
  if (got_bytes > limit_bytes)
    throw new TooLarge({ what: 'What the grants and the targets of secrets say', limit_bytes, got_bytes });
  return grants;
}

/** The grants as a worker really has them: from Python neither clock nor entropy is withheld, so none may say they are. */
export const heldGrants = (grants: Grants, runtime: Runtime): Grants =>
  runtime === 'python' ? { ...grants, time: true, random: true } : grants;

/** The values of secrets by name, as a job carries them; undefined where there are none. */
export function secretValues(secrets: SecretRequests = {}): Record<string, string> | undefined {
  const values = Object.entries(secrets).map(([name, { value }]) => [name, value]);
  return values.length > 0 ? Object.fromEntries(values) : undefined;
}
