/** What a guest answers, as the kernel takes it: what cannot be sent is the module's error, by the name of the header. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkAnswer } from '../src/words.ts';

describe('an answer of a module', () => {
  const answer = (...headers: string[]) => checkAnswer([200, headers, null], []);

  it('passes with headers that can be sent, Latin-1 and empty values too', () => {
    const headers = ['x-a', 'ü\t\x80', 'X-B!', ''];
    assert.deepEqual(answer(...headers), [200, headers, null]);
    assert.deepEqual(answer('x-hauki-version', '5', 'a', 'b'), [200, ['a', 'b'], null]);
  });

  it('is the module’s error with a header that cannot be sent, which it names', () => {
    for (const value of ['a\r\nset-cookie: b=1', 'a\nb', '日本', 'a\0b', '\x7f'])
      assert.throws(() => answer('a', 'b', 'X-Bad', value), /the header "X-Bad" of its answer has a value/);
    for (const name of ['', 'a b', 'a:', 'ü', 'a\r\nb'])
      assert.throws(() => answer(name, 'b'), {
        message: `its answer has a header by the name ${JSON.stringify(name)}, which cannot be sent`,
      });
    assert.throws(() => answer('a'), /too many headers, or ones that are no texts/);
  });
});
