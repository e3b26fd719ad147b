/** The share of a core that a quickjs vault has, the VMs that are prepared for the next one, and the engines that serve again. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { QuickJS } from 'quickjs-wasi';
import { Engine, Engines, type VmPowers } from '../src/drivers/quickjs/engines.ts';
import { makeImages } from '../src/drivers/quickjs/image.ts';
import { lean, sectionsOf } from '../src/drivers/quickjs/lean.ts';
import {
  DEMAND_MS,
  LEAST_SHARE,
  LONGEST_WAIT_MS,
  SHARE_WINDOW_MS,
  SPARES,
  STACK_BYTES,
} from '../src/drivers/quickjs/limits.ts';
import { Meter } from '../src/drivers/quickjs/meter.ts';
import { Spares } from '../src/drivers/quickjs/spares.ts';
import { buildVmScripts } from '../src/guest/bundle.ts';

const wasm_file = fileURLToPath(import.meta.resolve('quickjs-wasi/quickjs.wasm'));
const shares = fc.double({ min: LEAST_SHARE, max: 1, noNaN: true });
const turns = fc.array(fc.tuple(fc.double({ min: 0, max: 5_000, noNaN: true }), fc.nat(3_000)), { maxLength: 50 });

describe('a vault’s share of a core', () => {
  it('of all of one never makes it wait', () => {
    let now = 0;
    const meter = new Meter(1, () => now);
    for (let i = 0; i < 100; i++) {
      now += 500;
      meter.spend(500);
      assert.equal(meter.wait_ms(), 0);
    }
    assert.equal(meter.spent_ms, 50_000);
  });

  it('is kept over any stretch that is longer than its window', () => {
    fc.assert(
      fc.property(shares, turns, (share, list) => {
        let now = 0;
        let computed = 0;
        const begins: [at: number, computed: number][] = [];
        const meter = new Meter(share, () => now);
        for (const [took, idle] of list) {
          // Whoever may go on does so at once, or after a while; whoever must wait, waits.
          now += meter.wait_ms() + idle;
          begins.push([now, computed]);
          now += took;
          computed += took;
          meter.spend(took);
          const wait = meter.wait_ms();
          assert.ok(wait >= 0 && wait <= LONGEST_WAIT_MS + 1e-6);
          // A wait that was cut short is the one thing that gives a vault more.
          if (wait >= LONGEST_WAIT_MS - 1e-6) break;
          for (const [at, before] of begins) {
            const stretch = now + wait - at;
            const there = computed - before;
            assert.ok(there <= share * (stretch + SHARE_WINDOW_MS) + 1e-3, `${there} in ${stretch} ms`);
          }
        }
      }),
    );
  });

  it('is never less than what its heartbeats need, nor more than a core', () => {
    assert.equal(new Meter(0, () => 0).share, LEAST_SHARE);
    assert.equal(new Meter(64, () => 0).share, 1);
  });
});

describe('prepared VMs', () => {
  it('are as many as were taken of late, one at least, and bounded', () => {
    let now = 0;
    const spares = new Spares({ make: async () => ({}), now: () => now, least: 1, most: SPARES });
    assert.equal(spares.wanted, 1);
    for (let i = 1; i <= 3; i++) void spares.take();
    assert.equal(spares.wanted, 3);
    for (let i = 0; i < 50; i++) void spares.take();
    assert.equal(spares.wanted, SPARES);
    now += DEMAND_MS + 1;
    assert.equal(spares.wanted, 1);
  });

  it('that nobody asks for any more are let go of', async () => {
    let now = 0;
    const gone: number[] = [];
    let made = 0;
    const spares = new Spares({
      make: async () => ++made,
      now: () => now,
      least: 0,
      most: 2,
      discard: (n) => gone.push(n),
    });
    void spares.take();
    for (let i = 0; i < 1500 && spares.ready < 1; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    spares.trim();
    assert.equal(spares.ready, 1);
    now += DEMAND_MS + 1;
    spares.trim();
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([spares.ready, gone], [0, [2]]);
  });

  it('that have failed before they were used are handed to nobody, and all go when none are wanted any more', async () => {
    const [made, gone]: [object[], object[]] = [[], []];
    const make = async () => made[made.push({}) - 1]!;
    const spares = new Spares({ make, now: () => 0, least: 3, most: SPARES, discard: (spare) => gone.push(spare) });
    const ready = async (count: number) => {
      for (let i = 0; i < 1500 && spares.ready < count; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    };
    spares.fill(0);
    await ready(3);
    await spares.lost(made[0]!);
    assert.equal(spares.ready, 2);
    assert.equal(await spares.take(), made[1]);
    await ready(3);
    spares.close();
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([spares.ready, gone], [0, made.slice(2)]);
  });

  it('are handed out once, and one that could not be made is not kept', async () => {
    let made = 0;
    const make = async () => {
      if (++made === 2) throw new Error('no');
      return { number: made };
    };
    const spares = new Spares({ make, now: () => 0, least: 1, most: SPARES });
    const first = await spares.take();
    for (let i = 0; i < 1500 && made < 2; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(spares.ready, 0);
    assert.notEqual(await spares.take(), first);
  });
});

describe('the leaner WebAssembly', () => {
  it('is the same module without the exports that we do not use', async () => {
    const whole = await readFile(wasm_file);
    const [full, less] = [new WebAssembly.Module(whole), new WebAssembly.Module(lean(whole))];
    const names = (module: WebAssembly.Module) => WebAssembly.Module.exports(module).map(({ name }) => name);
    assert.ok(names(full).length > 400 && names(less).length < 130, `${names(full).length}, ${names(less).length}`);
    assert.deepEqual(
      names(full).filter((name) => name.startsWith('qjs_')),
      names(less).filter((name) => name.startsWith('qjs_')),
    );
    assert.deepEqual(WebAssembly.Module.imports(less), WebAssembly.Module.imports(full));
    const vm = await QuickJS.create({ wasm: less });
    assert.equal(vm.evalCode('[1, 2, 3].map((n) => n * 2).join()').toString(), '2,4,6');
  });
});

describe('engines that serve again', () => {
  it('have one global alone, and run nothing as they are made', async () => {
    const module = lean(await readFile(wasm_file));
    const sections = new Map([...sectionsOf(module)].map(({ id, body }) => [id, body]));
    const [globals, start] = [6, 8];
    assert.deepEqual([sections.get(globals)![0], sections.has(start)], [1, false]);
    const exported = WebAssembly.Module.exports(new WebAssembly.Module(module));
    const others = exported.filter(({ kind }) => kind !== 'function').map(({ name, kind }) => [name, kind]);
    assert.deepEqual(others.sort(), [
      ['__stack_pointer', 'global'],
      ['memory', 'memory'],
    ]);
  });

  const image = readFile(wasm_file).then(async (bytes) => {
    const wasm = await WebAssembly.compile(lean(bytes));
    return { wasm, ...(await makeImages(wasm, await buildVmScripts())) };
  });
  const powers = (): VmPowers => ({
    maxStackSize: STACK_BYTES,
    timezoneOffset: 0,
    interruptHandler: () => false,
    onUnhandledRejection: () => {},
    moduleLoader: { load: () => '' },
    clock_ns: () => 1_000_000n,
  });
  const bytesOf = (vm: QuickJS) => new Uint8Array(vm._getMemory().buffer).slice();

  it('are to a VM as new ones, byte for byte, whatever ran there before, also from another image', async () => {
    const { wasm, bare, web } = await image;
    assert.equal(bare.memory_bytes, web.memory_bytes);
    const size = bare.memory_bytes;
    const engines = new Engines(wasm, size);
    for (const [first, second] of [
      [bare, bare],
      [web, web],
      [bare, web],
      [web, bare],
    ] as const) {
      const born = bytesOf((await Engine.create(wasm, size)).begin(second, powers()));
      const engine = await engines.take();
      const vm = engine.begin(first, powers());
      const globals = (of: QuickJS) => of.evalCode('Object.keys(globalThis).join()').toString();
      const at_first = globals(vm);
      vm.registerHostCallback('told', () => vm.newString('of the one before'));
      vm.evalCode("globalThis.told = 'a secret'.repeat(1_000); [told, told + told].map((text) => text.length).join()");
      assert.notEqual(globals(vm), at_first);
      engines.give(engine);
      assert.equal(await engines.take(), engine, 'it has not grown');
      const next = engine.begin(second, powers());
      assert.equal(Buffer.compare(bytesOf(next), born), 0);
      assert.equal(next.evalCode('typeof told').toString(), 'undefined');
      const called = next.newFunction('other', () => next.undefined);
      assert.equal(next.callFunction(called, next.undefined).isUndefined, true);
      engines.give(engine);
    }
  });

  it('begin without what was freed as the image was made: the heap’s free blocks are zeros', async () => {
    const { wasm, bare, web } = await image;
    for (const from of [bare, web]) {
      const vm = (await Engine.create(wasm, from.memory_bytes)).begin(from, powers());
      const { malloc } = vm._getExports() as unknown as { malloc(bytes: number): number };
      const page = 4096;
      let free_bytes = 0;
      for (const bytes of [32, 16, 8, 4, 3].map((pages) => pages * page))
        for (let at = malloc(bytes); at + bytes <= from.memory_bytes; at = malloc(bytes)) {
          const whole = new Uint8Array(vm._getMemory().buffer, Math.ceil((at + 64) / page) * page, bytes - 2 * page);
          assert.ok(
            whole.every((byte) => byte === 0),
            `${bytes} at ${at}`,
          );
          free_bytes += whole.length;
        }
      assert.ok(free_bytes > 0, 'there are some');
    }
  });

  it('have the powers of the VM that they serve, not of one before', async () => {
    const { wasm, bare } = await image;
    const engine = await Engine.create(wasm, bare.memory_bytes);
    const heard: string[] = [];
    for (const who of ['first', 'second']) {
      const vm = engine.begin(bare, { ...powers(), onUnhandledRejection: () => void heard.push(who) });
      vm.evalCode('Promise.reject(1); 0').dispose();
      vm.executePendingJobs();
      engine.clear();
    }
    assert.deepEqual(heard, ['first', 'second']);
    let stopped = false;
    const vm = engine.begin(bare, { ...powers(), interruptHandler: () => (stopped = true) });
    assert.throws(() => vm.evalCode('for (;;) {}'));
    assert.equal(stopped, true);
    engine.clear();
    assert.equal(
      engine.begin(bare, powers()).evalCode('let n = 0; for (let i = 0; i < 1e5; i++) n++; n').toNumber(),
      1e5,
    );
  });

  it('are those that did not grow, and few', async () => {
    const { wasm, bare } = await image;
    const engines = new Engines(wasm, bare.memory_bytes);
    const grown = await engines.take();
    grown.begin(bare, powers()).evalCode("globalThis.more = 'x'.repeat(4_000_000) + 1; more.length");
    assert.equal(grown.hasGrown, true);
    engines.give(grown);
    assert.notEqual(await engines.take(), grown);
    const used = await Promise.all(Array.from({ length: SPARES + 3 }, () => engines.take()));
    for (const one of used) engines.give(one);
    const again = await Promise.all(used.map(() => engines.take()));
    assert.equal(again.filter((one) => used.includes(one)).length, SPARES);
  });
});
