/** What one module may have of the link to the core. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, Overloaded } from '@hauki/protocol';
import { shared } from '../src/core-link.ts';
import { KERNEL_LIMITS } from '../src/limits.ts';

describe('the streams of one module on the link to the core', () => {
  const { link_streams } = KERNEL_LIMITS;
  let left = 0;
  const stream = (fails = false) => ({
    items: 1,
    async next() {
      if (fails) throw new Error('it broke');
      return this.items-- > 0
        ? { done: false as const, value: new Uint8Array(1) }
        : { done: true as const, value: undefined };
    },
    async return() {
      left++;
      return { done: true as const, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  });

  it('leave some to other modules, and one that is one too many is left', () => {
    const streams = new Map<string, number>();
    for (let i = 0; i < link_streams; i++) shared(streams, 'greedy', stream());
    assert.throws(
      () => shared(streams, 'greedy', stream()),
      (error) => isError(error, Overloaded),
    );
    assert.equal(left, 1);
    shared(streams, 'other', stream());
  });

  it('count until they end, fail or are left, and once', async () => {
    const streams = new Map<string, number>();
    const ended = shared(streams, 'm', stream());
    const failed = shared(streams, 'm', stream(true));
    const gone = shared(streams, 'm', stream());
    for await (const chunk of ended) assert.equal(chunk.length, 1);
    await ended.return!();
    assert.equal(streams.get('m'), 2);
    await assert.rejects(failed.next(), /it broke/);
    await failed.return!();
    assert.equal(streams.get('m'), 1);
    await gone.return!();
    assert.equal(streams.get('m'), 0);
  });
});
