/**
 * MeshFS from a script: text and bytes under pointers, their history, and what changes.
 *
 * What always holds: content of any size passes in bounded memory; what is large goes up in pieces, each sent again
 * from where it broke off when the connection was cut, and counted once; what comes down goes on from there with the same
 * version; a watch goes on over cut connections without missing a change, or says that it missed some (`ChangesMissed`).
 */
import { BadInput, ConnectionLost, DeadlineExceeded, type FileVersion, fromWire, isError } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { CoreClient } from './http.ts';
import { type HttpStream, requestStream } from './http-stream.ts';
import { pause } from './pause.ts';
import { eventsOf, gathered, PIECE_BYTES, type Piece, piecesOf } from './streams.ts';

/** Times that the same bytes are tried before a transfer fails. Between them the wait doubles, from 200 ms: a core may restart. */
const ATTEMPTS = 6;
/** A watch that finds no core for so long fails. */
const REJOIN_MS = 60_000;
/** Making content durable and looking for what nothing names take as long as the disk takes. */
const PATIENT_MS = 10 * 60_000;

/** What a pointer holds, or held. */
export interface FileInfo extends FileVersion {
  /** The canonical pointer. */
  pointer: string;
  /** Counts all changes of the mesh's pointers: a watch after it sees what comes later. */
  revision: number;
}

/** When to write: only over one of these versions or digests, only over what exists, or only where nothing is. */
export interface Condition {
  if_match?: string | number | readonly (string | number)[] | undefined;
  /** True: only where there is nothing yet. */
  create?: boolean | undefined;
}

export interface WriteOptions extends Condition {
  media_type?: string | undefined;
  /** `typescript`, `javascript`, `python`, `lpc`: kept as source. */
  language?: string | undefined;
}

export interface PutOptions extends WriteOptions {
  /** SHA-256 in hex that the content must have; another is refused with `DigestMismatch`. */
  digest?: string | undefined;
  /** Called with the bytes that have arrived. */
  onProgress?(bytes: number): void;
  signal?: AbortSignal | undefined;
}

export interface GetOptions {
  version?: number | undefined;
  /** Only if it is this version or digest, as when going on with what was cut: else `PreconditionFailed`. */
  if_match?: Condition['if_match'];
  /** The first byte wanted, and the one before which to stop. */
  start?: number | undefined;
  end?: number | undefined;
  signal?: AbortSignal | undefined;
}

export type FileContent = string | Uint8Array | Blob | AsyncIterable<Uint8Array>;

export interface OpenFile extends FileInfo {
  /** The bytes asked for, as they come. To be read once; leaving the loop lets go of the connection. */
  readonly body: AsyncIterable<Uint8Array>;
  /** All of them together. */
  whole(): Promise<Uint8Array>;
  text(): Promise<string>;
}

export interface Collected {
  kept: number;
  removed: number;
  removed_bytes: number;
}

export interface MeshFsClient {
  /** Writes text. Rejects with PreconditionFailed where a condition is not met, PointerInvalid, TooLarge, StorageFailed. */
  write(pointer: string, content: string, options?: WriteOptions): Promise<FileInfo>;
  /** Reads text. Rejects with PointerUnknown, PointerDeleted, VersionUnknown, NotText, TooLarge, PayloadLost. */
  resolve(pointer: string, options?: { version?: number | undefined }): Promise<FileInfo & { content: string }>;
  /** Writes bytes of any size. What it holds stays of its kind unless `media_type` or `language` says otherwise. */
  put(pointer: string, content: FileContent, options?: PutOptions): Promise<FileInfo>;
  /** Reads bytes of any size, also over connections that are cut. Rejects as `resolve` does, and with RangeUnsatisfiable. */
  get(pointer: string, options?: GetOptions): Promise<OpenFile>;
  /** All that is kept under pointers that begin with `prefix`. */
  list(prefix?: string): Promise<FileInfo[]>;
  /** The same, with the revision after which to watch for what comes later. */
  snapshot(prefix?: string): Promise<{ entries: FileInfo[]; revision: number }>;
  /** The versions of a pointer, the newest first, deletions among them. */
  history(pointer: string): Promise<{ pointer: string; versions: FileVersion[] }>;
  /** Deletes; what was there stays readable by its version. */
  delete(pointer: string, options?: Condition): Promise<FileInfo>;
  /**
   * Changes under a prefix, from now on or after a revision, in order, deletions too. Goes on until left or aborted;
   * throws ChangesMissed when it was too slow, or began too far back: then list again.
   */
  watch(prefix?: string, options?: { after?: number; signal?: AbortSignal }): AsyncIterableIterator<FileInfo>;
  /** Removes content that no kept version names. */
  collect(): Promise<Collected>;
}

