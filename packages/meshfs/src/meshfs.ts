/**
 * MeshFS: a table of pointers, each naming content in the object store. Wiki pointers are readable files besides.
 *
 * What always holds: a write has happened when its record is committed in the key-value store, and it is answered only
 * then; before that, the content is durable in the object store (small contents: in the same commit) and the wiki's new
 * file is ready under a temporary name, so that a full disk or a planted link fails the write while the old version
 * stays. The file gets its name after the commit: it may lag behind the truth, never lead it. What it lacks is repaired
 * at the next open. A deletion is a version too; what was before it stays readable. A write that failed leaves no content
 * behind. One process serves one wiki folder; the table itself may have many writers.
 */
import type { Backplane, Content, Prepared, Swept, Write } from '@hauki/backplane';
import {
  BadInput,
  describe,
  type FileVersion,
  isError,
  MeshError,
  NotText,
  PayloadLost,
  type Pointer,
  PointerDeleted,
  PointerInvalid,
  PointerUnknown,
  parsePointer,
  StorageFailed,
  TooLarge,
} from '@hauki/protocol';
import { openCollector } from './collect.ts';
import { MESHFS_LIMITS } from './limits.ts';
import { mapped } from './mapped.ts';
import { type Described, describeContent, describeRaw } from './media.ts';
import { places, queue } from './queue.ts';
import { type MeshRecord, RECORDS } from './record.ts';
import { repair } from './repair.ts';
import { checkExpected, type Expect, type Found, openTable, type Table } from './table.ts';
import { openUploads, type Uploads } from './uploads.ts';
import { fold, keyOf, keysThatMayHave, placeInWiki, stemOf, type WikiPlace } from './wiki.ts';
import { type NewFile, openWikiFolder, type WikiFolder } from './wiki-folder.ts';

export interface WriteRequest {
  pointer: string;
  content: string;
  media_type?: string;
  /** `typescript`, `javascript`, `python`, `lpc`; makes the content a source and not a document. */
  language?: string;
  expect?: Expect | undefined;
}

/** Content as bytes. Without media type and language it stays what the pointer holds, or is told by its ending. */
export interface PutRequest extends Omit<WriteRequest, 'content'> {
  content: Content;
  /** SHA-256 in hex that the content must have. */
  digest?: string | undefined;
}

/** A version of a pointer as callers are told of it. */
export interface Written {
  /** The canonical pointer. */
  pointer: string;
  /** SHA-256 of the content, in hex; empty for a deletion. */
  digest: string;
  /** Counts this pointer's writes and deletions from 1. */
  version: number;
  /** The record's revision in the key-value store: where a watch of what comes after begins. */
  revision: number;
  bytes: number;
  media_type: string;
  language?: string;
  written_at: string;
  deleted?: true;
}

export interface Resolved extends Written {
  content: string;
}

/** Content that is read as a stream. */
export interface Opened extends Written {
  /** The bytes, in pieces. A piece is its reader's only until the next is asked for. */
  read(range?: { start?: number; end?: number }): AsyncIterable<Uint8Array>;
}

export interface MeshFs {
  /** Keeps the text under the pointer; resolves when it is durable. `also`: entries that are written in the same commit. */
  write(request: WriteRequest, also?: readonly Write[]): Promise<Written>;
  /** Keeps bytes under the pointer, in bounded memory; resolves when they are durable. */
  put(request: PutRequest): Promise<Written>;
  /**
   * The pointer's content as text, of its newest version or of `version`. Rejects with `PointerMissing`,
   * `PointerInvalid`, `PointerUnknown`, `PointerDeleted`, `VersionUnknown`, `PayloadLost`, `NotText` or `TooLarge`.
   */
  resolve(pointer: string, options?: { version?: number | undefined }): Promise<Resolved>;
  /** The same without a bound on size or kind: what it is, and its bytes on demand. */
  open(pointer: string, options?: { version?: number | undefined }): Promise<Opened>;
  /** What is kept under pointers that begin with `prefix`, a page at a time; `next` is the following page's `after`. */
  list(
    prefix: string,
    options?: { limit?: number; after?: string },
  ): Promise<{ entries: Written[]; revision: number; next?: string }>;
  /** A pointer's versions, the newest first, a page at a time; `next` is the following page's `before`. */
  history(
    pointer: string,
    options?: { limit?: number; before?: number },
  ): Promise<{ pointer: string; versions: FileVersion[]; next?: number }>;
  /** Deletes: a version without content. Rejects with `PointerUnknown` or `PointerDeleted` where there is nothing. */
  delete(pointer: string, options?: { expect?: Expect | undefined }): Promise<Written>;
  /** The newest revision of all pointers together: where a watch from now on begins. */
  revision(): Promise<number>;
  /** Changes under a prefix, as `KeyValue.watch` of the backplane gives them. */
  watch(prefix: string, options?: { after?: number; signal?: AbortSignal }): AsyncIterableIterator<Written>;
  /** Removes content that no kept version names: all that had none when it was asked for. Also runs by itself. */
  collect(): Promise<Swept>;
  readonly uploads: Uploads;
}

