/** Parts of the SDK that not every script needs, here at hand. Pages load them on first use: `parts-late.ts`. */
import { Comeback } from './comeback.ts';
import type { WorkerRoute } from './route.ts';

export { fateOf } from './fate.ts';
export { services } from './services.ts';

const DAY_MS = 24 * 3600 * 1000;

/** Keeps the process until then: for whoever waits and calls nothing meanwhile. */
export const stay = <T>(until: Promise<T>): Promise<T> => {
  const awake = setInterval(() => {}, DAY_MS);
  return until.finally(() => clearInterval(awake));
};

/** What brings a worker's session back after a cut. */
export const comebackOf = async (way: WorkerRoute): Promise<Comeback> => new Comeback(way);
