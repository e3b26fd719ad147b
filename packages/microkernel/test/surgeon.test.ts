import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { EditRefused, isError } from '@hauki/protocol';
import fc from 'fast-check';
import { diffOf, digestOf, operate } from '../src/surgeon.ts';

const SOURCE = 'const a = 1;\nconst b = 2;\nconst c = 2;\n';
const refused = (run: () => unknown, why: RegExp) =>
  assert.throws(run, (error) => isError(error, EditRefused) && why.test(error.message));

describe('surgical edits', () => {
  it('are made in their order against the source that runs', () => {
    const edits = [
      { find: 'a = 1', replace: 'a = b' },
      { find: 'a = b', replace: 'a = 3' },
    ];
    assert.equal(operate(SOURCE, digestOf(SOURCE), edits), 'const a = 3;\nconst b = 2;\nconst c = 2;\n');
  });

  it('make a new module by one edit with an empty find', () => {
    assert.equal(operate(undefined, undefined, [{ find: '', replace: 'x' }]), 'x');
    refused(() => operate(undefined, undefined, [{ find: 'a', replace: 'x' }]), /no such module/);
  });

  it('are refused over a base that does not run, saying which does', () => {
    refused(() => operate(SOURCE, digestOf('other'), [{ find: 'a', replace: 'b' }]), new RegExp(digestOf(SOURCE)));
    refused(() => operate(SOURCE, undefined, [{ find: 'a', replace: 'b' }]), /none was given/);
  });

  it('are refused where a find is ambiguous, missing or empty, saying which and where', () => {
    refused(() => operate(SOURCE, digestOf(SOURCE), [{ find: '= 2', replace: '' }]), /edit 1 is ambiguous.*lines 2, 3/);
    refused(() => operate(SOURCE, digestOf(SOURCE), [{ find: 'zzz', replace: '' }]), /what is not there: "zzz"/);
    refused(() => operate(SOURCE, digestOf(SOURCE), [{ find: '', replace: 'x' }]), /looks for nothing/);
    // Overlapping places are places too.
    refused(() => operate('aaa', digestOf('aaa'), [{ find: 'aa', replace: '' }]), /ambiguous/);
  });

  it('change what they name and nothing else', () => {
    fc.assert(
      fc.property(fc.string(), fc.uuid(), fc.string(), fc.string(), (before, find, after, replace) => {
        fc.pre(!before.includes(find) && !after.includes(find));
        const source = before + find + after;
        assert.equal(operate(source, digestOf(source), [{ find, replace }]), before + replace + after);
      }),
    );
  });

  it('are shown as a diff', () => {
    assert.match(diffOf('m', 'a\nb\n', 'a\nc\n'), /-b\n\+c/);
    assert.equal(diffOf('m', 'a', 'a'), '');
  });
});
