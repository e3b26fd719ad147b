/** What a pointer's text may be: canonical spelling, and every trick that must not pass. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { isError } from '../src/caller-errors.ts';
import { PointerInvalid, PointerMissing } from '../src/errors.ts';
import { POINTER_LIMITS, parsePointer } from '../src/pointer.ts';

const refused = (text: unknown) =>
  assert.throws(
    () => parsePointer(text),
    (thrown) => isError(thrown, PointerInvalid),
    `accepted ${JSON.stringify(text)}`,
  );

/** Texts near the border between good and bad: real prefixes, tricky pieces, anything. */
const pointerish = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc
    .array(
      fc.oneof(
        fc.constantFrom('..', '.', '', 'a', 'Notes', 'readme.md', 'x.TXT', '%2e%2e', '%252e', 'con', 'nul.md', '\\'),
        fc.constantFrom('\u0000', '\u202e', '．．', '‥', '／', 'é', 'e\u0301', 'web.ts', ' a', 'a.', '.git', 'C:', '~'),
        fc.string({ unit: 'grapheme', maxLength: 12 }),
      ),
      { maxLength: 6 },
    )
    .map((parts) => `gem-pointer://${parts.join('/')}`),
  fc
    .array(fc.oneof(fc.constantFrom('..', 'p', 'notes', 'notes.md', 'b.ts'), fc.string({ unit: 'grapheme' })))
    .map((parts) => `gem-pointer://wiki/${parts.join('/')}`),
);

describe('pointers', { concurrency: true }, () => {
  test('a pointer that was not given is missing, not wrong', () => {
    for (const none of [undefined, null, '']) {
      assert.throws(
        () => parsePointer(none),
        (thrown) => isError(thrown, PointerMissing),
      );
    }
  });

  test('the default document is readme.md', () => {
    for (const text of ['gem-pointer://wiki/p', 'gem-pointer://wiki/p/', 'GEM-POINTER://Wiki/p/readme.MD']) {
      assert.equal(parsePointer(text).text, 'gem-pointer://wiki/p/readme.md');
    }
    assert.equal(parsePointer('gem-pointer://wiki/p/a/b/').text, 'gem-pointer://wiki/p/a/b/readme.md');
  });

  test('a page and the same page with .md share a name; .txt and other endings are names of their own', () => {
    const name = (path: string) => parsePointer(`gem-pointer://wiki/p/${path}`).name;
    assert.equal(name('notes'), name('notes.md'));
    const names = ['notes', 'notes.txt', 'notes.txt.md', 'notes.md.md', 'notes.ts', 'Notes'].map(name);
    assert.equal(new Set(names).size, names.length);
    assert.equal(parsePointer('gem-pointer://other/notes.md').name, 'other/notes.md');
  });

  test('composed and decomposed letters are the same pointer', () => {
    assert.equal(
      parsePointer('gem-pointer://wiki/p/cafe\u0301').text,
      parsePointer('gem-pointer://wiki/p/caf\u00e9').text,
    );
  });

  test('ordinary names of many scripts pass', () => {
    for (const path of [
      'p/Über uns',
      'p/日本語.md',
      'p/v1.2/notes',
      'p/a-b_c (1)',
      'p/100%',
      'p/😀',
      'workers/web_scout',
    ]) {
      assert.equal(parsePointer(`gem-pointer://wiki/${path}`).text, `gem-pointer://wiki/${path}`);
    }
    assert.equal(parsePointer('gem-pointer://workers/ai_scout').space, 'workers');
    assert.deepEqual(parsePointer('gem-pointer://cache/sha256:ab/c').segments, ['sha256:ab', 'c']);
  });

  test('no trick passes', () => {
    const tricks = [
      '..', '../x', 'p/..', 'p/../../etc/passwd', 'p/.', 'p/%2e%2e/x', 'p/%252e%252e/x', 'p/%2E/x', 'p/a%2fb', 'p/a%00',
      'p/a\0b', 'p\\..\\x', '/etc/passwd', 'p//x', 'p/x//', 'p/\u202etxt', 'p/a\u200bb', 'p/a\ufeff', 'p/a\nb', 'p/\u007f',
      'p/．．/x', 'p/‥/x', 'p/a／b', 'p/a＼b', 'p/...', 'p/. .', 'p/ a', 'p/a ', 'p/a.', 'p/.git/config', 'p/.md',
      'p/con', 'p/CON.md', 'p/nul.txt', 'p/com1', 'p/LPT9.x', 'p/com¹', 'p/aux .md', 'C:/x', 'p/a:stream', 'p/a*', 'p/a|b',
      'p/a?b', 'p/a#b', 'p/x.txt/y', 'p/web.ts/y', 'notes.md', 'notes.md/x', 'p/\ud800', 'p/\ue000', 'p/a\u00ad',
    ]; // biome-ignore format: a list to read through
    for (const trick of tricks) refused(`gem-pointer://wiki/${trick}`);
    for (const trick of ['..', 'a/../b', 'a/', '%2e%2e', 'a\\b', 'a//b', '．．'])
      refused(`gem-pointer://other/${trick}`);
    for (const text of [
      'x',
      'gem-pointer:',
      'gem-pointer://',
      'gem-pointer:///a',
      'gem-pointer://../a',
      '/etc/passwd',
    ]) {
      refused(text);
    }
    for (const other of [1, {}, [], true, Symbol('x')]) refused(other);
    for (const nothing of [
      'gem-pointer://wiki',
      'gem-pointer://wiki/',
      'gem-pointer://other',
      'gem-pointer://other/',
    ]) {
      refused(nothing);
    }
  });

  test('lengths are bounded in bytes, the .md of a document included', () => {
    const at = (segment: string) => `gem-pointer://wiki/p/${segment}`;
    assert.ok(parsePointer(at('a'.repeat(POINTER_LIMITS.segment_bytes - 3))));
    assert.ok(parsePointer(at(`${'a'.repeat(POINTER_LIMITS.segment_bytes - 3)}.md`)));
    refused(at('a'.repeat(POINTER_LIMITS.segment_bytes - 2)));
    refused(at('é'.repeat(POINTER_LIMITS.segment_bytes / 2)));
    refused(at('a/'.repeat(POINTER_LIMITS.segments)));
    refused(at(`${'a'.repeat(150)}/`.repeat(7)));
    refused(at('a'.repeat(10_000_000)));
  });

  test('whatever the text, parsing gives a pointer or one of the two errors, and canonical text stays as it is', () => {
    fc.assert(
      fc.property(pointerish, (text) => {
        let pointer: ReturnType<typeof parsePointer>;
        try {
          pointer = parsePointer(text);
        } catch (thrown) {
          assert.ok(isError(thrown, PointerInvalid) || isError(thrown, PointerMissing), String(thrown));
          return;
        }
        assert.deepEqual(parsePointer(pointer.text), pointer);
        // The shared name is a pointer too, and names the same.
        assert.equal(parsePointer(`gem-pointer://${pointer.name}`).name, pointer.name);
        for (const segment of pointer.segments) assert.ok(segment !== '' && !/^\.+$/.test(segment));
      }),
      { numRuns: 3000 },
    );
  });
});
