/** What one module may have of the link to the core, and what becomes of its streams. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConnectionLost, isError, LIMITS, Overloaded } from '@hauki/protocol';
import { KERNEL_LIMITS } from '../src/limits.ts';
import { LinkStreams } from '../src/link-streams.ts';

const turn = () => new Promise((resolve) => setImmediate(resolve));
const isOverloaded = (error: unknown) => isError(error, Overloaded);

describe('the streams of a link to the core', () => {
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

  it('are not all of one module, and one that is one too many is left', () => {
    const streams = new LinkStreams();
    left = 0;
    for (let i = 0; i < link_streams; i++) streams.take('greedy', stream());
    assert.throws(() => streams.take('greedy', stream()), isOverloaded);
    assert.equal(left, 1);
    streams.take('other', stream());
  });

  it('leave a module no more bodies for the WebSockets that it had', async () => {
    const streams = new LinkStreams();
    for (let i = 0; i < link_streams; i++) streams.take('greedy', stream());
    await streams.take('greedy', stream(), true).return!();
    await turn();
    assert.throws(() => streams.take('greedy', stream()), isOverloaded);
  });

  it('are no more than the link has, of all modules and WebSockets together: one more is left, not forgotten', async () => {
    const streams = new LinkStreams();
    left = 0;
    const taken = Array.from({ length: LIMITS.streams }, (_, i) => streams.take(`m${i % 3}`, stream(), i % 4 === 0));
    for (const is_socket of [true, false])
      assert.throws(() => streams.take('other', stream(), is_socket), isOverloaded);
    assert.equal(left, 2);
    await taken[0]!.return!();
    await turn();
    streams.take('other', stream());
  });

  it('count until they end, fail or are left, and once', async () => {
    const streams = new LinkStreams();
    const ended = streams.take('m', stream());
    const failed = streams.take('m', stream(true));
    const gone = streams.take('m', stream());
    for await (const chunk of ended) assert.equal(chunk.length, 1);
    await ended.return!();
    await turn();
    assert.equal(streams.size, 2);
    await assert.rejects(failed.next(), /it broke/);
    await failed.return!();
    await turn();
    assert.equal(streams.size, 1);
    await gone.return!();
    await turn();
    assert.equal(streams.size, 0);
  });

  it('are left when the link is gone, also those of answers that the core has not heard of', async () => {
    const streams = new LinkStreams();
    left = 0;
    streams.take('m', stream());
    streams.close();
    assert.throws(
      () => streams.take('m', stream()),
      (error) => isError(error, ConnectionLost),
    );
    await turn();
    assert.deepEqual([left, streams.size], [2, 0]);
  });
});
