import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BadInput, EvolveRejected, isError, normaliseGrants, PLUGINS, readTarget } from '@hauki/protocol';
import fc from 'fast-check';
import { aliasesMeet, checkAlias, checkGrants, readModule } from '../src/names.ts';

const plugin = (module: string, path: string, query = '') => ({ kind: 'plugin', module, path, query });

describe('which module a request is for', () => {
  it('is read from the first segment behind /api/plugins/, and the rest is the module’s', () => {
    assert.deepEqual(readTarget('/api/plugins/x/a/b?c=1'), plugin('x', '/a/b', '?c=1'));
    assert.deepEqual(readTarget('/api/plugins/x'), plugin('x', '/'));
    assert.deepEqual(readTarget('/api/plugins/x?y'), plugin('x', '/', '?y'));
    assert.deepEqual(readTarget('/api/plugins/x/'), plugin('x', '/'));
  });

  it('is the same in the absolute form of a target', () => {
    assert.deepEqual(readTarget('http://elsewhere.example/api/plugins/x/a'), plugin('x', '/a'));
    assert.deepEqual(readTarget('HTTP://h'), { kind: 'own', path: '/', query: '' });
  });

  it('is refused where a segment is . or .., in any spelling', () => {
    for (const path of ['/../status', '/a/..', '/%2e%2e/y', '/.%2E/', '/a/./b', '/%2E'])
      assert.equal(readTarget(`/api/plugins/x${path}`).kind, 'refused', path);
    assert.equal(readTarget('/api/../api/plugins/x/').kind, 'refused');
  });

  it('is nobody’s where the prefix or the name is spelled in another way', () => {
    for (const target of [
      '/API/plugins/x/',
      '/api/Plugins/x/',
      '//api/plugins/x/',
      '/api//plugins/x/',
      '/api/plugins//x/',
      '/api/%70lugins/x/',
      '/api%2fplugins%2fx/',
      '/api/plugins/X/',
      '/api/plugins/%78/',
      '/api/plugins/x%2fy/',
      '/api/plugins/x;a/',
    ])
      assert.notEqual(readTarget(target).kind, 'plugin', target);
  });

  it('is refused for characters that no target has', () => {
    for (const target of [
      '/api/plugins/x/ä',
      '/api/plugins/x/\\..\\',
      '/api/plugins/x/a b',
      '/a#b',
      'x',
      '*',
      '',
      '/%zz',
    ])
      assert.equal(readTarget(target).kind, 'refused', target);
  });

  it('is another module for no spelling: whoever is reached stands literally behind the prefix', () => {
    const piece = fc.constantFrom(
      'api',
      'plugins',
      'x',
      'y',
      '..',
      '.',
      '%2e',
      '%2f',
      '%5c',
      '/',
      '//',
      '?',
      'X',
      '%78',
      ';',
      'ä',
      '\\',
      '#',
      'status',
      'http://h',
      '%',
      '%00',
      ' ',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const raw = pieces.join('');
        const target = readTarget(raw);
        if (target.kind !== 'plugin') return;
        const bare = raw.replace(/^https?:\/\/[^/?#]*/i, '');
        assert.ok(
          bare === `${PLUGINS}${target.module}` ||
            bare.startsWith(`${PLUGINS}${target.module}/`) ||
            bare.startsWith(`${PLUGINS}${target.module}?`),
        );
        assert.ok(target.path.startsWith('/'));
        // However often it is decoded and normalised, it stays below the module.
        const url = new URL(`http://k${PLUGINS}${target.module}${target.path}`);
        assert.ok(url.pathname.startsWith(`${PLUGINS}${target.module}/`));
      }),
      { numRuns: 5_000 },
    );
  });

  it('is an alias’s module, with the whole path', () => {
    const aliases = new Map([['/api/v2/meshfs/', 'meshfs_controller']]);
    assert.deepEqual(
      readTarget('/api/v2/meshfs/write?x', aliases),
      plugin('meshfs_controller', '/api/v2/meshfs/write', '?x'),
    );
    assert.deepEqual(readTarget('/api/v2/meshfs', aliases), plugin('meshfs_controller', '/api/v2/meshfs'));
    assert.equal(readTarget('/api/v2/meshfsx', aliases).kind, 'own');
    assert.equal(readTarget('/api/v2/meshfs/../status', aliases).kind, 'refused');
  });
});

describe('the name of a module', () => {
  it('comes with its language as the ending, or beside it', () => {
    assert.deepEqual(readModule('data_scraper.ts'), { module: 'data_scraper', language: 'typescript' });
    assert.deepEqual(readModule('a', 'typescript'), { module: 'a', language: 'typescript' });
    assert.deepEqual(readModule('a'), { module: 'a', language: undefined });
  });

  it('is refused where it could be read as anything else', () => {
    for (const name of ['', 'A', '../x', 'x/y', 'x.exe', 'x.constructor', 'a.b.ts', 'ä', 'x'.repeat(49), 'a\n', '1a'])
      assert.throws(
        () => readModule(name),
        (error) => isError(error, EvolveRejected) && error.fields.stage === 'name',
        name,
      );
    assert.throws(() => readModule('My-App.ts'), /a letter first, at most 48; my_app would be one/);
    assert.throws(() => readModule('1a.ts'), /a letter first, at most 48\. Nothing/);
    assert.throws(() => readModule('a.ts', 'javascript'), /name says typescript, not javascript/);
    for (const none of [undefined, 7])
      assert.throws(
        () => readModule(none),
        (error) => isError(error, BadInput),
      );
  });
});

describe('an alias', () => {
  it('is an absolute prefix that lies over nothing of the kernel’s own', () => {
    assert.equal(checkAlias('/api/v2/meshfs/'), '/api/v2/meshfs/');
    for (const alias of [
      '/',
      '/api/',
      '/api/plugins/',
      '/api/plugins/x/',
      '/api/status/',
      '/docs/',
      '/x',
      'x/',
      '/a//b/',
      '/../',
      '/A/',
      '/api/evolve/',
    ])
      assert.throws(
        () => checkAlias(alias),
        (error) => isError(error, BadInput),
        alias,
      );
  });

  it('meets another that lies over it', () => {
    assert.equal(aliasesMeet('/a/', '/a/b/'), true);
    assert.equal(aliasesMeet('/a/b/', '/a/'), true);
    assert.equal(aliasesMeet('/a/', '/ab/'), false);
  });
});

describe('a grant to write', () => {
  const check = (prefix: string) => checkGrants(normaliseGrants({ meshfs: { write: [prefix] } }));

  it('is refused where it reaches the sources of modules, from above too', () => {
    for (const prefix of ['gem-pointer://', 'gem-pointer://plugins/', 'gem-pointer://plugins/x/1'])
      assert.throws(
        () => check(prefix),
        (error) => isError(error, BadInput),
        prefix,
      );
    for (const prefix of ['gem-pointer://wiki/', 'gem-pointer://wiki/plugins/', 'gem-pointer://plugins-of-mine/'])
      assert.deepEqual(check(prefix).meshfs.write, [prefix]);
  });
});
