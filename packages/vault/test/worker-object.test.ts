/** From a module to a worker: what was written as a method can be called, and nothing else ever. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, NoSuchMethod, SourceRejected } from '@hauki/protocol';
import fc from 'fast-check';
import { workerObject } from '../src/guest/worker-object.ts';

const refuses = (worker: { call(method: string, params: unknown): unknown }, method: string) =>
  assert.throws(
    () => worker.call(method, []),
    (thrown) => isError(thrown, NoSuchMethod) && thrown.fields.method === method,
    `${method} was called`,
  );

const rejected = (module: Record<string, unknown>, pattern: RegExp) =>
  assert.throws(
    () => workerObject(module, {}),
    (thrown) => isError(thrown, SourceRejected) && thrown.fields.stage === 'exports' && pattern.test(thrown.message),
  );

/** Names that every object of the language answers to. */
const INHERITED = [
  ...Object.getOwnPropertyNames(Object.prototype),
  ...Object.getOwnPropertyNames(Function.prototype),
  'then',
  'catch',
  'finally',
  'prototype',
  '',
  'default',
];

describe('a worker that is a class', () => {
  class Base {
    inherited() {
      return 'from the base';
    }
    look(..._where: unknown[]): unknown {
      return 'the base looks';
    }
  }
  class Scout extends Base {
    #seen = 0;
    field = 'a value';
    arrow = (n: number) => n + this.#seen;
    static shared() {
      return 'static';
    }
    override look(...where: unknown[]) {
      this.#seen++;
      return [...where, this.#seen];
    }
    #hidden() {
      return this.#seen;
    }
    _private() {
      return this.#hidden();
    }
    __very() {
      return 1;
    }
    get getter() {
      throw new Error('a getter ran');
    }
    set setter(_: unknown) {
      throw new Error('a setter ran');
    }
    async later() {
      return 'later';
    }
    onEnd(_reason: string) {}
  }
  const made = () => workerObject({ default: Scout, other: () => 1 }, {});

  it('offers its public methods, its own and inherited ones', () => {
    assert.deepEqual(made().methods.sort(), ['arrow', 'inherited', 'later', 'look']);
  });

  it('keeps its state between calls and passes parameters on', async () => {
    const worker = made();
    assert.deepEqual(worker.call('look', ['a', 'b']), ['a', 'b', 1]);
    assert.deepEqual(worker.call('look', []), [2]);
    assert.equal(worker.call('arrow', [10]), 12);
    assert.equal(worker.call('inherited', []), 'from the base');
    assert.equal(await worker.call('later', []), 'later');
    // Named parameters come as one object.
    assert.deepEqual(worker.call('look', { where: 'x' }), [{ where: 'x' }, 3]);
    // Positive control: another worker has its own state.
    assert.deepEqual(made().call('look', []), [1]);
  });

  it('offers nothing that is private, static, a value, a getter, a setter, the hook or the constructor', () => {
    const worker = made();
    for (const method of [
      '_private',
      '__very',
      '#hidden',
      'field',
      'getter',
      'setter',
      'shared',
      'onEnd',
      'constructor',
      'other',
    ])
      refuses(worker, method);
  });

  it('offers nothing of the language', () => {
    const worker = made();
    for (const method of INHERITED) refuses(worker, method);
  });

  it('offers a method with a name of the language when it was written', () => {
    class Own {
      toString() {
        return 'written';
      }
    }
    assert.equal(workerObject({ default: Own }, {}).call('toString', []), 'written');
  });

  it('offers nothing of a built-in class that it extends', () => {
    class Store extends Map {
      readonly made = true;
      constructor(_context: object) {
        super();
      }
      put(key: string, value: unknown) {
        this.set(key, value);
      }
    }
    class Bus extends EventTarget {
      ring() {}
    }
    class Later extends Promise<unknown> {
      ask() {}
      constructor() {
        super(() => {});
      }
    }
    assert.deepEqual(workerObject({ default: Store }, {}).methods, ['put']);
    assert.deepEqual(workerObject({ default: Bus }, {}).methods, ['ring']);
    assert.deepEqual(workerObject({ default: Later }, {}).methods, ['ask']);
  });

  it('hides a base’s method behind whatever stands before it', () => {
    class Guarded extends Base {
      ask() {}
    }
    Object.defineProperty(Guarded.prototype, 'look', {
      get() {
        throw new Error('a getter ran');
      },
    });
    class Emptied extends Base {
      ask() {}
    }
    Object.defineProperty(Emptied.prototype, 'look', { value: undefined });
    for (const kind of [Guarded, Emptied]) {
      const worker = workerObject({ default: kind }, {});
      assert.deepEqual(worker.methods.sort(), ['ask', 'inherited']);
      refuses(worker, 'look');
    }
  });

  it('gets its context as the constructor’s argument', () => {
    const context = { worker: 'w-1' };
    let given: unknown;
    class Wants {
      constructor(powers: object) {
        given = powers;
      }
      ask() {}
    }
    workerObject({ default: Wants }, context);
    assert.equal(given, context);
  });

  it('lets what its constructor throws pass', () => {
    class Broken {
      constructor() {
        throw new RangeError('not today');
      }
      ask() {}
    }
    assert.throws(() => workerObject({ default: Broken }, {}), { name: 'RangeError', message: 'not today' });
  });

  it('names its methods when one is missing', () => {
    assert.throws(
      () => made().call('look_around', []),
      (thrown) => isError(thrown, NoSuchMethod) && /look_around.*look/.test(thrown.message),
    );
  });
});

