/**
 * Uploads in pieces, which go on where they broke off: after a cut connection, a restart or kill -9 of the core.
 *
 * What always holds: an upload is named by its caller and belongs to one pointer; its bytes are taken in order, each
 * once; who comes back cuts off a predecessor that may still hang in a dead connection; the last piece commits content,
 * record and the upload's end together, so that asking again after a lost answer tells what happened and writes nothing
 * twice; what is not that last piece is refused then, never acknowledged. Uploads are bounded in number, and given up
 * when nothing comes for a day, or when their bytes are gone. A kill in the moment between the last piece and its commit
 * gives an upload up too: its file has its final name by then, so that asking again is told `UploadUnknown`.
 */
import { type Backplane, digestOf, neverAhead, type Prepared, type Write } from '@hauki/backplane';
import {
  BadInput,
  DigestMismatch,
  Overloaded,
  parsePointer,
  TooLarge,
  UploadOffset,
  UploadUnknown,
} from '@hauki/protocol';
import { MESHFS_LIMITS } from './limits.ts';
import type { PutRequest, Target, Written } from './meshfs.ts';
import type { Found } from './table.ts';

const NAMESPACE = 'meshfs-uploads';
const RENAME = 'Give this one a name of its own';

interface Upload {
  format: 1;
  pointer: string;
  /** Of its last start; its part's file knows when the last byte came. */
  at: number;
  /** The version that it became. */
  done?: number;
}

export interface Piece extends Omit<PutRequest, 'content'> {
  /** Opens the piece's bytes. They end with an error when the signal aborts: another request has taken over. */
  content(signal: AbortSignal): AsyncIterable<Uint8Array>;
  upload: string;
  /** Where this piece begins. */
  start: number;
  /** Bytes of this piece. */
  length: number;
  /** Bytes of the whole, where it is known; the piece that reaches it ends the upload. */
  total: number | undefined;
}

/** `written` is there when the upload is complete. */
export interface UploadState {
  upload: string;
  pointer: string;
  offset: number;
  written?: Written;
}

/** Throws where the asker has no business with the pointer of an upload; nothing was done or told then. */
export type Allow = (pointer: string) => void;

export interface Uploads {
  /**
   * Takes a piece in. Rejects with `UploadUnknown`, `UploadOffset` (saying where to go on), `TooLarge`, `Overloaded`,
   * `DigestMismatch`, `BadInput` where the name is another upload's, or what a put rejects with. What came of a piece
   * that broke off is kept. Cuts off the piece before it where that is still coming in.
   */
  receive(piece: Piece, allow?: Allow): Promise<UploadState>;
  /** How far an upload is. Cuts off a piece that is still coming in: who asks means to go on. */
  state(upload: string, allow?: Allow): Promise<UploadState>;
  /** Gives an upload up. */
  discard(upload: string, allow?: Allow): Promise<void>;
  /** Forgets what is too old. Runs by itself whenever an upload begins. */
  sweep(): Promise<void>;
}

export interface UploadPowers {
  clock(): number;
  /** Milliseconds on a clock that nobody sets. */
  elapsed(): number;
  report(problem: string): void;
  streaming<T>(work: () => Promise<T>): Promise<T>;
  aim(request: Omit<PutRequest, 'content'>): Promise<Target>;
  store(target: Target, prepared: Prepared, more: (found: Found) => Write[]): Promise<Written>;
  answer(pointer: string, version: number): Promise<Written>;
}

