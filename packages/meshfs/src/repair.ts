/**
 * Brings the wiki's readable files in line with the pointer table, when MeshFS opens.
 *
 * What always holds: the table is never changed here, and one file that cannot be repaired does not stop the others
 * or the opening; it is reported. A file that a person edited is set back: what is in the table is the document.
 */
import { createHash } from 'node:crypto';
import type { KeyValue, ObjectStore } from '@hauki/backplane';
import { describe } from '@hauki/protocol';
import { type MeshRecord, readRecord } from './record.ts';
import type { WikiFolder } from './wiki-folder.ts';

/** Removes half-written files, then rewrites each file that is missing or different. */
export async function repair(
  records: KeyValue,
  objects: ObjectStore,
  folder: WikiFolder,
  report: (problem: string) => void,
): Promise<void> {
  await folder.sweep().catch((thrown) => report(`The wiki folder could not be swept: ${describe(thrown)}`));
  let after: string | undefined = '';
  while (after !== undefined) {
    const page: Awaited<ReturnType<KeyValue['list']>> = await records.list('wiki/', { after });
    for (const { key, value } of page.entries) {
      try {
        await repairFile(readRecord(value), objects, folder);
      } catch (thrown) {
        report(`The file of gem-pointer://${key} could not be repaired: ${describe(thrown)}`);
      }
    }
    after = page.next;
  }
}

async function repairFile({ file, digest }: MeshRecord, objects: ObjectStore, folder: WikiFolder): Promise<void> {
  if (file === undefined) return;
  const there = await folder.read(file);
  if (there !== undefined && createHash('sha256').update(there).digest('hex') === digest) return;
  const bytes = await objects.get(digest);
  if (bytes === undefined) throw new Error(`its content (sha256 ${digest}) is gone from the store`);
  await (await folder.prepare(file, bytes)).place();
}
