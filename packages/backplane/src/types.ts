/**
 * What the processes of a mesh share: small values under keys, with compare-and-set and watch, and content under its
 * digest.
 *
 * What always holds, for every backend (`test/conformance.ts` checks it): a resolved write is durable; a rejected one
 * changed nothing, or says so; revisions of a namespace only grow and are never used twice, deletions included, so
 * that an expectation can not be met by an entry that was deleted and made anew; a sweep removes no object that was
 * prepared or put after it began, or that is still held.
 * Operational failures are `StorageFailed`, `TooLarge`, `BadInput`, `Overloaded`, `DigestMismatch`, `ChangesMissed` and
 * `CompareFailed`. What a given stream throws comes out as it is.
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

/** One committed change of an entry; without a value it was deleted. */
export interface Change {
  key: string;
  revision: number;
  value?: string;
}

export interface KeyValue {
  get(key: string): Promise<Stored | undefined>;
  /** Resolves with the new revision once it is durable; rejects with `CompareFailed` where `expect` was not met. */
  put(key: string, value: string, options?: { expect?: Expectation }): Promise<number>;
  /** Resolves once it is durable: true when there was an entry. Rejects with `CompareFailed` as `put` does. */
  delete(key: string, options?: { expect?: Expectation }): Promise<boolean>;
  /** One page of the entries whose key begins with `prefix`; a page may be shorter than `limit`. */
  list(prefix: string, options?: { limit?: number; after?: string }): Promise<Page>;
  /** The newest revision of the namespace; 0 before its first write. */
  revision(): Promise<number>;
  /**
   * Every change whose key begins with `prefix`, in order and once, from the moment of this call, or after the
   * revision `after`. Throws, or rejects in the middle, with `ChangesMissed` when some of them are no longer
   * remembered: the watcher was too slow, or `after` lies too far back. Ends when `signal` aborts or the store closes.
   */
  watch(prefix: string, options?: { after?: number; signal?: AbortSignal }): AsyncIterableIterator<Change>;
}

/** One of several writes that happen together; without a value it is a deletion. */
export interface Write {
  namespace: string;
  key: string;
  value?: string;
  expect?: Expectation;
}

/** Content on its way in. Until it is let go of (`using`), no sweep removes it. */
export interface Prepared extends Disposable {
  /** SHA-256 in hex. */
  readonly digest: string;
  readonly bytes: number;
  /** The content again, as `ObjectStore.read` gives it. */
  read(): AsyncIterable<Uint8Array>;
  /**
   * Lets go of content that will not be committed, and removes it where it came with this and nobody else has brought
   * the same meanwhile. False where a sweep has to look whether it is still wanted. Never rejects.
   */
  discard(): Promise<boolean>;
}

export type Content = Uint8Array | AsyncIterable<Uint8Array>;

export interface ContentOptions {
  /** Refused beyond it with `TooLarge`. */
  limit_bytes?: number;
  /** Refused with `DigestMismatch` when the content has another SHA-256 (hex). */
  digest?: string | undefined;
}

/** Content that comes piece by piece, over restarts too. One call at a time. */
export interface Part {
  /** Bytes there are; 0 for none. After a crash of the machine it may be less than was told before. */
  size(): Promise<number>;
  /** Adds to its end. Resolves with the new size; when it rejects, what came before that is kept. */
  append(content: AsyncIterable<Uint8Array>, options?: { limit_bytes?: number }): Promise<number>;
  /** Makes it an object. The part is gone then, also when the digest was another. */
  finish(options?: { digest?: string | undefined }): Promise<Prepared>;
  discard(): Promise<void>;
}

export interface Swept {
  kept: number;
  removed: number;
  removed_bytes: number;
}

export interface ObjectStore {
  /** Keeps the content; resolves with its SHA-256 in hex once it is durable. Putting it again is cheap. */
  put(content: Content, options?: ContentOptions): Promise<string>;
  /** Takes the content in, hashing it on the way, in bounded memory. It is kept for good by `Backplane.commit`. */
  prepare(content: Content, options?: ContentOptions): Promise<Prepared>;
  /** The bytes with exactly this digest; undefined when there are none, or when what is left of them is damaged. */
  get(digest: string): Promise<Uint8Array | undefined>;
  /** Bytes of an object; undefined when there is none. */
  size(digest: string): Promise<number | undefined>;
  /**
   * Bytes from `start` up to, not including, `end`, in pieces. A piece is its reader's only until the next is asked for.
   * Whoever reads all of it gets `StorageFailed` at the end where the bytes do not have the digest.
   */
  read(digest: string, range?: { start?: number; end?: number }): AsyncIterable<Uint8Array>;
  part(id: string): Part;
  /** All parts, with the time of their last change in ms. */
  parts(): Promise<{ id: string; bytes: number; touched_at: number }[]>;
  /**
   * Removes what nobody wants. `strike` is given digests, some at a time, and takes out those that are wanted; what is
   * left in the set when it resolves is removed. One sweep at a time: another is refused with `Overloaded`.
   */
  sweep(strike: (candidates: Set<string>) => Promise<void>): Promise<Swept>;
}

export interface Backplane {
  /** What opening found lost, or an earlier opening did: what nothing names any more may be wanted back then. */
  readonly lost?: string | undefined;
  /** The key-value store of this name; namespaces share nothing. */
  kv(namespace: string): KeyValue;
  readonly objects: ObjectStore;
  /**
   * Writes entries and keeps objects, all or none of them, durably. Resolves with each entry's new revision (0 where a
   * deletion found nothing); rejects with the first `CompareFailed`.
   */
  commit(writes: readonly Write[], objects?: readonly Prepared[]): Promise<number[]>;
  /** Finishes what was begun, then lets go of everything. Later calls reject. Safe to call twice. */
  close(): Promise<void>;
}
