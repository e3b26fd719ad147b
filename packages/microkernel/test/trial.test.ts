/** Tests that are posted with a module: what is no test is refused, since it would pass whatever is answered. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BadInput, isError } from '@hauki/protocol';
import type { Instance } from '../src/instance.ts';
import { checkTrials, requestOf, runTrials } from '../src/trial.ts';

describe('posted tests', () => {
  const good = {
    path: '/a?b=1',
    method: 'post',
    headers: { a: 'b' },
    body: { c: 1 },
    expect: { status: 201, json: [] },
  };

  it('are taken as they stand, also with nothing but a path and a status of 200', () => {
    assert.deepEqual(checkTrials([good, { path: '/', expect: {} }]), [good, { path: '/', expect: {} }]);
    assert.deepEqual(checkTrials(undefined), []);
  });

  it('ask as a request in service does: with the host and the prefix, in the names of headers that it has', () => {
    assert.deepEqual(requestOf('notes', { path: '/x', expect: {} }), {
      method: 'GET',
      url: 'http://staging/x',
      headers: ['host', 'staging', 'x-forwarded-prefix', '/api/plugins/notes'],
      body: null,
    });
    const headers = { 'Content-Type': 'text/x', Host: 'a:1', 'X-Forwarded-Prefix': '/other' };
    assert.deepEqual(requestOf('notes', { ...good, headers, body: [1] }), {
      method: 'POST',
      url: 'http://a:1/a?b=1',
      headers: ['content-type', 'text/x', 'host', 'a:1', 'x-forwarded-prefix', '/api/plugins/notes'],
      body: '[1]',
    });
  });

  it('look for a text in time, also where the answer nearly has it again and again', async () => {
    const half = 'a'.repeat(100_000);
    const instance = { spec: { module: 'm' }, open: true, fetch: async () => [200, [], 'a'.repeat(1_000_000)] };
    const trials = [`${half}b${half}`, half, ''].map((text) => ({ path: '/', expect: { text } }));
    const results = await runTrials(instance as unknown as Instance, trials);
    assert.deepEqual(
      results.map(({ passed }) => passed),
      [false, true, true],
    );
  });

  const wrong: [string, unknown, RegExp][] = [
    ['no list', { path: '/' }, /a list/],
    ['no object', [5], /tests\[0\]: it is no object/],
    ['a path that begins elsewhere', [good, { ...good, path: 'a' }], /tests\[1\]: its path/],
    ['a method that is no name', [{ ...good, method: 5 }], /its method/],
    ['headers that are none', [{ ...good, headers: 'x' }], /its headers/],
    ['a word that means nothing', [{ ...good, expects: {} }], /no "expects"/],
    ['no expectation', [{ path: '/' }], /its expect/],
    ['an expectation that means nothing', [{ ...good, expect: { body: 'x' } }], /no "body"; there is status, json/],
    ['a status in words', [{ ...good, expect: { status: '200' } }], /expect\.status/],
    ['a text that is none', [{ ...good, expect: { text: 5 } }], /expect\.text/],
    ['expected headers that are none', [{ ...good, expect: { headers: 5 } }], /expect\.headers/],
  ];
  for (const [what, tests, why] of wrong)
    it(`are refused with ${what}`, () => {
      assert.throws(
        () => checkTrials(tests),
        (error) => isError(error, BadInput) && why.test(error.message),
      );
    });
});
