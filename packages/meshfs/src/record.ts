/**
 * What MeshFS keeps in the key-value store: for each pointer a record of what it holds now, and for each of its
 * versions an entry that stays when the record moves on. Both are written in one commit.
 */
import assert from 'node:assert/strict';

/** One write of a pointer, or its deletion. */
export interface Version {
  /** Counts from 1, deletions included, without a gap. */
  version: number;
  /** SHA-256 of the content, in hex; empty for a deletion. */
  digest: string;
  bytes: number;
  media_type: string;
  language?: string;
  written_at: string;
  deleted?: true;
}

export interface MeshRecord extends Version {
  /** The layout of this record. */
  format: 2;
  /** The canonical pointer, in the spelling of its first write. */
  pointer: string;
  /** The readable file of a wiki pointer, relative to the wiki folder. It stays while the pointer lives. */
  file?: string;
  /** Of a deletion: what the readable file held, so that a file which is something else by now is left alone. */
  last?: { digest: string; bytes: number };
  /** Versions that have no entry of their own: written by Hauki 0.1, whose records held them. The newest first. */
  past?: Version[];
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

export const readVersion = (value: string): Version => JSON.parse(value) as Version;

/** The entry for the version that a record is at. */
export function versionOf(record: MeshRecord): Version {
  const { version, digest, bytes, media_type, language, written_at, deleted } = record;
  const kept: Version = { version, digest, bytes, media_type, written_at };
  if (language !== undefined) kept.language = language;
  if (deleted) kept.deleted = true;
  return kept;
}
