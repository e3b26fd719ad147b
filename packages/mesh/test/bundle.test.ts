/** Bundles of JavaScript workers: what becomes of names, of CommonJS packages, and of places in files. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, it } from 'node:test';
import { BadInput, isError, SourceRejected } from '@hauki/protocol';
import { bundleWithFiles } from '../src/bundle.ts';

const folder = mkdtempSync(join(tmpdir(), 'hauki-bundle-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Writes files by their names; gives the path of the first. */
function files(texts: Record<string, string>): string {
  const root = mkdtempSync(join(folder, 'of-'));
  for (const [path, text] of Object.entries(texts)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return join(root, Object.keys(texts)[0]!);
}

/** Bundles, and imports what came of it. */
async function imported(texts: Record<string, string>, driver?: string): Promise<any> {
  const { source, places } = await bundleWithFiles(files(texts), { driver });
  const file = join(mkdtempSync(join(folder, 'out-')), 'worker.mjs');
  writeFileSync(file, source);
  return { source, places, module: await import(file) };
}

describe('a bundle', () => {
  it('leaves classes and functions the names that they were given', async () => {
    const error =
      'export class Wrong extends Error { constructor(m) { super(m); this.name = this.constructor.name; } }';
    const { module, places } = await imported({
      'main.ts': `import { Wrong as A, help as a } from './a.ts';
import { Wrong as B, help as b } from './b.ts';
class Point { static origin = new Point(); x: number = 1; }
export const names = () => [new A('').name, new B('').name, a.name, b.name, Point.name, Point.origin.constructor.name];
export const fail = () => { throw new B('why'); };
`,
      'a.ts': `${error}\nexport const help = () => 'a';`,
      'b.ts': `${error}\nexport const help = () => 'b';`,
    });
    assert.deepEqual(module.names(), ['Wrong', 'Wrong', 'help', 'help', 'Point', 'Point']);
    assert.throws(module.fail, ({ stack }: Error) => /^Wrong: why\n[^\n]*main\.ts:5:35/.test(places.inText(stack)));
  });

  it('gives CommonJS packages Node’s modules where Node is, and leaves other bundles without', async () => {
    const main = {
      'main.mjs': `import base from './base.cjs';\nexport const run = () => base('/a/b');\nexport const fail = () => { throw new Error('here'); };`,
    };
    const base = { 'base.cjs': `const path = require('path');\nmodule.exports = (p) => path.basename(p);` };
    for (const driver of ['lxc', 'process']) {
      const { module, places } = await imported({ ...main, ...base }, driver);
      assert.equal(module.run(), 'b');
      assert.throws(module.fail, ({ stack }: Error) => /main\.mjs:3:35/.test(places.inText(stack)));
    }
    await assert.rejects(
      bundleWithFiles(files({ ...main, ...base }), { driver: 'quickjs' }),
      (failure) =>
        isError(failure, SourceRejected) && /base\.cjs:1:22: "path" is a module of Node/.test(failure.message),
    );
    const plain = { 'base.cjs': 'module.exports = (p) => p;' };
    for (const driver of ['lxc', 'quickjs', undefined])
      assert.doesNotMatch((await imported({ ...main, ...plain }, driver)).source, /createRequire|node:/);
    const { module, source } = await imported(
      { 'main.mjs': `import { basename } from 'node:path';\nexport const run = () => basename('/a/b');` },
      'lxc',
    );
    assert.equal(module.run(), 'b');
    assert.doesNotMatch(source, /createRequire/);
  });

  it('takes of a package what the one who asks is to get: its CommonJS by require', async () => {
    const { module } = await imported({
      'main.js': `import Child from './child.cjs';\nimport { kind } from 'dual';\nexport const run = () => [new Child().kind(), kind];`,
      'child.cjs': `module.exports = class extends require('dual') {};`,
      'node_modules/dual/package.json': JSON.stringify({
        exports: { import: './dual.mjs', require: './dual.cjs', default: './no.js' },
      }),
      'node_modules/dual/dual.mjs': `export const kind = 'module';`,
      'node_modules/dual/dual.cjs': `module.exports = class { kind() { return 'commonjs'; } };`,
    });
    assert.deepEqual(module.run(), ['commonjs', 'module']);
  });

  const typed = `// A worker of one file.
import type { Hauki } from '@hauki/mesh';
interface Wrong { why: string }

export default class Counter {
  #count: number = 0;

  fail(given: Wrong): never {
    throw new Error(\`\${this.#count} \${given.why}\`);
  }
}
`;

  it('of a file that says all by itself is that file, so that places are its own without a map', async () => {
    const plain = typed
      .replace(/^import.*$/m, '')
      .replace(/^interface.*$/m, '')
      .replace(/: (?:number|Wrong|never)/g, '');
    for (const [name, text] of Object.entries({ 'main.ts': typed, 'main.js': plain })) {
      const { source, places, module } = await imported({ [name]: text });
      assert.match(source, /^\/\/ A worker of one file\.\n/);
      assert.equal(source.split('\n').length, text.split('\n').length);
      assert.throws(
        () => new module.default().fail({ why: 'so' }),
        ({ stack }: Error) => {
          assert.match(stack!, /^Error: 0 so\n[^\n]*worker\.mjs:9:11/);
          assert.match(places.inText(stack!), new RegExp(`/${name.replace('.', '\\.')}:9:11`));
          return true;
        },
      );
      assert.equal(places.line(9, 'no place'), 9);
    }
  });

  it('is compiled wherever a file needs more than its types taken away', async () => {
    for (const [name, text] of Object.entries({
      'an enum': `enum Colour { Red = 'red' }\nexport const run = () => Colour.Red;`,
      'an import of a type that does not say so': `import { Stats } from 'node:fs';\nexport const run = (of?: Stats) => of ?? 'red';`,
      'a part of such an import': `import { existsSync, Stats } from 'node:fs';\nexport const run = (of?: Stats) => existsSync('/') && (of ?? 'red');`,
      'a decorator': `const red: any = (_: unknown, context: any) => () => 'red';\nclass A { @red run() {} }\nexport const run = () => new A().run();`,
      'a name of Node’s without node:': `import { existsSync } from 'fs';\nexport const run = () => existsSync('/') && 'red';`,
      using: `export const run = () => { using held = { [Symbol.dispose]() {} }; return held && 'red'; };`,
    })) {
      const { module, source } = await imported({ 'main.ts': text }, 'lxc');
      assert.equal(module.run(), 'red', name);
      assert.notEqual(source.split('\n').length, text.split('\n').length, name);
    }
    const { module } = await imported({ 'main.js': `exports.run = () => 'red';` });
    assert.equal(module.default.run(), 'red');
  });

  it('answers packages that ask for NODE_ENV, so that they need no process', async () => {
    const { source, module } = await imported({
      'main.js': `const slow = process.env.NODE_ENV !== 'production';\nexport const run = () => slow;`,
    });
    assert.equal(module.run(), false);
    assert.doesNotMatch(source, /process\.env/);
  });

  it('is refused where one of its files is not in UTF-8, which would be read as other text', async () => {
    const latin = (text: string) => Buffer.from(text, 'latin1');
    const [alone, beside] = [files({ 'main.mjs': '' }), files({ 'main.ts': `export * from './b.ts';`, 'b.ts': '' })];
    writeFileSync(alone, latin(`export const name = () => 'Zoë';`));
    writeFileSync(join(dirname(beside), 'b.ts'), latin(`export const name = (): string => 'Zoë';`));
    for (const [main, named] of [
      [alone, alone],
      [beside, join(dirname(beside), 'b.ts')],
    ] as const)
      await assert.rejects(
        bundleWithFiles(main),
        (error) => isError(error, BadInput) && error.message.includes(named) && /not in UTF-8/.test(error.message),
      );
  });
});
