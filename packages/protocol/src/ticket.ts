/**
 * The Capability Ticket: what the core signs, what travels beside it, and its strict JSON Schema.
 *
 * The signed part (a compact JWS, EdDSA over Ed25519) may be seen by anyone; the secret goes once to the caller and is
 * never sent again: both ends prove by challenge that they hold the key derived from it (`rpc/handshake.ts`).
 */
import type { Grants } from './grants.ts';
import { ISOLATION_LEVELS, type IsolationLevel } from './isolation.ts';
import { LIMITS } from './limits.ts';

export type TicketRole = 'owner' | 'visitor';

export interface TicketBody {
  /** Version of this format. */
  v: 1;
  /** The ticket's own id; one redemption for each. */
  jti: string;
  role: TicketRole;
  worker: string;
  node: string;
  /** Counts the starts of a lasting worker; a ticket of an earlier epoch is void. */
  epoch: number;
  /** RFC 7638 thumbprint (SHA-256) of the key that the caller made and proves at redemption. */
  audience: string;
  driver: string;
  /** How strongly the worker's vault holds it in. */
  isolation: IsolationLevel;
  routes: {
    /** Route A. `tls` is required off loopback and off a VPN. */
    direct: { host: string; port: number; tls: boolean };
    /** Route B: path on the core. */
    relay: { path: string };
  };
  lease: { heartbeat_ms: number; lease_ms: number };
  grants: Grants;
  /** Seconds since 1970, as in RFC 7519. */
  iat: number;
  exp: number;
  /** SHA-256 of the secret, base64url: tells the caller that secret and ticket belong together. */
  secret_hash: string;
}

/** What the caller gets. */
export interface Ticket {
  /** Compact JWS of a TicketBody. */
  signed: string;
  /** 256 bits, base64url. */
  secret: string;
}

const base64url = (bytes: number) => ({ type: 'string', pattern: `^[A-Za-z0-9_-]{${Math.ceil((bytes * 8) / 6)}}$` });
const strict = (properties: Record<string, object>) => ({
  type: 'object',
  additionalProperties: false,
  required: Object.keys(properties),
  properties,
});
const listOf = (items: object) => ({ type: 'array', maxItems: 64, items });
const whole = (minimum: number, maximum: number) => ({ type: 'integer', minimum, maximum });
const or = (object: object) => ({ oneOf: [{ type: 'null' }, object] });
const texts = listOf({ type: 'string', maxLength: 1024 });
const target = { type: 'string', maxLength: 1024, pattern: '^(\\[[0-9a-f:.]+\\]|[^\\[\\]:/@ ]+):[1-9][0-9]{0,4}$' };
const grants = strict({
  fetch: listOf(
    strict({
      to: target,
      methods: listOf({ type: 'string', pattern: '^[A-Z]{1,16}$' }),
      per_minute: whole(0, LIMITS.fetches_per_minute),
    }),
  ),
  connect: listOf(target),
  meshfs: strict({ read: texts, write: texts }),
  volume: or(
    strict({ name: { type: 'string', pattern: '^[a-z0-9][a-z0-9-]{0,31}$' }, quota_mib: whole(1, LIMITS.volume_mib) }),
  ),
  clone: or(
    strict({
      live: whole(1, LIMITS.clone_live),
      total: whole(1, LIMITS.clone_total),
      memory_mib: whole(1, LIMITS.clone_memory_mib),
    }),
  ),
  secrets: {
    ...listOf(strict({ name: { type: 'string', pattern: '^[A-Za-z_][A-Za-z0-9_]{0,63}$' }, to: listOf(target) })),
    maxItems: LIMITS.secrets,
  },
  time: { type: 'boolean' },
  random: { type: 'boolean' },
});
/** What nodes and workers are called by. */
export const ID_PATTERN = '^[a-z0-9][a-z0-9-]{0,63}$';
const id = { type: 'string', pattern: ID_PATTERN };

/** JSON Schema (2020-12) of the signed body. Published at /api/v2/schemas/ticket.json and in docs/ticket.schema.json. */
export const TICKET_BODY_SCHEMA = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  $id: 'urn:hauki:ticket:1',
  title: 'Hauki Capability Ticket, signed body',
  ...strict({
    v: { const: 1 },
    jti: base64url(16),
    role: { enum: ['owner', 'visitor'] },
    worker: id,
    node: id,
    epoch: { type: 'integer', minimum: 1 },
    audience: base64url(32),
    driver: { enum: ['lxc', 'quickjs', 'process'] },
    isolation: { enum: [...ISOLATION_LEVELS] },
    routes: strict({
      direct: strict({
        host: { type: 'string', minLength: 1, maxLength: 255 },
        port: { type: 'integer', minimum: 1, maximum: 65535 },
        tls: { type: 'boolean' },
      }),
      relay: strict({ path: { type: 'string', pattern: '^/api/v2/ephemeral/[a-z0-9-]{1,64}$' } }),
    }),
    lease: strict({
      heartbeat_ms: { type: 'integer', minimum: 1 },
      lease_ms: { type: 'integer', minimum: 1 },
    }),
    grants,
    iat: { type: 'integer', minimum: 0 },
    exp: { type: 'integer', minimum: 0 },
    secret_hash: base64url(32),
  }),
} as const;

/** JSON Schema of what the caller gets: the signed body and, once, the secret. */
export const TICKET_SCHEMA = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  $id: 'urn:hauki:ticket-envelope:1',
  title: 'Hauki Capability Ticket, as delivered',
  ...strict({
    signed: { type: 'string', pattern: '^[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+$', maxLength: 65536 },
    secret: base64url(32),
  }),
} as const;