export interface MeshFsOptions {
  /** Where the wiki's readable files go: `<wiki_folder>/<project>/<path>`. */
  wiki_folder: string;
  clock?: () => number;
  /** Milliseconds on a clock that nobody sets. */
  elapsed?: () => number;
  /** Told of each write and deletion, once, when it is committed. */
  onWrite?: (written: Written) => void;
  /** Told what a person should know although no call failed: a file of the wiki that could not be kept up to date. */
  report?: (problem: string) => void;
  /** How long content that nothing names may wait for its collection, in ms. */
  collect_ms?: number;
}

/** Opens MeshFS over a backplane and repairs the readable files of the wiki. */
export async function createMeshFs(backplane: Backplane, options: MeshFsOptions): Promise<MeshFs> {
  const {
    wiki_folder,
    clock = Date.now,
    elapsed = () => performance.now(),
    onWrite = () => {},
    report = (problem) => process.emitWarning(problem, 'MeshFsWarning'),
    collect_ms = MESHFS_LIMITS.collect_ms,
  } = options;
  const { objects } = backplane;
  const table = openTable(backplane, report);
  let folder: WikiFolder;
  try {
    folder = await openWikiFolder(wiki_folder);
  } catch (thrown) {
    throw new StorageFailed({ what: `the wiki folder ${wiki_folder} cannot be opened: ${describe(thrown)}` });
  }
  await repair(backplane.kv(RECORDS), objects, folder, report);
  const inTurn = queue(MESHFS_LIMITS.writes_at_once, MESHFS_LIMITS.waiting_bytes);
  const { collect, ...by_itself } = openCollector(table, objects, { collect_ms, report });
  // Where the store has lost something, what nothing names any more may be wanted back.
  const collector = backplane.lost === undefined ? by_itself : { freed() {}, hurry() {} };

  const now = () => new Date(clock()).toISOString();
  const turnOf = (pointer: Pointer, place: { file: string } | undefined) =>
    place ? fold(stemOf(place.file)) : pointer.name;

  /** Commits prepared content as the pointer's next version, in its turn. */
  async function store(
    { pointer, place, content, expect }: Target,
    prepared: Prepared,
    more?: (found: Found) => Write[],
  ): Promise<Written> {
    let file: NewFile | undefined;
    let found: Found;
    let committing = false;
    try {
      await checkPlace(table, pointer, place);
      file = place && (await folder.prepare(place.file, prepared.read()));
      const make = (before: MeshRecord | undefined) => {
        if (before && place) checkRival(pointer, place, keyOf(pointer), before);
        const { digest, bytes } = prepared;
        const { media_type, language } = content;
        return {
          pointer: place?.pointer ?? pointer.text,
          ...{ digest, bytes, media_type, written_at: now() },
          ...(language !== undefined && { language }),
          ...(place && { file: place.file }),
        };
      };
      committing = true;
      found = await table.commit(pointer, expect, make, { objects: [prepared], more });
    } catch (thrown) {
      await file?.discard();
      // A commit that the disk failed may be there all the same: then the sweep looks whether its content is wanted.
      const unsure = committing && (!(thrown instanceof MeshError) || isError(thrown, StorageFailed));
      if (unsure || !(await prepared.discard())) collector.freed(prepared.bytes);
      throw thrown;
    }
    const written = committed(found);
    await file
      ?.place()
      .catch((thrown) => report(`${written.pointer} is written, but not its file: ${describe(thrown)}`));
    onWrite(written);
    return written;
  }

  function committed(found: Found): Written {
    if (found.trimmed && !found.trimmed.deleted) collector.freed(found.trimmed.bytes);
    return answer(found);
  }

  /** Passes on what `work` gives. On a full disk, whatever can be given back is wanted at once. */
  async function onDisk<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (thrown) {
      if (isError(thrown, StorageFailed)) collector.hurry();
      throw thrown;
    }
  }

  function target(request: Omit<WriteRequest, 'content'>, content: Described): Target {
    const pointer = parsePointer(request.pointer);
    const place = pointer.space === 'wiki' ? placeInWiki(pointer, content) : undefined;
    return { pointer, place, content, expect: request.expect };
  }

  /** Where raw content goes and what it is. Refuses what is not as expected, before anything is sent or kept. */
  async function aim(request: Omit<PutRequest, 'content'>): Promise<Target> {
    const pointer = parsePointer(request.pointer);
    const record = (await table.find(keyOf(pointer)))?.record;
    checkExpected(pointer, request.expect, record);
    const says = request.media_type !== undefined || request.language !== undefined;
    const as_before = record?.deleted ? undefined : record;
    const content = says || as_before ? describeContent(pointer, says ? request : as_before!) : describeRaw(pointer);
    const aimed = target(request, content);
    await checkPlace(table, pointer, aimed.place);
    return aimed;
  }

  const { streams_at_once, waiting_streams, stream_wait_ms } = MESHFS_LIMITS;
  const place = places(streams_at_once, waiting_streams, stream_wait_ms);
  const streaming = <T>(work: () => Promise<T>) => onDisk(place(work));

  async function openVersion(text: string, number: number | undefined): Promise<Found> {
    const pointer = parsePointer(text);
    const found = await table.ask(pointer);
    const { record } = found;
    const version = number === undefined ? record : await table.version(pointer, record, number);
    const name = record.pointer;
    if (version.deleted)
      throw new PointerDeleted({ pointer: name, version: version.version, deleted_at: version.written_at });
    return { record: { ...version, format: 2, pointer: name }, revision: found.revision };
  }

  const lost = ({ pointer, digest }: MeshRecord) => new PayloadLost({ pointer, digest });

  return {
    async write(request, also = []) {
      const aimed = target(request, describeContent(parsePointer(request.pointer), request));
      const bytes = checkedContent(request.content);
      const work = async () => {
        using prepared = await objects.prepare(bytes);
        return await store(aimed, prepared, () => [...also]);
      };
      return onDisk(inTurn(turnOf(aimed.pointer, aimed.place), bytes.length, work));
    },

    put: (request) =>
      streaming(async () => {
        const aimed = await aim(request);
        const { content, digest } = request;
        using prepared = await objects.prepare(content, { limit_bytes: MESHFS_LIMITS.raw_bytes, digest });
        return await inTurn(turnOf(aimed.pointer, aimed.place), 0, () => store(aimed, prepared));
      }),

    async resolve(text, { version } = {}) {
      const found = await openVersion(text, version);
      const { record } = found;
      const limit_bytes = MESHFS_LIMITS.content_bytes;
      if (record.bytes > limit_bytes)
        throw new TooLarge({ what: `${record.pointer}, as text`, limit_bytes, got_bytes: record.bytes });
      const bytes = await objects.get(record.digest);
      if (bytes === undefined) throw lost(record);
      return { ...answer(found), content: textOf(bytes, record) };
    },

    async open(text, { version } = {}) {
      const found = await openVersion(text, version);
      const { record } = found;
      if ((await objects.size(record.digest)) !== record.bytes) throw lost(record);
      return { ...answer(found), read: (range) => objects.read(record.digest, range) };
    },

    async list(prefix, options = {}) {
      const page = await table.list(prefix, options);
      return { ...page, entries: page.entries.map(answer) };
    },

    async history(text, options = {}) {
      return table.history(parsePointer(text), options);
    },

    async delete(text, { expect } = {}) {
      const pointer = parsePointer(text);
      const { record } = await table.ask(pointer);
      return inTurn(turnOf(pointer, record.file === undefined ? undefined : { file: record.file }), 0, async () => {
        await table.ask(pointer);
        const found = await table.commit(pointer, expect, (before) => {
          if (!before) throw new PointerUnknown({ pointer: pointer.text });
          const { pointer: name, version, written_at, media_type, language, file, digest, bytes } = before;
          if (before.deleted) throw new PointerDeleted({ pointer: name, version, deleted_at: written_at });
          return {
            ...{ pointer: name, digest: '', bytes: 0, media_type, written_at: now(), deleted: true as const },
            ...(language !== undefined && { language }),
            ...(file !== undefined && { file, last: { digest, bytes } }),
          };
        });
        const { file } = found.record;
        if (file !== undefined)
          await folder
            .remove(file)
            .catch((thrown) => report(`${found.record.pointer} is deleted, but not its file: ${describe(thrown)}`));
        const deleted = committed(found);
        onWrite(deleted);
        return deleted;
      });
    },

    watch: (prefix, watching = {}) => mapped(table.watch(prefix, watching), answer),

    revision: () => table.revision(),

    collect,

    uploads: openUploads(backplane, {
      ...{ clock, elapsed, report, streaming, aim },
      answer: async (text, version) => answer(await openVersion(text, version)),
      store: (aimed, prepared, more) =>
        inTurn(turnOf(aimed.pointer, aimed.place), 0, () => store(aimed, prepared, more)),
    }),
  };
}

