/** The record of a pointer in the key-value store: what it holds now, and what it held before. */
import assert from 'node:assert/strict';

export interface PastVersion {
  version: number;
  digest: string;
  bytes: number;
  media_type: string;
  written_at: string;
}

export interface MeshRecord extends PastVersion {
  /** The layout of this record. */
  format: 1;
  /** The canonical pointer, in the spelling of its first write. */
  pointer: string;
  language?: string;
  /** The readable file of a wiki pointer, relative to the wiki folder. It never changes. */
  file?: string;
  /** Earlier versions, the newest first; bounded, but their content is kept in any case. */
  past: PastVersion[];
}

/** Reads a record. Another layout is a bug or the work of a newer Hauki: neither may be guessed at. */
export function readRecord(value: string): MeshRecord {
  const record = JSON.parse(value) as MeshRecord;
  assert.equal(record.format, 1, 'a MeshFS record of a layout that this version does not know');
  return record;
}
