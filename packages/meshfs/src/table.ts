/**
 * The table of pointers: what each holds now and held before, in two namespaces of the key-value store.
 *
 * What always holds: a pointer's record and the entry of its newest version are written in one commit, by
 * compare-and-set, so that versions have no gap and none is lost or told twice; the newest `kept_versions` are kept, a
 * deletion being one of them. Whoever sees a record has its content.
 */
import assert from 'node:assert/strict';
import { type Backplane, type Change, CompareFailed, entriesOf, type Prepared, type Write } from '@hauki/backplane';
import {
  describe,
  type FileVersion,
  type Pointer,
  PointerInvalid,
  PointerUnknown,
  PreconditionFailed,
  parsePointer,
  StorageFailed,
  VersionUnknown,
} from '@hauki/protocol';
import { MESHFS_LIMITS } from './limits.ts';
import { mapped } from './mapped.ts';
import { type MeshRecord, RECORDS, readRecord, readVersion, VERSIONS, versionKey, versionOf } from './record.ts';
import { fold, keyOf } from './wiki.ts';

/**
 * What a write expects: `absent` (nothing, or deleted), `present`, or one of these versions (numbers) or digests (hex).
 */
export type Expect = 'absent' | 'present' | readonly (number | string)[];

export interface Found {
  record: MeshRecord;
  /** The record's revision in the key-value store. */
  revision: number;
  /** The version that this commit has let go of, one more than are kept. */
  trimmed?: FileVersion;
}

const SCHEME = 'gem-pointer://';

/** Throws `PreconditionFailed` where the record is not as expected. */
export function checkExpected(pointer: Pointer, expect: Expect | undefined, record: MeshRecord | undefined): void {
  if (expect === undefined) return;
  const live = record?.deleted ? undefined : record;
  const is_met =
    expect === 'absent'
      ? !live
      : live && (expect === 'present' || expect.some((e) => e === live.version || e === live.digest));
  if (is_met) return;
  const wanted = typeof expect === 'string' ? `to be ${expect}` : `one of ${expect.join(', ')}`;
  // Who reaches one spelling of a name may not reach another.
  if (live && parsePointer(live.pointer).name !== pointer.name)
    throw new PreconditionFailed(
      { pointer: pointer.text, wanted, found: null },
      `${pointer.text} is not as expected (${wanted}): another spelling of it is there. Nothing was changed`,
    );
  const found = live ? { version: live.version, digest: live.digest } : null;
  throw new PreconditionFailed({ pointer: record?.pointer ?? pointer.text, wanted, found });
}

export type Table = ReturnType<typeof openTable>;

