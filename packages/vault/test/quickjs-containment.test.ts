/**
 * What code in a quickjs vault tries, and what becomes of it. Where something must not happen, the same code is first
 * run without the protection, to show that it would. Over 400 lines, because the attempts are lists that share one lab
 * and one neighbour, who must be well after each.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import vm from 'node:vm';
import { Worker as Thread } from 'node:worker_threads';
import { isError, NO_GRANTS, SourceRejected } from '@hauki/protocol';
import { QuickJS } from 'quickjs-wasi';
import { HOLD_UP, WAITING } from '../src/drivers/quickjs/limits.ts';
import { Waiting } from '../src/drivers/quickjs/waiting.ts';
import { type Lab, openLab, type Worker } from './quickjs-support.ts';

const wasm_file = fileURLToPath(import.meta.resolve('quickjs-wasi/quickjs.wasm'));
const TURN = { turn_ms: 200 };
const HERE = fileURLToPath(new URL('../../..', import.meta.url));

/** Whether a QuickJS without our limits is still busy with the code after twice the time that a turn has here. */
async function overruns(code: string, after_ms = 400): Promise<boolean> {
  const script = `
    const { workerData, parentPort } = require('node:worker_threads');
    (async () => {
      const { QuickJS } = await import(workerData.library);
      const vm = await QuickJS.create({ wasm: require('node:fs').readFileSync(workerData.wasm) });
      parentPort.postMessage('begun');
      try { vm.evalCode(workerData.code); vm.executePendingJobs(); } catch {}
      parentPort.postMessage('over');
    })();`;
  const workerData = { code, wasm: wasm_file, library: import.meta.resolve('quickjs-wasi') };
  const thread = new Thread(script, { eval: true, workerData });
  try {
    const heard = (what: string) =>
      new Promise<void>((resolve) => thread.on('message', (message) => message === what && resolve()));
    const [begun, over] = [heard('begun'), heard('over').then(() => false)];
    await begun;
    return await Promise.race([over, new Promise<boolean>((resolve) => setTimeout(resolve, after_ms, true))]);
  } finally {
    await thread.terminate();
  }
}

const SOUND = 'export const add = (a, b) => a + b;';
/** A worker whose `run` evaluates a text. */
const EVAL = `export const run = (code) => (0, eval)(code); ${SOUND}`;

