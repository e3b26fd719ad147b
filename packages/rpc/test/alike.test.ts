/** What is made once for what comes again. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { onceForSame } from '../src/alike.ts';

describe('what is made once for the same', () => {
  it('is made anew for another first or second, and for the same again behind another', () => {
    const made: string[] = [];
    const make = onceForSame((first: string, second?: string) => {
      made.push(`${first}${second}`);
      return { first, second };
    });
    const one = make('a', 'b');
    assert.equal(make('a', 'b'), one);
    assert.deepEqual(make('a', 'c'), { first: 'a', second: 'c' });
    assert.deepEqual(make('b', 'c'), { first: 'b', second: 'c' });
    assert.deepEqual(make('a', 'b'), one);
    assert.notEqual(make('b'), make('a'));
    assert.deepEqual(made, ['ab', 'ac', 'bc', 'ab', 'bundefined', 'aundefined']);
  });

  it('is not what failed: that is tried again', () => {
    let tries = 0;
    const make = onceForSame((_of: string) => {
      tries++;
      throw new Error('no');
    });
    assert.throws(() => make('a'), /no/);
    assert.throws(() => make('a'), /no/);
    assert.equal(tries, 2);
  });
});
