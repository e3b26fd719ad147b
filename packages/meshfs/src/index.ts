/** Pointers and content, over the backplane. How pointers are read is `pointer.ts` of the protocol. */
export { MESHFS_LIMITS } from './limits.ts';
export { LANGUAGE_NAME, LANGUAGES } from './media.ts';
export {
  createMeshFs,
  type MeshFs,
  type MeshFsOptions,
  type Opened,
  type PutRequest,
  type Resolved,
  type WriteRequest,
  type Written,
} from './meshfs.ts';
export type { Expect } from './table.ts';
export type { Piece, UploadState, Uploads } from './uploads.ts';
