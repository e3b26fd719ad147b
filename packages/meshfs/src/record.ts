/**
 * What MeshFS keeps in the key-value store: for each pointer a record of what it holds now, and for each of its
 * versions an entry that stays when the record moves on. Both are written in one commit.
 */
import assert from 'node:assert/strict';
import type { FileVersion } from '@hauki/protocol';

export interface MeshRecord extends FileVersion {
  /** The layout of this record. */
  format: 2;
  /** The canonical pointer, in the spelling of its first write. */
  pointer: string;
  /** The readable file of a wiki pointer, relative to the wiki folder. It stays while the pointer lives. */
  file?: string;
  /** Of a deletion: what the readable file held, so that a file which is something else by now is left alone. */
  last?: { digest: string; bytes: number };
  /** Versions that have no entry of their own: written by Hauki 0.1, whose records held them. The newest first. */
  past?: FileVersion[];
}

/** Where the records are, and where the versions. */
export const RECORDS = 'meshfs';
export const VERSIONS = 'meshfs-versions';

const DIGITS = 10;

/** The key of a version's entry. No pointer has an empty segment, so no two can meet. Keys sort as versions do. */
export const versionKey = (key: string, version: number) => `${key}//${String(version).padStart(DIGITS, '0')}`;

/** Reads a record. Another layout is a bug or the work of a newer Hauki: neither may be guessed at. */
export function readRecord(value: string): MeshRecord {
  const record = JSON.parse(value) as Omit<MeshRecord, 'format'> & { format: number };
  if (record.format === 1) {
    const { version, digest, bytes, media_type, written_at, past = [], ...rest } = record;
    const own = { version, digest, bytes, media_type, written_at };
    return { ...own, ...rest, format: 2, past: [own, ...past] };
  }
  assert.equal(record.format, 2, 'a MeshFS record of a layout that this version does not know');
  return record as MeshRecord;
}

export const readVersion = (value: string): FileVersion => JSON.parse(value) as FileVersion;

/** The entry for the version that a record is at. */
export function versionOf(record: MeshRecord): FileVersion {
  const { version, digest, bytes, media_type, language, written_at, deleted } = record;
  const kept: FileVersion = { version, digest, bytes, media_type, written_at };
  if (language !== undefined) kept.language = language;
  if (deleted) kept.deleted = true;
  return kept;
}
