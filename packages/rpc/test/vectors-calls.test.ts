/** Sessions as docs/vectors/calls.json has them, from both sides: whoever writes a peer checks against the same messages. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { isError, RemoteError } from '@hauki/protocol';
import { serve } from '../src/serve.ts';
import { type Dispatch, Session } from '../src/session.ts';
import { memoryPair } from '../src/transports/memory.ts';

interface Message {
  from: 'caller' | 'worker';
  text: string;
  bytes?: string;
  expand?: number;
}
interface Sequence {
  name: string;
  worker_only?: true;
  messages: Message[];
}
const file = new URL('../../../docs/vectors/calls.json', import.meta.url);
const vectors: { methods: Record<string, string>; sequences: Sequence[] } = JSON.parse(readFileSync(file, 'utf8'));

const textOf = ({ text, expand }: Message) => (expand ? text.replaceAll('*', 'x'.repeat(expand)) : text);
const said = (text: string, bytes: Uint8Array | undefined) => ({
  message: JSON.parse(text),
  bytes: bytes && Buffer.from(bytes).toString('base64'),
});

/** Lets a session hear what the other side says in a sequence, each message once this side has said all before it. */
async function play(sequence: Sequence, side: Message['from'], make: (transport: any) => Session, act?: Act) {
  const [mine, theirs] = memoryPair();
  const heard: ReturnType<typeof said>[] = [];
  let wake = () => {};
  theirs.start({
    message(text, bytes) {
      heard.push(said(text, bytes));
      wake();
    },
    close: () => wake(),
  });
  const session = make(mine);
  const expected = sequence.messages.filter(({ from }) => from === side);
  let fed!: () => void;
  const all = new Promise<void>((resolve) => {
    fed = resolve;
  });
  const acted = act?.(session, all);
  acted?.catch(() => {});
  const until = async (count: number) => {
    while (heard.length < count && session.open)
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
  };
  let due = 0;
  for (const message of sequence.messages) {
    if (message.from === side) due++;
    else {
      await until(due);
      theirs.send(textOf(message), message.bytes === undefined ? undefined : [Buffer.from(message.bytes, 'base64')]);
    }
  }
  fed();
  await acted;
  await until(due);
  // What was said too much would come on the next turns.
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.deepEqual(
    heard,
    expected.map((m) => said(textOf(m), m.bytes === undefined ? undefined : Buffer.from(m.bytes, 'base64'))),
  );
  session.close();
}

// ---- The worker that the vectors describe

class Counter {
  #n = 0;
  up() {
    return ++this.#n;
  }
  _set(n: number) {
    this.#n = n;
  }
}

const tooFar = (options?: ErrorOptions): never => {
  const error = new RangeError('too far', options);
  error.stack = undefined as never;
  throw error;
};

const makeWorker = (): Dispatch => {
  let next!: () => void;
  const later = new Promise<void>((resolve) => {
    next = resolve;
  });
  const methods = {
    add(a: number, b: number) {
      queueMicrotask(next);
      return a + b;
    },
    afterwards: async () => {
      await later;
      return 'after it';
    },
    nothing() {},
    reversed: (bytes: Uint8Array) => bytes.reverse(),
    fail: tooFar,
    fail_with_cause: () => tooFar({ cause: 'the road ends' }),
    async each(list: unknown[], f: any) {
      using each = f;
      const out: unknown[] = [];
      for (const item of list) out.push(await each(item));
      return out;
    },
    async hears(f: any) {
      using callback = f;
      return callback().catch((error: Error) => error.message);
    },
    counter: () => new Counter(),
    counters() {
      const counter = new Counter();
      return [counter, counter];
    },
    is_counter: (x: unknown) => x instanceof Counter,
    user: async () => ({ name: 'Ada' }),
    greet: (name: string) => `hello, ${name}`,
    async *count(n: number) {
      for (let i = 0; i < n; i++) yield i;
    },
    async *drip() {
      yield 0;
      await new Promise(() => {});
    },
    async *broken() {
      yield 1;
      tooFar();
    },
    async *blobs(n: number) {
      for (let i = 0; i < n; i++) yield 'x'.repeat(100_000);
    },
    async sum(stream: AsyncIterable<number>) {
      let sum = 0;
      for await (const n of stream) sum += n;
      return sum;
    },
    watch: (signal: AbortSignal) =>
      new Promise((resolve) => signal.addEventListener('abort', () => resolve(signal.reason))),
    ignore: (_: AbortSignal) => null,
  };
  const known = serve(methods, Object.keys(vectors.methods) as never);
  return (method, params, session, call) => {
    if (method === 'told') return [call.timeout_ms, call.traceparent];
    if (method === 'patient')
      return new Promise((resolve) => call.signal.addEventListener('abort', () => resolve('late')));
    return known(method, params, session, call);
  };
};

describe('the vectors of calls, as a worker', () => {
  for (const sequence of vectors.sequences)
    it(sequence.name, () =>
      play(sequence, 'worker', (transport) => new Session({ transport, dispatch: makeWorker() })),
    );
});

