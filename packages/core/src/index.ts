/** The control plane. `main.ts` is its process. */
export { type CoreOptions, type CoreServer, createCore } from './core.ts';
export type { CoreProcessOptions } from './main.ts';
export { type Candidate, loadOf, type Placement, place, type Wanted } from './matchmaker.ts';
