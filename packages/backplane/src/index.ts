/** What a mesh's processes share. The interfaces are `types.ts`; the one backend so far is `embedded.ts`. */
export { neverAhead } from './clock.ts';
export { digestOf } from './content.ts';
export { syncFolder, writeNew } from './durable.ts';
export { openEmbedded } from './embedded.ts';
export { entriesOf } from './entries.ts';
export { CompareFailed, storageFailed } from './errors.ts';
export { BACKPLANE_LIMITS } from './limits.ts';
export type {
  Backplane,
  Change,
  Content,
  ContentOptions,
  Entry,
  Expectation,
  KeyValue,
  ObjectStore,
  Page,
  Part,
  Prepared,
  Stored,
  Swept,
  Write,
} from './types.ts';
