/** Writable streams, and those that turn what is written into what is read. */
import { type Controller, locked, ReadableStream, type Settle, type Strategy } from './streams.ts';

interface Sink {
  start?(controller: object): unknown;
  write?(chunk: unknown): unknown;
  close?(): unknown;
  abort?(reason: unknown): unknown;
}

/** What a writable stream and its writer share: where writes go, and the last of them. */
interface Target {
  sink: Sink;
  last: Promise<unknown>;
  ready(): Promise<void>;
  done: Settle<void>;
}

/** `ready` tells when there is room for another. */
class Writer {
  readonly #to: Target;
  readonly #unlock: () => void;
  readonly closed: Promise<void>;
  constructor(to: Target, closed: Promise<void>, unlock: () => void) {
    this.#to = to;
    this.closed = closed;
    this.#unlock = unlock;
  }
  get ready(): Promise<void> {
    return this.#to.ready();
  }
  /** In their order, one after the other. */
  write(chunk: unknown): Promise<void> {
    return this.#then(() => this.#to.sink.write?.(chunk));
  }
  async close(): Promise<void> {
    await this.#then(() => this.#to.sink.close?.());
    this.#to.done.resolve();
  }
  async abort(reason?: unknown): Promise<void> {
    await this.#to.sink.abort?.(reason);
    this.#to.done.reject(reason);
  }
  releaseLock(): void {
    this.#unlock();
  }
  #then(run: () => unknown): Promise<void> {
    const next = this.#to.last.then(run).then(() => {});
    this.#to.last = next;
    next.catch((error) => this.#to.done.reject(error));
    return next;
  }
}

export class WritableStream {
  readonly #to: Target;
  readonly #closed: Promise<void>;
  #locked = false;

  constructor(sink: Sink = {}, _strategy?: Strategy, ready: () => Promise<void> = async () => {}) {
    let done!: Settle<void>;
    this.#closed = new Promise((resolve, reject) => {
      done = { resolve, reject };
    });
    this.#closed.catch(() => {});
    this.#to = { sink, last: Promise.resolve(sink.start?.({})), ready, done };
  }

  get locked(): boolean {
    return this.#locked;
  }

  getWriter(): Writer {
    if (this.#locked) throw locked();
    this.#locked = true;
    return new Writer(this.#to, this.#closed, () => {
      this.#locked = false;
    });
  }

  async close(): Promise<void> {
    await this.getWriter().close();
  }
  async abort(reason?: unknown): Promise<void> {
    await this.getWriter().abort(reason);
  }
}

interface Transformer {
  start?(controller: Controller): unknown;
  transform?(chunk: unknown, controller: Controller): unknown;
  flush?(controller: Controller): unknown;
}

export class TransformStream {
  readonly readable: ReadableStream;
  readonly writable: WritableStream;

  constructor({ start, transform, flush }: Transformer = {}, _write?: Strategy, read: Strategy = {}) {
    let queue!: Controller;
    let wake: (() => void) | undefined;
    const roomy = async () => {
      while ((queue.desiredSize ?? 1) <= 0 && !over)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    };
    let over = false;
    this.readable = new ReadableStream(
      {
        start: (controller) => {
          queue = controller;
          return start?.(controller);
        },
        pull: () => {
          wake?.();
          wake = undefined;
        },
        cancel: () => {
          over = true;
          wake?.();
        },
      },
      read,
    );
    this.writable = new WritableStream(
      {
        write: async (chunk) => {
          await roomy();
          if (over) throw new TypeError('nobody reads this stream any more');
          if (transform) await transform(chunk, queue);
          else queue.enqueue(chunk);
        },
        close: async () => {
          await flush?.(queue);
          if (!over) queue.close();
        },
        abort: (reason) => queue.error(reason),
      },
      undefined,
      roomy,
    );
  }
}
