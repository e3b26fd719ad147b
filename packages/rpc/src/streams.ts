/**
 * Streams: async iterables, generators and byte streams that cross a session, item by item, with credit.
 *
 * What always holds: a producer sends only while its reader's credit lasts, so a slow reader bounds what waits on both
 * sides; a reader that leaves ends the producer's iterator; when the session ends every reader is told and every
 * iterator is closed. Credit counts characters and bytes of items, and something for each item, so that empty ones are
 * bounded too.
 */
import { type MeshError, Overloaded, ProtocolViolation } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { EXITS } from '#platform';

/** What an item costs besides its content. */
const ITEM_COST = 64;

/** Streams that were given to be read and that nobody has any more: their producers would wait for ever. */
const collected =
  typeof FinalizationRegistry === 'undefined' ? undefined : new FinalizationRegistry<() => void>((leave) => leave());

export interface StreamPowers {
  /** Sends an item; gives what it cost in characters and bytes. */
  item(id: number, value: unknown): number;
  notify(method: string, params: unknown[]): void;
  fail(id: number, error: unknown): void;
  /** A reader waits for an item (1), or does no more (-1). */
  hold: ((more: 1 | -1) => void) | undefined;
}

interface Producer {
  credit: number;
  wake: (() => void) | undefined;
  stopped: boolean;
  readonly source: any;
  iterator: AsyncIterator<unknown> | Iterator<unknown> | undefined;
}

interface Reader {
  items: { value: unknown; cost: number; taken: readonly (() => void)[] }[];
  /** `held`: what they wait on, which must not be collected meanwhile. */
  waiting: { resolve(result: IteratorResult<unknown>): void; reject(error: unknown): void; held: unknown }[];
  /** What the producer may still send; below zero by at most one item. */
  granted: number;
  /** Read and not granted again yet. */
  consumed: number;
  end: { error?: unknown } | undefined;
}

/** Both ends of all streams of one session. */
export class Streams {
  readonly #powers: StreamPowers;
  readonly #producers = new Map<number, Producer>();
  readonly #readers = new Map<number, Reader>();

  constructor(powers: StreamPowers) {
    this.#powers = powers;
  }

  get size(): number {
    return this.#producers.size + this.#readers.size;
  }

  /** Streams that this side sends. */
  get producing(): number {
    return this.#producers.size;
  }

  /** Sends what `source` gives, as stream `id`, from the turn after this; without credit it waits for a reader. */
  produce(id: number, source: AsyncIterable<unknown> | Iterable<unknown> | ReadableStream, credit: number): void {
    if (this.#producers.size >= LIMITS.streams)
      throw new Overloaded({ what: 'streams of this session', limit: LIMITS.streams });
    const producer: Producer = { credit, wake: undefined, stopped: false, source, iterator: undefined };
    this.#producers.set(id, producer);
    queueMicrotask(() => void this.#run(id, producer));
  }

  async #run(id: number, producer: Producer): Promise<void> {
    try {
      const { source } = producer;
      const each = source[Symbol.asyncIterator] as (() => AsyncIterator<unknown>) | undefined;
      let iterator: AsyncIterator<unknown> | undefined;
      for (;;) {
        while (producer.credit <= 0 && !producer.stopped)
          await new Promise<void>((resolve) => {
            producer.wake = resolve;
          });
        if (producer.stopped) return;
        iterator ??= (each ?? source[Symbol.iterator]).call(source) as AsyncIterator<unknown>;
        producer.iterator = iterator;
        const { done, value: given } = await iterator.next();
        // As `for await` does: what a plain iterator promises is waited for.
        const value = each ? given : await given;
        if (producer.stopped) return;
        if (done) {
          this.#producers.delete(id);
          this.#powers.notify('rpc.end', [id]);
          return;
        }
        producer.credit -= this.#powers.item(id, value) + ITEM_COST;
      }
    } catch (error) {
      if (producer.stopped) return;
      this.#stop(id);
      this.#powers.fail(id, error);
    }
  }

  /** The reader's word: so much more may be sent. */
  credit(id: unknown, amount: unknown): void {
    const producer = this.#producers.get(id as number);
    if (!producer || typeof amount !== 'number' || !(amount > 0)) return;
    producer.credit = Math.min(producer.credit + amount, LIMITS.stream_bytes);
    producer.wake?.();
    producer.wake = undefined;
  }

  /** The reader's word, or the session's end: no more. */
  stop(id: unknown): void {
    this.#stop(id as number);
  }

  #stop(id: number): void {
    const producer = this.#producers.get(id);
    if (!producer || producer.stopped) return;
    producer.stopped = true;
    this.#producers.delete(id);
    producer.wake?.();
    // A generator that is in the middle of its work closes when that is done.
    const { iterator, source } = producer;
    void (async () => {
      if (iterator) return iterator.return?.();
      // It never began: what it holds is let go of in its own way.
      const end = source.return ?? source.cancel ?? source.destroy;
      return typeof end === 'function' ? end.call(source) : undefined;
    })().catch(() => {});
  }