/** `report` is told of what a list leaves out. */
export function openTable(backplane: Backplane, report: (problem: string) => void) {
  const records = backplane.kv(RECORDS);
  const versions = backplane.kv(VERSIONS);

  async function find(key: string): Promise<Found | undefined> {
    const stored = await records.get(key);
    if (!stored) return undefined;
    const { value, revision } = stored;
    try {
      return { record: readRecord(value), revision };
    } catch (thrown) {
      return { record: await rebuilt(key, thrown), revision };
    }
  }

  /**
   * A damaged record's contents: those of its newest version, whose entry was written with it. Throws `StorageFailed`
   * for the wiki, since a version does not tell the spelling and the file, and where that entry is damaged too.
   */
  async function rebuilt(key: string, thrown: unknown): Promise<MeshRecord> {
    let newest: string | undefined;
    if (!key.startsWith('wiki/')) for await (const { value } of entriesOf(versions, `${key}//`)) newest = value;
    if (newest === undefined) throw damaged(`the record of ${SCHEME}${key}`, thrown);
    report(
      `The record of ${SCHEME}${key} is damaged: it is read from its newest version. Write or delete it to mend it`,
    );
    return { ...readEntry(`the newest version of ${SCHEME}${key}`, newest), format: 2, pointer: SCHEME + key };
  }

  /** The record that this very spelling names; a deletion's too. Throws `PointerUnknown`. */
  async function ask(pointer: Pointer): Promise<Found> {
    const found = await find(keyOf(pointer));
    if (found === undefined) throw new PointerUnknown({ pointer: pointer.text });
    checkAsked(pointer, found.record);
    return found;
  }

  /** One version of a record's pointer. Throws `VersionUnknown`. */
  async function version(pointer: Pointer, record: MeshRecord, number: number): Promise<FileVersion> {
    if (number === record.version) return versionOf(record);
    const oldest = oldestOf(record);
    if (Number.isSafeInteger(number) && number >= oldest && number < record.version) {
      const stored = await versions.get(versionKey(keyOf(pointer), number));
      const found = stored
        ? readEntry(`version ${number} of ${record.pointer}`, stored.value)
        : record.past?.find((one) => one.version === number);
      if (found) return found;
    }
    throw new VersionUnknown({ pointer: record.pointer, version: number, oldest, newest: record.version });
  }

  /** Versions before `before`, the newest first; `next` is the following page's `before`. */
  async function history(pointer: Pointer, { limit = 100, before }: { limit?: number; before?: number }) {
    const { record } = await ask(pointer);
    const key = keyOf(pointer);
    const from = Math.min(before ?? Infinity, record.version + 1) - 1;
    const to = Math.max(oldestOf(record), from - Math.min(limit, MESHFS_LIMITS.history_page) + 1);
    const found = new Map((record.past ?? []).map((one) => [one.version, one]));
    for (let after = versionKey(key, to - 1), more = from >= to; more; ) {
      const page = await versions.list(`${key}//`, { after, limit: from - to + 1 });
      for (const { key, value } of page.entries) {
        const one = tryRead(value);
        if (one) found.set(one.version, one);
        else report(`Left out of a history, since its entry cannot be read: ${SCHEME}${key}`);
      }
      const last = page.entries.at(-1);
      more = page.next !== undefined && last !== undefined && last.key < versionKey(key, from);
      if (last) after = last.key;
    }
    const list = [...found.values()].filter((one) => one.version >= to && one.version <= from);
    list.sort((a, b) => b.version - a.version);
    const next = list.length > 0 && to > oldestOf(record) ? { next: to } : {};
    return { pointer: record.pointer, versions: list, ...next };
  }

  /**
   * Commits the pointer's next version. `make` gives it from the record before, and may throw; what is expected is
   * checked first, each time that another writer came between. `more` is written in the same commit.
   */
  async function commit(
    pointer: Pointer,
    expect: Expect | undefined,
    make: (before: MeshRecord | undefined) => Omit<MeshRecord, 'format' | 'version'>,
    { objects = [], more }: { objects?: readonly Prepared[]; more?: ((found: Found) => Write[]) | undefined } = {},
  ): Promise<Found> {
    const key = keyOf(pointer);
    for (let attempt = 0; attempt < MESHFS_LIMITS.attempts; attempt++) {
      const found = await find(key);
      checkExpected(pointer, expect, found?.record);
      const version = (found?.record.version ?? 0) + 1;
      const record: MeshRecord = { format: 2, ...make(found?.record), version };
      const entry = (one: FileVersion): Write => ({
        namespace: VERSIONS,
        key: versionKey(key, one.version),
        value: JSON.stringify(one),
      });
      const writes: Write[] = [
        { namespace: RECORDS, key, value: JSON.stringify(record), expect: found?.revision ?? 'absent' },
        entry(versionOf(record)),
        ...(found?.record.past ?? []).map(entry),
      ];
      const superfluous = version - MESHFS_LIMITS.kept_versions;
      const trimmed = superfluous > 0 ? await versions.get(versionKey(key, superfluous)) : undefined;
      if (trimmed) writes.push({ namespace: VERSIONS, key: versionKey(key, superfluous) });
      try {
        const [revision] = await backplane.commit([...writes, ...(more?.({ record, revision: 0 }) ?? [])], objects);
        const gone = trimmed && tryRead(trimmed.value);
        return { record, revision: revision!, ...(gone && { trimmed: gone }) };
      } catch (thrown) {
        if (!(thrown instanceof CompareFailed)) throw thrown;
      }
    }
    throw new StorageFailed({ what: `${pointer.text} is written by others without a pause` });
  }

  /** A page of living pointers that begin with the prefix, and the revision from which to watch what comes after. */
  async function list(
    prefix: string,
    { deleted = false, ...options }: { limit?: number; after?: string; deleted?: boolean },
  ) {
    const start = keyPrefix(prefix);
    const revision = await records.revision();
    const page = await records.list(start, options);
    const found: Found[] = [];
    const damaged: string[] = [];
    for (const { key, value, revision } of page.entries) {
      try {
        found.push({ record: readRecord(value), revision });
      } catch {
        damaged.push(SCHEME + key);
      }
    }
    // One record that cannot be read must not hide all the others.
    if (damaged.length > 0) report(`Left out of a list, since their records cannot be read: ${someOf(damaged)}`);
    const entries = deleted ? found : found.filter(({ record }) => !record.deleted);
    return { entries, revision, ...(page.next === undefined ? {} : { next: page.next }) };
  }

  function watch(prefix: string, options: { after?: number; signal?: AbortSignal }): AsyncIterableIterator<Found> {
    return mapped(records.watch(keyPrefix(prefix), options), ({ value, revision }: Change): Found => {
      return { record: readRecord(value!), revision }; // none is removed
    });
  }

  /** Every digest that a record or a kept version names; of a damaged one, whatever in it looks like a digest. */
  async function* reachable(): AsyncGenerator<string> {
    const damaged: string[] = [];
    const digestsOf = (key: string, value: string, read: () => string[]) => {
      try {
        const digests = read();
        assert(digests.every((digest) => typeof digest === 'string'));
        return digests;
      } catch {
        damaged.push(SCHEME + key);
        return value.match(/[0-9a-f]{64}/g) ?? [];
      }
    };
    for await (const { key, value } of entriesOf(records))
      yield* digestsOf(key, value, () => {
        const { deleted, digest, past = [] } = readRecord(value);
        return [...(deleted ? [] : [digest]), ...past.map((one) => one.digest)];
      });
    for await (const { key, value } of entriesOf(versions))
      yield* digestsOf(key, value, () => [readVersion(value).digest]);
    if (damaged.length > 0) report(`A collection kept what these name, since they cannot be read: ${someOf(damaged)}`);
  }

  return { find, ask, version, history, commit, list, watch, reachable, revision: () => records.revision() };
}

