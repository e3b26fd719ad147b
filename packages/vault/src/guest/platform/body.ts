/**
 * Bodies of requests and responses: text, bytes, forms, or whatever can be iterated for them. They become streams when they
 * are taken for one; what forms and streams need is loaded then (`vm-forms.ts`, `vm-streams.ts`).
 */
import type { PlatformPowers } from '../vm-platform.ts';
import { viewOf } from './text.ts';
import { URLSearchParams } from './url.ts';

export let powers: Pick<PlatformPowers, 'encode' | 'decode' | 'forms' | 'made_forms' | 'streams'>;
/** Called once, before anything else here. */
export function useText(given: typeof powers): void {
  powers = given;
}

export type Source = string | Uint8Array | AsyncIterable<unknown> | ReadableStream;

export const isHere = (source: Source): source is string | Uint8Array =>
  typeof source === 'string' || source instanceof Uint8Array;
const isStream = (source: Source): source is ReadableStream =>
  typeof (source as Partial<ReadableStream>).getReader === 'function';

function pieceOf(piece: unknown): Uint8Array {
  if (typeof piece === 'string') return new Uint8Array(powers.encode(piece));
  if (piece instanceof ArrayBuffer || ArrayBuffer.isView(piece)) return viewOf(piece);
  throw new TypeError('a piece of a body is neither bytes nor text');
}

/**
 * A body that can be given on to another Request or Response, or read piece by piece. It passes for a ReadableStream, and
 * becomes one when it is asked for what only that has.
 */
export class Body {
  readonly source: Source;
  /** It was read as a whole, or given on. */
  used = false;
  #stream: ReadableStream | undefined;
  constructor(source: Source) {
    this.source = source;
    if (isStream(source)) this.#stream = source;
  }
  /** The same for another message; this one is used then. */
  moved(): Body {
    const body = new Body(this.#stream ?? this.source);
    this.used = true;
    return body;
  }
  /** The body as a stream. */
  stream(): ReadableStream {
    if (!this.#stream) {
      if (this.used) throw unusable();
      // As something that can be iterated, which is all that it is yet.
      const pieces = { [Symbol.asyncIterator]: () => iterator };
      const iterator = this.#iterated();
      this.#stream = powers.streams().ReadableStream.from(pieces) as ReadableStream;
    }
    return this.#stream;
  }
  get locked(): boolean {
    return this.#stream?.locked ?? false;
  }
  /** Whether some of it was read. Streams have no other word for it. */
  get disturbed(): boolean {
    return this.used || (this.#stream as { _disturbed?: boolean } | undefined)?._disturbed === true;
  }
  getReader(...given: []): ReadableStreamDefaultReader {
    return this.stream().getReader(...given);
  }
  pipeTo(...given: Parameters<ReadableStream['pipeTo']>): Promise<void> {
    return this.stream().pipeTo(...given);
  }
  pipeThrough<T>(...given: [ReadableWritablePair<T>, StreamPipeOptions?]): ReadableStream<T> {
    return this.stream().pipeThrough(...given);
  }
  tee(): [ReadableStream, ReadableStream] {
    return this.stream().tee();
  }
  values(...given: Parameters<ReadableStream['values']>): AsyncIterableIterator<Uint8Array> {
    return this.stream().values(...given);
  }
  /** Nobody wants the rest of it: whoever sends it hears so. */
  async cancel(reason?: unknown): Promise<void> {
    if (this.#stream) return this.#stream.cancel(reason);
    this.used = true;
    await this.#leave();
  }
  async #leave(): Promise<void> {
    await (this.source as Partial<AsyncIterable<unknown>>)[Symbol.asyncIterator]?.().return?.();
  }
  [Symbol.asyncIterator](): AsyncIterableIterator<Uint8Array> {
    if (this.#stream) return piecesOf(this.#stream);
    if (this.used) throw unusable();
    this.used = true;
    return this.#iterated();
  }
  #iterated(): AsyncIterableIterator<Uint8Array> {
    const pieces = this.#pieces();
    const iterator: AsyncIterableIterator<Uint8Array> = {
      next: () => pieces.next(),
      // A generator that was never asked for anything would leave its source as it is.
      return: async () => {
        await this.#leave();
        return pieces.return();
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }
  async *#pieces(): AsyncGenerator<Uint8Array, void> {
    const { source } = this;
    for await (const piece of isHere(source) ? [source] : (source as AsyncIterable<unknown>)) yield pieceOf(piece);
  }
  get [Symbol.toStringTag](): string {
    return 'ReadableStream';
  }
}

/** What is thrown for a body that was read already. */
export const unusable = () => new TypeError('Body is unusable: Body has already been read');

export const isBody = (given: unknown): boolean => given instanceof Body;

/** The pieces of a stream, which can be left while one is waited for. */
function piecesOf(stream: ReadableStream): AsyncIterableIterator<Uint8Array> {
  const reader = stream.getReader();
  const iterator: AsyncIterableIterator<Uint8Array> = {
    async next() {
      const { done, value } = await reader.read();
      if (!done) return { done, value: pieceOf(value) };
      reader.releaseLock();
      return { done, value: undefined };
    },
    async return() {
      await reader.cancel();
      reader.releaseLock();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}

/** A text of another type than others. */
export class Typed {
  readonly text: string;
  readonly type: string;
  constructor(text: string, type: string) {
    this.text = text;
    this.type = type;
  }
}

/** What a body is made of, and the type that it has when nobody says another. */
export function bodyOf(given: unknown): { body: Body; type?: string } | undefined {
  if (given === undefined || given === null) return undefined;
  if (typeof given === 'string') return { body: new Body(given), type: 'text/plain;charset=UTF-8' };
  if (given instanceof Typed) return { body: new Body(given.text), type: given.type };
  if (given instanceof Body) {
    if (given.disturbed || given.locked) throw unusable();
    return { body: given };
  }
  if (given instanceof URLSearchParams)
    return { body: new Body(given.toString()), type: 'application/x-www-form-urlencoded;charset=UTF-8' };
  if (given instanceof ArrayBuffer || ArrayBuffer.isView(given)) return { body: new Body(viewOf(given).slice()) };
  const form = powers.made_forms?.body(given);
  if (form) return { body: new Body(form.bytes), type: form.type };
  if (
    typeof given === 'object' &&
    (Symbol.asyncIterator in given || (Symbol.iterator in given && !(given instanceof String)))
  )
    return { body: new Body(given as AsyncIterable<unknown>) };
  return { body: new Body(String(given)), type: 'text/plain;charset=UTF-8' };
}