describe('code in a quickjs vault', { concurrency: 2 }, () => {
  let lab: Lab;
  let neighbour: Worker;
  before(async () => {
    lab = await openLab('contained');
    neighbour = await lab.worker(SOUND, { owner: 'a neighbour' });
  });
  after(async () => {
    await lab?.[Symbol.asyncDispose]();
  });

  const well = async (worker = neighbour) => assert.equal(await worker.call('add', 1, 2), 3);
  /** Ended as misbehaved, for a reason like this; the neighbour lives. */
  const ended = async (worker: Worker, reason: RegExp) => {
    const exit = await worker.vault.exited;
    assert.equal(exit.cause, 'misbehaved');
    assert.match(exit.reason, reason);
    await well();
  };

  describe('looks for a way out', () => {
    it('by the constructors of functions, promises and errors, and finds its own world only', async () => {
      const attempt = "typeof f.constructor('return this')().process";
      // In Node's own vm a function of the host's gives the host away.
      assert.equal(vm.runInNewContext(attempt, { f: () => {} }), 'object');
      const worker = await lab.worker(`
        const world = (thing) => thing.constructor.constructor('return this')();
        export const roots = async () => {
          const thrown = await import('node:fs').catch((e) => e);
          const refused = await fetch('http://x.example').catch((e) => e);
          const promised = (async () => {})();
          const things = [fetch, hauki, hauki.log, console.log, setTimeout, Response, crypto, URL, thrown, refused, promised, performance];
          return things.map((thing) => {
            const w = world(thing);
            return w === globalThis && ['process', 'require', 'module', 'Deno', 'std', 'os', 'WebAssembly', '__host', '__vm', '__platform'].every((name) => !(name in w));
          });
        };`);
      assert.deepEqual(new Set(await worker.call('roots')), new Set([true]));
    });

    // What is loaded late is given its powers then, when the worker's code has had its say.
    const LATE = { platform: 'void TextEncoder', crypto: 'void crypto.subtle', console: 'console.table([1])' };
    const TRAPS = {
      'an accessor on the global object': `Object.defineProperty(globalThis, '__platform', { configurable: true, get: () => caught, set(v) { caught = v } });`,
      'accessors on the prototype of all': `for (const name of ['platform', 'crypto', 'console', 'made_forms', 'made_streams', 'writable', '__platform', 'get'])
        Object.defineProperty(Object.prototype, name, { __proto__: null, configurable: true, get() { caught ??= this; return undefined }, set(v) { caught ??= this } });`,
      'a definer of its own': `const define = Object.defineProperty;
        Object.defineProperty = Reflect.defineProperty = (o, name, d) => { if (name === '__platform') caught = d.value; return define(o, name, d) };`,
    };
    for (const [what, trap] of Object.entries(TRAPS))
      it(`by ${what}, and gets none of the host's functions`, async () => {
        for (const [part, touch] of Object.entries(LATE)) {
          const worker = await lab.worker(`let caught; ${trap}
            try { ${touch} } catch {}
            export const got = () => ['encode', 'digest', 'write_log'].filter((name) => typeof caught?.[name] === 'function');`);
          assert.deepEqual(await worker.call('got'), [], part);
        }
      });

    it('by importing, and is told what to do instead, without a path of this machine', async () => {
      const worker = await lab.worker(`
        export const attempt = (name) => import(name).then(() => 'imported', (e) => e.message + '\\n' + e.stack);
        export const stack = () => { Error.prepareStackTrace = (e, sites) => sites.map((s) => [String(s.getFileName?.()), typeof s.getThis?.(), typeof s.getFunction?.()].join()); return JSON.stringify(new Error('x').stack); };`);
      assert.ok(await import('node:fs'));
      for (const name of [
        'node:fs',
        'fs',
        'quickjs:os',
        'std',
        '/etc/passwd',
        'file:///etc/passwd',
        './worker.mjs',
        'data:text/javascript,1',
      ]) {
        const told = await worker.call('attempt', name);
        assert.match(told, /one module/, name);
        assert.ok(!told.includes(HERE) && !told.includes('node_modules') && !/\.ts:/.test(told), told);
      }
      const stack = await worker.call('stack');
      assert.ok(!stack.includes(HERE) && !stack.includes('/'), stack);
    });

    it('by what it returns: prototypes, getters and proxies do nothing on this side', async () => {
      const naive = (into: any, from: any) => {
        for (const key in from)
          into[key] = typeof from[key] === 'object' ? naive(into[key] ?? {}, from[key]) : from[key];
        return into;
      };
      naive({}, JSON.parse('{"__proto__":{"polluted":1}}'));
      assert.equal(({} as any).polluted, 1);
      delete (Object.prototype as any).polluted;
      const worker = await lab.worker(`
        const evil = () => JSON.parse('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}');
        export const plain = () => evil();
        export const error = () => { throw Object.assign(new Error('x'), evil(), { name: '__proto__', code: '__proto__', cause: evil() }); };
        export const effect = () => hauki.meshfs.resolve(evil());
        export const log = () => hauki.log(evil());
        export const getter = () => ({ get x() { throw new Error('from a getter'); } });
        export const trap = () => new Proxy({}, { ownKeys() { throw new Error('from a trap'); }, get() { throw new Error('from a trap'); } });
        export const json = () => ({ toJSON() { throw new Error('from toJSON'); } });
        export const thenable = () => ({ then(ok, no) { no(new Error('from then')); } });
        export const name = () => { throw { get message() { throw 1; }, get name() { throw 2; }, get stack() { throw 3; } }; };
        ${SOUND}`);
      await worker.call('plain');
      await worker.call('log');
      for (const method of ['error', 'effect', 'getter', 'trap', 'json', 'thenable', 'name'])
        await worker.call(method).catch((error) => assert.ok(error instanceof Error, method));
      assert.equal(({} as any).polluted, undefined);
      assert.equal((() => {}).prototype, undefined);
      await well(worker);
    });

    it('by spoiling what its own guest is made of: it spoils itself', async () => {
      const worker = await lab.worker(
        `
        export const spoil = () => {
          JSON.stringify = () => '{"garbage';
          JSON.parse = () => { throw 1; };
          Map.prototype.get = Set.prototype.has = Array.prototype.push = () => {};
          Promise.prototype.then = () => {};
          return 1;
        };`,
        { owner: 'spoilt' },
      );
      const session = worker.session.closed;
      await worker.call('spoil').catch(() => {});
      worker.shell.sessions().catch(() => {});
      await Promise.race([session, worker.vault.exited, new Promise((resolve) => setTimeout(resolve, 300))]);
      await well();
      await worker.vault.kill('enough');
    });
  });

  describe('never comes back', () => {
    const ENDLESS = 'for (;;) {}';
    it('and would not by itself', async () => {
      for (const code of [
        ENDLESS,
        'const f = () => Promise.resolve().then(f); f();',
        '/^(a+)+$/.test("a".repeat(40) + "b")',
      ])
        assert.equal(await overruns(code), true, code);
      assert.equal(await overruns('1 + 1', 20_000), false);
    });

    it('while it loads: then it is refused', async () => {
      await assert.rejects(lab.worker(`${ENDLESS} ${SOUND}`, { ...TURN, owner: 'endless' }));
      await assert.rejects(
        lab.worker('export default class { constructor() { for (;;) {} } add() {} }', {
          ...TURN,
          owner: 'endless too',
        }),
      );
      await assert.rejects(
        lab.worker(`await new Promise(() => {}); ${SOUND}`, { owner: 'waits' }, { load_timeout_ms: 300 }),
        (error: Error) => isError(error, SourceRejected) && /did not finish loading/.test(error.message),
      );
      await well();
    });

    for (const [where, code] of Object.entries({
      'in a call': 'for (;;) {}',
      // What it returns is not kept either: promises that wait for each other fill the memory.
      'in microtasks': 'const f = () => void Promise.resolve().then(f); f(); new Promise(() => {})',
      'in a getter of what it returns': '({ get x() { for (;;) {} } })',
      'in a Proxy that it returns': 'new Proxy({}, { ownKeys() { for (;;) {} } })',
      'in toJSON of what it logs': 'console.log("%j", { toJSON() { for (;;) {} } })',
      'in a thenable': '({ then() { for (;;) {} } })',
      'in a timer': 'setTimeout(() => { for (;;) {} }, 1); new Promise(() => {})',
      // What it yields is not kept: memory would run out first on a quick machine, which is another end.
      'in an endless generator': 'for (const one of (function* () { for (;;) yield 1; })()) void one',
      'where it catches what interrupts it': 'for (;;) try { for (;;) {} } catch {}',
      'in a finally': 'function f() { try { for (;;) {} } finally { f(); } } f()',
      'in a regular expression': '/^(a+)+$/.test("a".repeat(40) + "b")',
      'in a nested quantifier': '/(?:(?:(?:a?){50}){50}){50}b/.test("a".repeat(1000))',
      'in a comparison of sort': '[3, 2, 1].sort(() => { for (;;) {} })',
    }))
      it(`${where}: its vault ends`, async () => {
        const worker = await lab.worker(EVAL, { ...TURN, owner: where });
        worker.call('run', code).catch(() => {});
        await ended(worker, /ran for more than 200 ms/);
      });

    it('where it catches what interrupts it, in the platform that the host loads for it: its vault ends, and no other', async () => {
      const owner = 'caught';
      const [worker, beside] = [await lab.worker(EVAL, { ...TURN, owner }), await lab.worker(SOUND, { owner })];
      const spin = 'Object.defineProperty = () => { for (;;) {} }; for (;;) try { new TextEncoder() } catch {}';
      worker.call('run', spin).catch(() => {});
      await ended(worker, /ran for more than 200 ms/);
      await well(beside);
    });

    it('in native code, which nothing interrupts: its thread ends, and its owner gets another', async () => {
      const code = `const a = 'a'.repeat(2e6); a.indexOf('a'.repeat(1e6) + 'b')`;
      assert.equal(await overruns(code), true);
      const owner = 'native';
      const [worker, beside] = [await lab.worker(EVAL, { ...TURN, owner }), await lab.worker(SOUND, { owner })];
      worker.call('run', code).catch(() => {});
      await ended(worker, /could not be interrupted/);
      // The price of one thread for an owner: what else was in it is gone too, and says why.
      assert.match((await beside.vault.exited).reason, /could not be interrupted/);
      await well(await lab.worker(SOUND, { owner }));
    });

    it('and is killed in the middle of its turn', async () => {
      const worker = await lab.worker(EVAL, { turn_ms: 10_000, owner: 'killed' });
      worker.call('run', ENDLESS).catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 50));
      await worker.vault.kill('enough');
      assert.equal((await worker.vault.exited).cause, 'killed');
    });

    it('from a wait: the call is given up by the clock, on both sides, and others go on', async () => {
      const worker = await lab.worker(`export const park = () => new Promise(() => {}); ${SOUND}`, {
        owner: 'parked',
        memory_mib: 64,
      });
      // More than a session serves at once: those before must have been let go of.
      for (let round = 0; round < 3; round++) {
        const parked = Array.from({ length: 1500 }, () => worker.session.call('park', [], { timeout_ms: 200 }));
        for (const outcome of await Promise.allSettled(parked))
          assert.equal(outcome.status === 'rejected' && outcome.reason.name, 'DeadlineExceeded');
        const serving = async () => (await worker.shell.sessions())[0]?.stats?.serving;
        for (let i = 0; i < 200 && (await serving()) !== 0; i++)
          await new Promise((resolve) => setTimeout(resolve, 50));
        assert.equal(await serving(), 0);
      }
      await well(worker);
    });

    it('by Atomics.wait: there is nothing to wait for', async () => {
      const worker = await lab.worker(EVAL);
      await assert.rejects(worker.call('run', 'Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60000)'));
      await well(worker);
    });
  });

  describe('takes what it can get', () => {
    const BOMBS = {
      heap: 'const all = []; for (;;) all.push({ a: [1, 2, 3] })',
      arrays: 'const all = []; for (;;) all.push(new Array(1e5).fill(7))',
      buffers: 'const all = []; for (;;) all.push(new ArrayBuffer(1e6))',
      'one buffer': 'new ArrayBuffer(2 ** 30).byteLength',
      'a buffer that grows':
        'const b = new ArrayBuffer(1, { maxByteLength: 2 ** 30 }); b.resize(2 ** 30); b.byteLength',
      strings: "const all = []; for (let i = 0; ; i++) all.push('x'.repeat(1e6) + i)",
      'one string': "'x'.padEnd(2 ** 29).length",
      'string that doubles': "let s = 'x'; for (;;) s += s",
      'string and join': 'new Array(1e7).join(new Array(1e3).join("x")).length',
      bigints: 'let n = 2n; for (;;) n = n * n',
      maps: 'const m = new Map(); for (let i = 0; ; i++) m.set(i, {})',
      closures: 'const all = []; for (;;) { const x = new Array(100); all.push(() => x); }',
      'typed arrays': 'const all = []; for (;;) all.push(new Float64Array(1e5))',
      promises: 'const all = []; for (;;) all.push(new Promise(() => {}))',
    };

    it('and without a limit would get far more', async () => {
      const free = await QuickJS.create({ wasm: await readFile(wasm_file) });
      const taken = free.evalCode(
        'const all = []; for (let i = 0; i < 64; i++) all.push(new ArrayBuffer(1e6)); all.length',
      );
      assert.equal(taken.toNumber(), 64);
      free.dispose();
    });

    for (const [what, code] of Object.entries(BOMBS))
      it(`of ${what}: it ends with an error, inside or with its vault`, async () => {
        const worker = await lab.worker(EVAL, { turn_ms: 2_000, memory_mib: 8, owner: `bomb of ${what}` });
        const said = worker.call('run', code).then(
          () => assert.fail('it got it all'),
          (error: Error) => error.message,
        );
        const exit = worker.vault.exited.then(({ reason }) => reason);
        // The session's end comes with the vault's. QuickJS throws null where it has no room for an error.
        const first = await Promise.race([
          exit,
          said.then((text) => (/memory|too (?:long|big|large)|length|maximum|null/i.test(text) ? text : exit)),
        ]);
        assert.match(
          first,
          /memory|too (?:long|big|large)|length|maximum|null|more than 2000 ms|could not be interrupted/i,
        );
        await well();
        await worker.vault.kill('enough');
      });

    // What is left is too little to say what happened in: its caller would wait for ever.
    const FILL = `const all = [];
      const fill = () => {
        try { for (;;) all.push(new Array(1000).fill(1.5)); } catch {}
        try { for (let i = 0; ; i++) all.push('a' + i); } catch {}
      };`;
    const KEPT = {
      'a long error': "async run() { const text = 'z'.repeat(1e5); fill(); throw new Error(text); }",
      'an error made before': "async run() { const error = new Error('z'.repeat(1e5)); fill(); throw error; }",
      'an error thrown at once': "run() { const error = new Error('z'.repeat(1e5)); fill(); throw error; }",
      functions: 'async run() { const all = [() => 1, () => 2, () => 3]; fill(); return all; }',
      'a stream': "async *run() { const text = 'z'.repeat(1e5); fill(); yield text; }",
    };
    for (const [what, run] of Object.entries(KEPT))
      it(`and keeps it, with ${what} to tell: its caller hears of it, or the vault ends as out of memory`, async () => {
        const worker = await lab.worker(`${FILL} export default class { ${run} }`, {
          memory_mib: 16,
          owner: `keeps it for ${what}`,
        });
        const heard = worker.call('run').then(async (got: unknown) => {
          for await (const _ of got as AsyncIterable<unknown>);
          return 'all of it';
        });
        const first = await Promise.race([worker.vault.exited, heard.catch((error: Error) => error.message)]);
        // QuickJS's own words where it has no room for an error's are the last of these.
        if (typeof first === 'string') assert.match(first, /memory|all of it|Invalid error message/);
        // A starved thread may not get so far within its turn.
        else if (!/ran for more than/.test(first.reason)) assert.equal(first.cause, 'out_of_memory');
        await worker.vault.kill('enough');
        await heard.catch(() => {});
        await well();
      });

    it('and gives it back: it lives', async () => {
      const source =
        'export const run = () => { const all = []; try { for (;;) all.push([1, 2, 3]); } catch {} return 1 };';
      const worker = await lab.worker(`${source} ${SOUND}`, { memory_mib: 16, owner: 'gives it back' });
      for (let i = 0; i < 3; i++) assert.equal(await worker.call('run'), 1);
      await well(worker);
    });

    /** What throws where nobody waits for it, beside timers. */
    const ASIDE = {
      'a microtask': 'const aside = (run) => queueMicrotask(run);',
      'a finalization registry':
        'const aside = (run) => { const registry = new FinalizationRegistry(run); registry.register({}, 1); kept.push(registry); };',
    };
    const SPOILT = `globalThis.Error = globalThis.console = undefined; Function.prototype.call = Map.prototype.values = () => {};
      globalThis.queueMicrotask = FinalizationRegistry.prototype.register = () => {};`;
    for (const [what, aside] of Object.entries(ASIDE)) {
      it(`in ${what} that throws: it is logged, and the vault lives`, async () => {
        const worker = await lab.worker(`const kept = []; ${aside} ${SOUND}
          export const run = (code) => { aside(() => (0, eval)(code)); };`);
        for (const code of [
          "throw new Error('astray')",
          'throw null',
          "throw new Error('out of memory')",
          'throw { get message() { throw 1; } }',
          'new ArrayBuffer(2 ** 30)',
        ])
          await worker.call('run', code);
        await well(worker);
        const logged = () => worker.effects.filter(([name]) => name === 'log').length;
        for (let i = 0; i < 500 && logged() < 5; i++) await new Promise((resolve) => setTimeout(resolve, 10));
        const lines = worker.effects
          .filter(([name]) => name === 'log')
          .map(([, , text]) => String(text).split('\n')[0]);
        assert.deepEqual(
          lines.map((line) => line!.replace('uncaught exception: ', '')),
          [
            ...['Error: astray', 'null', 'Error: out of memory', '{ message: [a getter] }'],
            'InternalError: out of memory',
          ],
        );
      });

      for (const [how, spoil] of Object.entries({ '': '', ', with a spoilt language': SPOILT }))
        it(`in ${what}${how} that fills its memory: the vault ends as out of memory`, async () => {
          const owner = `fills it in ${what}${how}`;
          const worker = await lab.worker(
            `const kept = []; ${aside} ${SOUND}
            const fill = () => { for (let i = 0; ; i++) kept.push('a' + i, new Array(1000).fill(1.5)); };
            export const run = () => { aside(fill); ${spoil} };`,
            { memory_mib: 8, turn_ms: 5_000, owner },
          );
          void worker.call('run').catch(() => {});
          const exit = await worker.vault.exited;
          if (!/ran for more than/.test(exit.reason)) assert.equal(exit.cause, 'out_of_memory', exit.reason);
          await well();
        });
    }

    it('of timers: at most so many, and the vault lives', async () => {
      const worker = await lab.worker(EVAL);
      await assert.rejects(
        worker.call('run', 'for (let i = 0; i < 20000; i++) setTimeout(() => {}, 1e6)'),
        /at most 10000 timers/,
      );
      await well(worker);
      // Whoever takes that bound away is held by another.
      const other = await lab.worker(EVAL, { owner: 'timers' });
      const unbound = "Object.defineProperty(Map.prototype, 'size', { get: () => 0 });";
      other.call('run', `${unbound} for (let i = 0; i < 20000; i++) setTimeout(() => {}, 1e6)`).catch(() => {});
      await ended(other, /too many timers/);
    });

    it('of its log and its callers: a flood ends the vault or is cut, and the agent hears no more than it can hold', async () => {
      const logs = await lab.worker(EVAL, { ...TURN, owner: 'logs', memory_mib: 32 });
      logs.call('run', "const line = 'x'.repeat(100000); for (;;) console.log(line)").catch(() => {});
      await ended(logs, /flooded|ran for more than|memory|could not be interrupted/);
      const heard = logs.effects.reduce((sum, effect) => sum + JSON.stringify(effect).length, 0);
      assert.ok(heard < 64 * 1024 * 1024, `${heard} characters`);
      const large = await lab.worker(EVAL, { owner: 'large', memory_mib: 64 });
      await assert.rejects(large.call('run', "'x'.repeat(9 * 1024 * 1024)"), /TooLarge|too large|at most|bytes/i);
      await well(large);
    });
  });

  describe('goes ever deeper', () => {
    // Kept from crossing QuickJS's own stack these would exhaust the thread's, and the host would throw in their place.
    const DEEP = {
      calls: '(function f() { return f() + 1 })()',
      'calls with more and more arguments': '(function f(...a) { return f(...a, 1) })()',
      getters: 'const o = { get x() { return o.x } }; o.x',
      toString: "const o = { toString() { return '' + o } }; '' + o",
      toPrimitive: 'const o = { [Symbol.toPrimitive]() { return +o } }; +o',
      'a chain of proxies': 'let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); p.x',
      'a proxy of itself':
        'let p = new Proxy({}, { getPrototypeOf() { return Object.getPrototypeOf(p) } }); Object.getPrototypeOf(p)',
      'JSON.parse': "JSON.parse('['.repeat(1e5))",
      'JSON.stringify': 'let a = []; for (let i = 0; i < 3e4; i++) a = [a]; JSON.stringify(a)',
      'a reviver': "function r() { JSON.parse('[1]', r) } r()",
      'a regular expression': "new RegExp('(?='.repeat(5000) + 'a' + ')'.repeat(5000)).test('a')",
      alternatives: "new RegExp('(?:a|'.repeat(5000) + 'b' + ')'.repeat(5000)).test('c')",
      'a nest of source': "eval('['.repeat(50000) + ']'.repeat(50000))",
      'a nest of templates': "eval('`$' + '{`$'.repeat(20000) + '{1' + '}`'.repeat(20001))",
      'a nest of functions': "eval('()=>'.repeat(20000) + '1')",
      flat: 'let a = []; for (let i = 0; i < 3e4; i++) a = [a]; a.flat(Infinity)',
      'sort in sort': 'function r() { [2, 1].sort(r); return 0 } r()',
      'replace in replace': "function r() { 'a'.replace(/a/, r); return '' } r()",
      constructors: 'class A { constructor() { Reflect.construct(A, []) } } new A()',
      generators: 'function* g() { yield* g() } g().next()',
      'an iterator': 'const o = { [Symbol.iterator]: () => [...o] }; [...o]',
      'bound functions': 'let f = () => 1; for (let i = 0; i < 3e4; i++) f = f.bind(null); f()',
      'a result': 'let a = []; for (let i = 0; i < 2e4; i++) a = [a]; a',
      'a cloned value': 'let a = []; for (let i = 0; i < 2e4; i++) a = [a]; structuredClone(a)',
    };
    for (const [what, code] of Object.entries(DEEP))
      it(`in ${what}: an error inside, or the end of the vault`, async () => {
        const worker = await lab.worker(EVAL, { turn_ms: 2_000, memory_mib: 32, owner: `deep in ${what}` });
        const outcome = await worker.call('run', code).then(
          () => 'it came through',
          (error: Error) => error,
        );
        if (typeof outcome !== 'string') assert.ok(outcome.message !== '');
        await well();
        const exit = await Promise.race([
          worker.vault.exited,
          worker.call('add', 1, 2).catch(() => worker.vault.exited),
        ]);
        if (exit !== 3) assert.equal((exit as { cause: string }).cause, 'misbehaved');
        await worker.vault.kill('enough');
      });
  });

  describe('asks for what it was not granted', () => {
    const TELL = `
      export const tell = (name) => { try { return [name, String(ASK[name]())] } catch (e) { return [e.name, e.fields?.grant ?? e.message] } };
      const ASK = {
        now: () => Date.now(), date: () => new Date(), call: () => Date(), other: () => new (new Date(0).constructor)(),
        reflect: () => Reflect.construct(Object.getPrototypeOf(new Date(5)).constructor, []), performance: () => performance.now(),
        random: () => Math.random(), uuid: () => crypto.randomUUID(), values: () => crypto.getRandomValues(new Uint8Array(4)),
        given: () => new Date(86400000).toISOString(), parsed: () => Date.parse('1970-01-02T00:00:00Z'), utc: () => Date.UTC(1970, 0, 2), kind: () => new Date(1) instanceof Date && class extends Date {}.name === '',
      };`;
    it('the time and entropy: it is told which grant it wants, and a given date stays a date', async () => {
      const worker = await lab.worker(TELL);
      for (const name of ['now', 'date', 'call', 'other', 'reflect', 'performance'])
        assert.deepEqual(await worker.call('tell', name), ['GrantMissing', 'time'], name);
      for (const name of ['random', 'uuid', 'values'])
        assert.deepEqual(await worker.call('tell', name), ['GrantMissing', 'random'], name);
      assert.deepEqual(await worker.call('tell', 'given'), ['given', '1970-01-02T00:00:00.000Z']);
      assert.deepEqual(await worker.call('tell', 'parsed'), ['parsed', '86400000']);
      assert.deepEqual(await worker.call('tell', 'utc'), ['utc', '86400000']);
      assert.equal((await worker.call('tell', 'kind'))[0], 'kind');
    });

    it('and with the grants has them, each vault its own', async () => {
      const grants = { ...NO_GRANTS, time: true, random: true };
      const [one, other] = await Promise.all([lab.worker(TELL, {}, { grants }), lab.worker(TELL, {}, { grants })]);
      const [, now] = await one.call('tell', 'now');
      assert.ok(Math.abs(Number(now) - Date.now()) < 60_000);
      for (const name of ['date', 'performance']) assert.equal((await one.call('tell', name))[0], name);
      for (const name of ['random', 'uuid', 'values']) {
        const drawn = await Promise.all([one, one, other].map(async (worker) => (await worker.call('tell', name))[1]));
        assert.equal(new Set(drawn).size, 3, `${name}: ${drawn}`);
      }
      assert.match(
        (await one.call('tell', 'uuid'))[1],
        /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
      );
    });

    it('and finds no clock of the host behind the one that was taken', async () => {
      // Whatever a worker digs up of its engine, the engine itself only knows how long it has been there.
      const worker = await lab.worker(`
        const dates = [];
        const push = Array.prototype.push;
        export const dig = () => {
          const seen = [];
          for (const name of ['valueOf', 'getTime'])
            Object.defineProperty(Number.prototype, name, { value() { seen.push(+this); return +this; }, configurable: true });
          return [...seen, hauki.call?.deadline ?? 0];
        };`);
      for (const value of await worker.call('dig')) assert.ok(value < 1e12, `${value} looks like the time of day`);
    });
  });

  describe('shares its thread', () => {
    it('and waits while it is paused; nothing that came is lost', async () => {
      const worker = await lab.worker(`let n = 0; export const next = () => ++n; ${SOUND}`);
      await worker.vault.pause!();
      const calls = Array.from({ length: 5 }, () => worker.call('next'));
      const early = await Promise.race([calls[0], new Promise((resolve) => setTimeout(resolve, 100, 'waits'))]);
      assert.equal(early, 'waits');
      await worker.vault.resume!();
      assert.deepEqual(await Promise.all(calls), [1, 2, 3, 4, 5]);
    });

    it('and holds its callers up, paused, before more waits than may', async () => {
      const worker = await lab.worker('export const sizeOf = (text) => text.length', {
        owner: 'patient',
        memory_mib: 64,
      });
      await worker.vault.pause!();
      const text = 'x'.repeat(1024 * 1024);
      const calls = Array.from({ length: 20 }, () => worker.call('sizeOf', text));
      // Beyond what waits in the vault it lies with who sends it, so that this comes after all of it has gone as far as it may.
      await worker.vault.usage!();
      await worker.vault.resume!();
      assert.deepEqual(await Promise.all(calls), Array(20).fill(text.length));
    });

    it('and holds up who streams to it, or calls, faster than its share lets it answer', async () => {
      const worker = await lab.worker(
        `export const sum = async (items) => { let s = 0; for await (const n of items) s += n; return s; };
         export const next = (n) => n + 1;`,
        { owner: 'streamed', memory_mib: 64, cpu: 0.5 },
      );
      const ones = async function* () {
        for (let i = 0; i < 10_000; i++) yield 1;
      };
      const sums = Array.from({ length: 4 }, () => worker.call('sum', ones()));
      assert.deepEqual(await Promise.all(sums), Array(4).fill(10_000));
      const calls = Array.from({ length: 4_000 }, (_, n) => worker.call('next', n));
      assert.equal((await Promise.all(calls)).at(-1), 4_000);
    });

    it('and is ended when more comes for it, paused, of what cannot be held up than it may keep waiting', async () => {
      const worker = await lab.worker(SOUND, { owner: 'flooded' });
      await worker.vault.pause!();
      const text = 'x'.repeat(4 * 1024 * 1024);
      for (let i = 0; i < 12; i++) {
        worker.shell.call('add', [text]).catch(() => {});
        await worker.vault.usage!().catch(() => {});
      }
      await ended(worker, /more came for it than it takes/);
    });

    it('and counts what waits before it: first its callers are held up, then it is too much', () => {
      const waiting = new Waiting();
      for (let i = 0; i < HOLD_UP.entries; i++) assert.ok(waiting.add('fire', [1]));
      assert.ok(!waiting.are_many);
      assert.ok(waiting.add('deliver', [1, 'x'.repeat(HOLD_UP.bytes)]));
      assert.ok(waiting.are_many);
      assert.ok(!waiting.add('deliver', [1, 'x'.repeat(WAITING.bytes)]));
      while (waiting.next());
      assert.ok(!waiting.are_many && waiting.add('fire', [1]));
    });

    it('and tells what it has used', async () => {
      const worker = await lab.worker(
        `${SOUND} export const work = () => { let n = 0; for (let i = 0; i < 3e6; i++) n += i; return n; }`,
      );
      const first = await worker.vault.usage!();
      await worker.call('work');
      const later = await worker.vault.usage!();
      assert.ok(later.cpu_ms > first.cpu_ms, `${JSON.stringify([first, later])}`);
      assert.ok(later.memory_bytes > 100_000 && later.memory_bytes < 16 * 1024 * 1024, `${later.memory_bytes}`);
      await worker.vault.kill('enough');
      await assert.rejects(worker.vault.usage!());
    });

    it('also of the turn that was its last', async () => {
      const worker = await lab.worker(EVAL, { ...TURN, owner: 'its last turn' });
      const { cpu_ms } = await worker.vault.usage!();
      worker.call('run', 'for (;;);').catch(() => {});
      const exit = await worker.vault.exited;
      assert.match(exit.reason, /ran for more than/);
      // 200 ms of it, or what it got of the machine in eight times as long.
      assert.ok(exit.usage!.cpu_ms > cpu_ms + 10, JSON.stringify([cpu_ms, exit.usage]));
    });

    it('with other vaults of its owner, which go on between its turns', async () => {
      const owner = 'sharing';
      const busy = await lab.worker('export const spin = () => { for (let i = 0; i < 2e5; i++); return 1; };', {
        owner,
        cpu: 0.5,
      });
      const other = await lab.worker(SOUND, { owner });
      const spins = Promise.all(Array.from({ length: 40 }, () => busy.call('spin')));
      const done: string[] = [];
      void spins.then(() => done.push('spins'));
      await other.call('add', 1, 2).then(() => done.push('add'));
      await spins;
      assert.equal(done[0], 'add');
    });
  });

  it('loads the platform only when it touches it', async () => {
    const worker = await lab.worker(`
      export const read = async () => [new URL('../b?c', 'http://a.example/x/y').href, new TextDecoder().decode(new TextEncoder().encode('ä€😀')),
        structuredClone({ a: [1n] }).a[0] === 1n, await new Response('body', { headers: { a: 'b' } }).text(), new Request('http://a.example/', { method: 'POST', body: 'x' }).method, typeof __platform];
      export const serve = async () => { const app = { fetch: async (r) => Response.json({ path: new URL(r.url).pathname, said: await r.text() }) };
        const r = await app.fetch(new Request('http://a.example/p', { method: 'PUT', body: 'hello' })); return [r.status, await r.json()]; };`);
    assert.deepEqual(await worker.call('read'), ['http://a.example/b?c', 'ä€😀', true, 'body', 'POST', 'undefined']);
    assert.deepEqual(await worker.call('serve'), [200, { path: '/p', said: 'hello' }]);
  });
});
