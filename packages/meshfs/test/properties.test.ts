/** Whatever anybody writes: typed errors or files inside the wiki, and what a plain map would answer. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { isError, MeshError, PointerInvalid, PointerUnknown } from '@hauki/protocol';
import fc from 'fast-check';
import { inPlace, listing } from './support.ts';

const piece = fc.oneof(
  fc.constantFrom('..', '.', '', 'a', 'A', 'notes', 'notes.md', 'readme', 'b.ts', 'b', '%2e%2e', 'con', '\\..', '~'),
  fc.constantFrom(
    '．．',
    '‥',
    '\u0000',
    '\u202e',
    '.git',
    '.hauki-1-1.tmp',
    'x.txt',
    'outside',
    'secret.md',
    '-rf',
    '$HOME',
  ),
  fc.string({ unit: 'grapheme', minLength: 1, maxLength: 8 }),
);
// Mostly good pieces with at most one bad among them: a text of bad ones alone is refused at its first.
const good = fc.oneof(
  fc.constantFrom('a', 'A', 'notes', 'notes.md', 'b.ts', 'b', 'x.txt'),
  fc.string({ unit: 'grapheme-ascii', minLength: 1 }),
);
const path = fc
  .tuple(fc.array(good, { maxLength: 3 }), fc.oneof(piece, good), good)
  .map(([before, one, last]) => [...before, one, last].join('/'));
const any_pointer = fc.oneof(
  { weight: 6, arbitrary: path.map((text) => `gem-pointer://wiki/p/${text}`) },
  { weight: 3, arbitrary: fc.array(piece, { maxLength: 5 }).map((parts) => `gem-pointer://wiki/${parts.join('/')}`) },
  { weight: 3, arbitrary: path.map((text) => `gem-pointer://${text}`) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
);

describe('MeshFS, whatever comes', { concurrency: true }, () => {
  test('a write fails with a typed error, or all it makes lies inside the wiki folder', () =>
    inPlace(async ({ mesh, root }) => {
      const area = join(root, 'area');
      const outside = async () => Object.entries(await listing(area)).filter(([file]) => !file.startsWith('wiki/'));
      const before = await outside();
      let written = 0;
      await fc.assert(
        fc.asyncProperty(any_pointer, fc.constantFrom(undefined, 'typescript', 'lpc'), async (pointer, language) => {
          try {
            const { pointer: canonical } = await mesh.write({
              pointer,
              content: pointer.toWellFormed(),
              ...(language && { language }),
            });
            assert.equal((await mesh.resolve(canonical)).content, pointer.toWellFormed());
            assert.equal((await mesh.resolve(pointer)).pointer, canonical);
            written += 1;
          } catch (thrown) {
            if (!(thrown instanceof MeshError)) throw thrown;
            assert.equal(thrown.status, 400, `${JSON.stringify(pointer)}: ${thrown}`);
          }
        }),
        { numRuns: 400 },
      );
      assert.ok(written > 40, `only ${written} were written: the property says little`);
      assert.deepEqual(await outside(), before);
    }));

  test('it answers as a map of names does, over restarts too', () =>
    inPlace(async (place) => {
      let run = 0;
      const page = fc.constantFrom('notes', 'notes.md', 'a/', 'a/readme', 'tool', 'tool.md', 'x.txt', 'b.ts');
      const step = fc.record({
        what: fc.constantFrom('write', 'write', 'write_source', 'resolve', 'reopen'),
        page,
        content: fc.string({ unit: 'grapheme', maxLength: 20 }),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
          const project = `run${run++}`;
          let mesh = place.mesh;
          const model = new Map<string, { file: string; content: string; version: number }>();
          for (const { what, page, content } of steps) {
            const pointer = `gem-pointer://wiki/${project}/${page}`;
            const full = page.endsWith('/') ? `${page}readme` : page;
            const slot = full.replace(/\.md$/, '');
            const there = model.get(slot);
            const as_source = what === 'write_source' || full === 'b.ts';
            if (what === 'reopen') mesh = await place.reopen();
            else if (what.startsWith('write')) {
              const named_document = page.endsWith('.md') || page.endsWith('/') || page.endsWith('.txt');
              const file = as_source ? `${slot.replace(/\.ts$/, '')}.ts` : slot.endsWith('.txt') ? slot : `${slot}.md`;
              const request = { pointer, content, ...(what === 'write_source' && { language: 'typescript' }) };
              if ((as_source && named_document) || (there && there.file !== file)) {
                await assert.rejects(mesh.write(request), (thrown) => isError(thrown, PointerInvalid));
                continue;
              }
              const version = (there?.version ?? 0) + 1;
              assert.equal((await mesh.write(request)).version, version);
              model.set(slot, { file, content, version });
            } else if (!there || (/(\.md|\/)$/.test(page) && !there.file.endsWith('.md'))) {
              await assert.rejects(mesh.resolve(pointer), (thrown) => isError(thrown, PointerUnknown));
            } else assert.equal((await mesh.resolve(pointer)).content, there.content);
          }
          const files = [...model.values()].map(({ file, content }) => [`${project}/${file}`, content]);
          const listed = Object.entries(await listing(place.wiki)).filter(([file]) => file.startsWith(`${project}/`));
          assert.deepEqual(Object.fromEntries(listed), Object.fromEntries(files));
        }),
        { numRuns: 40 },
      );
      assert.deepEqual(place.reports, []);
    }));
});