export function openUploads(backplane: Backplane, powers: UploadPowers): Uploads {
  const { objects } = backplane;
  const uploads = backplane.kv(NAMESPACE);
  /** Uploads with a piece coming in, and how to cut it off. Resolves when it has let go. */
  const busy = new Map<string, { cut: AbortController; over: Promise<unknown> }>();

  const clock = neverAhead(powers.clock, powers.elapsed);
  /** Uploads begin one after another, or several would take the last place. */
  let beginning: Promise<unknown> = Promise.resolve();

  async function find(id: string): Promise<Upload | undefined> {
    const stored = await uploads.get(id);
    const there = stored && readUpload(stored.value);
    if (stored && !there) await forgetDamaged(id);
    return there;
  }

  /** Nobody can go on with an upload whose entry is damaged: it can only begin anew. */
  async function forgetDamaged(id: string): Promise<void> {
    powers.report(`The upload ${id} was given up, since its entry cannot be read`);
    await forget(id);
  }

  /** An upload that there is. Throws `UploadUnknown`, or what `allow` throws for its pointer. */
  async function known(id: string, allow?: Allow): Promise<Upload> {
    objects.part(id); // checks the name
    const there = await find(id);
    if (!there) throw new UploadUnknown({ upload: id });
    allow?.(there.pointer);
    return there;
  }

  /** The piece's upload, where it has begun. Throws what `allow` throws, or `BadInput` where it is another pointer's. */
  async function begun({ upload, pointer }: Piece, allow?: Allow): Promise<Upload | undefined> {
    objects.part(upload); // checks the name
    const there = await find(upload);
    if (!there) return undefined;
    allow?.(there.pointer);
    if (there.pointer !== parsePointer(pointer).text)
      throw new BadInput({ what: 'upload', why: `${upload} is of another pointer, ${there.pointer}. ${RENAME}` });
    return there;
  }

  /** Has an upload for oneself; whoever had it before is cut off. */
  async function alone<T>(id: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    for (let before = busy.get(id); before; before = busy.get(id)) {
      before.cut.abort();
      await before.over;
    }
    const cut = new AbortController();
    const running = work(cut.signal);
    const over = running.then(
      () => busy.delete(id),
      () => busy.delete(id),
    );
    busy.set(id, { cut, over });
    return running;
  }

  async function sweep(): Promise<void> {
    const parts = new Map((await objects.parts()).map((part) => [part.id, part.touched_at]));
    const { entries } = await uploads.list('');
    const now = clock();
    const finished: { key: string; at: number }[] = [];
    for (const { key, value } of entries) {
      const there = readUpload(value);
      const touched = Math.max(there?.at ?? 0, parts.get(key) ?? 0);
      const has_part = parts.delete(key);
      if (busy.has(key)) continue;
      if (!there) {
        await forgetDamaged(key);
        continue;
      }
      const { at, done } = there;
      // Where its file is younger than can be, the clock was far behind when the core began.
      const present = touched > now + MESHFS_LIMITS.upload_ms ? powers.clock() : now;
      if (present - touched > MESHFS_LIMITS.upload_ms) await forget(key);
      else if (done !== undefined) finished.push({ key, at });
      else if (!has_part) await alone(key, () => forgetLost(key));
    }
    // A part without an upload: the process ended just before it was noted, or just after it was forgotten.
    for (const id of parts.keys()) if (!busy.has(id)) await objects.part(id).discard();
    finished.sort((a, b) => a.at - b.at);
    const room = MESHFS_LIMITS.remembered_uploads - MESHFS_LIMITS.uploads;
    for (const { key } of finished.slice(0, Math.max(0, finished.length - room))) await uploads.delete(key);
  }

  async function forget(id: string): Promise<void> {
    await objects.part(id).discard();
    await uploads.delete(id);
  }

  /** Forgets an upload whose bytes are gone since its end failed: it can only begin anew, and would keep its place. */
  async function forgetLost(id: string): Promise<void> {
    const there = await find(id);
    if (there && there.done === undefined && (await objects.part(id).size()) === 0) await forget(id);
  }

  async function begin({ upload, pointer }: Piece): Promise<Upload> {
    await sweep();
    const open = (await uploads.list('')).entries.filter(({ value }) => readUpload(value)?.done === undefined);
    const limit = MESHFS_LIMITS.uploads;
    if (open.length >= limit) throw new Overloaded({ what: 'uploads under way', limit });
    const first: Upload = { format: 1, pointer, at: clock() };
    await uploads.put(upload, JSON.stringify(first), { expect: 'absent' });
    return first;
  }

  async function take(piece: Piece, allow: Allow | undefined, signal: AbortSignal): Promise<UploadState> {
    const { upload, start, length, total, digest } = piece;
    const part = objects.part(upload);
    const limit_bytes = MESHFS_LIMITS.raw_bytes;
    if ((total ?? start + length) > limit_bytes) throw new TooLarge({ what: 'content', limit_bytes });
    const there = await begun(piece, allow);
    if (there?.done !== undefined) return again(piece, there, signal);
    const target = await powers.aim(piece);
    const { text } = target.pointer;
    if (there === undefined && start > 0) throw new UploadUnknown({ upload });
    const offset = await part.size();
    if (start !== offset) throw new UploadOffset({ upload, offset });
    if (!there) {
      const begins = () => begin({ ...piece, pointer: text });
      const begun = beginning.then(begins, begins);
      beginning = begun;
      await begun;
    }
    const size = length === 0 ? offset : await part.append(pieceOf(piece, signal), { limit_bytes });
    if (total === undefined || size < total) return { upload, pointer: text, offset: size };
    const done = ({ record }: Found): Write[] => {
      const ended: Upload = { format: 1, pointer: text, at: clock(), done: record.version };
      return [{ namespace: NAMESPACE, key: upload, value: JSON.stringify(ended) }];
    };
    try {
      using prepared = await part.finish({ digest });
      const written = await powers.store(target, prepared, done);
      return { upload, pointer: text, offset: size, written };
    } catch (thrown) {
      await forgetLost(upload).catch(() => {}); // where the disk refuses that too, the next sweep does it
      throw thrown;
    }
  }

  /** The last piece once more: what became of it. Anything else is refused, since it would be written nowhere. */
  async function again(piece: Piece, there: Upload, signal: AbortSignal): Promise<UploadState> {
    const { upload, start, length, total, digest: wanted } = piece;
    const state = await finished(upload, there);
    const { digest, bytes } = state.written;
    if (wanted !== undefined && wanted !== digest) throw new DigestMismatch({ wanted, got: digest });
    const is_last = total === bytes && start + length === bytes;
    const has_same = async () =>
      (await digestOf(pieceOf(piece, signal))) === (await digestOf(objects.read(digest, { start, end: bytes })));
    if (is_last && (length === 0 || (await has_same()))) return state;
    throw new BadInput({ what: 'upload', why: `${upload} is complete, and this is not its last piece. ${RENAME}` });
  }

  async function finished(upload: string, { pointer, done }: Upload): Promise<UploadState & { written: Written }> {
    const written = await powers.answer(pointer, done!);
    return { upload, pointer, offset: written.bytes, written };
  }

  return {
    async receive(piece, allow) {
      await begun(piece, allow); // before anybody is cut off
      return alone(piece.upload, (signal) => powers.streaming(() => take(piece, allow, signal)));
    },

    async state(upload, allow) {
      await known(upload, allow);
      return alone(upload, async () => {
        const there = await known(upload, allow);
        if (there.done !== undefined) return finished(upload, there);
        return { upload, pointer: there.pointer, offset: await objects.part(upload).size() };
      });
    },

    async discard(upload, allow) {
      await known(upload, allow);
      await alone(upload, async () => {
        await known(upload, allow);
        await forget(upload);
      });
    },

    sweep,
  };
}

/** Undefined where the entry is damaged. */
function readUpload(value: string): Upload | undefined {
  try {
    const upload = JSON.parse(value) as Upload;
    return typeof upload.pointer === 'string' && Number.isFinite(upload.at) ? upload : undefined;
  } catch {
    return undefined;
  }
}

/** The piece's bytes: exactly as many as were announced. */
async function* pieceOf({ content, length }: Piece, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  let left = length;
  for await (const chunk of content(signal)) {
    left -= chunk.length;
    if (left < 0) throw new BadInput({ what: 'content', why: 'it is longer than its Content-Range' });
    yield chunk;
  }
  if (left > 0) throw new BadInput({ what: 'content', why: `it broke off ${left} bytes before its end` });
}
