/** Parts of the SDK that not every script needs, here at hand. Pages load them on first use: `parts-late.ts`. */
import { Comeback } from './comeback.ts';
import type { WorkerRoute } from './route.ts';

export { fateOf } from './fate.ts';
export { services } from './services.ts';

/** What brings a worker's session back after a cut. */
export const comebackOf = async (way: WorkerRoute): Promise<Comeback> => new Comeback(way);
