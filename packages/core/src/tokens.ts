/**
 * The tokens that were made from others: a table in memory, loaded from the backplane, where each lies under its id
 * with the hash of its secret. Secrets are shown once, to whoever made them, and are kept nowhere.
 *
 * What always holds: a token that was answered survives a kill -9, and one whose revocation was answered is gone for
 * good. With a token go all below it, in one commit, so a token that is there has all above it. Tokens are made one
 * after another, and wait for their turn; to end one waits for nobody's. Whoever keeps something open in a token's name
 * `hold`s it and is called when the token ends.
 */
import { hash, randomBytes } from 'node:crypto';
import { type KeyValue, neverAhead } from '@hauki/backplane';
import {
  BadInput,
  type EventName,
  Forbidden,
  LIMITS,
  Overloaded,
  type TokenInfo,
  type TokenQuota,
  type TokenRequest,
  TokenUnknown,
  Unauthorised,
} from '@hauki/protocol';
import { leastOf, NO_QUOTA, narrowQuota } from './quotas.ts';
import { type Damaged, type RecordShape, recordsOf, warnOf } from './records.ts';
import { ADMIN, attenuate, covers, demand, NODE, owns, type Principal, TOKEN_NAME } from './rights.ts';
import { Shares } from './shares.ts';

interface Kept extends TokenInfo {
  format: 1;
  /** SHA-256 of the token, in hex. It is 256 random bits, so one round is enough. */
  hash: string;
}

const SHAPE: RecordShape<Kept> = {
  keyOf: ({ id }) => id,
  needs: ['owner', 'name', 'scopes', 'targets', 'hash', 'expires_at'],
};

interface Known extends Kept {
  principal: Principal;
}

export interface TokenPowers {
  kv: KeyValue;
  emit(name: EventName, fields: object): void;
  /** A token has ended: revoked, expired, or with the one that made it. */
  ended?(token: string): void;
  /** Told of each token whose record is damaged. */
  damaged?: Damaged;
  /** Milliseconds since 1970. */
  now?: () => number;
  /** Milliseconds on a clock that nobody sets. */
  elapsed?: () => number;
}

/** After a store that could not forget the expired ones. They are refused all the same. */
const AGAIN_MS = 60_000;
/**
 * Tokens expire by the wall clock, and timers go by one that stands while the machine sleeps and that nobody sets on: what
 * is open in the name of one that expired meanwhile is cut so soon.
 */
const LOOK_MS = 60_000;

export const hashOf = (token: string): string => hash('sha256', token);
export const newSecret = (): string => `hauki_${randomBytes(32).toString('base64url')}`;

export class TokenStore {
  readonly #powers: Required<TokenPowers>;
  readonly #by_id = new Map<string, Known>();
  readonly #by_hash = new Map<string, Known>();
  /** What is open in a token's name, by the token's id. */
  readonly #holds = new Map<string, Set<(why: string) => void>>();
  #turn: Promise<unknown> = Promise.resolve();
  readonly #places = new Shares('tokens that wait to be made', LIMITS.token_changes);
  /** What has expired by this is forgotten for good: a clock that is set ahead for a moment only has it refused. */
  readonly #steady: () => number;
  #closed = false;
  #timer: NodeJS.Timeout | undefined;

  private constructor(powers: TokenPowers) {
    this.#powers = { now: Date.now, elapsed: () => performance.now(), damaged: warnOf, ended: () => {}, ...powers };
    this.#steady = neverAhead(this.#powers.now, this.#powers.elapsed);
  }

