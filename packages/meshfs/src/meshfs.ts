/**
 * MeshFS: a table of pointers, each naming content in the object store. Wiki pointers are readable files besides.
 *
 * What always holds: a write has happened when its record is committed in the key-value store, and it is answered only
 * then; before that, the content is durable in the object store and the wiki's new file is ready under a temporary
 * name, so that a full disk or a planted link fails the write while the old version stays. The file gets its name
 * after the commit: it may lag behind the truth, never lead it. What it lacks is repaired at the next open. Versions of
 * one pointer are counted without a gap by compare-and-set: the last one committed is read, the content of all is kept.
 * One process serves one wiki folder; the table itself may have many writers.
 */
import { type Backplane, CompareFailed, type KeyValue } from '@hauki/backplane';
import {
  BadInput,
  describe,
  PayloadLost,
  type Pointer,
  PointerInvalid,
  PointerUnknown,
  parsePointer,
  StorageFailed,
  TooLarge,
} from '@hauki/protocol';
import { MESHFS_LIMITS } from './limits.ts';
import { type Described, describeContent } from './media.ts';
import { queue } from './queue.ts';
import { type MeshRecord, type PastVersion, readRecord } from './record.ts';
import { repair } from './repair.ts';
import { fold, keyOf, keysThatMayHave, placeInWiki, stemOf, type WikiPlace } from './wiki.ts';
import { openWikiFolder, type WikiFolder } from './wiki-folder.ts';

export interface WriteRequest {
  pointer: string;
  content: string;
  media_type?: string;
  /** `typescript`, `javascript`, `python`, `lpc`; makes the content a source and not a document. */
  language?: string;
}

export interface Written {
  /** The canonical pointer. */
  pointer: string;
  /** SHA-256 of the content's UTF-8, in hex. */
  digest: string;
  /** Counts this pointer's writes from 1. */
  version: number;
  /** The record's revision in the key-value store: what a later compare-and-set expects. */
  revision: number;
  bytes: number;
  media_type: string;
  language?: string;
}

export interface Resolved extends Written {
  content: string;
  written_at: string;
}

export interface MeshFs {
  /** Keeps the content under the pointer; resolves when it is durable. */
  write(request: WriteRequest): Promise<Written>;
  /** The pointer's newest content. Rejects with `PointerMissing`, `PointerInvalid`, `PointerUnknown` or `PayloadLost`. */
  resolve(pointer: string): Promise<Resolved>;
  /** What is kept under pointers that begin with `prefix`, a page at a time; `next` is the following page's `after`. */
  list(prefix: string, options?: { limit?: number; after?: string }): Promise<{ entries: Written[]; next?: string }>;
}

export interface MeshFsOptions {
  /** Where the wiki's readable files go: `<wiki_folder>/<project>/<path>`. */
  wiki_folder: string;
  clock?: () => number;
  /** Told what a person should know although no call failed: a file of the wiki that could not be kept up to date. */
  report?: (problem: string) => void;
}

/** Opens MeshFS over a backplane and repairs the readable files of the wiki. */
export async function createMeshFs(backplane: Backplane, options: MeshFsOptions): Promise<MeshFs> {
  const {
    wiki_folder,
    clock = Date.now,
    report = (problem) => process.emitWarning(problem, 'MeshFsWarning'),
  } = options;
  const records = backplane.kv('meshfs');
  let folder: WikiFolder;
  try {
    folder = await openWikiFolder(wiki_folder);
  } catch (thrown) {
    throw new StorageFailed({ what: `the wiki folder ${wiki_folder} cannot be opened: ${describe(thrown)}` });
  }
  await repair(records, backplane.objects, folder, report);
  const inTurn = queue(MESHFS_LIMITS.writes_at_once, MESHFS_LIMITS.waiting_bytes);

  return {
    async write(request) {
      const pointer = parsePointer(request.pointer);
      const content = describeContent(pointer, request);
      const bytes = checkedContent(request.content);
      const place = pointer.space === 'wiki' ? placeInWiki(pointer, content) : undefined;
      const turn = place ? fold(stemOf(place.file)) : pointer.name;
      return inTurn(turn, bytes.length, async () => {
        await checkPlace(records, pointer, place);
        const digest = await backplane.objects.put(bytes);
        const prepared = place && (await folder.prepare(place.file, bytes));
        let written: Written;
        try {
          const now: PastVersion = {
            version: 0, digest, bytes: bytes.length, media_type: content.media_type,
            written_at: new Date(clock()).toISOString(),
          }; // biome-ignore format: one row
          written = await commit(records, pointer, place, content, now);
        } catch (thrown) {
          await prepared?.discard();
          throw thrown;
        }
        await prepared
          ?.place()
          .catch((thrown) => report(`${written.pointer} is written, but not its file: ${describe(thrown)}`));
        return written;
      });
    },

    async resolve(text) {
      const pointer = parsePointer(text);
      const stored = await records.get(keyOf(pointer));
      if (stored === undefined) throw new PointerUnknown({ pointer: pointer.text });
      const record = readRecord(stored.value);
      checkAsked(pointer, record);
      const { digest } = record;
      const bytes = await backplane.objects.get(digest);
      if (bytes === undefined) throw new PayloadLost({ pointer: record.pointer, digest });
      const content = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
      return { ...answer(record, stored.revision), content, written_at: record.written_at };
    },

    async list(prefix, options = {}) {
      if (typeof prefix !== 'string' || !prefix.startsWith(SCHEME))
        throw new PointerInvalid({ pointer: String(prefix), why: `a prefix begins with ${SCHEME}` });
      const name = prefix.slice(SCHEME.length);
      const page = await records.list(name.startsWith('wiki/') ? fold(name) : name, options);
      const entries = page.entries.map(({ value, revision }) => answer(readRecord(value), revision));
      return page.next === undefined ? { entries } : { entries, next: page.next };
    },
  };
}

