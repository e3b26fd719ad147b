/** Byte streams as a guest hands them out and gets them: cut into pieces, and left when nobody wants more. */
import { ConnectionLost } from '@hauki/protocol';

/** One piece, in bytes or characters: a stream's credit is used up by not much more than it holds. */
const PIECE = 16 * 1024;

export type Piece = string | Uint8Array;

/** Text or bytes, whatever they were given as; undefined for what is neither. */
export function asPiece(given: unknown): Piece | undefined {
  if (typeof given === 'string') return given;
  if (given instanceof ArrayBuffer) return new Uint8Array(given);
  if (!ArrayBuffer.isView(given)) return undefined;
  return new Uint8Array(given.buffer as ArrayBuffer, given.byteOffset, given.byteLength);
}

/** Cuts it so that no piece is long, and no character is cut in two. The bytes are copied: their owner may change them. */
export function* cut(piece: Piece): Generator<Piece, void> {
  for (let at = 0; at < piece.length; ) {
    let end = Math.min(at + PIECE, piece.length);
    if (typeof piece === 'string' && end < piece.length && (piece.charCodeAt(end - 1) & 0xfc00) === 0xd800) end++;
    yield piece.slice(at, end);
    at = end;
  }
}

/** Gives on what a stream of the worker's gives, in pieces. */
export async function* cutAll(what: string, stream: AsyncIterable<unknown>): AsyncGenerator<Piece, void> {
  for await (const given of stream) {
    const piece = asPiece(given);
    if (piece === undefined) throw new TypeError(`${what} is a stream of something that is neither text nor bytes`);
    yield* cut(piece);
  }
}

/** Ends a stream that comes in, and fails its reader with the signal's reason, once that is aborted. */
export function untilAborted(
  stream: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncIterable<Uint8Array> {
  if (!signal) return stream;
  const inner = stream[Symbol.asyncIterator]();
  // Whoever waits for a piece then hears that there is none.
  const leave = () => void inner.return?.();
  if (signal.aborted) leave();
  else signal.addEventListener('abort', leave);
  const over = () => signal.removeEventListener('abort', leave);
  const iterator: AsyncIterableIterator<Uint8Array> = {
    async next() {
      const result = await inner.next();
      if (signal.aborted) throw signal.reason;
      if (result.done) over();
      return result;
    },
    async return() {
      over();
      leave();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}

/** What a worker writes, for a session to take when it has room. */
export class Outgoing implements AsyncIterableIterator<Piece> {
  #waiting: { piece: Piece; taken: () => void; lost: (error: Error) => void }[] = [];
  #reader: ((result: IteratorResult<Piece>) => void) | undefined;
  #ended = false;
  #left: Error | undefined;

  /** Resolves when the last of it was taken; rejects with ConnectionLost when nobody takes it any more. */
  async write(given: unknown): Promise<void> {
    const piece = asPiece(given);
    if (piece === undefined) throw new TypeError('a connection takes text or bytes');
    if (this.#ended) throw new ConnectionLost({ why: 'this side has ended the connection' });
    if (this.#left) throw this.#left;
    const all = [...cut(piece)].map(
      (part) =>
        new Promise<void>((taken, lost) => {
          this.#waiting.push({ piece: part, taken, lost });
        }),
    );
    this.#give();
    await Promise.all(all);
  }

  end(): void {
    this.#ended = true;
    this.#give();
  }

  #give(): void {
    if (!this.#reader) return;
    const next = this.#waiting.shift();
    if (!next && !this.#ended) return;
    const reader = this.#reader;
    this.#reader = undefined;
    reader(next ? { done: false, value: next.piece } : { done: true, value: undefined });
    next?.taken();
  }

  next(): Promise<IteratorResult<Piece>> {
    return new Promise((resolve) => {
      this.#reader = resolve;
      this.#give();
    });
  }

  async return(): Promise<IteratorResult<Piece>> {
    this.#left ??= new ConnectionLost({ why: 'the connection has ended' });
    this.#ended = true;
    for (const { lost } of this.#waiting.splice(0)) lost(this.#left);
    this.#give();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
