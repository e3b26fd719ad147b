/**
 * Readable streams (Streams standard) as far as handlers use them: with a default reader, `tee` and pipes. A queue holds
 * what was written and not read; `desiredSize` tells of it.
 */
import type { WritableStream } from './streams-writable.ts';

export type Settle<T> = { resolve(value: T): void; reject(error: unknown): void };
type Result = { done: boolean; value: unknown };

interface Source {
  start?(controller: Controller): unknown;
  pull?(controller: Controller): unknown;
  cancel?(reason: unknown): unknown;
}

export interface Strategy {
  highWaterMark?: number;
  size?(chunk: unknown): number;
}

export class Controller {
  readonly #stream: Queue;
  constructor(stream: Queue) {
    this.#stream = stream;
  }
  enqueue(chunk: unknown): void {
    this.#stream.push(chunk);
  }
  close(): void {
    this.#stream.end();
  }
  error(error: unknown): void {
    this.#stream.fail(error);
  }
  get desiredSize(): number | null {
    return this.#stream.room;
  }
}

/** What stands behind a readable stream. */
class Queue {
  readonly #source: Source;
  readonly #most: number;
  readonly #size: (chunk: unknown) => number;
  readonly #items: { chunk: unknown; size: number }[] = [];
  readonly #waiting: Settle<Result>[] = [];
  readonly controller = new Controller(this);
  #held = 0;
  #ended = false;
  #failed: { error: unknown } | undefined;
  #pulling = false;
  #again = false;
  #started: Promise<unknown>;
  readonly over: Promise<void>;
  #settleOver!: Settle<void>;

  constructor(source: Source, { highWaterMark = 1, size = () => 1 }: Strategy) {
    this.#source = source;
    this.#most = highWaterMark;
    this.#size = size;
    this.over = new Promise((resolve, reject) => {
      this.#settleOver = { resolve, reject };
    });
    this.over.catch(() => {});
    this.#started = Promise.resolve(source.start?.(this.controller));
    this.#started.then(
      () => this.#pull(),
      (error) => this.fail(error),
    );
  }

  get room(): number | null {
    if (this.#failed) return null;
    return this.#ended ? 0 : this.#most - this.#held;
  }

  push(chunk: unknown): void {
    if (this.#ended || this.#failed) throw new TypeError('the stream is closed');
    const waiting = this.#waiting.shift();
    if (waiting) waiting.resolve({ done: false, value: chunk });
    else {
      const size = this.#size(chunk);
      this.#items.push({ chunk, size });
      this.#held += size;
    }
    this.#pull();
  }

  end(): void {
    if (this.#ended || this.#failed) throw new TypeError('the stream is closed');
    this.#ended = true;
    for (const { resolve } of this.#waiting.splice(0)) resolve({ done: true, value: undefined });
    if (this.#items.length === 0) this.#settleOver.resolve();
  }

  fail(error: unknown): void {
    if (this.#failed || (this.#ended && this.#items.length === 0)) return;
    this.#failed = { error };
    this.#items.length = 0;
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    this.#settleOver.reject(error);
  }

  next(): Promise<Result> {
    const item = this.#items.shift();
    if (item) {
      this.#held -= item.size;
      if (this.#ended && this.#items.length === 0) this.#settleOver.resolve();
      this.#pull();
      return Promise.resolve({ done: false, value: item.chunk });
    }
    if (this.#failed) return Promise.reject(this.#failed.error);
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#pull();
    });
  }

  async cancel(reason: unknown): Promise<void> {
    if (this.#ended && this.#items.length === 0) return;
    this.#items.length = 0;
    this.#held = 0;
    if (!this.#ended && !this.#failed) this.end();
    this.#settleOver.resolve();
    await this.#source.cancel?.(reason);
  }

  #pull(): void {
    const { pull } = this.#source;
    if (!pull || this.#ended || this.#failed) return;
    if (this.#waiting.length === 0 && (this.room ?? 0) <= 0) return;
    if (this.#pulling) {
      this.#again = true;
      return;
    }
    this.#pulling = true;
    this.#started
      .then(() => pull.call(this.#source, this.controller))
      .then(
        () => {
          this.#pulling = false;
          const again = this.#again;
          this.#again = false;
          if (again) this.#pull();
        },
        (error) => this.fail(error),
      );
  }
}

export const locked = () => new TypeError('this stream is locked to a reader or a writer');

class Reader {
  #stream: { queue: Queue; unlock(): void } | undefined;
  readonly closed: Promise<void>;
  constructor(queue: Queue, unlock: () => void) {
    this.#stream = { queue, unlock };
    this.closed = queue.over;
  }
  read(): Promise<Result> {
    return this.#stream ? this.#stream.queue.next() : Promise.reject(new TypeError('this reader was released'));
  }
  async cancel(reason?: unknown): Promise<void> {
    await this.#stream?.queue.cancel(reason);
  }
  releaseLock(): void {
    this.#stream?.unlock();
    this.#stream = undefined;
  }
}

export class ReadableStream implements AsyncIterable<unknown> {
  readonly #queue: Queue;
  #locked = false;

  constructor(source: Source = {}, strategy: Strategy = {}) {
    this.#queue = new Queue(source, strategy);
  }

  static from(items: AsyncIterable<unknown> | Iterable<unknown>): ReadableStream {
    const iterator = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
    return new ReadableStream(
      {
        async pull(controller) {
          const { done, value } = await iterator.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        cancel: (reason) => iterator.return?.(reason),
      },
      { highWaterMark: 0 },
    );
  }

  get locked(): boolean {
    return this.#locked;
  }

  getReader(): Reader {
    if (this.#locked) throw locked();
    this.#locked = true;
    return new Reader(this.#queue, () => {
      this.#locked = false;
    });
  }

  async cancel(reason?: unknown): Promise<void> {
    if (this.#locked) throw locked();
    await this.#queue.cancel(reason);
  }

  async *values(): AsyncGenerator<unknown, void> {
    const reader = this.getReader();
    try {
      for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
    } finally {
      await reader.cancel();
      reader.releaseLock();
    }
  }

  [Symbol.asyncIterator](): AsyncGenerator<unknown, void> {
    return this.values();
  }

  /** Two streams of the same chunks. What one has read waits for the other. */
  tee(): [ReadableStream, ReadableStream] {
    const reader = this.getReader();
    const controllers: Controller[] = [];
    const gone = [false, false];
    const branch = (i: number) =>
      new ReadableStream({
        start: (controller) => void controllers.push(controller),
        async pull() {
          const { done, value } = await reader.read();
          controllers.forEach((controller, each) => {
            if (gone[each]) return;
            if (done) controller.close();
            else controller.enqueue(value);
          });
        },
        async cancel(reason) {
          gone[i] = true;
          if (gone[1 - i]) await reader.cancel(reason);
        },
      });
    return [branch(0), branch(1)];
  }

  async pipeTo(to: WritableStream): Promise<void> {
    const writer = to.getWriter();
    try {
      for await (const chunk of this) await writer.write(chunk);
      await writer.close();
    } catch (error) {
      await writer.abort(error);
      throw error;
    } finally {
      writer.releaseLock();
    }
  }

  pipeThrough(through: { readable: ReadableStream; writable: WritableStream }): ReadableStream {
    this.pipeTo(through.writable).catch(() => {});
    return through.readable;
  }
}