/** The oldest version that is kept of what a record tells of. */
const oldestOf = ({ version }: MeshRecord) => Math.max(1, version - MESHFS_LIMITS.kept_versions + 1);

const damaged = (what: string, thrown: unknown) =>
  new StorageFailed(
    { what: `${what} is damaged` },
    `In the store ${what} is damaged: ${describe(thrown)}. Put the store back from a copy, or use another name`,
  );

function readEntry(what: string, value: string): FileVersion {
  try {
    return readVersion(value);
  } catch (thrown) {
    throw damaged(what, thrown);
  }
}

function tryRead(value: string): FileVersion | undefined {
  try {
    return readVersion(value);
  } catch {
    return undefined;
  }
}

const someOf = (names: string[]) =>
  names.slice(0, 5).join(', ') + (names.length > 5 ? ` and ${names.length - 5} more` : '');

function keyPrefix(prefix: string): string {
  if (typeof prefix !== 'string' || !prefix.startsWith(SCHEME))
    throw new PointerInvalid({ pointer: String(prefix), why: `a prefix begins with ${SCHEME}` });
  const name = prefix.slice(SCHEME.length);
  // A document's key has no `.md`.
  return name.startsWith('wiki/') ? fold(name).replace(/\.md$/, '') : name;
}

/** A record answers only to its own spelling, and a source not to the `.md` of a document. */
function checkAsked(pointer: Pointer, record: MeshRecord): void {
  const is_spelled = parsePointer(record.pointer).name === pointer.name;
  const wants_document = pointer.space === 'wiki' && pointer.text.endsWith('.md');
  if (is_spelled && (!wants_document || record.pointer === pointer.text)) return;
  // Who reaches a folder reaches all in it, and may not even hear of another.
  const there = folderOf(record.pointer) === folderOf(pointer.text) ? `. There is ${record.pointer}` : '';
  throw new PointerUnknown({ pointer: pointer.text }, `Nothing was ever written to ${pointer.text}${there}`);
}

const folderOf = (pointer: string): string => pointer.slice(0, pointer.lastIndexOf('/') + 1);