describe('a worker made of functions', () => {
  const module = () => ({
    add: (a: number, b: number) => a + b,
    async later() {
      return 'later';
    },
    bare() {
      return this;
    },
    _private: () => 1,
    'rpc.heartbeat': () => 'not ours to define',
    Tool: class Tool {
      ask() {}
    },
    value: 5,
    list: [() => 1],
    onEnd() {},
  });

  it('offers its functions and nothing else', () => {
    assert.deepEqual(workerObject(module(), {}).methods.sort(), ['add', 'bare', 'later']);
    const worker = workerObject(module(), {});
    for (const method of ['_private', 'rpc.heartbeat', 'Tool', 'value', 'list', 'onEnd', ...INHERITED])
      refuses(worker, method);
  });

  it('calls them without a receiver', () => {
    const worker = workerObject(module(), {});
    assert.equal(worker.call('add', [2, 3]), 5);
    assert.equal(worker.call('bare', []), undefined);
  });

  it('takes a default-exported function for one of them', () => {
    const worker = workerObject({ default: () => 'default', other: () => 1 }, {});
    assert.deepEqual(worker.methods.sort(), ['default', 'other']);
  });
});

describe('a module without a worker', () => {
  it('is refused, saying what it has', () => {
    rejected({}, /exports nothing/);
    rejected({ value: 5, other: 'x' }, /exports only value, other/);
    rejected(
      { default: { add: () => 1 } },
      /exports only default, which is an object: export its functions each by name/,
    );
    rejected({ _private: () => 1 }, /exports only _private/);
    rejected({ onEnd: () => 1 }, /exports only onEnd/);
    rejected({ default: class {} }, /class without public methods/);
    rejected(
      {
        default: class {
          _a() {}
          onEnd() {}
        },
      },
      /class without public methods/,
    );
    rejected({ Tool: class {} }, /exports only Tool/);
  });
});

describe('the end hook', () => {
  it('runs with the reason, as a method or as a function, and is waited for', async () => {
    const heard: unknown[] = [];
    class Ending {
      name = 'class';
      ask() {}
      async onEnd(reason: string) {
        await null;
        heard.push([this.name, reason]);
      }
    }
    await workerObject({ default: Ending }, {}).end('lease');
    await workerObject({ ask() {}, onEnd: (reason: string) => heard.push(reason) }, {}).end('destruct');
    assert.deepEqual(heard, [['class', 'lease'], 'destruct']);
  });

  it('may be missing, and may fail', async () => {
    await workerObject({ ask() {} }, {}).end('x');
    const failing = workerObject(
      {
        ask() {},
        onEnd() {
          throw new Error('in the hook');
        },
      },
      {},
    );
    await assert.rejects(failing.end('x'), /in the hook/);
  });
});

describe('any name', () => {
  it('is either among the methods or refused', () => {
    class Scout {
      look() {
        return 'seen';
      }
    }
    const workers = [workerObject({ default: Scout }, {}), workerObject({ look: () => 'seen' }, {})];
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.constantFrom(...INHERITED, 'look', '__proto__')), (name) => {
        for (const worker of workers)
          if (name === 'look') assert.equal(worker.call(name, []), 'seen');
          else refuses(worker, name);
      }),
      { numRuns: 500 },
    );
  });
});
