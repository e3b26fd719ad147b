/**
 * What a worker finds inside its vault, as types alone: for the guest, which makes it, and for who writes workers, by
 * `import type { Hauki } from '@hauki/mesh'`. They stand here because both import this package, and neither the other.
 */
import type { Language } from '@hauki/protocol';
import type { Ghost } from './ghost.ts';

/** The call that is being served. */
export interface HaukiCall {
  /** Aborted when the caller cancels or stops waiting. */
  readonly signal: AbortSignal;
  /** When its caller stops waiting, in milliseconds since 1970. */
  readonly deadline?: number | undefined;
  readonly traceparent?: string | undefined;
}

/** A byte stream both ways. */
export interface Connection {
  /** The address that was connected to. */
  readonly address: string;
  /** What comes, piece by piece; leaving it ends the connection. Fails with what ended the connection. */
  readonly readable: AsyncIterable<Uint8Array>;
  /** Resolves when it is on its way, so that who waits for it is never far ahead. Rejects with ConnectionLost. */
  write(chunk: string | ArrayBuffer | ArrayBufferView): Promise<void>;
  /** Nothing more is sent; what comes can still be read. */
  end(): void;
  /** Ends it both ways. */
  close(): void;
}

export interface VolumeEntry {
  name: string;
  kind: 'file' | 'folder' | 'other';
  /** A file's size. */
  bytes: number;
}

/**
 * Paths are relative to the volume, parted by `/`. All reject with GrantMissing, BadInput, TooLarge or VolumeFailed, whose
 * `code` is the system's (ENOENT, ENOSPC, …).
 */
export interface GuestVolume {
  /** A file's text; rejects with a TypeError where it is no UTF-8. */
  read(path: string): Promise<string>;
  readBytes(path: string): Promise<Uint8Array>;
  /** Writes a file whole or not at all, with the folders above it; it is on the disk when this resolves. */
  write(path: string, content: string | ArrayBuffer | ArrayBufferView): Promise<void>;
  list(path?: string): Promise<VolumeEntry[]>;
  /** Deletes a file, or an empty folder. */
  delete(path: string): Promise<void>;
}

export interface GuestCloneOptions {
  driver?: string;
  memory_mib?: number;
  /** No more than the worker has itself; none when left out. */
  grants?: object;
  load_timeout_ms?: number;
  /** For each call; at most, and by default, a minute. */
  timeout_ms?: number;
}

/** A clone: its methods, and `destruct()`, which resolves when nothing of it is left. */
export type Child<T> = Ghost<T> & { destruct(): Promise<void> };

/**
 * Clones a worker from a pointer or a source; it ends with this one at the latest. Rejects with GrantMissing,
 * QuotaExceeded, and as any clone does.
 */
export type Clone = <T = Record<string, (...args: any[]) => any>>(
  origin: string | { source: string; language?: Language },
  options?: GuestCloneOptions,
) => Promise<Child<T>>;

/** `hauki` in a vault; a class gets it as its constructor's argument. What needs a grant rejects without. */
export interface Hauki {
  /** The worker's own name. */
  worker: string;
  /** To be read before the method first waits for anything; later it tells of another call. */
  call?: HaukiCall;
  log(...values: unknown[]): void;
  fetch(url: string | URL | Request, init?: RequestInit): Promise<Response>;
  /** A byte stream to `host:port`. */
  connect(target: string, options?: { signal?: AbortSignal }): Promise<Connection>;
  meshfs: {
    resolve(pointer: string): Promise<{ pointer: string; content: string; media_type: string }>;
    write(pointer: string, content: string, media_type?: string): Promise<object>;
  };
  volume: GuestVolume;
  /** A worker of this one's own. */
  clone: Clone;
}
