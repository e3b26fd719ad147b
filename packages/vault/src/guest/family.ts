/** `hauki.clone`: a worker's own clones, as ghosts whose calls go over the host. */
import { type Clone, ghost } from '@hauki/rpc';
import type { Outside } from './guest.ts';

/** As long as the mesh gives a clone. */
const CLONE_MS = 45_000;
const CALL_MS = 60_000;
/** The host's own deadline comes first: its error says more. */
const SLACK_MS = 1_000;

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
