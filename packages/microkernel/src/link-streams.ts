/**
 * The bodies that go one way over the link to the core, and the messages of WebSockets, which go the same way.
 *
 * What always holds: no module has all the streams that a link has; a stream that was taken is read to its end or left,
 * also where the link breaks before the core has heard of it; one that the link has no room for is left.
 */
import { ConnectionLost, LIMITS, Overloaded } from '@hauki/protocol';
import { KERNEL_LIMITS } from './limits.ts';
import { watched } from './passing.ts';

type Stream = AsyncIterableIterator<Uint8Array>;

export class LinkStreams {
  readonly #open = new Set<Stream>();
  /** Those of each module that has any, but for WebSockets, which the core bounds. */
  readonly #bodies = new Map<string, number>();
  #over = false;

  /** How many there are. */
  get size(): number {
    return this.#open.size;
  }

  /** A stream that counts for as long as it lasts. Throws Overloaded, or ConnectionLost where the link is gone. */
  take(module: string, stream: AsyncIterable<Uint8Array>, is_socket = false): Stream {
    const bodies = this.#bodies.get(module) ?? 0;
    const most = KERNEL_LIMITS.link_streams;
    const refused = this.#over
      ? new ConnectionLost({ why: 'the link to the core is gone' })
      : !is_socket && bodies >= most
        ? new Overloaded({ what: `streams of the module ${module} through the core`, limit: most })
        : this.#open.size >= LIMITS.streams
          ? new Overloaded({ what: 'streams through the core', limit: LIMITS.streams })
          : undefined;
    if (refused) {
      leave(stream[Symbol.asyncIterator]());
      throw refused;
    }
    // The session counts it a moment longer: where it had no room left it would never begin.
    const taken = watched(stream, () => void setImmediate(() => this.#end(module, taken, is_socket)));
    this.#open.add(taken);
    if (!is_socket) this.#bodies.set(module, bodies + 1);
    return taken;
  }

  #end(module: string, taken: Stream, is_socket: boolean): void {
    this.#open.delete(taken);
    if (is_socket) return;
    const rest = this.#bodies.get(module)! - 1;
    if (rest > 0) this.#bodies.set(module, rest);
    else this.#bodies.delete(module);
  }

  /** The link is gone: nobody will read what is left. */
  close(): void {
    this.#over = true;
    for (const stream of this.#open) leave(stream);
  }
}

/** Nobody reads it any more. */
export const leave = (stream: AsyncIterator<unknown>): void => void stream.return?.().catch(() => {});
