/** What a guest answers, as the kernel takes it: what cannot be sent is the module's error, by the name of the header. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, SourceRejected } from '@hauki/protocol';
import { checkAnswer, cleanDescription } from '../src/words.ts';

describe('an answer of a module', () => {
  const answer = (...headers: string[]) => checkAnswer([200, headers, null], []);

  it('passes with headers that can be sent, Latin-1 and empty values too', () => {
    const headers = ['x-a', 'ü\t\x80', 'X-B!', ''];
    assert.deepEqual(answer(...headers), [200, headers, null]);
    assert.deepEqual(answer('x-hauki-version', '5', 'a', 'b'), [200, ['a', 'b'], null]);
    assert.deepEqual(answer('Service-Worker-Allowed', '/', 'a', 'b'), [200, ['a', 'b'], null]);
  });

  it('is the module’s error with a status that cannot be sent, which it names', () => {
    const upgrade = ['upgrade', 'websocket'];
    for (const [status, asked] of [
      [100, []],
      [199, []],
      [600, []],
      [999, []],
      [101, []],
      [-1, upgrade],
    ] as const)
      assert.throws(
        () => checkAnswer([status, [], null], [...asked]),
        new RegExp(`has the status ${status}; one from 200`),
      );
    for (const [status, asked] of [
      [200, []],
      [599, []],
      [101, upgrade],
    ] as const)
      assert.equal(checkAnswer([status, [], null], [...asked])[0], status);
    for (const none of [undefined, {}, ['200', [], null], [200, 'a', null], [200, [], 5], [Number.NaN, [], null]])
      assert.throws(() => checkAnswer(none, []), /no answer that can be passed on/);
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

describe('what a module says of itself', () => {
  const described = (said: unknown) => cleanDescription(said as Parameters<typeof cleanDescription>[0]);

  it('is taken as far as it can be that', () => {
    const nothing = { routes: [], state: 'none', together: false };
    for (const said of [undefined, null, 1, { routes: 'x', state: ['hooks'], together: 1 }])
      assert.deepEqual(described(said), nothing);
    const said = { routes: ['GET /a/:id', '* /'], state: 'half', together: true };
    assert.deepEqual(described(said), said);
  });

  it('is refused with a route that is none, and of one that is no text no text is made', () => {
    let shared: unknown[] = ['GET /a'];
    for (let depth = 0; depth < 16; depth++) shared = [shared, shared];
    const refused = (shown: string) => (error: Error) =>
      isError(error, SourceRejected) && error.fields.reason.startsWith(`${shown} is no route`);
    for (const route of [shared, ['GET /a'], 1, null, { toString: () => 'GET /a' }])
      assert.throws(() => described({ routes: ['GET /', route] }), refused('what is no text'));
    assert.throws(() => described({ routes: ['a'] }), refused('"a"'));
  });
});
