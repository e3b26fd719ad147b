/**
 * What the processes of a mesh share: small values under keys, with compare-and-set, and content under its digest.
 *
 * What always holds, for every backend (`test/conformance.ts` checks it): a resolved write is durable; a rejected one
 * changed nothing, or says so; revisions of a namespace only grow and are never used twice, deletions included, so
 * that an expectation can not be met by an entry that was deleted and made anew.
 * Operational failures are `StorageFailed`, `TooLarge`, `BadInput`, `Overloaded` and `CompareFailed`.
 */

/** What a write expects to find: the revision it has read, or nothing at all. */
export type Expectation = number | 'absent';

export interface Stored {
  value: string;
  revision: number;
}

export interface Entry extends Stored {
  key: string;
}

export interface Page {
  /** In the order of the keys' UTF-8 bytes. */
  entries: Entry[];
  /** Given when there may be more: what to pass as `after`. */
  next?: string;
}

export interface KeyValue {
  get(key: string): Promise<Stored | undefined>;
  /** Resolves with the new revision once it is durable; rejects with `CompareFailed` where `expect` was not met. */
  put(key: string, value: string, options?: { expect?: Expectation }): Promise<number>;
  /** Resolves once it is durable: true when there was an entry. Rejects with `CompareFailed` as `put` does. */
  delete(key: string, options?: { expect?: Expectation }): Promise<boolean>;
  /** One page of the entries whose key begins with `prefix`; a page may be shorter than `limit`. */
  list(prefix: string, options?: { limit?: number; after?: string }): Promise<Page>;
}

export interface ObjectStore {
  /** Keeps the bytes; resolves with their SHA-256 in hex once they are durable. Putting them again is cheap. */
  put(bytes: Uint8Array): Promise<string>;
  /** The bytes with exactly this digest; undefined when there are none, or when what is left of them is damaged. */
  get(digest: string): Promise<Uint8Array | undefined>;
  has(digest: string): Promise<boolean>;
}

export interface Backplane {
  /** The key-value store of this name; namespaces share nothing. */
  kv(namespace: string): KeyValue;
  readonly objects: ObjectStore;
  /** Finishes what was begun, then lets go of everything. Later calls reject. Safe to call twice. */
  close(): Promise<void>;
}
