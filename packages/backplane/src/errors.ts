/**
 * The backplane's own error, and its checks of what it is given.
 *
 * `CompareFailed` stands here and not in the wire's table: whoever writes with an expectation handles it at once (reads
 * again and decides), so it never leaves the process that asked.
 */
import { BadInput, MeshError, StorageFailed, TooLarge } from '@hauki/protocol';
import { BACKPLANE_LIMITS } from './limits.ts';
import type { Expectation } from './types.ts';

/** A write was refused because the entry is not what the writer expected. Nothing was changed. */
export class CompareFailed extends Error {
  override readonly name = 'CompareFailed';
  readonly key: string;
  readonly expected: Expectation;
  /** What is there in truth. */
  readonly found: Expectation;

  constructor(key: string, expected: Expectation, found: Expectation) {
    super(`${key} has changed meanwhile: expected ${expected}, found ${found}`);
    this.key = key;
    this.expected = expected;
    this.found = found;
  }
}

export function checkNamespace(namespace: string): void {
  if (!BACKPLANE_LIMITS.namespace.test(namespace)) {
    throw new BadInput({ what: 'namespace', why: `${JSON.stringify(namespace)} is not a short word of small letters` });
  }
}

export function checkKey(key: string): void {
  checkText('key', key, BACKPLANE_LIMITS.key_bytes);
  if (key === '') throw new BadInput({ what: 'key', why: 'it is empty' });
  if (/\p{Cc}/u.test(key)) throw new BadInput({ what: 'key', why: 'it holds a control character' });
}

export function checkText(what: string, text: string, limit_bytes: number): void {
  if (typeof text !== 'string') throw new BadInput({ what, why: 'it is not a text' });
  if (text.length > limit_bytes || Buffer.byteLength(text) > limit_bytes) {
    throw new TooLarge({ what, limit_bytes, got_bytes: Buffer.byteLength(text) });
  }
  // Half a surrogate pair has no UTF-8: it would come back as something else.
  if (!text.isWellFormed()) throw new BadInput({ what, why: 'it holds half of a surrogate pair' });
}

export function checkExpectation(expect: Expectation | undefined): void {
  if (expect === undefined || expect === 'absent' || (Number.isSafeInteger(expect) && expect > 0)) return;
  throw new BadInput({ what: 'expect', why: 'it is neither a revision nor "absent"' });
}

/** `SQLITE_CORRUPT` and `SQLITE_NOTADB`. */
const DAMAGED = [11, 26];

/** Turns what the system threw into `StorageFailed`; leaves typed errors of ours alone. */
export function storageFailed(doing: string, thrown: unknown): Error {
  if (thrown instanceof CompareFailed || thrown instanceof MeshError) return thrown;
  const { code, errcode = 0 } = (thrown ?? {}) as { code?: string; errcode?: number };
  if (DAMAGED.includes(errcode & 0xff))
    return new StorageFailed(
      { what: `${doing}: ${(thrown as Error).message}` },
      `kv.sqlite is damaged, as was found while ${doing} (${(thrown as Error).message}). Stop the core and put the file back from a copy, without the kv.sqlite-wal of now; .recover of sqlite3 gets out what is whole`,
    );
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new StorageFailed({ what: `${doing}: the disk is full (${code})` });
  return new StorageFailed({ what: `${doing}: ${thrown instanceof Error ? thrown.message : String(thrown)}` });
}
