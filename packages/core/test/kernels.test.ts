/** Which kernel of the mesh a request goes to. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Kernels, type RegisteredKernel } from '../src/kernels/kernels.ts';
import { KERNELS_LIMITS } from '../src/kernels/limits.ts';

describe('the kernels for a request', () => {
  it('are tried last when they have been silent for a while, also those that a key has chosen', () => {
    let now = 0;
    const kernels = new Kernels(
      () => {},
      () => now,
    );
    const modules = [{ module: 'm', version: 1, digest: '', serving: true }];
    const [a, b, c] = ['a', 'b', 'c'].map((kernel) => {
      const one = { info: { kernel, url: '' }, modules, session: { close() {} }, heard_at: now };
      kernels.register(one as unknown as RegisteredKernel);
      return one as unknown as RegisteredKernel;
    });
    const first = (key?: string) => kernels.order('m', key)[0]!.info.kernel;
    const firsts = (key?: string) => [first(key), first(key), first(key), first(key)];
    assert.deepEqual(firsts(), ['a', 'b', 'c', 'a']);
    const keys = Array.from({ length: 32 }, (_, i) => `key ${i}`);
    const key = keys.find((one) => first(one) === 'b')!;
    assert.deepEqual(firsts(key), ['b', 'b', 'b', 'b']);
    now += KERNELS_LIMITS.silent_ms + 1;
    for (const one of [a!, c!]) kernels.report(one, modules, null);
    assert.ok(!firsts().includes('b'));
    assert.ok(!firsts(key).includes('b'));
    assert.equal(kernels.order('m', undefined).at(-1), b);
    assert.equal(kernels.order('m', key).length, 3);
    kernels.report(b!, modules, null);
    assert.deepEqual(firsts(key), ['b', 'b', 'b', 'b']);
    // Where all are silent it may be the core that was kept from hearing them.
    now += KERNELS_LIMITS.silent_ms + 1;
    assert.equal(new Set(firsts()).size, 3);
  });
});
