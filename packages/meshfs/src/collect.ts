/**
 * Gives back the space of content that nothing names any more: of versions beyond those kept, of writes that were never
 * committed. What is safe while others write is the object store's business (`ObjectStore.sweep`). The objects of a
 * backplane are MeshFS's alone: whoever else kept some there would have to be asked here too.
 */
import type { ObjectStore, Swept } from '@hauki/backplane';
import type { Table } from './table.ts';

export function collect(table: Table, objects: ObjectStore): Promise<Swept> {
  return objects.sweep(async (candidates) => {
    let looked = 0;
    for await (const digest of table.reachable()) {
      candidates.delete(digest);
      // A long table must not keep everyone else waiting.
      if (++looked % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  });
}