/** Where content goes, and what it is. */
export interface Target {
  pointer: Pointer;
  place: WikiPlace | undefined;
  content: Described;
  expect: Expect | undefined;
}

/** Refuses a write that would hide something: another kind in this slot, another spelling, or another slot's file. */
async function checkPlace(table: Table, pointer: Pointer, place: WikiPlace | undefined): Promise<void> {
  if (place === undefined) return;
  for (const key of new Set([keyOf(pointer), ...keysThatMayHave(place.file)])) {
    const found = await table.find(key);
    if (found !== undefined) checkRival(pointer, place, key, found.record);
  }
}

function checkRival(pointer: Pointer, place: WikiPlace, key: string, there: MeshRecord): void {
  const refuse = (why: string): never => {
    throw new PointerInvalid({ pointer: pointer.text, why }, `${pointer.text} cannot be written so: ${why}`);
  };
  const file = there.file ?? '';
  const is_own = key === keyOf(pointer);
  // Also of what was deleted: its history must not become that of a name which others may read.
  if (is_own && parsePointer(there.pointer).name !== pointer.name)
    refuse(`it is spelled ${there.pointer}. Write to that pointer, or choose another name`);
  if (there.deleted || (file === place.file && there.pointer === place.pointer)) return;
  if (fold(file) === fold(place.file)) {
    refuse(`its file would be that of ${there.pointer}. Write to that pointer, or choose another name`);
  }
  if (!is_own) return;
  refuse(
    `it is kept as ${file} (${there.language ?? there.media_type}). Write that kind again` +
      `${there.language === undefined ? '' : `, with language ${there.language}`}, or choose another name`,
  );
}

function answer({ record, revision }: Found): Written {
  const { pointer, digest, version, bytes, media_type, language, written_at, deleted } = record;
  const told: Written = { pointer, digest, version, revision, bytes, media_type, written_at };
  if (language !== undefined) told.language = language;
  if (deleted) told.deleted = true;
  return told;
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function textOf(bytes: Uint8Array, { pointer, media_type }: MeshRecord): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new NotText({ pointer, media_type });
  }
}

function checkedContent(content: unknown): Uint8Array {
  if (typeof content !== 'string') throw new BadInput({ what: 'content', why: 'it is not a text' });
  const limit_bytes = MESHFS_LIMITS.content_bytes;
  const got_bytes = Buffer.byteLength(content);
  if (got_bytes > limit_bytes) throw new TooLarge({ what: 'content', limit_bytes, got_bytes });
  if (!content.isWellFormed()) throw new BadInput({ what: 'content', why: 'it holds half of a surrogate pair' });
  return Buffer.from(content, 'utf8');
}
