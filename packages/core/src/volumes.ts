/**
 * Where volumes are. A volume is a folder on one node, so a worker that is granted it goes there and nowhere else; which
 * node that is, the core remembers on disk, so that nobody finds an empty folder of the same name on another.
 *
 * What always holds: a volume has one node from before that node hears of it, until it is deleted there or forgotten.
 * Nodes hold the truth about what is in them; it is asked for whenever somebody wants to know.
 */
import { createHash } from 'node:crypto';
import type { KeyValue } from '@hauki/backplane';
import {
  type EventName,
  Forbidden,
  LIMITS,
  NoNodeFits,
  Overloaded,
  StorageFailed,
  type VolumeDetails,
  type VolumeGrant,
  VolumeUnknown,
} from '@hauki/protocol';
import { volumesOf } from './node-told.ts';
import { type Damaged, recordsOf } from './records.ts';
import type { RegisteredNode, Registry } from './registry.ts';
import { covers, owns, type Principal } from './rights.ts';

export interface VolumesPowers {
  kv: KeyValue;
  registry: Registry;
  event(name: EventName, fields: object): void;
  /** Told of each volume whose record is damaged. */
  damaged?: Damaged;
}

interface Home {
  owner: string;
  name: string;
  node: string;
}

const PREFIX = 'home/';
/** How long a node may take to tell what it keeps. */
const LIST_MS = 3_000;

const keyOf = (owner: string, name: string): string =>
  PREFIX +
  createHash('sha256')
    .update(JSON.stringify([owner, name]))
    .digest('hex');

const mayHandle = (principal: Principal, owner: string): boolean =>
  owns(principal, owner) || covers(principal.scopes, 'admin');

export class VolumeHomes {
  readonly #powers: VolumesPowers;
  readonly #homes = new Map<string, Home>();
  /** Keys of records that say no longer where a volume is. */
  readonly #damaged = new Set<string>();

  constructor(powers: VolumesPowers) {
    this.#powers = powers;
  }

  /** Reads what is known; to be called once, before any node can register. */
  async open(): Promise<void> {
    const { kv, damaged } = this.#powers;
    const shape = { keyOf: ({ owner, name }: Home) => keyOf(owner, name), needs: ['node'] as const };
    for await (const { record } of recordsOf<Home>(kv, PREFIX, shape, damaged, this.#damaged))
      this.#homes.set(keyOf(record.owner, record.name), record);
  }

  /**
   * The node that has the volume; undefined where none has yet. Throws NoNodeFits while that node is away, and
   * StorageFailed where its record is damaged.
   */
  home(owner: string, { name }: VolumeGrant): string | undefined {
    const key = keyOf(owner, name);
    if (this.#damaged.has(key))
      throw new StorageFailed(
        { what: `the record of the volume ${name} is damaged` },
        `Which node has the volume ${name} is not known any more: its record ${key} is damaged. The volume stays where it is. Put the core's store back from a copy, or name another volume`,
      );
    const node = this.#homes.get(key)?.node;
    if (node !== undefined && !this.#powers.registry.nodes.has(node))
      throw new NoNodeFits({ wanted: { volume: name }, have: [`${node}, which has the volume ${name}, is away`] });
    return node;
  }

  /** Settles, on disk, that a volume is on a node. `node`: where it is, which may be another by now. */
  async claim(owner: string, { name }: VolumeGrant, node: string): Promise<{ node: string; fresh: boolean }> {
    const key = keyOf(owner, name);
    const known = this.#homes.get(key);
    if (known) return { node: known.node, fresh: false };
    if (this.#homes.size >= LIMITS.volumes)
      throw new Overloaded({ what: 'volumes of this mesh', limit: LIMITS.volumes });
    const home = { owner, name, node };
    this.#homes.set(key, home);
    try {
      // Over one that a full disk could not forget, where there is such a record.
      await this.#powers.kv.put(key, JSON.stringify(home));
    } catch (error) {
      this.#homes.delete(key);
      throw error;
    }
    this.#powers.event('VOLUME_CREATED', { volume: name, owner, node });
    return { node, fresh: true };
  }

  /** Takes a claim back: its node has no such volume. `by`: who wanted it so, where that was anybody. */
  async unclaim(owner: string, { name }: VolumeGrant, by: string | null = null): Promise<void> {
    const key = keyOf(owner, name);
    const node = this.#homes.get(key)?.node;
    this.#homes.delete(key);
    await this.#powers.kv.delete(key);
    this.#powers.event('VOLUME_DELETED', { volume: name, owner, node, by });
  }

  /** The principal's volumes and those of tokens below it; all of them for an admin. */
  async list(principal: Principal): Promise<VolumeDetails[]> {
    const mine = [...this.#homes.values()].filter(({ owner }) => mayHandle(principal, owner));
    const nodes = new Set(mine.map(({ node }) => node));
    const told = new Map<string, VolumeDetails>();
    await Promise.all(
      [...nodes].map(async (node) => {
        for (const info of await this.#ask(this.#powers.registry.nodes.get(node))) {
          const key = keyOf(info.owner, info.name);
          // One may still have what was forgotten while it was away, and is another's by now.
          if (this.#homes.get(key)?.node === node) told.set(key, { ...info, node, node_away: false });
        }
      }),
    );
    return mine.flatMap(({ owner, name, node }) => {
      const found = told.get(keyOf(owner, name));
      if (found) return found;
      if (this.#powers.registry.nodes.has(node)) return [];
      return { owner, name, node, node_away: true, quota_mib: null, used_bytes: null, worker: null, created_at: null };
    });
  }

  /**
   * Deletes a volume with all that is in it. Rejects with VolumeUnknown, Forbidden, VolumeInUse, or NoNodeFits while its
   * node is away; `forget`: then only its name is let go of.
   */
  async remove(principal: Principal, name: string, owner = principal.name, forget = false): Promise<void> {
    if (!mayHandle(principal, owner)) throw new Forbidden({ why: 'That volume is not this token’s', target: name });
    const grant = { name, quota_mib: 0 };
    const known = this.#homes.get(keyOf(owner, name));
    if (!known) throw new VolumeUnknown({ volume: name });
    const { registry } = this.#powers;
    const away = !registry.nodes.has(known.node);
    if (!(away && forget)) {
      this.home(owner, grant);
      await registry.nodes.get(known.node)!.rpc.remove_volume(owner, name);
    }
    await this.unclaim(owner, grant, principal.name);
  }

  async #ask(node: RegisteredNode | undefined) {
    if (!node) return [];
    // A node that says nothing, or what cannot be, is as one that has none.
    const late = new Promise<[]>((resolve) => setTimeout(resolve, LIST_MS, []).unref());
    return Promise.race([
      node.rpc
        .volumes()
        .then(volumesOf)
        .catch(() => []),
      late,
    ]);
  }
}
