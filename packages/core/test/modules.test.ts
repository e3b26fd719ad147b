/** How a worker's imports of pointers are found and resolved: over a real MeshFS, within bounds. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Backplane, openEmbedded } from '@hauki/backplane';
import { createMeshFs, type MeshFs } from '@hauki/meshfs';
import { isError, LIMITS, SourceRejected } from '@hauki/protocol';
import fc from 'fast-check';
import { digestOf, pointerImports, resolveModules } from '../src/modules.ts';

const at = (name: string) => `gem-pointer://workers/${name}`;
const found = (source: string) => pointerImports(source, 'x').map(({ pointer, line }) => [pointer.text, line]);

describe('imports of pointers in a source', () => {
  it('are found in every form that runs, and in none that only types, comments or texts have', () => {
    const source = `import a from '${at('a')}'; // import x from '${at('comment')}';
import type { T } from '${at('type')}';
import { type U, b } from "${at('b')}";
export * from '${at('c')}';
export { d } from '${at('d')}';
const e = await import('${at('e')}');
const text = "import f from '${at('text')}'";
const re = /import '${at('regexp').replaceAll('/', '\\/')}'/;
const t = \`import '${at('template')}' \${await import(\`${at('g')}\`)}\`;
let generic: Map<string, Array<Array<string>>> = new Map<string, []>() as never;
function is(x: unknown): x is string { return x! === (1 as unknown as string); }
type V = typeof import('${at('typeof')}');
import '${at('h')}';
const computed = import('${at('')}' + e);
import fs from 'node:fs';`;
    assert.deepEqual(found(source), [
      [at('a'), 1],
      [at('b'), 3],
      [at('c'), 4],
      [at('d'), 5],
      [at('e'), 6],
      [at('g'), 9],
      [at('h'), 13],
    ]);
  });

  it('are found behind a byte order mark', () => {
    const mark = '\uFEFF';
    assert.deepEqual(found(`${mark}import a from '${at('a')}';\nimport '${at('b')}'`), [
      [at('a'), 1],
      [at('b'), 2],
    ]);
    assert.deepEqual(found(`${mark}\nexport * from '${at('a')}'`), [[at('a'), 2]]);
  });

  it('are known by their canonical spelling, with the digest that they ask for', () => {
    const digest = 'a'.repeat(64);
    const [one] = pointerImports(`import 'gem-pointer://Wiki/p/x#sha256-${digest}'`, 'x');
    assert.deepEqual([one!.pointer.text, one!.digest], ['gem-pointer://wiki/p/x', digest]);
    for (const wrong of ['#', '#sha256-abc', `#sha256-${digest}#x`, '?x', '/../y', '/%2e%2e/y', '#sha512-00'])
      assert.throws(
        () => pointerImports(`\n\nimport '${at(`x${wrong}`)}'`, 'main'),
        (error) => isError(error, SourceRejected) && error.fields.stage === 'import' && /main:3 /.test(error.message),
        wrong,
      );
  });

  it('are refused where they are paths, with importer and line: no folder is around a module that came alone', () => {
    for (const text of [
      "import { a } from './a.js'",
      "export * from '../a.ts'",
      "import './a'",
      'import a from "../b/c"',
    ])
      assert.throws(
        () => pointerImports(`\n${text};`, 'main'),
        (error) => isError(error, SourceRejected) && /\(import\).*main:2 imports \.\.?\/.*no files/.test(error.message),
        text,
      );
    const none = `import type { A } from './a.ts'; // import './b'
      const text = "import './c'"; export const late = () => import('./d');`;
    assert.deepEqual(found(none), []);
  });

  it('are told once for each spelling, by the first line, and no more of them are read than a worker may have', () => {
    const same = `\n${`import '${at('a')}';\n`.repeat(10_000)}import '${at('b')}'`;
    assert.deepEqual(found(same), [
      [at('a'), 2],
      [at('b'), 10_002],
    ]);
    const others = Array.from({ length: 10_000 }, (_, n) => `import '${at(`${n}`)}';`);
    assert.throws(() => found(others.join('\n')), new RegExp(`x:${LIMITS.modules + 2} .*at most ${LIMITS.modules}`));
    assert.equal(found(others.slice(0, LIMITS.modules + 1).join('\n')).length, LIMITS.modules + 1);
  });

  it('of anything at all fail with SourceRejected, if at all', () => {
    const piece = fc.oneof(
      fc.string(),
      fc.constantFrom(
        'import ',
        'export * from ',
        'import(',
        "'gem-pointer://a/b'",
        '`',
        '${',
        '{',
        '/*',
        '<T>',
        '#',
        '\n',
      ),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        try {
          for (const { line } of pointerImports(`/* gem-pointer: */${pieces.join('')}`, 'x')) assert.ok(line >= 1);
        } catch (error) {
          assert.ok(isError(error, SourceRejected));
        }
      }),
    );
  });
});

describe('a worker’s modules', () => {
  let folder: string;
  let backplane: Backplane;
  let meshfs: MeshFs;
  const asked: string[] = [];
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hauki-modules-'));
    backplane = await openEmbedded(join(folder, 'data'));
    meshfs = await createMeshFs(backplane, { wiki_folder: join(folder, 'wiki'), report: () => {} });
  });
  after(async () => {
    await backplane.close();
    await rm(folder, { recursive: true, force: true });
  });
  const write = (name: string, content: string) => meshfs.write({ pointer: at(name), content, language: 'javascript' });
  const resolve = (source: string, pointer?: string) =>
    resolveModules(
      { source, pointer },
      { resolve: (text) => meshfs.resolve(text), demand: (text) => void asked.push(text) },
    );
  const rejects = (source: string, pattern: RegExp) =>
    assert.rejects(resolve(source), (error: Error) => {
      assert.ok(isError(error, SourceRejected) && error.fields.stage === 'import', error.message);
      assert.match(error.message, pattern);
      return true;
    });

  it('are fetched once each, after the right to each was asked for, whatever the shape of the graph', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(fc.nat(7), { maxLength: 4 }), { minLength: 8, maxLength: 8 }),
        async (edges) => {
          const run = crypto.randomUUID();
          const source = (to: number[]) => to.map((n) => `import '${at(`${run}/${n}`)}';`).join('\n');
          for (const [n, to] of edges.entries()) await write(`${run}/${n}`, source(to));
          const reached = new Set<number>();
          const walk = (n: number): void => {
            if (reached.has(n)) return;
            reached.add(n);
            edges[n]!.forEach(walk);
          };
          edges[0]!.forEach(walk);
          reached.delete(0);
          asked.length = 0;
          const modules = await resolve(source(edges[0]!), at(`${run}/0`));
          const wanted = [...reached].map((n) => at(`${run}/${n}`)).toSorted();
          assert.deepEqual(modules.map((one) => one.pointer).toSorted(), wanted);
          assert.deepEqual(asked.toSorted(), wanted);
          for (const one of modules) assert.equal(one.digest, digestOf(one.source));
        },
      ),
      { numRuns: 25 },
    );
  });

  it('are refused where one of them imports a path', async () => {
    await write('path', "\nimport './beside.js';");
    await rejects(`import '${at('path')}';`, /gem-pointer:\/\/workers\/path:2 imports \.\/beside\.js/);
  });

  it('are bounded in number, depth and bytes', async () => {
    for (let n = 0; n <= LIMITS.module_depth; n++) await write(`deep/${n}`, `import '${at(`deep/${n + 1}`)}';`);
    await rejects(`import '${at('deep/0')}';`, /imports in a row/);
    await write('leaf', 'export {}');
    let many = '';
    for (let n = 0; n <= LIMITS.modules; n++) {
      await write(`many/${n}`, 'export {}');
      many += `import '${at(`many/${n}`)}';\n`;
    }
    await rejects(many, /at most 128 modules/);
    await write('large', `/*${'x'.repeat(LIMITS.source_bytes / 2)}*/`);
    await write('larger', `/*${'y'.repeat(LIMITS.source_bytes / 2)}*/`);
    assert.equal((await resolve(`import '${at('large')}';`)).length, 1);
    await rejects(`import '${at('large')}';\nimport '${at('larger')}';`, /x:2|worker\.mjs:2 .*bytes together/);
  });
});
