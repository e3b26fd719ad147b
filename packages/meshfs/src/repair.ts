/**
 * Brings the wiki's readable files in line with the pointer table, when MeshFS opens.
 *
 * What always holds: the table is never changed here, and one file that cannot be repaired does not stop the others
 * or the opening; it is reported. A file that a person edited is set back: what is in the table is the document. The
 * file of a deleted page goes, if it still holds what was deleted.
 */
import { entriesOf, type KeyValue, type ObjectStore } from '@hauki/backplane';
import { describe } from '@hauki/protocol';
import { type MeshRecord, readRecord } from './record.ts';
import { keysThatMayHave } from './wiki.ts';
import type { WikiFolder } from './wiki-folder.ts';

/** Removes half-written files, then rewrites each file that is missing or different. */
export async function repair(
  records: KeyValue,
  objects: ObjectStore,
  folder: WikiFolder,
  report: (problem: string) => void,
): Promise<void> {
  await folder.sweep().catch((thrown) => report(`The wiki folder could not be swept: ${describe(thrown)}`));
  for await (const { key, value } of entriesOf(records, 'wiki/')) {
    try {
      const record = readRecord(value);
      if (record.deleted) await removeFile(record, records, folder);
      else await repairFile(record, objects, folder);
    } catch (thrown) {
      report(`The file of gem-pointer://${key} could not be repaired: ${describe(thrown)}`);
    }
  }
}

async function repairFile(record: MeshRecord, objects: ObjectStore, folder: WikiFolder): Promise<void> {
  const { file, digest } = record;
  if (file === undefined || (await folder.holds(file, record))) return;
  if ((await objects.size(digest)) === undefined)
    throw new Error(`its content (sha256 ${digest}) is gone from the store`);
  await (await folder.prepare(file, objects.read(digest))).place();
}

async function removeFile({ file, last }: MeshRecord, records: KeyValue, folder: WikiFolder): Promise<void> {
  if (file === undefined || last === undefined || !(await folder.holds(file, last))) return;
  for (const key of keysThatMayHave(file)) {
    const stored = await records.get(key);
    const other = stored && readRecord(stored.value);
    if (other && !other.deleted && other.file === file) return; // another page has it now
  }
  await folder.remove(file);
}
