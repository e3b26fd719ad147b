/** The share of a core that a quickjs vault has, and the VMs that are prepared for the next one: with a clock of the test's own. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { QuickJS } from 'quickjs-wasi';
import { fromImage, makeImages } from '../src/drivers/quickjs/image.ts';
import { lean, withMemory } from '../src/drivers/quickjs/lean.ts';
import { DEMAND_MS, LEAST_SHARE, LONGEST_WAIT_MS, SHARE_WINDOW_MS, SPARES } from '../src/drivers/quickjs/limits.ts';
import { Memories } from '../src/drivers/quickjs/memories.ts';
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
        const meter = new Meter(share, () => now);
        for (const [took, idle] of list) {
          // Whoever may go on does so at once, or after a while; whoever must wait, waits.
          now += meter.wait_ms() + idle;
          now += took;
          computed += took;
          meter.spend(took);
          const wait = meter.wait_ms();
          assert.ok(wait >= 0 && wait <= LONGEST_WAIT_MS + 1e-6);
          // A wait that was cut short is the one thing that gives a vault more.
          if (wait < LONGEST_WAIT_MS - 1e-6)
            assert.ok(computed <= share * (now + wait + SHARE_WINDOW_MS) + 1e-3, `${computed} in ${now + wait} ms`);
          else break;
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
  it('is the same module without the exports that we do not use, and takes its memory from outside', async () => {
    const whole = await readFile(wasm_file);
    const [full, less] = [new WebAssembly.Module(whole), new WebAssembly.Module(lean(whole))];
    const names = (module: WebAssembly.Module) => WebAssembly.Module.exports(module).map(({ name }) => name);
    assert.ok(names(full).length > 400 && names(less).length < 130, `${names(full).length}, ${names(less).length}`);
    assert.deepEqual(
      names(full).filter((name) => name.startsWith('qjs_')),
      names(less).filter((name) => name.startsWith('qjs_')),
    );
    const imports = WebAssembly.Module.imports(less);
    assert.deepEqual(imports.pop(), { module: 'wasi_snapshot_preview1', name: 'memory', kind: 'memory' });
    assert.deepEqual(imports, WebAssembly.Module.imports(full));
    const memory = new WebAssembly.Memory({ initial: 18 });
    const vm = await QuickJS.create({ wasm: less, wasi: () => withMemory(memory) });
    assert.equal(vm.evalCode('[1, 2, 3].map((n) => n * 2).join()').toString(), '2,4,6');
    assert.equal(vm._getMemory(), memory);
  });
});

describe('memories that serve again', () => {
  it('are to a VM as new ones, byte for byte, whatever ran there before', async () => {
    const wasm = await WebAssembly.compile(lean(await readFile(wasm_file)));
    const { bare } = await makeImages(wasm, await buildVmScripts());
    const options = {
      wasm,
      interruptHandler: () => false,
      onUnhandledRejection: () => {},
      moduleLoader: { load: () => '' },
    };
    const memories = new Memories();
    const vm = await fromImage(bare, options);
    const { buffer } = vm._getMemory();
    const born = new Uint8Array(buffer).slice();
    vm.evalCode("globalThis.told = 'a secret'.repeat(1_000); [told, told + told].map((text) => text.length).join()");
    memories.give(vm._getMemory(), born.length);
    const memory = memories.take(born.length);
    assert.equal(memory?.buffer, buffer, 'it has not grown');
    const next = await fromImage(bare, options, memory);
    assert.equal(Buffer.compare(new Uint8Array(next._getMemory().buffer), born), 0);
    assert.equal(next.evalCode('typeof told').toString(), 'undefined');
  });

  const PAGE_BYTES = 65_536;
  const used = () => {
    const memory = new WebAssembly.Memory({ initial: 2 });
    new Uint8Array(memory.buffer).fill(7, 5_000, 2 * PAGE_BYTES - 3);
    return memory;
  };

  it('hold nothing of those before', () => {
    const memories = new Memories();
    const memory = used();
    memories.give(memory, 2 * PAGE_BYTES);
    assert.equal(memories.take(PAGE_BYTES), undefined);
    assert.equal(memories.take(2 * PAGE_BYTES), memory);
    assert.ok(new Uint8Array(memory.buffer).every((byte) => byte === 0));
    assert.equal(memories.take(2 * PAGE_BYTES), undefined);
  });

  it('are those that did not grow, and few', () => {
    const memories = new Memories();
    const grown = used();
    grown.grow(1);
    memories.give(grown, 2 * PAGE_BYTES);
    assert.equal(memories.take(3 * PAGE_BYTES), undefined);
    for (let i = 0; i < SPARES + 3; i++) memories.give(used(), 2 * PAGE_BYTES);
    let kept = 0;
    while (memories.take(2 * PAGE_BYTES)) kept++;
    assert.equal(kept, SPARES);
  });
});
