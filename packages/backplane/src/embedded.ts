/**
 * The embedded backend: one folder, opened by one process alone (the core). `node:sqlite` for keys and
 * small objects, files for larger ones.
 *
 * What always holds: SQLite's exclusive lock on `kv.sqlite` is the folder's lock; the kernel lets go of it when the
 * process ends, however it ends, so no lock is ever stale. The objects are touched only by who holds it.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { StorageFailed } from '@hauki/protocol';
import { openCommitQueue } from './commit-queue.ts';
import { syncFolder } from './durable.ts';
import { openSqliteKeyValues } from './embedded-kv.ts';
import { openObjects } from './embedded-objects.ts';
import { storageFailed } from './errors.ts';
import { BACKPLANE_LIMITS } from './limits.ts';
import type { Backplane } from './types.ts';

/** `SQLITE_BUSY`: somebody else holds the lock. */
const BUSY = 5;

/** Opens the backplane kept in `folder`, which is made if need be. Rejects with `StorageFailed`, saying why not. */
export async function openEmbedded(
  folder: string,
  { wait_ms = BACKPLANE_LIMITS.open_wait_ms }: { wait_ms?: number } = {},
): Promise<Backplane> {
  const root = resolve(folder);
  const db = openDatabase(root, wait_ms);
  try {
    const queue = openCommitQueue(db);
    const keys = openSqliteKeyValues(db, queue);
    const objects = await openObjects(join(root, 'objects'), db, queue);
    await syncFolder(root);
    let closing: Promise<void> | undefined;
    return {
      kv: keys.kv,
      objects,
      commit: (writes, prepared = []) => keys.commit(writes, () => objects.keep(prepared)),
      close() {
        closing ??= (async () => {
          queue.close();
          keys.close();
          await objects.close();
          db.close();
        })();
        return closing;
      },
    };
  } catch (thrown) {
    db.close();
    throw storageFailed(`opening ${root}`, thrown);
  }
}

function openDatabase(root: string, wait_ms: number): DatabaseSync {
  let db: DatabaseSync | undefined;
  const owner = join(root, 'owner.pid');
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    db = new DatabaseSync(join(root, 'kv.sqlite'), { timeout: wait_ms });
    // Exclusive before WAL: the lock then covers the whole life of the connection, and no shared memory is needed.
    db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
    // A small commit touches pages of several tables: 16 MiB of log between checkpoints keeps those rare.
    db.exec('PRAGMA wal_autocheckpoint = 4000;');
    db.exec('BEGIN EXCLUSIVE; COMMIT;');
    writeFileSync(owner, `${process.pid}\n`); // only for the message below; the lock is SQLite's
    return db;
  } catch (thrown) {
    db?.close();
    if ((thrown as { errcode?: number }).errcode !== BUSY) throw storageFailed(`opening ${root}`, thrown);
    throw new StorageFailed(
      { what: `${root} is in use` },
      `${root} is open in another process${pidIn(owner)}. One process alone may open it: stop that one, or connect to it`,
    );
  }
}

function pidIn(owner: string): string {
  try {
    return ` (pid ${Number.parseInt(readFileSync(owner, 'utf8'), 10)})`;
  } catch {
    return '';
  }
}