/** Refuses a write that would hide something: another kind in this slot, another spelling, or another slot's file. */
async function checkPlace(records: KeyValue, pointer: Pointer, place: WikiPlace | undefined): Promise<void> {
  if (place === undefined) return;
  for (const key of new Set([keyOf(pointer), ...keysThatMayHave(place.file)])) {
    const stored = await records.get(key);
    if (stored !== undefined) checkRival(pointer, place, key, readRecord(stored.value));
  }
}

function checkRival(pointer: Pointer, place: WikiPlace, key: string, there: MeshRecord): void {
  const refuse = (why: string): never => {
    throw new PointerInvalid({ pointer: pointer.text, why }, `${pointer.text} cannot be written so: ${why}`);
  };
  const file = there.file ?? '';
  if (file === place.file && there.pointer === place.pointer) return;
  const is_own = key === keyOf(pointer);
  if (fold(file) === fold(place.file)) {
    refuse(`its file would be that of ${there.pointer}. Write to that pointer, or choose another name`);
  }
  if (!is_own) return;
  refuse(
    `it is kept as ${file} (${there.language ?? there.media_type}). Write that kind again` +
      `${there.language === undefined ? '' : `, with language ${there.language}`}, or choose another name`,
  );
}

async function commit(
  records: KeyValue,
  pointer: Pointer,
  place: WikiPlace | undefined,
  { language }: Described,
  now: PastVersion,
): Promise<Written> {
  const key = keyOf(pointer);
  for (let attempt = 0; attempt < MESHFS_LIMITS.attempts; attempt++) {
    const stored = await records.get(key);
    const before = stored && readRecord(stored.value);
    if (before && place) checkRival(pointer, place, key, before);
    const { version = 0, digest, bytes, media_type, written_at, past = [] } = before ?? {};
    const record: MeshRecord = {
      format: 1,
      pointer: place?.pointer ?? pointer.text,
      ...now,
      version: version + 1,
      past: before ? [{ version, digest, bytes, media_type, written_at } as PastVersion, ...past] : [],
    };
    record.past.length = Math.min(record.past.length, MESHFS_LIMITS.past_versions);
    if (language !== undefined) record.language = language;
    if (place) record.file = place.file;
    try {
      const revision = await records.put(key, JSON.stringify(record), { expect: stored?.revision ?? 'absent' });
      return answer(record, revision);
    } catch (thrown) {
      if (!(thrown instanceof CompareFailed)) throw thrown;
    }
  }
  throw new StorageFailed({ what: `${pointer.text} is written by others without a pause` });
}

/** A record answers only to its own spelling, and a source not to the `.md` of a document. */
function checkAsked(pointer: Pointer, record: MeshRecord): void {
  const is_spelled = parsePointer(record.pointer).name === pointer.name;
  const wants_document = pointer.space === 'wiki' && pointer.text.endsWith('.md');
  if (is_spelled && (!wants_document || record.pointer === pointer.text)) return;
  throw new PointerUnknown(
    { pointer: pointer.text },
    `Nothing was ever written to ${pointer.text}. There is ${record.pointer}`,
  );
}

const SCHEME = 'gem-pointer://';

function answer(record: MeshRecord, revision: number): Written {
  const { pointer, digest, version, bytes, media_type, language } = record;
  const told = { pointer, digest, version, revision, bytes, media_type };
  return language === undefined ? told : { ...told, language };
}

function checkedContent(content: unknown): Uint8Array {
  if (typeof content !== 'string') throw new BadInput({ what: 'content', why: 'it is not a text' });
  const limit_bytes = MESHFS_LIMITS.content_bytes;
  const got_bytes = Buffer.byteLength(content);
  if (got_bytes > limit_bytes) throw new TooLarge({ what: 'content', limit_bytes, got_bytes });
  if (!content.isWellFormed()) throw new BadInput({ what: 'content', why: 'it holds half of a surrogate pair' });
  return Buffer.from(content, 'utf8');
}
