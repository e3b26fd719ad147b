/**
 * Gives back the space of content that nothing names any more: of versions beyond those kept, of writes that were never
 * committed. It runs when it is asked for, and by itself when enough has gathered or some of it has waited long.
 *
 * What always holds: a run takes no content that is wanted or on its way in, which is the object store's business
 * (`ObjectStore.sweep`); whoever asks gets a run that began after the asking. One run at a time, and by itself it rests
 * many times as long as it has worked, whatever the size of the table. The objects of a backplane are MeshFS's alone:
 * whoever else kept some there would have to be asked here too.
 */
import type { ObjectStore, Swept } from '@hauki/backplane';
import { describe } from '@hauki/protocol';
import { MESHFS_LIMITS } from './limits.ts';
import type { Table } from './table.ts';

export interface Collector {
  /** Those who ask before the next run has begun share it. */
  collect(): Promise<Swept>;
  /** Content of so many bytes may have lost its last name. */
  freed(bytes: number): void;
  /** The disk is full: what has gathered is wanted back now. */
  hurry(): void;
}

export function openCollector(
  table: Table,
  objects: ObjectStore,
  { collect_ms, report }: { collect_ms: number; report: (problem: string) => void },
): Collector {
  let last: Promise<unknown> = Promise.resolve();
  let next: Promise<Swept> | undefined;
  /** Gathered since the last run began. */
  let loose = { contents: 0, bytes: 0 };
  let timer: NodeJS.Timeout | undefined;
  let due = Infinity;
  let rested = 0;

  async function run(): Promise<Swept> {
    next = undefined;
    clearTimeout(timer);
    due = Infinity;
    loose = { contents: 0, bytes: 0 };
    const began = performance.now();
    try {
      return await collectOnce(table, objects);
    } finally {
      const now = performance.now();
      rested = now + Math.min(collect_ms, (now - began) * MESHFS_LIMITS.collect_rest);
    }
  }

  function collect(): Promise<Swept> {
    if (!next) {
      next = last.then(run, run);
      last = next;
    }
    return next;
  }

  function wake(wait_ms: number): void {
    const now = performance.now();
    const at = Math.max(now + wait_ms, rested);
    if (at >= due || next) return;
    clearTimeout(timer);
    due = at;
    const told = (error: unknown) => report(`Content that nothing names could not be looked for: ${describe(error)}`);
    timer = setTimeout(() => collect().catch(told), at - now);
    timer.unref();
  }

  return {
    collect,
    freed(bytes) {
      loose.contents += 1;
      loose.bytes += bytes;
      wake(loose.bytes >= MESHFS_LIMITS.collect_bytes ? 0 : collect_ms);
    },
    hurry() {
      if (loose.contents > 0) wake(0);
    },
  };
}

function collectOnce(table: Table, objects: ObjectStore): Promise<Swept> {
  return objects.sweep(async (candidates) => {
    let looked = 0;
    for await (const digest of table.reachable()) {
      candidates.delete(digest);
      // A long table must not keep everyone else waiting.
      if (++looked % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  });
}
