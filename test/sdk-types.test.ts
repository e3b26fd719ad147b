/**
 * What the SDK's types are to a project outside the checkout, by the compiler's own strict settings (`tsc --init`): they
 * are found, nothing of the SDK is checked by that project's rules, and the code of the documentation compiles as printed.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';

const ROOT = join(import.meta.dirname, '..');

/** What `tsc --init` writes, and Node's types. */
const STRICT = {
  ...{
    module: 'nodenext',
    target: 'esnext',
    types: ['node'],
    sourceMap: true,
    declaration: true,
    declarationMap: true,
  },
  ...{ noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, strict: true, jsx: 'react-jsx' },
  ...{ verbatimModuleSyntax: true, isolatedModules: true, noUncheckedSideEffectImports: true },
  ...{ moduleDetection: 'force', skipLibCheck: true, outDir: 'out', rootDir: '.' },
};
/** As projects with a bundler have it. */
const BUNDLED = {
  ...{ module: 'esnext', moduleResolution: 'bundler', target: 'es2022', lib: ['es2022', 'esnext.disposable', 'dom'] },
  ...{ types: ['node'], strict: true, noEmit: true, skipLibCheck: true, noUnusedLocals: true, noImplicitReturns: true },
  ...{ noPropertyAccessFromIndexSignature: true, noImplicitOverride: true, isolatedModules: true },
};

/** Blocks of TypeScript by the file that they stand in, and what each takes for granted. */
const BLOCKS: [file: string, ...given: string[]][] = [
  [
    'README.md',
    '',
    `import { withOptions, type Mesh } from '@hauki/mesh';
     interface Account { deposit(n: number): Account; balance(): number }
     interface Bank { open(): Account; each(words: string[], say: (word: string) => void): void }
     interface Scout { follow(log: string): AsyncIterable<string>; analyze(url: string): number }
     declare const mesh: Mesh, log: string, url: string, signal: AbortSignal;
     const bank = mesh.clone<Bank>('gem-pointer://wiki/bank'), scout = mesh.clone<Scout>('gem-pointer://wiki/scout');`,
  ],
  ['docs/sdk.md', 'interface Greeter { greet(name: string): string }'],
  ['docs/start.md', ''],
  [
    'docs/meshfs.md',
    `import { openAsBlob } from 'node:fs'; import { connect } from '@hauki/mesh'; declare const text: string;`,
  ],
  [
    'docs/spool.md',
    `import type { Mesh } from '@hauki/mesh'; declare const mesh: Mesh; interface Counter { next(): number }`,
    `import type { Mesh } from '@hauki/mesh'; declare const mesh: Mesh;`,
  ],
];

describe('the types of the SDK, outside the checkout', () => {
  let project: string;
  const run = (file: string, ...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(ROOT, file), ...args], { encoding: 'utf8' });
    return { status, said: `${stdout}${stderr}` };
  };
  const compile = (compilerOptions: object) => {
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['src'] }));
    return run('node_modules/typescript/bin/tsc', '-p', project);
  };

  before(() => {
    assert.deepEqual(run('scripts/sdk-types.ts'), { status: 0, said: '' });
    project = mkdtempSync(join(tmpdir(), 'hauki-types-'));
    writeFileSync(join(project, 'package.json'), '{"type": "module"}');
    for (const scope of ['node_modules/@hauki', 'node_modules/@types', 'src'])
      mkdirSync(join(project, scope), { recursive: true });
    // As `npm install <checkout>/packages/mesh` does.
    symlinkSync(join(ROOT, 'packages/mesh'), join(project, 'node_modules/@hauki/mesh'));
    symlinkSync(join(ROOT, 'node_modules/@types/node'), join(project, 'node_modules/@types/node'));
    for (const [file, ...given] of BLOCKS) {
      const blocks = [...readFileSync(join(ROOT, file), 'utf8').matchAll(/^```ts\n(.*?)^```$/gms)];
      assert.equal(blocks.length, given.length, file);
      for (const [i, [, code]] of blocks.entries()) {
        const name = `${file.replaceAll(/\W/g, '-')}-${i}.ts`;
        writeFileSync(join(project, 'src', name), `${given[i]}\n${code!.replaceAll('…', '')}`);
      }
    }
  });
  after(() => rmSync(project, { recursive: true, force: true }));

  it('are found by a compiler that was set up with nothing but tsc --init, as is all that the pages print', () => {
    assert.deepEqual(compile(STRICT), { status: 0, said: '' });
  });

  it('are found the way bundlers look for them', () => {
    assert.deepEqual(compile({ ...BUNDLED, noUnusedLocals: false }), { status: 0, said: '' });
  });

  it('are types, not any: what a worker cannot do is refused', () => {
    const wrong = join(project, 'src/wrong.ts');
    const code = `import { connect } from '@hauki/mesh';
      const mesh = await connect();
      await mesh.clone<{ greet(name: string): string }>({ source: '' }).greet(5);
      await mesh.clone({ sauce: '' });`;
    writeFileSync(wrong, code);
    const { status, said } = compile(STRICT);
    rmSync(wrong);
    assert.notEqual(status, 0);
    assert.match(said, /wrong\.ts\(3,.*'number' is not assignable/);
    assert.match(said, /wrong\.ts\(4,/);
  });
});
