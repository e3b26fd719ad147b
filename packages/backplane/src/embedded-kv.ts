/**
 * The embedded key-value store: one SQLite table, and one commit for all writes of a turn of the event loop.
 *
 * What always holds: a write resolves after the commit that holds it has returned (WAL, synchronous=FULL: after its
 * fsync); the writes of one commit take effect in the order they were called, all or none of them, except those whose
 * expectation failed. Committing together is what makes many small durable writes affordable; it blocks the process
 * for one fsync per turn.
 */
import type { DatabaseSync } from 'node:sqlite';
import { BadInput, Overloaded, StorageFailed } from '@hauki/protocol';
import { CompareFailed, checkExpectation, checkKey, checkNamespace, checkText, storageFailed } from './errors.ts';
import { BACKPLANE_LIMITS } from './limits.ts';
import type { Entry, Expectation, KeyValue } from './types.ts';

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS entry (
    namespace TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS counter (namespace TEXT PRIMARY KEY, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  PRAGMA user_version = 1;`;

interface Write {
  run(): number;
  resolve(result: number): void;
  reject(thrown: Error): void;
}

export interface SqliteKeyValues {
  kv(namespace: string): KeyValue;
  /** Commits what waits. The database stays open. */
  close(): void;
}

/** Puts the key-value interface over an open database. */
export function openSqliteKeyValues(db: DatabaseSync): SqliteKeyValues {
  db.exec(SCHEMA);
  const read = db.prepare('SELECT value, revision FROM entry WHERE namespace = ? AND key = ?');
  const page = db.prepare('SELECT key, value, revision FROM entry WHERE namespace = ? AND key >= ? ORDER BY key');
  const count = db.prepare(
    `INSERT INTO counter VALUES (?, 1) ON CONFLICT DO UPDATE SET revision = revision + 1 RETURNING revision`,
  );
  const write = db.prepare('INSERT OR REPLACE INTO entry (namespace, key, value, revision) VALUES (?, ?, ?, ?)');
  const remove = db.prepare('DELETE FROM entry WHERE namespace = ? AND key = ?');

  let waiting: Write[] = [];
  let closed = false;

  function checkOpen(): void {
    if (closed) throw new StorageFailed({ what: 'the key-value store is closed' });
  }

  function enqueue(run: () => number): Promise<number> {
    const limit = BACKPLANE_LIMITS.waiting_writes;
    if (waiting.length >= limit) throw new Overloaded({ what: 'key-value writes', limit });
    return new Promise((resolve, reject) => {
      if (waiting.length === 0) setImmediate(flush);
      waiting.push({ run, resolve, reject });
    });
  }

  function flush(): void {
    const writes = waiting;
    waiting = [];
    if (writes.length === 0) return;
    const settle: (() => void)[] = [];
    try {
      db.exec('BEGIN IMMEDIATE');
      for (const { run, resolve, reject } of writes) {
        try {
          const result = run();
          settle.push(() => resolve(result));
        } catch (thrown) {
          if (!(thrown instanceof CompareFailed)) throw thrown;
          settle.push(() => reject(thrown)); // it changed nothing; the others go on
        }
      }
      db.exec('COMMIT');
    } catch (thrown) {
      // On a full disk SQLite may have rolled back by itself.
      if (db.isTransaction) db.exec('ROLLBACK');
      const failed = storageFailed('writing a key', thrown);
      for (const { reject } of writes) reject(failed);
      return;
    }
    for (const tell of settle) tell();
  }

  function compare(namespace: string, key: string, expect: Expectation | undefined): boolean {
    const found = (read.get(namespace, key)?.revision as number | undefined) ?? 'absent';
    if (expect !== undefined && expect !== found) throw new CompareFailed(key, expect, found);
    return found !== 'absent';
  }

  function kv(namespace: string): KeyValue {
    checkNamespace(namespace);
    const next = () => count.get(namespace)!.revision as number;
    return {
      async get(key) {
        checkOpen();
        checkKey(key);
        return reading(() => {
          const row = read.get(namespace, key);
          return row && { value: row.value as string, revision: row.revision as number };
        });
      },

      async put(key, value, { expect } = {}) {
        checkOpen();
        checkKey(key);
        checkText('value', value, BACKPLANE_LIMITS.value_bytes);
        checkExpectation(expect);
        return enqueue(() => {
          compare(namespace, key, expect);
          const revision = next();
          write.run(namespace, key, value, revision);
          return revision;
        });
      },

      async delete(key, { expect } = {}) {
        checkOpen();
        checkKey(key);
        checkExpectation(expect);
        const deleted = await enqueue(() => {
          if (!compare(namespace, key, expect)) return 0;
          remove.run(namespace, key);
          return next();
        });
        return deleted > 0;
      },

      async list(prefix, { limit = BACKPLANE_LIMITS.page_entries, after = '' } = {}) {
        checkOpen();
        if (prefix !== '') checkKey(prefix);
        if (after !== '') checkKey(after);
        if (!Number.isSafeInteger(limit) || limit < 1) throw new BadInput({ what: 'limit', why: 'it is not above 0' });
        const most = Math.min(limit, BACKPLANE_LIMITS.page_entries);
        // No key holds a NUL: this is the least that can come after `after`.
        const behind = after === '' ? '' : `${after}\0`;
        const from = Buffer.compare(Buffer.from(behind), Buffer.from(prefix)) > 0 ? behind : prefix;
        return reading(() => {
          const entries: Entry[] = [];
          let bytes = 0;
          for (const row of page.iterate(namespace, from)) {
            const entry = { key: row.key as string, value: row.value as string, revision: row.revision as number };
            if (!entry.key.startsWith(prefix)) break;
            // Only an entry that did not fit proves that there is more.
            if (entries.length === most || bytes > BACKPLANE_LIMITS.page_bytes) {
              return { entries, next: entries.at(-1)!.key };
            }
            entries.push(entry);
            bytes += entry.key.length + entry.value.length;
          }
          return { entries };
        });
      },
    };
  }

  return {
    kv,
    close() {
      flush();
      closed = true;
    },
  };
}

function reading<T>(work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    throw storageFailed('reading a key', thrown);
  }
}
