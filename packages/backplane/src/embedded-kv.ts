/**
 * The embedded key-value store: one SQLite table. Commits are `commit-queue.ts`, watching is `feed.ts`.
 *
 * What always holds: a group of writes checks all its expectations before it changes anything; watchers hear of a
 * change after its commit, in the order of revisions.
 */
import type { DatabaseSync } from 'node:sqlite';
import { BadInput } from '@hauki/protocol';
import type { CommitQueue } from './commit-queue.ts';
import { CompareFailed, checkExpectation, checkKey, checkNamespace, checkText } from './errors.ts';
import { type Feed, openFeed } from './feed.ts';
import { BACKPLANE_LIMITS } from './limits.ts';
import type { Entry, KeyValue, Write } from './types.ts';

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS entry (
    namespace TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS counter (namespace TEXT PRIMARY KEY, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;`;
/** What records and tables are like. It rises with a change that an earlier version would misread, and it refuses then. */
export const FORMAT = 1;

export interface SqliteKeyValues {
  kv(namespace: string): KeyValue;
  /** Writes all or nothing, together with what `also` does in the same commit. */
  commit(writes: readonly Write[], also?: () => void): Promise<number[]>;
  close(): void;
}

/** Puts the key-value interface over an open database. */
export function openSqliteKeyValues(
  db: DatabaseSync,
  queue: CommitQueue,
  remembered_changes?: number,
): SqliteKeyValues {
  db.exec(SCHEMA);
  // Where all is made, opening writes nothing: what is on a full disk can be read.
  if (db.prepare('PRAGMA user_version').get()?.user_version !== FORMAT) db.exec(`PRAGMA user_version = ${FORMAT}`);
  const read = db.prepare('SELECT value, revision FROM entry WHERE namespace = ? AND key = ?');
  const look = db.prepare('SELECT revision FROM entry WHERE namespace = ? AND key = ?');
  const page = db.prepare('SELECT key, value, revision FROM entry WHERE namespace = ? AND key >= ? ORDER BY key');
  const counted = db.prepare('SELECT revision FROM counter WHERE namespace = ?');
  const count = db.prepare(
    `INSERT INTO counter VALUES (?, 1) ON CONFLICT DO UPDATE SET revision = revision + 1 RETURNING revision`,
  );
  const write = db.prepare('INSERT OR REPLACE INTO entry (namespace, key, value, revision) VALUES (?, ?, ?, ?)');
  const remove = db.prepare('DELETE FROM entry WHERE namespace = ? AND key = ?');
  const feeds = new Map<string, Feed>();

  const newest = (namespace: string) => (counted.get(namespace)?.revision as number | undefined) ?? 0;

  function feedOf(namespace: string): Feed {
    let feed = feeds.get(namespace);
    if (!feed) {
      feed = openFeed(newest(namespace), remembered_changes);
      feeds.set(namespace, feed);
    }
    return feed;
  }

  /** The entry's revision, where it is as expected. */
  function compare({ namespace, key, expect }: Write): number | undefined {
    const found = look.get(namespace, key)?.revision as number | undefined;
    if (expect !== undefined && expect !== (found ?? 'absent')) throw new CompareFailed(key, expect, found ?? 'absent');
    return found;
  }

  function apply({ namespace, key, value }: Write, found: number | undefined): number {
    if (value === undefined && found === undefined) return 0;
    const revision = count.get(namespace)!.revision as number;
    if (value === undefined) remove.run(namespace, key);
    else write.run(namespace, key, value, revision);
    return revision;
  }

  async function commit(writes: readonly Write[], also?: () => void): Promise<number[]> {
    if (writes.length > BACKPLANE_LIMITS.commit_entries)
      throw new BadInput({ what: 'commit', why: `it has more than ${BACKPLANE_LIMITS.commit_entries} entries` });
    for (const { namespace, key, value, expect } of writes) {
      checkNamespace(namespace);
      checkKey(key);
      if (value !== undefined) checkText('value', value, BACKPLANE_LIMITS.value_bytes);
      checkExpectation(expect);
      feedOf(namespace); // before the first change that it has to remember
    }
    return queue.run(
      () => {
        const found = writes.map(compare);
        also?.();
        return writes.map((one, at) => apply(one, found[at]));
      },
      (revisions) => {
        revisions.forEach((revision, at) => {
          const { namespace, key, value } = writes[at]!;
          if (revision > 0) feedOf(namespace).add(value === undefined ? { key, revision } : { key, revision, value });
        });
      },
    );
  }

  function kv(namespace: string): KeyValue {
    checkNamespace(namespace);
    return {
      async get(key) {
        checkKey(key);
        return queue.read(() => {
          const row = read.get(namespace, key);
          return row && { value: row.value as string, revision: row.revision as number };
        });
      },

      async put(key, value, { expect } = {}) {
        if (typeof value !== 'string') throw new BadInput({ what: 'value', why: 'it is not a text' });
        const [revision] = await commit([{ namespace, key, value, ...(expect !== undefined && { expect }) }]);
        return revision!;
      },

      async delete(key, { expect } = {}) {
        const [revision] = await commit([{ namespace, key, ...(expect !== undefined && { expect }) }]);
        return revision! > 0;
      },

      async list(prefix, { limit = BACKPLANE_LIMITS.page_entries, after = '' } = {}) {
        if (prefix !== '') checkKey(prefix);
        if (after !== '') checkKey(after);
        if (!Number.isSafeInteger(limit) || limit < 1) throw new BadInput({ what: 'limit', why: 'it is not above 0' });
        const most = Math.min(limit, BACKPLANE_LIMITS.page_entries);
        // No key holds a NUL: this is the least that can come after `after`.
        const behind = after === '' ? '' : `${after}\0`;
        const from = Buffer.compare(Buffer.from(behind), Buffer.from(prefix)) > 0 ? behind : prefix;
        return queue.read(() => {
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

      async revision() {
        return queue.read(() => newest(namespace));
      },

      watch(prefix, options = {}) {
        queue.checkOpen();
        if (prefix !== '') checkKey(prefix);
        return feedOf(namespace).watch(prefix, options);
      },
    };
  }

  return {
    kv,
    commit,
    close() {
      for (const feed of feeds.values()) feed.close();
    },
  };
}