  /** Whether anybody reads this stream of the other side's. */
  reads(id: unknown): boolean {
    return this.#readers.has(id as number);
  }

  /** A stream that the other side produces, and how to leave it. */
  read(id: number, as_stream: boolean, lazy: boolean): { value: object; leave: () => void } {
    if (this.#readers.size >= LIMITS.streams)
      throw new Overloaded({ what: 'streams taken by this session', limit: LIMITS.streams });
    const granted = lazy ? 0 : LIMITS.stream_bytes;
    const reader: Reader = { items: [], waiting: [], granted, consumed: 0, end: undefined };
    this.#readers.set(id, reader);
    // Made elsewhere: what stands in this scope would hold the value, and it would never be collected.
    const leave = this.#leaving(id, reader);
    const next = (held: object) => this.#next(id, reader, held);
    const iterator: AsyncIterableIterator<unknown> & AsyncDisposable = {
      next() {
        return next(this);
      },
      async return(value) {
        leave();
        return { done: true, value };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
      [Symbol.asyncDispose]: async () => leave(),
    };
    const as_is = !as_stream || typeof ReadableStream === 'undefined';
    const value = as_is ? iterator : streamOf(iterator);
    collected?.register(value, leave);
    return { value, leave };
  }

  /** How to leave a stream. */
  #leaving(id: number, reader: Reader): () => void {
    return () => {
      if (this.#readers.delete(id)) this.#powers.notify('rpc.stop', [id]);
      for (const { taken } of reader.items.splice(0)) for (const letGo of taken) letGo();
      this.#finish(reader, {});
    };
  }

  #next(id: number, reader: Reader, held?: object): Promise<IteratorResult<unknown>> {
    const item = reader.items.shift();
    if (reader.granted === 0 && reader.consumed === 0 && !item && this.#readers.has(id)) {
      reader.granted = LIMITS.stream_bytes;
      this.#powers.notify('rpc.credit', [id, reader.granted]);
    }
    if (item) {
      reader.consumed += item.cost;
      if (reader.consumed >= LIMITS.stream_bytes / 2 && this.#readers.has(id)) {
        reader.granted += reader.consumed;
        this.#powers.notify('rpc.credit', [id, reader.consumed]);
        reader.consumed = 0;
      }
      return Promise.resolve({ done: false, value: item.value });
    }
    if (reader.end) {
      const { error } = reader.end;
      reader.end = {};
      return error === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(error);
    }
    const next = new Promise<IteratorResult<unknown>>((resolve, reject) =>
      reader.waiting.push({ resolve, reject, held }),
    );
    if (EXITS) {
      const over = () => this.#powers.hold?.(-1);
      this.#powers.hold?.(1);
      next.then(over, over);
    }
    return next;
  }

  /**
   * An item came in, of the given size; `taken` lets go of what it refers to. Throws ProtocolViolation where it was sent
   * without credit.
   */
  item(id: unknown, value: unknown, size: number, taken: readonly (() => void)[]): void {
    const reader = this.#readers.get(id as number);
    if (!reader) return; // The reader has left, and its word is on the way.
    if (reader.granted <= 0) throw new ProtocolViolation({ why: 'an item of a stream without credit' });
    const cost = size + ITEM_COST;
    reader.granted -= cost;
    reader.items.push({ value, cost, taken });
    const waiting = reader.waiting.shift();
    if (waiting) this.#next(id as number, reader).then(waiting.resolve, waiting.reject);
  }

  /** An item came in that this side cannot take: its reader hears why, and the producer that nobody reads. */
  refuse(id: unknown, error: unknown): void {
    this.#powers.notify('rpc.stop', [id]);
    this.end(id, error);
  }

  /** The producer has ended, or failed. */
  end(id: unknown, error?: unknown): void {
    const reader = this.#readers.get(id as number);
    if (!reader) return;
    this.#readers.delete(id as number);
    this.#finish(reader, error === undefined ? {} : { error });
  }

  #finish(reader: Reader, end: { error?: unknown }): void {
    reader.end ??= end;
    for (const waiting of reader.waiting.splice(0))
      if (reader.end.error === undefined) waiting.resolve({ done: true, value: undefined });
      else waiting.reject(reader.end.error);
  }

  /** The session is over: readers hear why, iterators are closed. */
  close(error: MeshError): void {
    for (const id of [...this.#producers.keys()]) this.#stop(id);
    for (const reader of this.#readers.values()) this.#finish(reader, { error });
    this.#readers.clear();
  }
}

/** A ReadableStream of what an iterator gives, no faster than it is read. */
const streamOf = (iterator: AsyncIterator<unknown>): ReadableStream =>
  new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await iterator.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel() {
        await iterator.return!();
      },
    },
    { highWaterMark: 0 },
  );