const RAW = '/api/v2/meshfs/raw';
const query = (values: Record<string, string | number | undefined>) =>
  new URLSearchParams(
    Object.entries(values).flatMap(([key, value]) => (value === undefined ? [] : [[key, String(value)]])),
  );

function conditions({ if_match, create }: Condition): Record<string, string> {
  if (create && if_match !== undefined)
    throw new BadInput({ what: 'if_match', why: 'it contradicts `create`: nothing can be matched where nothing is' });
  if (create) return { 'if-none-match': '*' };
  if (if_match === undefined) return {};
  const tags = typeof if_match === 'object' ? if_match : [if_match];
  return { 'if-match': tags.map((tag) => (tag === '*' ? tag : `"${tag}"`)).join(', ') };
}

/** Whether asking again may help: the connection broke, or nothing moved. */
const isCut = (error: unknown) => isError(error, ConnectionLost) || isError(error, DeadlineExceeded);

const base64 = (hex: string) => btoa(hex.replace(/../g, (byte) => String.fromCharCode(Number.parseInt(byte, 16))));

/** MeshFS of the core that `core` talks to. */
export function meshFsClient(core: CoreClient): MeshFsClient {
  async function answered(stream: HttpStream): Promise<any> {
    return JSON.parse(new TextDecoder().decode(await gathered(stream.body)));
  }

  async function snapshot(prefix = 'gem-pointer://') {
    const entries: FileInfo[] = [];
    let revision: number | undefined;
    for (let after: string | undefined; ; ) {
      type Page = { entries: FileInfo[]; revision: number; next?: string };
      const page: Page = await core.request('GET', `/api/v2/meshfs/list?${query({ prefix, after })}`);
      entries.push(...page.entries);
      revision ??= page.revision;
      after = page.next;
      if (after === undefined) return { entries, revision };
    }
  }

  function headersOf({ media_type, digest, ...options }: PutOptions): Record<string, string> {
    return {
      ...conditions(options),
      ...(media_type === undefined ? {} : { 'content-type': media_type }),
      ...(digest === undefined ? {} : { 'repr-digest': `sha-256=:${base64(digest)}:` }),
    };
  }

  async function putWhole(pointer: string, body: Uint8Array, options: PutOptions): Promise<FileInfo> {
    const path = `${RAW}?${query({ pointer, language: options.language })}`;
    const request = { headers: headersOf(options), body, idle_ms: PATIENT_MS, signal: options.signal };
    const { status: _, ...info } = await answered(await requestStream(core, 'PUT', path, request));
    options.onProgress?.(body.length);
    return info;
  }

  /** Sends pieces one after another; the last one is known by the total that it names. */
  async function putPieces(pointer: string, pieces: AsyncIterable<Piece>, options: PutOptions): Promise<FileInfo> {
    const upload = crypto.randomUUID();
    const path = `${RAW}?${query({ pointer, language: options.language, upload })}`;
    const { signal } = options;
    const headers = headersOf(options);
    try {
      for await (const piece of pieces) {
        const written = await putPiece(upload, path, headers, piece, signal);
        options.onProgress?.(piece.start + piece.bytes.length);
        if (written) return written;
      }
    } catch (error) {
      await core.request('DELETE', `${RAW}?${query({ upload })}`).catch(() => {});
      throw error;
    }
    throw new BadInput({ what: 'content', why: 'it ended before its end' });
  }

  /** Sends one piece until the core has all of it. Gives what became of the upload when that was the last. */
  async function putPiece(
    upload: string,
    path: string,
    headers: Record<string, string>,
    { start, bytes, total }: Piece,
    signal: AbortSignal | undefined,
  ): Promise<FileInfo | undefined> {
    let sent = 0;
    for (let attempt = 1; ; attempt++) {
      try {
        const body = bytes.subarray(sent);
        const of = total ?? '*';
        const range = body.length === 0 ? `bytes */${of}` : `bytes ${start + sent}-${start + bytes.length - 1}/${of}`;
        const request = { headers: { ...headers, 'content-range': range }, body, idle_ms: PATIENT_MS, signal };
        const {
          status,
          upload: _u,
          offset: _o,
          ...info
        } = await answered(await requestStream(core, 'PUT', path, request));
        return status === 'accepted' ? undefined : info;
      } catch (error) {
        const { name } = error as Error;
        const cut = /^(ConnectionLost|OutcomeUnknown|DeadlineExceeded|UploadOffset)$/.test(name);
        if (!cut || attempt === ATTEMPTS) throw error;
        await pause(100 * 2 ** attempt, signal);
        signal?.throwIfAborted();
        sent = (await offsetOf(upload, signal).catch(() => start + sent)) - start;
        if (sent < 0 || sent > bytes.length) throw error;
        // Its answer alone was lost: only the last piece's is worth asking for again.
        if (sent === bytes.length && start + sent !== total) return undefined;
      }
    }
  }

  async function offsetOf(upload: string, signal: AbortSignal | undefined): Promise<number> {
    const state = await requestStream(core, 'HEAD', `${RAW}?${query({ upload })}`, { signal });
    await gathered(state.body);
    return Number(state.header('upload-offset'));
  }

  function opened(pointer: string, { version, if_match, start, end, signal }: GetOptions): Promise<HttpStream> {
    const headers = conditions({ if_match });
    if (start !== undefined || end !== undefined)
      headers.range = `bytes=${start ?? 0}-${end === undefined ? '' : end - 1}`;
    return requestStream(core, 'GET', `${RAW}?${query({ pointer, version })}`, { headers, signal });
  }

  /** The bytes of one version, over as many connections as it takes while it gets on. */
  async function* resumed(
    { pointer, version, digest, bytes }: FileInfo,
    { start: from = 0, end = bytes, signal }: GetOptions,
    first: AsyncIterable<Uint8Array>,
  ): AsyncGenerator<Uint8Array> {
    let body = first;
    let start = from;
    for (let attempt = 1, got_on = start; ; attempt++) {
      try {
        if (attempt > 1) ({ body } = await opened(pointer, { version, if_match: digest, start, end, signal }));
        for await (const chunk of body) {
          start += chunk.length;
          yield chunk;
        }
        return;
      } catch (error) {
        const is_cut = isCut(error);
        if (is_cut && start >= Math.min(end, bytes)) return; // behind its last byte
        if (start - got_on >= PIECE_BYTES) [attempt, got_on] = [1, start];
        if (!is_cut || attempt === ATTEMPTS) throw error;
        await pause(100 * 2 ** attempt, signal);
        signal?.throwIfAborted();
      }
    }
  }

  return {
    async write(pointer, content, { media_type, language, ...condition } = {}) {
      const body = { pointer, content, media_type, language };
      const { status: _, ...info } = await core.request<FileInfo & { status: string }>(
        'POST',
        '/api/v2/meshfs/write',
        body,
        LIMITS.call_ms,
        conditions(condition),
      );
      return info;
    },

    async resolve(pointer, { version } = {}) {
      const path = `/api/v2/meshfs/resolve?${query({ pointer, version })}`;
      const { status: _, ...found } = await core.request<FileInfo & { status: string; content: string }>('GET', path);
      return found;
    },

    async put(pointer, content, options = {}) {
      const given = typeof content === 'string' ? new TextEncoder().encode(content) : content;
      if (given instanceof Uint8Array && given.length <= PIECE_BYTES) return putWhole(pointer, given, options);
      if (given instanceof Blob && given.size <= PIECE_BYTES)
        return putWhole(pointer, new Uint8Array(await given.arrayBuffer()), options);
      return putPieces(pointer, piecesOf(given), options);
    },

    async get(pointer, options = {}) {
      const answer = await opened(pointer, options);
      const info = infoOf(answer);
      // A range that is none is answered with all there is.
      const { start, end } = answer.status === 206 ? options : {};
      const body = resumed(info, { start, end, signal: options.signal }, answer.body);
      const whole = () => gathered(body);
      return { ...info, body, whole, text: async () => new TextDecoder().decode(await whole()) };
    },

    list: async (prefix) => (await snapshot(prefix)).entries,
    snapshot,

    async history(pointer) {
      const versions: FileVersion[] = [];
      for (let before: number | undefined; ; ) {
        const path = `/api/v2/meshfs/history?${query({ pointer, before, limit: 1000 })}`;
        type Page = { pointer: string; versions: FileVersion[]; next?: number };
        const page: Page = await core.request('GET', path);
        versions.push(...page.versions);
        before = page.next;
        if (before === undefined) return { pointer: page.pointer, versions };
      }
    },

    async delete(pointer, condition = {}) {
      const { status: _, ...info } = await core.request<FileInfo & { status: string }>(
        'DELETE',
        `${RAW}?${query({ pointer })}`,
        undefined,
        LIMITS.call_ms,
        conditions(condition),
      );
      return info;
    },

    async *watch(prefix = 'gem-pointer://', { after, signal } = {}) {
      let last = after;
      let lost_at: number | undefined;
      for (;;) {
        try {
          const path = `/api/v2/meshfs/watch?${query({ prefix, after: last })}`;
          const { body } = await requestStream(core, 'GET', path, { signal });
          lost_at = undefined;
          for await (const { event, data } of eventsOf(body)) {
            if (data === undefined) continue;
            const said = JSON.parse(data);
            if (event === 'error') throw fromWire(said);
            last = (said as FileInfo).revision;
            if (event === 'change') yield said as FileInfo;
          }
        } catch (error) {
          if (signal?.aborted) return;
          if (!isCut(error)) throw error;
          const now = performance.now();
          lost_at ??= now;
          if (now - lost_at > REJOIN_MS) throw error;
        }
        // Without knowing from where, going on could miss something.
        if (last === undefined) throw new ConnectionLost({ why: 'the core ended the watch before it began' });
        await pause(250, signal);
        if (signal?.aborted) return;
      }
    },

    async collect() {
      const { status: _, ...done } = await core.request<Collected & { status: string }>(
        'POST',
        '/api/v2/meshfs/gc',
        {},
        PATIENT_MS,
      );
      return done;
    },
  };
}

function infoOf({ header }: HttpStream): FileInfo {
  const whole = /\/(\d+)$/.exec(header('content-range') ?? '')?.[1] ?? header('content-length');
  const language = header('hauki-language');
  const info: FileInfo = {
    pointer: decodeURI(header('hauki-pointer') ?? ''),
    digest: (header('etag') ?? '').replaceAll('"', ''),
    version: Number(header('hauki-version')),
    revision: Number(header('hauki-revision')),
    bytes: Number(whole),
    media_type: header('content-type') ?? 'application/octet-stream',
    written_at: header('hauki-written-at') ?? '',
  };
  return language === undefined ? info : { ...info, language };
}
