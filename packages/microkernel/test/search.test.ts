/** Where a text stands in another: as `indexOf` says it, and in time that grows with the lengths and not their product. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { placesOf, standsIn } from '../src/search.ts';

describe('the places of a text in another', () => {
  it('are those that indexOf finds, also where they overlap, at most as many as are asked for', () => {
    const word = fc.string({ unit: fc.constantFrom('a', 'b', 'ü', '🐟'), maxLength: 30 });
    fc.assert(
      fc.property(
        word,
        fc.string({ unit: fc.constantFrom('a', 'b', '🐟'), minLength: 1, maxLength: 5 }),
        (text, sought) => {
          const wanted: number[] = [];
          for (let at = text.indexOf(sought); at >= 0; at = text.indexOf(sought, at + 1)) wanted.push(at);
          assert.deepEqual(placesOf(text, sought, 100), wanted);
          assert.deepEqual(placesOf(text, sought, 2), wanted.slice(0, 2));
          assert.equal(standsIn(text, sought), text.includes(sought));
        },
      ),
      { numRuns: 500 },
    );
    assert.equal(standsIn('', ''), true);
  });

  it('are found within a test’s time in texts of full size that nearly match', () => {
    const most = 4 * 1024 * 1024;
    const half = 'a'.repeat(most / 4);
    const sought = `${half}b${half}`;
    assert.deepEqual(placesOf('a'.repeat(most), sought, 1), []);
    assert.deepEqual(placesOf(`${'a'.repeat(most)}${sought}`, sought, 1), [most]);
  });
});