// ---- What a caller does that says what the vectors say

type Act = (session: any, all_fed: Promise<void>) => Promise<void>;

const remoteError = (thrown: any, message = 'RangeError: too far') =>
  isError(thrown, RemoteError) && thrown.message === message && thrown.fields.error_name === 'RangeError';

async function collect(stream: AsyncIterable<unknown>): Promise<unknown[]> {
  const items: unknown[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

const acts: Record<string, Act> = {
  'a call and its answer': async (s) => assert.equal(await s.call('add', [1, 2]), 3),
  'two calls, answered as they finish': async (s) => {
    const first = s.call('afterwards');
    assert.equal(await s.call('add', [1, 2]), 3);
    assert.equal(await first, 'after it');
  },
  'no result is undefined, and so is said with a tag': async (s) => assert.equal(await s.call('nothing'), undefined),
  'bytes lie behind the text': async (s) =>
    assert.deepEqual(await s.call('reversed', [Uint8Array.of(1, 2, 3)]), Uint8Array.of(3, 2, 1)),
  'a deadline and a trace go with a call': async (s) => {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    assert.deepEqual(await s.call('told', [], { timeout_ms: 5000, traceparent }), [5000, traceparent]);
  },
  'an error that the worker threw': (s) => assert.rejects(s.call('fail'), remoteError),
  'an error with its cause comes with itself': (s) =>
    assert.rejects(
      s.call('fail_with_cause'),
      (thrown: any) =>
        remoteError(thrown) && thrown.cause instanceof RangeError && thrown.cause.cause === 'the road ends',
    ),
  'a method that there is not': (s) =>
    assert.rejects(s.call('fly'), (thrown: any) => thrown.name === 'NoSuchMethod' && thrown.fields.has.includes('add')),
  'a call is given up, and its late answer is ignored': async (s) => {
    const controller = new AbortController();
    const call = s.call('patient', [], { signal: controller.signal });
    setImmediate(() => controller.abort('enough'));
    await assert.rejects(call, { name: 'Cancelled' });
  },
  'a function is given, called back, and let go of': async (s) => {
    assert.deepEqual(await s.call('each', [[1, 2], (n: number) => n * 10]), [10, 20]);
    assert.equal(s.stats().exported, 0);
  },
  'a function fails, and the worker hears of it': async (s) =>
    assert.equal(await s.call('hears', [() => tooFar()]), 'RangeError: too far'),
  'an object stays with the worker, is called, comes home, and is let go of': async (s) => {
    await using counter = await s.call('counter');
    assert.equal(await counter.up(), 1);
    assert.equal(await s.call('is_counter', [counter]), true);
  },
  'the same object twice goes under one number, and is let go of twice': async (s) => {
    const [one, other] = await s.call('counters');
    assert.equal(one, other);
    one[Symbol.dispose]();
  },
  'a property of a result that is not there yet': async (s) => assert.equal(await s.call('user').name, 'Ada'),
  'a method of a result that is not there yet': async (s) => assert.equal(await s.call('counter').up(), 1),
  'a result as argument before it is there': async (s) =>
    assert.equal(await s.call('greet', [s.call('user').name]), 'hello, Ada'),
  'a call on a failed result fails likewise': async (s) => {
    await assert.rejects(async () => s.call('fail').name, remoteError);
  },
  'the worker streams': async (s) => assert.deepEqual(await collect(await s.call('count', [3])), [0, 1, 2]),
  'the reader leaves a stream': async (s) => {
    for await (const item of await s.call('drip')) {
      assert.equal(item, 0);
      break;
    }
  },
  'a stream fails': async (s) => {
    const stream = await s.call('broken');
    assert.deepEqual(await stream.next(), { done: false, value: 1 });
    await assert.rejects(stream.next(), remoteError);
  },
  'a stream waits for credit': async (s, all_fed) => {
    const stream = await s.call('blobs', [4]);
    for (let i = 0; i < 2; i++) await stream.next();
    await all_fed;
    assert.equal((await collect(stream)).length, 2);
  },
  'the caller streams': async (s) => {
    async function* numbers() {
      yield 1;
      yield 2;
    }
    assert.equal(await s.call('sum', [numbers()]), 3);
  },
  'a signal is aborted while its call runs': async (s) => {
    const controller = new AbortController();
    const call = s.call('watch', [controller.signal]);
    setImmediate(() => controller.abort('enough'));
    assert.equal(await call, 'enough');
  },
  'a signal that is of no more use when its call is over': async (s) =>
    assert.equal(await s.call('ignore', [new AbortController().signal]), null),
};

describe('the vectors of calls, as a caller', () => {
  for (const sequence of vectors.sequences)
    if (!sequence.worker_only)
      it(sequence.name, () =>
        play(sequence, 'caller', (transport) => new Session({ transport }), acts[sequence.name]!),
      );
});
