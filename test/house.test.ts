/**
 * The rules of the house that no compiler checks: who may import whom, what browsers can load, how files begin and how
 * long they are, what must not stand in the repository. Every rule is a function of texts, and each is shown to find
 * what it looks for before it is trusted to find nothing. Over 400 lines, because rule and control belong together.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..');

/** The package table of the design: what of Hauki each package may import. */
const TABLE: Record<string, readonly string[]> = {
  protocol: [],
  rpc: ['protocol'],
  backplane: ['rpc', 'protocol'],
  meshfs: ['backplane', 'protocol'],
  lang: [],
  vault: ['rpc', 'meshfs', 'lang', 'protocol'],
  mesh: ['rpc', 'protocol'],
  node: ['vault', 'meshfs', 'rpc', 'protocol'],
  microkernel: ['node', 'vault', 'meshfs', 'backplane', 'rpc', 'protocol'],
  core: ['meshfs', 'backplane', 'rpc', 'protocol'],
  guardian: ['protocol'],
  kernels: ['mesh', 'meshfs', 'lang'],
};
const LINES = 400;
/** The name under which the host of a QuickJS vault hands the worker's module in: no package. */
const HANDED_IN = 'wrapped.mjs';

// --- Rules -----------------------------------------------------------------------------------------------------------

/** A source without its comments; texts stay. Good enough for our own, formatted sources. */
function withoutComments(source: string): string {
  return source.replace(
    /\/\*[\s\S]*?\*\/|\/\/[^\n]*|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)/g,
    (_, text: string | undefined) => text ?? ' ',
  );
}

interface Import {
  specifier: string;
  /** Present at run time, at once: not type-only and not `import()`. */
  static: boolean;
}

