/**
 * Byte streams between the network and a session: what comes from one, as the other gives it on, and the other way. Not
 * generators: who leaves one of those waits for its next piece first.
 */
import type { Readable, Writable } from 'node:stream';
import { BadInput } from '@hauki/protocol';

/** What gives bytes piece by piece, and ends at once when it is left. */
export type Pieces = AsyncIterableIterator<Uint8Array>;

const DONE = { done: true, value: undefined } as const;

const pieces = (next: Pieces['next'], leave: () => void): Pieces => ({
  next,
  async return() {
    leave();
    return DONE;
  },
  [Symbol.asyncIterator]() {
    return this;
  },
});

export interface ReadOptions {
  /** Nothing comes, or nobody takes it, for so long: then it ends with that error. Not counted while `paused`. */
  idle?: { ms: number; error(): Error; paused?: (() => boolean) | undefined };
  /** What a failure of the source is told as. */
  failure(error: unknown): Error;
  /** Told of each piece. */
  took?: ((bytes: number) => void) | undefined;
  /** Runs once, whatever the end. */
  over(): void;
}

/** What is read. */
export interface Reading extends Pieces {
  /** Since when nobody has asked for a piece, in milliseconds of `performance.now()`; Infinity while somebody waits. */
  readonly unread_since: number;
  /** Ends it; who asks for more hears why. */
  end(why: Error): void;
}

/** How often an idle time is looked at: a pause that is shorter than that share of it is not noticed. */
const LOOKS = 10;

/** Reads a stream. */
export function piecesOf(source: Readable, { idle, failure, took, over }: ReadOptions): Reading {
  const inner: AsyncIterator<Uint8Array> = source[Symbol.asyncIterator]();
  let left = false;
  let why: Error | undefined;
  let unread_since = performance.now();
  let idle_looks = 0;
  const leave = () => {
    if (left) return;
    left = true;
    clearInterval(timer);
    source.off('close', leave);
    source.destroy();
    over();
  };
  const end = (error: Error) => {
    if (!left) why = error;
    leave();
  };
  const look = () => {
    idle_looks = idle!.paused?.() ? 0 : idle_looks + 1;
    if (idle_looks >= LOOKS) end(idle!.error());
  };
  const timer = idle && setInterval(look, idle.ms / LOOKS).unref();
  // Whoever reads hears of it; perhaps nobody does any more.
  source.on('error', () => {});
  source.once('close', leave);
  const next = async () => {
    unread_since = Number.POSITIVE_INFINITY;
    idle_looks = 0;
    try {
      const result = await inner.next();
      if (result.done) leave();
      idle_looks = 0;
      if (why) throw why;
      if (!result.done) took?.(result.value.length);
      return result;
    } catch (error) {
      leave();
      throw why ?? failure(error);
    } finally {
      unread_since = performance.now();
    }
  };
  return Object.defineProperties(pieces(next, leave), {
    unread_since: { get: () => unread_since },
    end: { value: end },
  }) as Reading;
}

/** What a guest sends, checked: text or bytes, whatever it promised. Throws BadInput for what gives no pieces. */
export function piecesFrom(what: string, given: unknown): Pieces {
  if (typeof given !== 'object' || given === null || !(Symbol.asyncIterator in given))
    throw new BadInput({ what, why: 'it must be text, bytes, or a stream of them' });
  const inner = (given as AsyncIterable<unknown>)[Symbol.asyncIterator]();
  return pieces(
    async () => {
      const { done, value } = await inner.next();
      if (done) return DONE;
      if (typeof value === 'string') return { done: false, value: Buffer.from(value) };
      if (value instanceof Uint8Array) return { done: false, value };
      throw new BadInput({ what, why: 'each piece must be text or bytes' });
    },
    () => void Promise.resolve(inner.return?.()).catch(() => {}),
  );
}

/** Writes pieces as the sink takes them, then ends it. `leave` is called when no more is wanted. Rejects as they do. */
export async function pour(from: AsyncIterable<Uint8Array>, sink: Writable, leave: () => void): Promise<void> {
  sink.once('close', leave);
  try {
    for await (const piece of from) {
      if (sink.destroyed) return;
      if (piece.length === 0 || sink.write(piece)) continue;
      await new Promise<void>((resolve) => {
        const go = () => {
          sink.off('drain', go).off('close', go);
          resolve();
        };
        sink.on('drain', go).on('close', go);
      });
    }
    sink.end();
  } finally {
    sink.off('close', leave);
    leave();
  }
}
