import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { EditRefused, isError } from '@hauki/protocol';
import { applyPatch } from 'diff';
import fc from 'fast-check';
import { KERNEL_LIMITS } from '../src/limits.ts';
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
    // It was made for one that has been removed since.
    refused(() => operate(undefined, digestOf(SOURCE), [{ find: '', replace: 'x' }]), /no such module/);
  });

  it('are refused over a base that does not run, saying which does', () => {
    refused(() => operate(SOURCE, digestOf('other'), [{ find: 'a', replace: 'b' }]), new RegExp(digestOf(SOURCE)));
    refused(() => operate(SOURCE, undefined, [{ find: 'a', replace: 'b' }]), /none was given/);
  });

  it('are told what differs from the version that they were made for', () => {
    const base = { version: 3, source: SOURCE.replace('c = 2', 'c = 1') };
    assert.throws(
      () => operate(SOURCE, digestOf(base.source), [{ find: 'a', replace: 'b' }], base),
      (error) =>
        isError(error, EditRefused) &&
        /which is version 3/.test(error.message) &&
        /-const c = 1;\n\+const c = 2;/.test(error.fields.diff ?? ''),
    );
  });

  it('that lie over each other are refused, saying that it is another edit that took the place', () => {
    const edits = [
      { find: 'const a = 1', replace: 'let a = 2' },
      { find: 'a = 1', replace: 'a = 3' },
    ];
    refused(() => operate(SOURCE, digestOf(SOURCE), edits), /edit 2 looks for what is not there any more, once/);
  });

  it('are refused where a find is ambiguous, missing or empty, saying which and where', () => {
    refused(() => operate(SOURCE, digestOf(SOURCE), [{ find: '= 2', replace: '' }]), /edit 1 is ambiguous.*lines 2, 3/);
    refused(() => operate(SOURCE, digestOf(SOURCE), [{ find: 'zzz', replace: '' }]), /what is not there: "zzz"/);
    refused(() => operate(SOURCE, digestOf(SOURCE), [{ find: '', replace: 'x' }]), /looks for nothing/);
    // Overlapping places are places too.
    refused(() => operate('aaa', digestOf('aaa'), [{ find: 'aa', replace: '' }]), /ambiguous/);
  });

  it('say so where a find has other line breaks than the source', () => {
    const crlf = SOURCE.replaceAll('\n', '\r\n');
    const sought = { find: 'const a = 1;\nconst b', replace: '' };
    refused(() => operate(crlf, digestOf(crlf), [sought]), /not there: .* lines that end in \\r\\n, as/);
    const other = { ...sought, find: sought.find.replace('\n', '\r\n') };
    refused(() => operate(SOURCE, digestOf(SOURCE), [other]), /not there: .* lines that end in \\n, as/);
    refused(() => operate(crlf, digestOf(crlf), [{ find: 'x\ny', replace: '' }]), /not there: "x\\ny"$/);
    assert.ok(operate(crlf, digestOf(crlf), [other]).startsWith(' = 2;\r\n'));
  });

  it('of texts that nearly match are looked for in time, and too many in too long a source are refused', () => {
    const half = 'a'.repeat(100_000);
    const sought = { find: `${half}b${half}`, replace: '' };
    const running = 'a'.repeat(1_000_000);
    refused(() => operate(running, digestOf(running), [sought]), /edit 1 looks for what is not there: /);
    const long = `${'a'.repeat(KERNEL_LIMITS.searched_chars / 2)}b`;
    const twice = ['b', 'c'].map((find) => ({ find, replace: 'c' }));
    refused(() => operate(long, digestOf(long), twice), /edit 2 and those before it are too many .* whole source/);
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

  it('are shown as a diff in no more time where every line differs', () => {
    const lines = (word: string) => Array.from({ length: 30_000 }, (_, i) => `${word} ${i}\n`).join('');
    const [before, after] = [`same\n${lines('a')}end`, `same\n${lines('b')}end`];
    const diff = diffOf('m', before, after);
    assert.match(diff, /^@@ -2,30000 \+2,30000 @@$/m);
    assert.equal(applyPatch(before, diff), after);
    assert.match(diffOf('m', '', 'x'.repeat(KERNEL_LIMITS.diff_chars)), /x\n… \d+ characters more\n$/);
  });

  it('are shown as a diff of what differs alone, however long the rest is', () => {
    const rest = 'x\n'.repeat(1_000_000);
    const diff = diffOf('m', `${rest}old\n${rest}`, `${rest}new\n${rest}`);
    assert.match(diff, /^@@ -999997,9 \+999997,9 @@\n( x\n){4}-old\n\+new\n( x\n){4}$/m);
    const other = diffOf('m', 'a\nb\n'.repeat(100_000), 'b\nb\na\n'.repeat(100_000));
    assert.ok(/^@@ -1,200000 \+1,300000 @@$/m.test(other));
  });

  it('are shown as a diff that leads from the one to the other', () => {
    const line = fc.oneof(
      fc.constantFrom('', 'a', 'b', '\r'),
      fc.string().map((text) => text.replaceAll('\n', ' ')),
    );
    const few = fc.array(line, { maxLength: 6 }).map((all) => all.join('\n'));
    const many = fc.constantFrom('c', 'd').map((word) => `${word}\n`.repeat(KERNEL_LIMITS.diff_edits));
    const text = fc.tuple(few, fc.oneof(fc.constant(''), many), few).map((parts) => parts.join(''));
    fc.assert(
      fc.property(text, text, (before, after) => {
        fc.pre(before !== after);
        assert.equal(applyPatch(before, diffOf('m', before, after), { autoConvertLineEndings: false }), after);
      }),
    );
  });
});
