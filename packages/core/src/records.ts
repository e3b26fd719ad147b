/**
 * Reading the core's records at its start, so that one which is damaged costs that one alone.
 *
 * What always holds: what cannot be read is told with its key, and stays where it is.
 */
import { entriesOf, type KeyValue } from '@hauki/backplane';
import { describe, StorageFailed } from '@hauki/protocol';

/** Told of each record that is left out. */
export type Damaged = (key: string, why: string) => void;

/** Told nothing else, a person hears it as a warning of the process. */
export const warnOf: Damaged = (key, why) =>
  process.emitWarning(`The record ${key} was left out: ${why}`, 'CoreWarning');

export interface RecordShape<T> {
  /** The key at which this record belongs. */
  keyOf(record: T): string;
  /** Members without which it is of no use. */
  needs: readonly (keyof T)[];
}

/** One record. Throws StorageFailed, naming its key, where it is damaged. */
export function readRecord<T>(key: string, value: string, { keyOf, needs }: RecordShape<T>): T {
  try {
    const record = JSON.parse(value) as T;
    const lacks = needs.find((name) => record[name] === undefined);
    if (lacks !== undefined) throw new Error(`it has no ${String(lacks)}`);
    if (keyOf(record) !== key) throw new Error('it is that of another key');
    return record;
  } catch (error) {
    const what = `the record ${key} is damaged: ${describe(error)}`;
    throw new StorageFailed({ what }, `In the core's store ${what}. Put the store back from a copy, or do without it`);
  }
}

/** All records whose key begins with `prefix`, without the damaged ones; the keys of those are added to `left_out`. */
export async function* recordsOf<T>(
  kv: KeyValue,
  prefix: string,
  shape: RecordShape<T>,
  damaged: Damaged = warnOf,
  left_out: Set<string> = new Set(),
): AsyncGenerator<{ record: T; revision: number }, void> {
  for await (const { key, value, revision } of entriesOf(kv, prefix)) {
    let record: T;
    try {
      record = readRecord(key, value, shape);
    } catch (error) {
      left_out.add(key);
      damaged(key, (error as Error).message);
      continue;
    }
    yield { record, revision };
  }
}
