/**
 * Memory of VMs that have ended, for those that come after them in the same thread, and so of the same owner: V8 counts it
 * as garbage that presses, and for every dozen of VMs stopped the thread to collect all it has.
 *
 * What always holds: a memory that is handed out is all zeros, as a new one is; one that grew, or whose VM was given up,
 * is not kept.
 */
import { SPARES } from './limits.ts';

/** Looked at piece by piece, so that what was never touched stays untouched. */
const PIECE_BYTES = 4096;
const ZEROS = new Uint8Array(PIECE_BYTES);

export class Memories {
  readonly #free: WebAssembly.Memory[] = [];

  /** One of so many bytes, if there is one. */
  take(bytes: number): WebAssembly.Memory | undefined {
    const at = this.#free.findIndex(({ buffer }) => buffer.byteLength === bytes);
    return at < 0 ? undefined : this.#free.splice(at, 1)[0];
  }

  /** Its VM has ended and is not entered again; `bytes`: what that began with. */
  give(memory: WebAssembly.Memory, bytes: number): void {
    if (this.#free.length >= SPARES || memory.buffer.byteLength !== bytes) return;
    const all = new Uint8Array(memory.buffer);
    for (let at = 0; at < all.length; at += PIECE_BYTES) {
      const piece = all.subarray(at, at + PIECE_BYTES);
      if (Buffer.compare(piece, ZEROS) !== 0) piece.fill(0);
    }
    this.#free.push(memory);
  }
}