/** All module specifiers of a source: static, re-exported, dynamic, by `import.meta.resolve` and in types. */
export function importsOf(source: string): Import[] {
  const code = withoutComments(source);
  const found: Import[] = [];
  for (const [, kind, names, , specifier] of code.matchAll(
    /(?:^|[;\n])\s*(import|export)\b(\s+type\b)?([^'"`;()]*?\bfrom\b|(?<=import))\s*['"]([^'"\n]+)['"]/g,
  ))
    if (kind) found.push({ specifier: specifier!, static: names === undefined });
  for (const [, specifier] of code.matchAll(/\bimport(?:\.meta\.resolve)?\s*\(\s*['"`]([^'"`$\n]+)['"`]/g))
    found.push({ specifier: specifier!, static: false });
  for (const [, specifier] of code.matchAll(/\brequire(?:\.resolve)?\s*\(\s*['"]([^'"\n]+)['"]/g))
    found.push({ specifier: specifier!, static: false });
  return found;
}

/** The package of a bare specifier; undefined for relative ones, built-ins and `#names`. */
export function packageOf(specifier: string): string | undefined {
  if (specifier === HANDED_IN || /^[./#]/.test(specifier) || specifier.includes(':') || isBuiltin(specifier))
    return undefined;
  const [first, second] = specifier.split('/');
  return first!.startsWith('@') ? `${first}/${second}` : first!;
}

export interface Manifest {
  name: string;
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
  peerDependencies?: Record<string, string>;
}

/** What is wrong between what a package imports, what it declares, and the table. `allowed` undefined: anything. */
export function dependencyFaults(
  manifest: Manifest,
  sources: Record<string, string>,
  allowed: readonly string[] | undefined,
  peersOf: (name: string) => readonly string[] = () => [],
): string[] {
  const faults: string[] = [];
  const declared = new Set(
    Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies, ...manifest.peerDependencies }),
  );
  const used = new Set<string>();
  for (const [file, source] of Object.entries(sources))
    for (const { specifier } of importsOf(source)) {
      const name = packageOf(specifier);
      if (name === undefined) {
        // A relative way out of the package would pass by every other rule.
        if (specifier.startsWith('.') && join('src', dirname(file), specifier).startsWith('..'))
          faults.push(`${file} leaves its package: ${specifier}`);
        if (!specifier.includes(':') && isBuiltin(specifier)) faults.push(`${file} imports ${specifier} without node:`);
        continue;
      }
      used.add(name);
      if (name === manifest.name) faults.push(`${file} imports its own package`);
      else if (!declared.has(name)) faults.push(`${file} imports ${name}, which is not declared`);
    }
  // What a dependency wants beside it is declared for its sake.
  const wanted = new Set([...used].flatMap(peersOf));
  for (const name of declared)
    if (!used.has(name) && !wanted.has(name)) faults.push(`${name} is declared but not imported`);
  if (allowed)
    for (const name of new Set([...used, ...declared]))
      if (name.startsWith('@hauki/') && name !== manifest.name && !allowed.includes(name.slice('@hauki/'.length)))
        faults.push(`${name} may not be imported by ${manifest.name}`);
  return faults;
}

/** Files that a module loads at once, followed through relative imports, our packages and `#powers`. */
export function staticGraph(
  entry: string,
  read: (file: string) => string,
  resolveTo: (specifier: string, from: string) => string | undefined,
): { files: string[]; outside: { file: string; specifier: string }[] } {
  const files = new Set<string>();
  const outside: { file: string; specifier: string }[] = [];
  const visit = (file: string) => {
    if (files.has(file)) return;
    files.add(file);
    for (const { specifier, static: at_once } of importsOf(read(file))) {
      if (!at_once) continue;
      const target = resolveTo(specifier, file);
      if (target === undefined) outside.push({ file, specifier });
      else visit(target);
    }
  };
  visit(entry);
  return { files: [...files], outside };
}

/** The comment that opens a file, after a `#!` line; undefined when there is none. */
export function headerOf(source: string): string | undefined {
  return /^(?:#![^\n]*\n)?\s*(\/\*[\s\S]*?\*\/|(?:\/\/[^\n]*\n)+)/.exec(source)?.[1];
}

export function tooLong(source: string, limit = LINES): boolean {
  const lines = source.split('\n').length - (source.endsWith('\n') ? 1 : 0);
  return (
    lines > limit && !/\b(lines|long|length|split|one file|stay together|kept together)\b/i.test(headerOf(source) ?? '')
  );
}

export const proxiesIn = (source: string): number =>
  withoutComments(source).match(/\bnew\s+Proxy\b|\bProxy\.revocable\b/g)?.length ?? 0;

/** Values of `resolved` in a lock file that name a host. */
export function registryHosts(lock: string): string[] {
  return Object.values((JSON.parse(lock) as { packages: Record<string, { resolved?: string }> }).packages)
    .map(({ resolved }) => resolved)
    .filter((resolved): resolved is string => resolved !== undefined && /^(https?:|git)/i.test(resolved));
}

export const mentions = (text: string, path: string): boolean =>
  new RegExp(`(?<![\\w.-])${path.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?![\\w.-])`).test(text);

// --- The repository --------------------------------------------------------------------------------------------------

const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');

function filesBelow(folder: string): string[] {
  if (!existsSync(join(ROOT, folder))) return [];
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)).replaceAll('\\', '/'))
    .filter((file) => !file.includes('node_modules/'))
    .sort();
}

const isSource = (file: string) => /\.(ts|js|mjs|cjs)$/.test(file) && !file.endsWith('.d.ts');

const workspaces = ['packages', 'apps'].flatMap((group) =>
  readdirSync(join(ROOT, group))
    .map((name) => ({ group, name, folder: `${group}/${name}` }))
    .filter(({ folder }) => existsSync(join(ROOT, folder, 'package.json')))
    .map((workspace) => ({
      ...workspace,
      manifest: JSON.parse(read(`${workspace.folder}/package.json`)) as Manifest & {
        version: string;
        exports?: Record<string, string | { default: string }>;
        imports?: Record<string, Record<string, string>>;
      },
      sources: Object.fromEntries(
        filesBelow(`${workspace.folder}/src`)
          .filter(isSource)
          .map((file) => [relative(`${workspace.folder}/src`, file).replaceAll('\\', '/'), read(file)]),
      ),
    })),
);

/** Resolves as a browser's bundler would: our packages by their exports, `#powers` by its default. */
const asBrowser = (specifier: string, from: string): string | undefined => {
  if (specifier.startsWith('.')) return join(dirname(from), specifier).replaceAll('\\', '/');
  const home = workspaces.find(({ folder }) => from.startsWith(`${folder}/`));
  if (specifier.startsWith('#')) {
    const target = home?.manifest.imports?.[specifier];
    return target && join(home.folder, target.browser ?? target.default!);
  }
  const [scope, name, ...rest] = specifier.split('/');
  const target = workspaces.find(({ manifest }) => manifest.name === `${scope}/${name}`);
  const entry = target?.manifest.exports?.[rest.length === 0 ? '.' : `./${rest.join('/')}`];
  const path = typeof entry === 'object' ? entry.default : entry;
  return target && path ? join(target.folder, path) : undefined;
};

/** What an installed package wants beside it. */
const peersOf = (name: string): string[] => {
  const file = `node_modules/${name}/package.json`;
  return existsSync(join(ROOT, file)) ? Object.keys(JSON.parse(read(file)).peerDependencies ?? {}) : [];
};

const tracked = (): string[] => {
  try {
    const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
      cwd: ROOT,
      encoding: 'utf8',
    });
    return listed.split('\0').filter((file) => file !== '' && existsSync(join(ROOT, file)));
  } catch {
    // No git here: an unpacked copy holds nothing but what is tracked, and what was installed.
    return filesBelow('.').filter((file) => !file.startsWith('.git/'));
  }
};

// --- Tests -----------------------------------------------------------------------------------------------------------

describe('the rules find what they look for (positive controls)', () => {
  it('sees every kind of import, and none in comments or texts', () => {
    const source = `
/** import x from 'commented'; */
// import 'commented too';
import def, { type A } from 'static-one';
import type { B } from 'type-only';
import * as everything from "static-two/deep";
import 'bare-effect';
import {
  several,
  lines,
} from '@scope/lines/part';
export * from './re-exported.ts';
export type { C } from 'type-export';
export { d } from '#powers';
const late = await import('dynamic');
const where = import.meta.resolve('resolved/by');
const old = require('required');
const text = "import y from 'in-a-text'";
const url = 'https://example.org'; // a comment
type T = typeof import('in-a-type');
`;
    const found = importsOf(source);
    assert.deepEqual(
      found
        .filter((i) => i.static)
        .map((i) => i.specifier)
        .sort(),
      ['#powers', './re-exported.ts', '@scope/lines/part', 'bare-effect', 'static-one', 'static-two/deep'],
    );
    assert.deepEqual(
      found
        .filter((i) => !i.static)
        .map((i) => i.specifier)
        .sort(),
      ['dynamic', 'in-a-type', 'required', 'resolved/by', 'type-export', 'type-only'],
    );
    assert.deepEqual(['node:fs', 'fs', './x.ts', '#powers', '@a/b/c', 'd/e'].map(packageOf), [
      undefined,
      undefined,
      undefined,
      undefined,
      '@a/b',
      'd',
    ]);
  });

  it('reports what is undeclared, unused, not allowed, or goes around the packages', () => {
    const manifest = { name: '@hauki/rpc', dependencies: { '@hauki/protocol': '0', unused: '1', esbuild: '2' } };
    const sources = {
      'a.ts': "import { x } from '@hauki/protocol';\nimport undeclared from 'undeclared';\nawait import('esbuild');\n",
      'b.ts': "import { core } from '@hauki/core';\nimport fs from 'fs';\n",
      'deep/c.ts': "import y from '../a.ts';\nimport z from '../../../core/src/auth.ts';\n",
    };
    assert.deepEqual(dependencyFaults(manifest, sources, ['protocol']).sort(), [
      '@hauki/core may not be imported by @hauki/rpc',
      'a.ts imports undeclared, which is not declared',
      'b.ts imports @hauki/core, which is not declared',
      'b.ts imports fs without node:',
      'deep/c.ts leaves its package: ../../../core/src/auth.ts',
      'unused is declared but not imported',
    ]);
    assert.deepEqual(
      dependencyFaults({ name: 'x', dependencies: { a: '1', peer: '1' } }, { 'a.ts': "import 'a'" }, [], (name) =>
        name === 'a' ? ['peer'] : [],
      ),
      [],
    );
    assert.deepEqual(
      dependencyFaults({ name: 'x', dependencies: { esbuild: '1' } }, { 'a.ts': "import('esbuild')" }, []),
      [],
    );
  });

  it('follows static imports only, to what lies outside', () => {
    const files: Record<string, string> = {
      'a.ts': "export * from './b.ts';\nimport type { T } from './t.ts';\n",
      'b.ts': "import { c } from './c.ts';\nawait import('node:late');\n",
      'c.ts': "import './a.ts';\nimport { readFile } from 'node:fs';\n",
      't.ts': "import 'node:never';\n",
    };
    const graph = staticGraph(
      'a.ts',
      (file) => files[file]!,
      (specifier, from) => (specifier.startsWith('.') ? join(dirname(from), specifier) : undefined),
    );
    assert.deepEqual(graph, { files: ['a.ts', 'b.ts', 'c.ts'], outside: [{ file: 'c.ts', specifier: 'node:fs' }] });
  });

  it('sees missing headers, long files, proxies, registry hosts and paths', () => {
    assert.equal(headerOf("import x from 'y';\n/** too late */"), undefined);
    assert.equal(headerOf('#!/usr/bin/env node\n/** here */\ncode();'), '/** here */');
    assert.equal(headerOf('// here\ncode();'), '// here\n');
    const long = 'code();\n'.repeat(LINES);
    assert.ok(!tooLong(long));
    assert.ok(tooLong(`${long}code();\n`));
    assert.ok(tooLong(`/** Does things. */\n${long}`));
    assert.ok(!tooLong(`/** Does things; long because they belong to one table. */\n${long}`));
    assert.equal(proxiesIn('new Proxy(a, b); // new Proxy\n/* new Proxy */ Proxy.revocable(a, b)'), 2);
    const lock = {
      packages: { '': {}, a: { resolved: 'https://registry.example/a.tgz' }, b: { resolved: 'packages/b' } },
    };
    assert.deepEqual(registryHosts(JSON.stringify(lock)), ['https://registry.example/a.tgz']);
    assert.ok(mentions('cd /srv/hauki && ls', '/srv/hauki'));
    assert.ok(mentions('"/srv/hauki/x"', '/srv/hauki'));
    assert.ok(!mentions('/srv/haukiland', '/srv/hauki') && !mentions('x/srv/hauki', '/srv/hauki'));
  });
});

describe('packages', () => {
  it('are found', () => assert.ok(workspaces.length >= 9));

  for (const { group, name, manifest, sources } of workspaces) {
    it(`${group}/${name} imports what it declares, declares what it imports, and keeps to the table`, () => {
      assert.equal(manifest.name, `@hauki/${name}`);
      if (group === 'packages') assert.ok(name in TABLE, `${name} is not in the table: add it there and in the design`);
      const allowed = group === 'packages' ? TABLE[name] : undefined;
      assert.deepEqual(dependencyFaults(manifest, sources, allowed, peersOf), []);
    });
  }

  it('have one version, also where they name each other', () => {
    const { version } = JSON.parse(read('package.json')) as { version: string };
    for (const { manifest } of workspaces) {
      assert.equal(manifest.version, version, manifest.name);
      for (const [name, wanted] of Object.entries(manifest.dependencies ?? {}))
        if (name.startsWith('@hauki/')) assert.equal(wanted, version, `${manifest.name} → ${name}`);
        else assert.match(wanted, /^\d+\.\d+\.\d+/, `${manifest.name} → ${name} is not exact`);
    }
  });

  it('do not form circles', () => {
    const names = new Map(workspaces.map(({ manifest }) => [manifest.name, manifest]));
    const visit = (name: string, way: string[]) => {
      assert.ok(!way.includes(name), [...way, name].join(' → '));
      for (const next of Object.keys(names.get(name)?.dependencies ?? {}))
        if (names.has(next)) visit(next, [...way, name]);
    };
    for (const name of names.keys()) visit(name, []);
  });
});

describe('what browsers load', () => {
  for (const entry of ['packages/rpc/src/index.ts', 'packages/mesh/src/index.ts'])
    it(`${entry} reaches nothing of Node and nothing that is not ours`, () => {
      const { files, outside } = staticGraph(entry, read, asBrowser);
      assert.ok(files.includes('packages/protocol/src/index.ts'));
      if (entry.includes('mesh')) assert.ok(files.includes('packages/mesh/src/powers-browser.ts'));
      assert.deepEqual(outside, []);
    });

  it('would be reported, were it Node’s (positive control)', () => {
    const { outside } = staticGraph('packages/rpc/src/node.ts', read, asBrowser);
    assert.ok(outside.some(({ specifier }) => specifier.startsWith('node:')));
  });
});

describe('the guest', () => {
  it('imports only protocol, rpc, lang and Node, and stays in its folder', () => {
    const faults: string[] = [];
    const guest = filesBelow('packages/vault/src/guest').filter(isSource);
    assert.ok(guest.length > 5);
    for (const file of guest)
      for (const { specifier, static: at_once } of importsOf(read(file))) {
        const known =
          /^(@hauki\/(protocol|rpc|lang)(\/|$)|node:)/.test(specifier) ||
          (specifier.startsWith('.') &&
            join('guest', relative('packages/vault/src/guest', dirname(file)), specifier).startsWith('guest/'));
        // The builder of the guest stands beside it and runs outside.
        const builder = !at_once && file.endsWith('/bundle.ts') && specifier === 'esbuild';
        // What the web's platform has and QuickJS has not, where a library is it (ADR 0031).
        const platform = file.endsWith('/vm-streams.ts') && specifier === 'web-streams-polyfill';
        if (!known && !builder && !platform && specifier !== HANDED_IN) faults.push(`${file}: ${specifier}`);
      }
    assert.deepEqual(faults, []);
  });
});

describe('source files', () => {
  const sources = workspaces.flatMap(({ folder }) => filesBelow(`${folder}/src`).filter(isSource));

  it('begin with a comment', () => {
    assert.deepEqual(
      sources.filter((file) => headerOf(read(file)) === undefined),
      [],
    );
  });

  it(`have at most ${LINES} lines, or say at their head why not`, () => {
    assert.deepEqual(
      sources.filter((file) => tooLong(read(file))),
      [],
    );
  });

  it('make proxies in one place for users and in one for ourselves', () => {
    const found = Object.fromEntries(sources.map((file) => [file, proxiesIn(read(file))]).filter(([, n]) => n !== 0));
    assert.deepEqual(found, {
      'packages/rpc/src/ghost.ts': 1,
      'packages/rpc/src/promise.ts': 2,
      'packages/rpc/src/serve.ts': 1,
    });
  });

  it('leave nothing to be done later', () => {
    const marks = new RegExp(`\\b(${['TO', 'FIX'].map((a, i) => a + ['DO', 'ME'][i]).join('|')}|XXX)\\b`);
    assert.ok(marks.test(`// ${'TO'}${'DO'} later`));
    assert.deepEqual(
      sources.filter((file) => marks.test(read(file))),
      [],
    );
  });
});

describe('the repository', () => {
  it('names no registry in its lock file', () => {
    assert.deepEqual(registryHosts(read('package-lock.json')), []);
  });

  it('holds no path of this checkout', () => {
    const files = tracked();
    assert.ok(files.includes('package.json'));
    // A checkout at the root of a disk has a path too short to tell from others.
    const told = ROOT.split(/[\\/]/).length > 2 ? files : [];
    const holding = told.filter(
      (file) =>
        !file.startsWith('test/house.test.ts') && mentions(readFileSync(join(ROOT, file)).toString('latin1'), ROOT),
    );
    assert.deepEqual(holding, []);
  });
});
