/** The words of tokens and events, shared by the core, the SDK and the command. */

/**
 * What a token may be for. A scope covers those that begin with it and a dot (`meshfs` covers `meshfs.read`); `admin`
 * covers all, though an admin's token is not taken from a node.
 */
export const SCOPES = {
  read: 'see nodes, workers and what became of them, and all events but those of tokens',
  events: 'follow the events of its own and the targeted workers',
  spawn: 'clone workers, from pointers and from source; call and end those',
  'spawn.pointer': 'clone workers from pointers only; call and end those',
  call: 'call workers through the core and visit them: its own and the targeted ones',
  destruct: 'end workers: its own and the targeted ones',
  meshfs: 'read and write pointers',
  'meshfs.read': 'read pointers',
  'meshfs.write': 'write and delete pointers',
  provision: 'keep lasting workers: its own and the targeted ones',
  spool: 'spool jobs, and see and cancel its own',
  evolve: 'deploy plugins',
  tokens: 'make narrower tokens, list and revoke them',
  node: 'be a node, and nothing else',
  admin: 'all of these',
} as const;

export type Scope = keyof typeof SCOPES;

/** To what the scopes reach. What a request leaves out is as its maker's, but `workers`: none besides its own. */
export interface TokenTargets {
  /** Names of workers besides its own; `*` for all. */
  workers?: string[];
  /** Pointer prefixes, as in grants: `gem-pointer://wiki/a/` covers all below it, without the last `/` that one alone. */
  pointers?: string[];
  /**
   * Nodes on which its workers may be placed, or as which a node's token may register; `*` for all. `north` also covers
   * `north-0a1b2c`, the name that an agent makes of it.
   */
  nodes?: string[];
  /** `host:port` that its workers may be granted to fetch from, connect to, or send secrets to; `*` for all. */
  fetch?: string[];
}

/** What a token and all below it may have. Null: no bound of its own; those above it bound it still. */
export interface TokenQuota {
  /** Vaults at once. */
  vaults: number | null;
  /** Memory of those vaults together. */
  memory_mib: number | null;
  clones_per_minute: number | null;
}

/** What a token and all below it have taken of its quota. */
export interface QuotaUse {
  vaults: number;
  memory_mib: number;
  clones_last_minute: number;
}

export interface TokenRequest {
  /** For people: a word of small letters, digits and hyphens. */
  name: string;
  scopes: Scope[];
  targets?: TokenTargets;
  /** What it and all below it may have; no more than its maker. */
  quota?: Partial<TokenQuota>;
  /** It ends after so long; left out: with its maker. */
  expires_in_ms?: number;
}

/** A token as it is listed: all but the secret. */
export interface TokenInfo {
  id: string;
  name: string;
  /** Who its workers belong to: the ids from the first maker's token down to it, parted by `/`. */
  owner: string;
  scopes: Scope[];
  targets: Required<TokenTargets>;
  quota: TokenQuota;
  /** Where it was asked for. */
  used?: QuotaUse;
  /** Milliseconds since 1970. */
  created_at: number;
  expires_at: number | null;
}

/** One change of the mesh's state. */
export interface MeshEvent {
  /** `<core>-<seq>`: where to resume. `core` is drawn anew at every start of the core. */
  id: string;
  /** Counts the core's events from 1 without a gap; a reader that may not see all of them sees gaps. */
  seq: number;
  /** Milliseconds since 1970. */
  at: number;
  name: string;
  fields: Record<string, unknown>;
}

/** In place of events that a reader missed; its `lost` says how many, or is null when the core was restarted. */
export const EVENTS_LOST = 'EVENTS_LOST';

/** All that a core can tell. `docs/protocol.md` says of each what its fields are. */
export const EVENT_NAMES = [
  'CORE_STARTED',
  'NODE_REGISTERED',
  'NODE_AWAY',
  'SPAWN_DISTRIBUTED',
  'SPAWN_FAILED',
  'WORKER_BORN',
  'WORKER_RETURNED',
  'WORKER_DIED',
  'WORKER_PAUSED',
  'WORKER_RESUMED',
  'WORKER_INSPECTED',
  'WORKER_PROVISIONED',
  'WORKER_RESTARTED',
  'WORKER_STATE_CHANGED',
  'WORKER_STRAY_ENDED',
  'WORKER_DELETED',
  'GRANTS_REVOKED',
  'VISITOR_TICKET',
  'VOLUME_CREATED',
  'VOLUME_DELETED',
  'SPOOL_ACCEPTED',
  'SPOOL_STARTED',
  'SPOOL_REQUEUED',
  'SPOOL_INTERRUPTED',
  'SPOOL_DONE',
  'SPOOL_FAILED',
  'SPOOL_CANCELLED',
  'STORAGE_FAILED',
  'MESHFS_WRITTEN',
  'MESHFS_DELETED',
  'TOKEN_CREATED',
  'TOKEN_REVOKED',
  'TOKEN_EXPIRED',
  'KERNEL_ONLINE',
  'KERNEL_AWAY',
  'KERNEL_EVOLVED',
  'ROLLOUT_HALTED',
  EVENTS_LOST,
] as const;
export type EventName = (typeof EVENT_NAMES)[number];
