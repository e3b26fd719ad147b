/** What the reader of a request's body hears when the kernel lets go of it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Upload } from '../src/passing.ts';

describe('the body of a request on its way to a version', () => {
  /** So many chunks, and then nothing until it is left, which ends it as it ends a stream of a session. */
  const endless = (chunks: number) => {
    const left = Promise.withResolvers<IteratorResult<Uint8Array>>();
    return {
      next: () => (chunks-- > 0 ? Promise.resolve({ done: false as const, value: new Uint8Array(1) }) : left.promise),
      async return() {
        left.resolve({ done: true, value: undefined });
        return left.promise;
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  };
  async function* whole() {
    yield new Uint8Array(2);
  }

  it('has no end for who waits for more of it when it is dropped, and none for who asks later', async () => {
    let over = 0;
    const upload = new Upload(endless(1), () => over++);
    await upload.next();
    const waiting = upload.next();
    upload.drop();
    await assert.rejects(waiting, /the rest of the body was dropped/);
    await assert.rejects(upload.next(), /the rest of the body was dropped/);
    assert.equal(over, 1);
  });

  it('is whole when it has come to its end, also when it is dropped behind that', async () => {
    const upload = new Upload(whole(), () => {});
    await upload.next();
    assert.deepEqual(await upload.next(), { done: true, value: undefined });
    upload.drop();
    assert.deepEqual(await upload.next(), { done: true, value: undefined });
  });
});
