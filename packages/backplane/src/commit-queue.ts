/**
 * One commit for all writes of a turn of the event loop.
 *
 * What always holds: a work resolves after the commit that holds it has returned (WAL, synchronous=FULL: after its
 * fsync); the works of one commit take effect in the order they were called, all or none of them, except those that
 * threw `CompareFailed`, which must have changed nothing by then. Committing together is what makes many small durable
 * writes affordable; it blocks the process for one fsync per turn.
 */
import type { DatabaseSync } from 'node:sqlite';
import { Overloaded, StorageFailed } from '@hauki/protocol';
import { CompareFailed, storageFailed } from './errors.ts';
import { BACKPLANE_LIMITS } from './limits.ts';

export interface CommitQueue {
  /** Runs `work` within the next commit. `committed` is called, in order, before the promise resolves. */
  run<T>(work: () => T, committed?: (result: T) => void): Promise<T>;
  checkOpen(): void;
  /** Commits what waits; nothing is taken after that. The database stays open. */
  close(): void;
}

interface Waiting {
  work(): unknown;
  committed?: ((result: any) => void) | undefined;
  resolve(result: any): void;
  reject(thrown: Error): void;
}

export function openCommitQueue(db: DatabaseSync): CommitQueue {
  const [begin, end] = [db.prepare('BEGIN IMMEDIATE'), db.prepare('COMMIT')];
  let waiting: Waiting[] = [];
  let closed = false;

  function flush(): void {
    const works = waiting;
    waiting = [];
    if (works.length === 0) return;
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
    } catch (thrown) {
      // On a full disk SQLite may have rolled back by itself.
      if (db.isTransaction) db.exec('ROLLBACK');
      const failed = storageFailed('writing to the database', thrown);
      for (const { reject } of works) reject(failed);
      return;
    }
    for (const tell of settle) tell();
  }

  function checkOpen(): void {
    if (closed) throw new StorageFailed({ what: 'the store is closed' });
  }

  return {
    checkOpen,
    async run(work, committed) {
      checkOpen();
      const limit = BACKPLANE_LIMITS.waiting_writes;
      if (waiting.length >= limit) throw new Overloaded({ what: 'writes to the store', limit });
      return new Promise((resolve, reject) => {
        if (waiting.length === 0) setImmediate(flush);
        waiting.push({ work, committed, resolve, reject });
      });
    },
    close() {
      flush();
      closed = true;
    },
  };
}
