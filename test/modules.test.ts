/** Imports of pointers, from MeshFS to a running worker: in every kind of vault, with rights, digests and snapshots. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { startNode } from '@hauki/cli';
import { connect, type ErrorClass, Forbidden, isError, type Mesh, type Scope, SourceRejected } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { DRIVERS, missing, restartCore, until, useMesh } from './support/mesh.ts';

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
const refused = (promise: PromiseLike<unknown>, kind: ErrorClass<any>, ...patterns: RegExp[]) =>
  assert.rejects(Promise.resolve(promise), (error: Error) => {
    assert.ok(isError(error, kind), `${error.name}: ${error.message}`);
    for (const pattern of patterns) assert.match(error.message, pattern);
    return true;
  });
const rejected = (promise: PromiseLike<unknown>, stage: string, ...patterns: RegExp[]) =>
  refused(promise, SourceRejected, new RegExp(`\\(${stage}\\)`), ...patterns);

for (const driver of DRIVERS)
  describe(`a worker in a ${driver} vault that imports pointers`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });
    const at = (name: string) => `gem-pointer://wiki/lib-${driver}/${name}`;
    const keep = (name: string, source: string, language: 'javascript' | 'typescript' = 'javascript') =>
      used.mesh.meshfs.write(at(name), source, { language });
    const run = (source: string, language: 'javascript' | 'typescript' = 'javascript') =>
      used.mesh.clone<Record<string, (...args: unknown[]) => any>>({ source, language });

    it('finds them, in JavaScript and TypeScript, through others, once each, also dynamically', async () => {
      await keep('counter', 'let n = 0; export const count = () => ++n;');
      const typed = `import { count } from '${at('counter')}';
        import type { Never } from 'gem-pointer://wiki/no/such';
        export interface Pair { a: number; b: number }
        export const left = (by: number): Pair => ({ a: count(), b: by });`;
      await keep('left', typed, 'typescript');
      await keep(
        'right',
        `export { count as right } from '${at('counter')}#sha256-${sha256('let n = 0; export const count = () => ++n;')}';`,
      );
      await keep('late', 'export default "late";');
      const worker = run(
        `import { left, type Pair } from '${at('left')}';
         import { right } from '${at('right')}';
         export const both = (): number[] => { const pair: Pair = left(7); return [pair.a, pair.b, right()]; };
         export const late = async (): Promise<string> => (await import('${at('late')}')).default;`,
        'typescript',
      );
      assert.deepEqual(await worker.both!(), [1, 7, 2], 'the diamond’s foot is one module');
      assert.equal(await worker.late!(), 'late');
      const { worker: name } = await used.mesh.details(worker);
      const { code } = (await used.mesh.registry()).workers.find((one) => one.worker === name)!;
      assert.deepEqual(
        code!.modules.map((one) => one.pointer).toSorted(),
        ['counter', 'late', 'left', 'right'].map(at),
      );
      assert.equal(code!.modules.find((one) => one.pointer === at('left'))!.digest, sha256(typed));
      await used.mesh.destruct(worker);
    });

    it('finds them behind a byte order mark, its own and theirs', async () => {
      await keep('marked-c', 'export const c = 1;');
      await keep('marked-b', `\uFEFFexport { c as b } from '${at('marked-c')}';`);
      for (const language of ['javascript', 'typescript'] as const) {
        const worker = run(`\uFEFFimport { b } from '${at('marked-b')}'; export const a = () => b;`, language);
        assert.equal(await worker.a!(), 1);
        await used.mesh.destruct(worker);
      }
    });

    it('is refused, with the line and whose it is, for a package or an address that is no pointer', async () => {
      for (const name of ['left-pad', 'npm:left-pad', 'https://esm.example/left-pad'])
        await rejected(
          run(`\nimport pad from '${name}'; export const f = () => pad;`),
          'load',
          new RegExp(`"${name}" cannot be imported here. Bundle it in .at worker.mjs:2`),
        );
      await keep('padded', `\n\nexport { default } from 'left-pad';`);
      const source = `import pad from '${at('padded')}'; export const f = () => pad;`;
      const refusal =
        driver === 'quickjs' ? `"left-pad" cannot be .*${at('padded')}:3` : `${at('padded')} imports "left-pad"`;
      await rejected(run(source), driver === 'quickjs' ? 'load' : 'import', new RegExp(refusal));
    });

    it('may be in a circle with them, itself included', async () => {
      await keep('ring-b', `import { a } from '${at('ring-a')}'; export const b = () => 'b' + (a.done ?? '');`);
      await keep(
        'ring-a',
        `import { b } from '${at('ring-b')}'; export const a = Object.assign(() => b(), { done: '!' });`,
      );
      await keep(
        'ring',
        `import { a } from '${at('ring-a')}'; import * as self from '${at('ring')}';
        export const go = () => a(); export const same = () => self.go === go;`,
      );
      const worker = used.mesh.clone<{ go(): string; same(): boolean }>(at('ring'));
      assert.deepEqual([await worker.go(), await worker.same()], ['b!', true]);
      const { worker: name } = await used.mesh.details(worker);
      const { code } = (await used.mesh.registry()).workers.find((one) => one.worker === name)!;
      assert.equal(code!.pointer, at('ring'));
      await used.mesh.destruct(worker);
    });

    it('is refused, with importer, line and pointer, for what is not there, not whole, or no code', async () => {
      const source = 'export const one = 1;';
      await keep('one', source);
      await used.mesh.meshfs.write(at('notes'), '# Notes');
      const wrong = sha256('something else');
      const at_line_2 = (specifier: string) => `\nimport { one } from '${specifier}'; export const f = () => one;`;
      await rejected(
        run(at_line_2(`${at('one')}#sha256-${wrong}`)),
        'import',
        /worker\.mjs:2 /,
        new RegExp(at('one')),
        new RegExp(wrong),
        new RegExp(sha256(source)),
      );
      await rejected(run(at_line_2(at('none'))), 'import', /worker\.mjs:2 /, new RegExp(at('none')));
      await rejected(run(at_line_2(at('notes'))), 'import', /JavaScript or TypeScript/);
      await rejected(run(at_line_2(`${at('one')}#md5-00`)), 'import', /sha256-/);
      await rejected(run(at_line_2('gem-pointer://wiki/../x')), 'import', /worker\.mjs:2 /);
      await keep('deep', `export * from '${at('none')}';`);
      await rejected(run(at_line_2(at('deep'))), 'import', new RegExp(`${at('deep')}:1 imports ${at('none')}`));
      await keep('broken', 'export const a = 1;\nexport const b = (;');
      await rejected(run(at_line_2(at('broken'))), 'parse', new RegExp(`${at('broken')}:2`));
      await keep('typo', 'export const a: number = 1;\nexport const b: = 2;', 'typescript');
      await rejected(run(at_line_2(at('typo'))), 'parse', new RegExp(`${at('typo')}:2`));
      await keep('bare', "\nimport 'lodash'; export const a = 1;");
      await rejected(
        run(`import '${at('bare')}'; export const f = () => 1;`),
        driver === 'quickjs' ? 'load' : 'import',
        /lodash/,
      );
      const computed = run(`const name = 'one'; export const f = () => import('${at('')}' + name);`);
      await assert.rejects(Promise.resolve(computed.f!()), /not resolved when the worker was ordered/);
    });

    it('runs what it was ordered with: a lasting one also after its library has changed', async () => {
      await keep('version', 'export const version = 1;');
      const source = `import { version } from '${at('version')}'; export const get = () => version; export const die = () => { throw 1; };`;
      const name = `keeps-${driver}-${crypto.randomUUID().slice(0, 8)}`;
      await used.mesh.provision({ source }, { name });
      await keep('version', 'export const version = 2;');
      await restartCore(used.local);
      const { code } = await used.mesh.lasting.get(name);
      assert.equal(code!.modules[0]!.digest, sha256('export const version = 1;'));
      await used.local.nodes[0]!.kill();
      used.local.nodes[0] = await startNode({
        core_url: used.local.url,
        data_dir: join(used.local.data_dir, 'node'),
        token_file: nodeTokenFile(used.local.data_dir),
        drivers: [driver],
      });
      await until('it runs again', async () => {
        const { state, epoch } = await used.mesh.lasting.get(name);
        return state === 'running' && epoch === 2;
      });
      assert.equal(await used.mesh.visit<{ get(): number }>(name).get(), 1);
      await used.mesh.lasting.delete(name);
    });
  });

describe('the right to import', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  const meshes: Mesh[] = [];
  const folder = mkdtempSync(join(tmpdir(), 'hauki-modules-'));
  after(async () => {
    await Promise.all(meshes.map((mesh) => mesh.close()));
    rmSync(folder, { recursive: true });
  });
  const holder = async (scopes: Scope[], pointers: string[]) => {
    const { token } = await used.mesh.tokens.create({ name: 'test', scopes, targets: { pointers } });
    const mesh = await connect({ core: used.local.url, token });
    meshes.push(mesh);
    return mesh;
  };
  const write = (name: string, source: string) =>
    used.mesh.meshfs.write(`gem-pointer://wiki/${name}`, source, { language: 'javascript' });

  it('is the right to read: a token imports nothing that it may not, also not through what it may', async () => {
    await write('open/lib', "export { secret } from 'gem-pointer://wiki/shut/lib';");
    await write('open/alone', 'export const fine = () => "fine";');
    await write('shut/lib', 'export const secret = () => "secret";');
    const mine = await holder(['spawn', 'meshfs.read'], ['gem-pointer://wiki/open/']);
    const using = (name: string) => ({ source: `export * from 'gem-pointer://wiki/${name}';` });
    assert.equal(await mine.clone<{ fine(): string }>(using('open/alone')).fine(), 'fine');
    await refused(mine.clone(using('shut/lib')), Forbidden, /worker\.mjs:1 imports gem-pointer:\/\/wiki\/shut\/lib/);
    await refused(mine.clone(using('open/lib')), Forbidden, /open\/lib:1 imports gem-pointer:\/\/wiki\/shut\/lib/);
    const blind = await holder(['spawn'], ['gem-pointer://wiki/open/']);
    await refused(blind.clone(using('open/alone')), Forbidden, /meshfs\.read/);
    await write('open/main', "export * from 'gem-pointer://wiki/open/alone';");
    const runner = await holder(['spawn.pointer'], ['gem-pointer://wiki/open/']);
    assert.equal(await runner.clone<{ fine(): string }>('gem-pointer://wiki/open/main').fine(), 'fine');
  });

  it('a job of the spool keeps what it was handed in with, and says what that is', async () => {
    await write('open/tool', 'export const answer = 1;');
    const source = "import { answer } from 'gem-pointer://wiki/open/tool'; export const get = () => answer;";
    const job = await used.mesh.spool<number>({ source }, { method: 'get' });
    await write('open/tool', 'export const answer = 2;');
    assert.equal(await job.result(), 1);
    const { code } = await job.state();
    assert.deepEqual(code!.modules, [
      { pointer: 'gem-pointer://wiki/open/tool', digest: sha256('export const answer = 1;') },
    ]);
  });

  it('a file is bundled around its pointers', async () => {
    writeFileSync(join(folder, 'helper.ts'), 'export const twice = (n: number) => 2 * n;');
    writeFileSync(
      join(folder, 'main.ts'),
      `import { fine } from 'gem-pointer://wiki/open/alone';
      import { twice } from './helper.ts';
      export const both = () => fine() + twice(21);`,
    );
    assert.equal(await used.mesh.clone<{ both(): string }>({ file: join(folder, 'main.ts') }).both(), 'fine42');
  });
});
