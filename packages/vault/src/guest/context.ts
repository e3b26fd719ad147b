/**
 * What a worker finds: `hauki` (its powers), `fetch`, `console`. All of them only ask; the host decides and performs.
 * A class gets the same `hauki` object as its constructor's argument.
 */
import type { Served } from '@hauki/rpc';
import { type Clone, createClone } from './family.ts';
import type { Outside } from './guest.ts';
import { boundedLog } from './log-bound.ts';
import { type Connection, connectFor, fetchFor, type Platform } from './outward.ts';
import { createVolume, type GuestVolume } from './volume.ts';

export interface FetchedBody {
  status: number;
  status_text: string;
  url: string;
  /** Whether `url` is another than was asked for. */
  redirected?: boolean;
  headers: [string, string][];
  /** The body piece by piece, where that was asked for. */
  body?: AsyncIterable<Uint8Array>;
  /** Else whole: as text when it is UTF-8, else as `base64`. */
  text?: string;
  base64?: string;
}

export interface HaukiContext {
  worker: string;
  /**
   * The call that is being served: its `signal` is aborted when the caller cancels or stops waiting, `deadline` is in
   * milliseconds since 1970. To be read before the method first waits for anything; later it tells of another call.
   */
  call?: Served;
  log(...values: unknown[]): void;
  fetch(url: string, init?: object): Promise<unknown>;
  /** A byte stream to `host:port`, where that is granted. */
  connect(target: string, options?: { signal?: AbortSignal }): Promise<Connection>;
  meshfs: {
    resolve(pointer: string): Promise<{ pointer: string; content: string; media_type: string }>;
    write(pointer: string, content: string, media_type?: string): Promise<object>;
  };
  volume: GuestVolume;
  /** A worker of this one's own. */
  clone: Clone;
}

/** Text of anything, for a log line; never throws. */
export function show(value: unknown): string {
  if (typeof value === 'string') return value;
  try {
    if (value instanceof Error) return `${value.name}: ${value.message}`;
    if (typeof value === 'object' && value !== null) return JSON.stringify(value) ?? String(value);
    return String(value);
  } catch {
    return '[a value that cannot be shown]';
  }
}

export function createContext(
  worker: string,
  outside: Outside,
  platform: Platform,
): HaukiContext & { write_log(level: string, values: unknown[]): void } {
  const log = boundedLog((...line) => void outside.effect('log', line).catch(() => {}), setTimeout);
  const write_log = (level: string, values: unknown[]) => log(level, () => values.map(show).join(' '));
  return {
    worker,
    write_log,
    log: (...values) => write_log('info', values),
    fetch: fetchFor(outside, platform),
    connect: connectFor(outside),
    meshfs: {
      resolve: (pointer) => outside.effect('meshfs.resolve', [pointer]) as never,
      write: (pointer, content, media_type) => outside.effect('meshfs.write', [pointer, content, media_type]) as never,
    },
    volume: createVolume(outside),
    clone: createClone(outside),
  };
}

/** A console whose every line becomes a log effect. */
export function createConsole(write_log: (level: string, values: unknown[]) => void): object {
  const at =
    (level: string) =>
    (...values: unknown[]) =>
      write_log(level, values);
  return {
    log: at('info'),
    info: at('info'),
    debug: at('debug'),
    warn: at('warn'),
    error: at('error'),
    trace: at('debug'),
  };
}