  /** Loads the table. */
  static async open(powers: TokenPowers): Promise<TokenStore> {
    const store = new TokenStore(powers);
    const { damaged } = store.#powers;
    const left_out = new Set<string>();
    for await (const { record } of recordsOf<Kept>(powers.kv, '', SHAPE, damaged, left_out)) store.#know(record);
    const complete = left_out.size === 0;
    // A backplane that deletes one by one may have been stopped between two: what has nothing above it goes too.
    const orphans = [...store.#by_id.values()].filter((t) => t.owner.split('/').some((id) => !store.#by_id.has(id)));
    // A full disk keeps no core from starting: they are refused all the same.
    if (complete && orphans.length > 0)
      await store.#end(orphans, 'TOKEN_REVOKED', 'its token was revoked', {}).catch(() => {});
    // Or what is above it is damaged: then it is left out too, and may be had back.
    if (!complete)
      for (const { id, hash } of orphans) {
        store.#by_id.delete(id);
        store.#by_hash.delete(hash);
        damaged(id, 'a token above it is missing');
      }
    await store.#expire().catch(() => store.#arm(AGAIN_MS));
    return store;
  }

  /** Ends nothing; lets go of the clock. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** Whose token this is; undefined where it is unknown, revoked or expired. */
  find(token: string): Principal | undefined {
    return this.findHash(hashOf(token));
  }

  /** The same by its hash. */
  findHash(hash: string): Principal | undefined {
    const known = this.#by_hash.get(hash);
    return known && !this.#isOver(known) ? known.principal : undefined;
  }

  /** Makes a token with no more rights than its maker's. Resolves when it is durable, with the secret, this once. */
  async create(maker: Principal, request: TokenRequest): Promise<TokenInfo & { token: string }> {
    demand(maker, { scope: 'tokens' });
    if (!TOKEN_NAME.test(request.name))
      throw new BadInput({ what: 'name', why: `${JSON.stringify(request.name)} is not [a-z0-9-], at most 32 long` });
    const rights = attenuate(maker, request);
    const quota = narrowQuota(leastOf(this.#above(maker.name)), request.quota);
    const { expires_in_ms } = request;
    if (expires_in_ms !== undefined && !(expires_in_ms >= 1_000 && expires_in_ms <= LIMITS.token_ms))
      throw new BadInput({ what: 'expires_in_ms', why: `from 1000 to ${LIMITS.token_ms}` });
    return this.#inTurn(maker, async () => {
      const above = this.#by_id.get(maker.id);
      if (!above && maker.id !== ADMIN.id) throw ended();
      const now = this.#powers.now();
      const expires_at = expires_in_ms === undefined ? (above?.expires_at ?? null) : now + expires_in_ms;
      if (above?.expires_at != null && expires_at !== null && expires_at > above.expires_at)
        throw new Forbidden({
          why: `A token cannot outlive its maker, which ends at ${new Date(above.expires_at).toISOString()}`,
        });
      const id = `${request.name}-${randomBytes(6).toString('hex')}`;
      const owner = above ? `${above.owner}/${id}` : id;
      this.#checkRoom(owner);
      const token = newSecret();
      const info: TokenInfo = {
        id,
        name: request.name,
        owner,
        scopes: [...rights.scopes],
        targets: structuredClone(rights.targets) as TokenInfo['targets'],
        created_at: now,
        quota,
        expires_at,
      };
      const kept: Kept = { format: 1, ...info, hash: hashOf(token) };
      await this.#powers.kv.put(id, JSON.stringify(kept), { expect: 'absent' });
      if (this.#by_id.get(maker.id) !== above) {
        // Its maker has ended meanwhile. What the disk cannot forget now goes at the next start.
        await this.#powers.kv.delete(id).catch(() => false);
        throw ended();
      }
      this.#know(kept);
      this.#arm();
      this.#powers.emit('TOKEN_CREATED', {
        token: id,
        owner,
        by: maker.name,
        scopes: info.scopes,
        expires_at,
      });
      return { ...info, token };
    });
  }

  /** The tokens below the asker's, and its own; all of them for an admin. */
  list(asker: Principal): TokenInfo[] {
    return [...this.#by_id.values()].filter((t) => !this.#isOver(t) && sees(asker, t)).map(infoOf);
  }

  /** The entry of a principal's own token; undefined for the two of the core's start. */
  info(principal: Principal): TokenInfo | undefined {
    const known = this.#by_id.get(principal.id);
    return known && infoOf(known);
  }

  /** What bounds the token's workers, by itself; undefined for the two of the core's start, and for an unknown one. */
  quota = (id: string): TokenQuota | undefined => this.#by_id.get(id)?.quota;

  #above(owner: string): TokenQuota[] {
    return owner.split('/').flatMap((id) => this.quota(id) ?? []);
  }

  /** Whose workers are of this owner; undefined where that token has ended. */
  behind = (owner: string): Principal | undefined => {
    if (owner === ADMIN.name) return ADMIN;
    const known = this.#by_id.get(owner.split('/').at(-1)!);
    return known?.owner === owner && !this.#isOver(known) ? known.principal : undefined;
  };

  /** Ends a token and all below it, at once and for good. Resolves with their ids when that is durable. */
  async revoke(asker: Principal, id: string): Promise<string[]> {
    demand(asker, { scope: 'tokens' });
    const known = this.#by_id.get(id);
    if (!known || !sees(asker, known)) throw new TokenUnknown({ token: id });
    const family = [...this.#by_id.values()].filter((t) => owns({ name: known.owner }, t.owner));
    await this.#end(family, 'TOKEN_REVOKED', 'its token was revoked', { by: asker.name });
    return family.map((t) => t.id);
  }

  /**
   * Calls `end` when the principal's token ends: whatever stays open in its name must end then. The result lets go.
   * Throws Unauthorised where it has ended already.
   */
  hold(principal: Principal, end: (why: string) => void): () => void {
    this.demandLiving(principal);
    if (principal.id === ADMIN.id || principal.id === NODE.id) return () => {};
    const holds = this.#holds.get(principal.id) ?? new Set();
    this.#holds.set(principal.id, holds.add(end));
    return () => {
      holds.delete(end);
      if (holds.size === 0 && this.#holds.get(principal.id) === holds) this.#holds.delete(principal.id);
    };
  }

  /** Throws Unauthorised where the principal's token has ended. */
  demandLiving({ id }: Principal): void {
    if (id !== ADMIN.id && id !== NODE.id && !this.#by_id.has(id)) throw ended();
  }

  #isOver = (t: TokenInfo) => t.expires_at !== null && t.expires_at <= this.#powers.now();

  #know(kept: Kept): void {
    const { id, owner: name, scopes, targets, quota = NO_QUOTA } = kept;
    const known = { ...kept, quota, principal: { id, name, scopes, targets } };
    this.#by_id.set(id, known);
    this.#by_hash.set(kept.hash, known);
  }

  #checkRoom(owner: string): void {
    if (owner.split('/').length > LIMITS.token_depth)
      throw new BadInput({ what: 'token', why: `there are ${LIMITS.token_depth} above one another at most` });
    if (this.#by_id.size >= LIMITS.tokens) throw new Overloaded({ what: 'the number of tokens', limit: LIMITS.tokens });
    const first = { name: owner.split('/')[0]! };
    let below = 0;
    for (const t of this.#by_id.values()) if (owns(first, t.owner)) below += 1;
    if (below > LIMITS.tokens_below)
      throw new Overloaded({ what: 'the number of tokens below one', limit: LIMITS.tokens_below });
  }

  /** At once here; resolves when the disk has forgotten them too. What it cannot forget is there again. */
  async #end(family: Known[], event: EventName, why: string, fields: object): Promise<void> {
    for (const t of family) {
      this.#by_id.delete(t.id);
      this.#by_hash.delete(t.hash);
    }
    this.#cut(family, why);
    try {
      // Begun in one turn of the loop, they are one commit.
      await Promise.all(family.map((t) => this.#powers.kv.delete(t.id)));
    } catch (error) {
      // Those above before those below. One that has lost those above it goes at the next start.
      for (const t of family.toSorted((a, b) => a.owner.length - b.owner.length))
        if (above(t.owner).every((id) => this.#by_id.has(id))) this.#know(t);
      throw error;
    }
    for (const t of family) {
      this.#powers.ended(t.id);
      this.#powers.emit(event, { token: t.id, owner: t.owner, ...fields });
    }
  }

  #cut(family: Known[], why: string): void {
    for (const { id } of family) {
      const holds = this.#holds.get(id);
      this.#holds.delete(id);
      for (const end of holds ?? []) end(why);
    }
  }

  /** Cuts what has expired, removes it, and sets the clock for the next. */
  async #expire(): Promise<void> {
    const why = 'its token has expired';
    const over = [...this.#by_id.values()].filter(this.#isOver);
    this.#cut(over, why);
    const gone = over.filter(({ expires_at }) => expires_at! <= this.#steady());
    if (gone.length > 0) await this.#end(gone, 'TOKEN_EXPIRED', why, {});
    this.#arm();
  }

  #arm(least_ms = 1): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    let left_ms = Number.POSITIVE_INFINITY;
    for (const t of this.#by_id.values()) {
      const now = this.#isOver(t) ? this.#steady() : this.#powers.now();
      left_ms = Math.min(left_ms, (t.expires_at ?? left_ms + now) - now);
    }
    if (left_ms === Number.POSITIVE_INFINITY) return;
    const wait_ms = Math.min(Math.max(left_ms, least_ms), LOOK_MS);
    this.#timer = setTimeout(() => void this.#expire().catch(() => this.#arm(AGAIN_MS)), wait_ms);
    this.#timer.unref();
  }

  /** Rejects with Overloaded where too many wait already. */
  async #inTurn<T>({ name }: Principal, change: () => Promise<T>): Promise<T> {
    const release = this.#places.take(name);
    const done = this.#turn.then(change).finally(release);
    this.#turn = done.catch(() => {});
    return done;
  }
}

const ended = () => new Unauthorised({ why: 'This token has just ended' });
/** The ids of all above it. */
const above = (owner: string): string[] => owner.split('/').slice(0, -1);
const sees = (asker: Principal, token: TokenInfo) => covers(asker.scopes, 'admin') || owns(asker, token.owner);

function infoOf({ id, name, owner, scopes, targets, quota, created_at, expires_at }: TokenInfo): TokenInfo {
  return { id, name, owner, scopes, targets, quota, created_at, expires_at };
}
