/** `hauki.clone`: a worker's own clones, as ghosts whose calls go over the host. */
import type { Language } from '@hauki/protocol';
import { type Ghost, ghost } from '@hauki/rpc';
import type { Outside } from './guest.ts';

export type CloneOrigin = string | { source: string; language?: Language };

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

/** As long as the mesh gives a clone. */
const CLONE_MS = 45_000;
const CALL_MS = 60_000;
/** The host's own deadline comes first: its error says more. */
const SLACK_MS = 1_000;

/**
 * Clones a worker from a pointer or a source; it ends with this one at the latest. Rejects with GrantMissing,
 * QuotaExceeded, and as any clone does.
 */
export type Clone = <T = Record<string, (...args: any[]) => any>>(
  origin: CloneOrigin,
  options?: GuestCloneOptions,
) => Promise<Child<T>>;

export function createClone(outside: Outside): Clone {
  return async (origin, { timeout_ms = CALL_MS, ...options } = {}) => {
    const module = typeof origin === 'string' ? { pointer: origin } : { ...origin };
    const request = { ...module, ...options };
    const made = await outside.effect('clone', [request], { timeout_ms: CLONE_MS + SLACK_MS });
    const { worker } = made as { worker: string };
    const end = async () => {
      await outside.effect('clone.destruct', [worker]);
    };
    return ghost({
      label: worker,
      call: (method, args, given = {}) =>
        method === 'destruct'
          ? end()
          : outside.effect('clone.call', [worker, method, args, given.timeout_ms ?? timeout_ms], {
              timeout_ms: Math.min(given.timeout_ms ?? timeout_ms, CALL_MS) + SLACK_MS,
              signal: given.signal as AbortSignal | undefined,
            }),
      dispose: end,
    }) as never;
  };
}
