/** What values are taken to weigh, and work that comes in turn. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { roomInTurn, weightOf } from '../src/effects/weight.ts';

describe('the weight of a value', () => {
  const MOST = 1_000_000;
  it('grows with its texts, its bytes and what it consists of', () => {
    for (const large of [
      'x'.repeat(50_000),
      { deep: ['x'.repeat(50_000)] },
      new Uint8Array(50_000),
      new ArrayBuffer(50_000),
      Array.from({ length: 2_000 }, () => []),
      new Map(Array.from({ length: 2_000 }, (_, i) => [i, []])),
      new Set(Array.from({ length: 2_000 }, () => ({}))),
      Object.assign(new Error('no', { cause: 'x'.repeat(50_000) })),
    ]) {
      const weight = weightOf([large], MOST);
      assert.ok(weight > 50_000 && weight < 300_000, `${weight}`);
    }
    for (const small of [1, null, undefined, true, 'text', [], {}, new Date(), () => 1]) {
      const weight = weightOf(small, MOST);
      assert.ok(weight > 0 && weight < 100, `${weight}`);
    }
  });

  it('counts what contains itself or stands in many places once, and looks at it once', () => {
    const circle: unknown[] = [];
    for (let i = 0; i < 100; i++) circle.push(circle);
    const map = new Map<unknown, unknown>();
    for (let i = 0; i < 100; i++) map.set(i, map);
    let shared: unknown[] = ['x'.repeat(50_000)];
    for (let level = 0; level < 100; level++) shared = [shared, shared];
    for (const value of [circle, map]) assert.ok(weightOf(value, MOST) < 2_000, `${weightOf(value, MOST)}`);
    const weight = weightOf(shared, MOST);
    assert.ok(weight > 50_000 && weight < 60_000, `${weight}`);
    let looks = 0;
    const looked = Object.defineProperty({}, 'member', { enumerable: true, get: () => ++looks });
    weightOf(
      Array.from({ length: 1_000 }, () => [looked, looked]),
      MOST,
    );
    assert.equal(looks, 1);
  });

  it('is its bound where it is more, and no more is looked at then', () => {
    let looks = 0;
    const looked = () => Object.defineProperty({}, 'member', { enumerable: true, get: () => ++looks });
    const many = Array.from({ length: 100_000 }, looked);
    for (const value of [new Array(1e9), many, ['x'.repeat(MOST), looked()]]) assert.equal(weightOf(value, MOST), MOST);
    assert.equal(looks, 0);
  });
});

describe('work in turn', () => {
  it('begins in its order, as long as there is room; one alone may be larger', async () => {
    const inTurn = roomInTurn(10);
    const begun: string[] = [];
    const ends = new Map<string, () => void>();
    const work = (name: string, bytes: number) =>
      inTurn(bytes, () => {
        begun.push(name);
        return new Promise<void>((resolve) => ends.set(name, resolve));
      });
    const end = async (name: string) => {
      ends.get(name)!();
      await new Promise((resolve) => setImmediate(resolve));
    };
    const all = [work('a', 6), work('b', 4), work('c', 50), work('d', 1)];
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(begun, ['a', 'b']);
    await end('a');
    assert.deepEqual(begun, ['a', 'b'], 'what comes later does not overtake');
    await end('b');
    assert.deepEqual(begun, ['a', 'b', 'c']);
    await end('c');
    assert.deepEqual(begun, ['a', 'b', 'c', 'd']);
    await end('d');
    await Promise.all(all);
    await assert.rejects(
      inTurn(10, () => Promise.reject(new Error('no'))),
      /no/,
    );
    await inTurn(10, async () => {});
  });
});
