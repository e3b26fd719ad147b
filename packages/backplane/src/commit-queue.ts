/**
 * One commit, and one sync of the disk, for all writes that come while the one before is under way.
 *
 * What always holds: a work resolves after the commit that holds it is on the disk; the works of one commit take effect
 * in the order they were called, all or none of them, except those that threw `CompareFailed`, which must have changed
 * nothing by then; nobody reads what is not on the disk yet (`read`). SQLite syncs its log's header alone, when it
 * begins the log anew (without that a power cut could leave the old log's beginning before the new one's rest, see
 * https://sqlite.org/src/info/ff5be73dee). The log is synced here after each commit, and the pages before the log is
 * begun anew, both in a thread of the system's, so that a slow disk holds up nobody else.
 */
import type { DatabaseSync } from 'node:sqlite';
import { Overloaded, StorageFailed } from '@hauki/protocol';
import { CompareFailed, storageFailed } from './errors.ts';
import { BACKPLANE_LIMITS } from './limits.ts';

export interface CommitQueue {
  /** Runs `work` within the next commit. `committed` is called, in order, before the promise resolves. */
  run<T>(work: () => T, committed?: (result: T) => void): Promise<T>;
  checkOpen(): void;
  /** Reads what is on the disk: at once, or when the last commit has got there. Rejects as `checkOpen` throws, or with `StorageFailed`. */
  read<T>(look: () => T): Promise<T>;
  /** Commits what waits; nothing is taken from now on. The database stays open. */
  close(): Promise<void>;
}

/** Make a database's two files durable, without blocking. */
export interface DiskSync {
  log(): Promise<void>;
  pages(): Promise<void>;
}

interface Waiting {
  work(): unknown;
  committed?: ((result: any) => void) | undefined;
  resolve(result: any): void;
  reject(thrown: Error): void;
}

/** `db`: in WAL mode, with `synchronous = NORMAL` and no checkpoints of its own. */
export function openCommitQueue(db: DatabaseSync, disk: DiskSync): CommitQueue {
  const [begin, end] = [db.prepare('BEGIN IMMEDIATE'), db.prepare('COMMIT')];
  const [measure, checkpoint] = ['NOOP', 'PASSIVE'].map((how) => db.prepare(`PRAGMA wal_checkpoint(${how})`));
  let waiting: Waiting[] = [];
  let running: Promise<void> | undefined;
  /** The last commit is not on the disk yet: who wants to read stands here. */
  let readers: (() => void)[] | undefined;
  let closed = false;
  /** What the disk refused: what it has by then is not known, so that nothing is read or written any more. */
  let broken: Error | undefined;

  /** Commits these works; gives what tells them of it, once it is durable. */
  function commit(works: readonly Waiting[]): (() => void)[] | undefined {
    const settle: (() => void)[] = [];
    try {
      begin.run();
      for (const { work, committed, resolve, reject } of works) {
        try {
          const result = work();
          settle.push(() => {
            committed?.(result);
            resolve(result);
          });
        } catch (thrown) {
          if (!(thrown instanceof CompareFailed)) throw thrown;
          settle.push(() => reject(thrown)); // it changed nothing; the others go on
        }
      }
      end.run();
      return settle;
    } catch (thrown) {
      // On a full disk SQLite may have rolled back by itself.
      if (db.isTransaction) db.exec('ROLLBACK');
      const failed = storageFailed('writing to the database', thrown);
      for (const { reject } of works) reject(failed);
      return undefined;
    }
  }

  /** Frees the log for new commits when it has grown. All of it is durable by now. */
  async function shorten(): Promise<void> {
    const { log, checkpointed } = measure!.get() as { log: number; checkpointed: number };
    if (log - checkpointed < BACKPLANE_LIMITS.log_pages) return;
    // It would sync the pages here, and hold up everybody.
    db.exec('PRAGMA synchronous = OFF');
    try {
      checkpoint!.get();
    } catch {
      return; // a full disk: the log goes on, and this is tried again after the next commit
    } finally {
      db.exec('PRAGMA synchronous = NORMAL');
    }
    // The next commit may write over the log: until then the pages must be on the disk by themselves.
    await disk.pages();
  }

  async function flush(): Promise<void> {
    while (waiting.length > 0) {
      const works = waiting;
      waiting = [];
      if (broken) {
        for (const { reject } of works) reject(broken);
        continue;
      }
      const settle = commit(works);
      if (!settle) continue;
      const waited: (() => void)[] = [];
      readers = waited;
      try {
        await disk.log();
        readers = undefined;
        for (const tell of settle) tell();
        for (const look of waited) look();
        await shorten();
      } catch (thrown) {
        readers = undefined;
        broken = storageFailed('writing to the disk', thrown);
        for (const { reject } of works) reject(broken); // those that have resolved stay so
        for (const look of waited) look(); // and those that have looked
      }
    }
  }

  function start(): void {
    running ??= flush().finally(() => {
      running = undefined;
      if (waiting.length > 0) start();
    });
  }

  function checkOpen(): void {
    if (closed) throw new StorageFailed({ what: 'the store is closed' });
    if (broken) throw broken;
  }

  return {
    checkOpen,
    async read(look) {
      checkOpen();
      const reading = () => {
        if (broken) throw broken;
        try {
          return look();
        } catch (thrown) {
          throw storageFailed('reading the database', thrown);
        }
      };
      if (!readers) return reading();
      const { promise, resolve, reject } = Promise.withResolvers<ReturnType<typeof look>>();
      readers.push(() => {
        try {
          resolve(reading());
        } catch (thrown) {
          reject(thrown);
        }
      });
      return promise;
    },
    async run(work, committed) {
      checkOpen();
      const limit = BACKPLANE_LIMITS.waiting_writes;
      if (waiting.length >= limit) throw new Overloaded({ what: 'writes to the store', limit });
      return new Promise((resolve, reject) => {
        // Those who write in the same turn go together.
        if (waiting.length === 0 && !running) setImmediate(start);
        waiting.push({ work, committed, resolve, reject });
      });
    },
    async close() {
      closed = true;
      start();
      await running;
    },
  };
}
