/** `hauki fs` as a person or a script uses it: history, rm, watch, cp, sync, gc, each with its JSON and exit codes. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { before, describe, it } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import type { Mesh } from '@hauki/mesh';
import fc from 'fast-check';
import { until } from '../../../test/support/mesh.ts';
import { renderMarkdown, width } from '../src/render-markdown.ts';
import { plan } from '../src/sync-plan.ts';
import { fsBench } from './support/fs-bench.ts';

describe('hauki fs', { concurrency: true }, () => {
  const bench = fsBench();
  const { start, run, json, local } = bench;
  let mesh: Mesh;
  before(() => {
    mesh = bench.mesh();
  });

  it('teaches with --help', async () => {
    const { out } = await run(['--help']);
    for (const word of ['read', 'write', 'ls', 'history', 'rm', 'watch', 'cp', 'sync', 'gc', 'Try:', '--at 1'])
      assert.ok(out.includes(word), word);
    assert.match((await run(['sync', '--help'])).out, /told as a conflict, and the exit code is 1/);
  });

  it('shows the history, reads earlier versions, and removes without losing them', async () => {
    const pointer = 'gem-pointer://wiki/history/page';
    for (const content of ['one', 'two']) await run(['write', pointer], content);
    assert.equal((await run(['rm', pointer, '--if-match', '1'])).code, 1);
    assert.match((await run(['rm', pointer, '--if-match', '2'])).out, /page\.md {2}deleted; before it was version 2/);
    const { out } = await run(['history', pointer]);
    assert.match(
      out,
      /^gem-pointer:\/\/wiki\/history\/page\.md\nVERSION {2}WRITTEN \(UTC\) +BYTES +TYPE +DIGEST\n3 +\S+ \S+ +deleted\n2 /,
    );
    assert.deepEqual(
      (await json(['history', pointer])).versions.map((one: any) => one.version),
      [3, 2, 1],
    );
    const gone = await run(['read', pointer]);
    assert.deepEqual([gone.code, /was deleted at .* \(version 3\)/.test(gone.err)], [3, true]);
    assert.equal((await run(['read', pointer, '--at', '2'])).out, 'two');
    assert.equal((await run(['read', pointer, '--at', '9'])).code, 3);
    assert.equal((await run(['read', pointer, '--at', 'x'])).code, 2);
    assert.equal((await run(['rm', pointer])).code, 3);
    assert.equal((await run(['write', pointer, '--if-match', 'x'])).code, 2);
    assert.equal((await run(['write', pointer, '--create', '--json'], 'three')).code, 0);
    assert.equal((await run(['write', pointer, '--create'], 'four')).code, 1);
    assert.equal(typeof (await json(['gc'])).kept, 'number');
  });

  it('writes text alone: what is none would not come back as it was', async () => {
    const file = join(local('text'), 'binary');
    const bytes = Buffer.from([0x68, 0xff, 0xfe, 0x00]);
    writeFileSync(file, bytes);
    for (const told of [
      await run(['write', 'gem-pointer://data/text', file]),
      await run(['write', 'gem-pointer://data/text'], bytes),
    ]) {
      assert.equal(told.code, 2);
      assert.match(told.err, /not UTF-8 text; `hauki fs cp` copies any file/);
    }
    assert.equal((await run(['history', 'gem-pointer://data/text'])).code, 3);
    assert.equal((await run(['write', 'gem-pointer://data/text'], 'größer\u0000')).code, 0);
    assert.equal((await run(['read', 'gem-pointer://data/text'])).out, 'größer\u0000');
  });

  it('removes all that are named, also where one of them is not there, and says so', async () => {
    for (const name of ['a', 'b']) await run(['write', `gem-pointer://data/several/${name}`], name);
    const told = await run(['rm', ...['a', 'none', 'b'].map((name) => `gem-pointer://data/several/${name}`)]);
    assert.equal(told.code, 3);
    assert.match(told.out, /several\/a {2}deleted.*\n.*several\/b {2}deleted/);
    assert.match(told.err, /Nothing was ever written to gem-pointer:\/\/data\/several\/none/);
    assert.deepEqual(await mesh.meshfs.list('gem-pointer://data/several/'), []);
  });

  it('copies between files and pointers, of any kind and size', async () => {
    const here = local('cp');
    const bytes = Buffer.from(Array.from({ length: 20_000_000 }, (_, at) => at % 251));
    writeFileSync(join(here, 'film.mp4'), bytes);
    const up = await json(['cp', join(here, 'film.mp4'), 'gem-pointer://wiki/cp/']);
    assert.deepEqual(
      [up.pointer, up.bytes, up.media_type],
      ['gem-pointer://wiki/cp/film.mp4', bytes.length, 'video/mp4'],
    );
    assert.equal((await run(['cp', up.pointer, 'gem-pointer://data/cp/copy', '--create'])).code, 0);
    assert.equal((await run(['cp', up.pointer, 'gem-pointer://data/cp/copy', '--create'])).code, 1);
    assert.match((await run(['cp', 'gem-pointer://data/cp/copy', here])).out, /copy {2}19\.1 MiB {2}/);
    assert.deepEqual(readFileSync(join(here, 'copy')), bytes);
    assert.equal((await json(['ls', 'gem-pointer://data/cp/'])).entries[0].media_type, 'video/mp4');
    const small = Buffer.from([0, 255, 254, 10]);
    assert.equal((await run(['cp', '-', 'gem-pointer://data/cp/small'], small)).code, 0);
    assert.deepEqual((await run(['cp', 'gem-pointer://data/cp/small', '-'])).bytes, small);
    await run(['cp', '-', 'gem-pointer://data/cp/small'], 'second');
    assert.deepEqual((await run(['cp', 'gem-pointer://data/cp/small', '-', '--at', '1'])).bytes, small);
    for (const args of [
      [here, here],
      ['nothing', 'gem-pointer://data/x'],
      [here, 'gem-pointer://data/x'],
    ])
      assert.equal((await run(['cp', ...args])).code, 2, args.join(' '));
    assert.equal((await run(['cp', 'gem-pointer://data/nothing', join(here, 'x')])).code, 3);
    assert.deepEqual(readdirSync(here).sort(), ['copy', 'film.mp4'], 'nothing half is left');
    const binary = await run(['read', 'gem-pointer://wiki/cp/film.mp4']);
    assert.equal(binary.code, 1);
  });

  it('goes on with a download where its connection was cut, with the version that it began with', async () => {
    const pointer = 'gem-pointer://data/resumed';
    const bytes = randomBytes(12_000_000);
    await mesh.meshfs.put(pointer, bytes);
    let cuts = 0;
    let carried = 0;
    const proxy = createServer((outer) => {
      const inner = connectTcp(Number(new URL(bench.core().url).port), '127.0.0.1');
      let here = 0;
      inner.on('data', (chunk) => {
        carried += chunk.length;
        here += chunk.length;
        if (here < 2_000_000 || cuts === 4) return void (outer.write(chunk) || inner.pause());
        cuts += 1;
        if (cuts === 1) void mesh.meshfs.put(pointer, 'a newer version').then(() => outer.destroy());
        else outer.destroy();
        inner.destroy();
      });
      outer.on('drain', () => inner.resume());
      outer.pipe(inner);
      outer.on('close', () => inner.destroy()).on('error', () => {});
      inner.on('close', () => outer.end()).on('error', () => {});
    });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    try {
      const to = join(local('resumed'), 'film');
      const done = await run(['cp', pointer, to, '--json'], '', url);
      assert.equal(done.code, 0, done.err);
      assert.deepEqual([JSON.parse(done.out).version, cuts], [1, 4]);
      assert.ok(readFileSync(to).equals(bytes));
      assert.ok(carried < 2 * bytes.length, `${carried} bytes for ${bytes.length}`);
    } finally {
      proxy.close();
    }
  });

  it('tells of changes until it is asked to end', async () => {
    const watching = start(['watch', 'gem-pointer://data/watched/', '--after', String(await revision()), '--json']);
    const lines = createInterface(watching.stdout!)[Symbol.asyncIterator]();
    await mesh.meshfs.put('gem-pointer://data/watched/x', '1');
    await mesh.meshfs.put('gem-pointer://data/elsewhere', '1');
    await mesh.meshfs.delete('gem-pointer://data/watched/x');
    const seen = [JSON.parse((await lines.next()).value!), JSON.parse((await lines.next()).value!)];
    assert.deepEqual(
      seen.map((one) => [one.pointer, one.version, one.deleted === true]),
      [['gem-pointer://data/watched/x', 1, false], ['gem-pointer://data/watched/x', 2, true]],
    ); // biome-ignore format: a table
    watching.kill('SIGINT');
    assert.equal((await once(watching, 'exit'))[0], 0);
  });
  const revision = async () => (await mesh.meshfs.snapshot()).revision;

  it('mirrors a folder, again and again, and overwrites nobody', async () => {
    const here = local('sync');
    const prefix = 'gem-pointer://wiki/sync';
    mkdirSync(join(here, 'deep'));
    writeFileSync(join(here, 'notes.md'), '# Notes');
    writeFileSync(join(here, 'deep/logo.png'), Buffer.from([1, 2, 255]));
    writeFileSync(join(here, 'tool.ts'), 'export const a = 1;');
    writeFileSync(join(here, 'Makefile'), 'all:');
    writeFileSync(join(here, '.secret'), 'hidden');
    symlinkSync('/etc/passwd', join(here, 'link'));
    const dry = await json(['sync', here, prefix, '--dry-run']);
    assert.deepEqual(dry.pushed, ['Makefile', 'deep/logo.png', 'notes.md', 'tool.ts']);
    assert.deepEqual(await mesh.meshfs.list(`${prefix}/`), []);
    unlinkSync(join(here, 'link'));
    assert.match((await run(['sync', here, prefix])).out, /4 pushed, 0 unchanged\n$/);
    assert.match((await run(['sync', here, prefix])).out, /^4 unchanged\n$/);
    assert.equal((await mesh.meshfs.resolve(`${prefix}/tool.ts`)).language, 'typescript');

    // Changed here, deleted here, changed there, changed on both sides.
    writeFileSync(join(here, 'notes.md'), '# Notes, more');
    unlinkSync(join(here, 'deep/logo.png'));
    await mesh.meshfs.put(`${prefix}/Makefile`, 'theirs:');
    writeFileSync(join(here, 'tool.ts'), 'export const a = 2;');
    await mesh.meshfs.put(`${prefix}/tool.ts`, 'export const a = 3;');
    const second = await run(['sync', here, prefix, '--json']);
    assert.equal(second.code, 1);
    const told = JSON.parse(second.out);
    assert.deepEqual([told.pushed, told.deleted], [['notes.md'], ['deep/logo.png']]);
    assert.deepEqual(
      told.conflicts.map((one: any) => one.path),
      ['Makefile', 'tool.ts'],
    );
    assert.equal((await mesh.meshfs.resolve(`${prefix}/tool.ts`)).content, 'export const a = 3;');

    const pulled = await json(['sync', here, prefix, '--pull']);
    assert.deepEqual([pulled.pulled, pulled.conflicts.map((one: any) => one.path)], [['Makefile'], ['tool.ts']]);
    assert.equal(readFileSync(join(here, 'Makefile'), 'utf8'), 'theirs:');
    assert.equal(readFileSync(join(here, 'tool.ts'), 'utf8'), 'export const a = 2;');
    assert.equal((await run(['sync', here, prefix, '--force'])).code, 0);
    assert.equal((await mesh.meshfs.resolve(`${prefix}/tool.ts`)).content, 'export const a = 2;');
    assert.equal((await mesh.meshfs.resolve(`${prefix}/tool.ts`, { version: 2 })).content, 'export const a = 3;');

    const there = join(bench.folder(), 'local', 'pulled');
    assert.equal((await json(['sync', there, prefix, '--pull'])).pulled.length, 3);
    assert.deepEqual(readdirSync(there).sort(), ['.hauki-sync.json', 'Makefile', 'notes.md', 'tool.ts']);
    await mesh.meshfs.delete(`${prefix}/notes.md`);
    assert.deepEqual((await json(['sync', there, prefix, '--pull'])).deleted, ['notes.md']);
    assert.ok(!existsSync(join(there, 'notes.md')));
    assert.equal((await run(['sync', join(bench.folder(), 'nothing'), prefix])).code, 2);
    assert.equal((await run(['sync', here, 'wiki/sync'])).code, 2);
  });

  it('pulls nothing hidden and through no link, and refuses names that no pointer has', async () => {
    const here = local('hostile');
    const outside = local('outside');
    const prefix = 'gem-pointer://data/hostile';
    await mesh.meshfs.put(`${prefix}/.git/hooks/post-checkout`, 'evil');
    await mesh.meshfs.put(`${prefix}/linked/file`, 'through');
    await mesh.meshfs.put(`${prefix}/fine`, 'fine');
    symlinkSync(outside, join(here, 'linked'));
    const told = await json(['sync', here, prefix, '--pull']);
    assert.deepEqual(told.pulled, ['fine']);
    assert.deepEqual(told.refused.map((one: any) => one.path).sort(), ['linked', 'linked/file']);
    assert.deepEqual(readdirSync(outside), []);
    assert.ok(!existsSync(join(here, '.git')));
    unlinkSync(join(here, 'linked'));
    writeFileSync(join(here, 'what?'), 'x');
    const pushed = await run(['sync', here, prefix, '--json']);
    assert.equal(pushed.code, 1);
    assert.match(JSON.parse(pushed.out).refused[0].why, /\? and # are reserved/);
  });

  it('refuses a file or a folder whose name is no UTF-8, and mirrors the others', async () => {
    const here = local('bytes');
    writeFileSync(join(here, 'fine'), 'fine');
    try {
      writeFileSync(Buffer.concat([Buffer.from(`${here}/`), Buffer.from([0x6f, 0xff])]), 'x');
      mkdirSync(Buffer.concat([Buffer.from(`${here}/`), Buffer.from([0xfe])]));
    } catch {
      return; // some file systems keep no such names
    }
    const told = await json(['sync', here, 'gem-pointer://data/bytes']);
    assert.deepEqual(told.pushed, ['fine']);
    assert.deepEqual(
      told.refused.map((one: any) => one.why),
      ['its name is not UTF-8', 'its name is not UTF-8'],
    );
    assert.deepEqual((await json(['sync', here, 'gem-pointer://data/bytes'])).unchanged, 1);
  });

  it('goes on with --watch, in both directions', async () => {
    const here = local('watch-here');
    const there = local('watch-there');
    const prefix = 'gem-pointer://wiki/watch';
    writeFileSync(join(here, 'a.md'), '1');
    const pushing = start(['sync', here, prefix, '--watch', '--json']);
    const said = createInterface(pushing.stdout!)[Symbol.asyncIterator]();
    assert.deepEqual(JSON.parse((await said.next()).value!).pushed, ['a.md']);
    const pulling = start(['sync', there, prefix, '--pull', '--watch', '--json']);
    const heard = createInterface(pulling.stdout!)[Symbol.asyncIterator]();
    assert.deepEqual(JSON.parse((await heard.next()).value!).pulled, ['a.md']);
    writeFileSync(join(here, 'a.md'), '2');
    writeFileSync(join(here, 'b.md'), 'new');
    await until('both files are on the other side', () => {
      const read = (name: string) => existsSync(join(there, name)) && readFileSync(join(there, name), 'utf8');
      return read('a.md') === '2' && read('b.md') === 'new';
    });
    for (const child of [pushing, pulling]) {
      child.kill('SIGINT');
      assert.equal((await once(child, 'exit'))[0], 0);
    }
  });
});

describe('a sync’s plan', () => {
  const digest = fc.constantFrom('1', '2', '3');
  const side = fc.dictionary(fc.constantFrom('a', 'b', 'c'), digest);
  const pictures = fc.record({ here: side, there: side, base: side });
  const maps = (given: { here: object; there: object; base: object }) => {
    const map = (side: object) => new Map(Object.entries(side).map(([path, digest]) => [path, { digest, version: 1 }]));
    return { here: map(given.here), there: map(given.there), base: map(given.base) };
  };

  it('never overwrites or deletes what changed on the other side, unless it is forced', () =>
    fc.assert(
      fc.property(pictures, fc.constantFrom('push', 'pull'), (given, direction) => {
        const all = maps(given);
        const target = direction === 'push' ? all.there : all.here;
        for (const action of plan(all, direction)) {
          if (!/^(push|pull|delete)/.test(action.kind)) continue;
          assert.ok(
            action.kind.startsWith(direction) ||
              action.kind === (direction === 'push' ? 'delete_there' : 'delete_here'),
          );
          assert.equal(target.get(action.path)?.digest, all.base.get(action.path)?.digest, 'it changed there');
        }
      }),
    ));

  it('leaves both sides alike, but for conflicts and what was never synced', () =>
    fc.assert(
      fc.property(pictures, fc.constantFrom('push', 'pull'), fc.boolean(), (given, direction, force) => {
        const all = maps(given);
        const [from, to] = direction === 'push' ? [all.here, all.there] : [all.there, all.here];
        for (const { kind, path } of plan(all, direction, { force })) {
          const [wanted, was] = [from.get(path)?.digest, to.get(path)?.digest];
          if (kind === 'same') assert.equal(wanted, was);
          if (kind === 'push' || kind === 'pull') assert.notEqual(wanted, undefined);
          if (kind.startsWith('delete')) assert.deepEqual([wanted, was !== undefined], [undefined, true]);
          if (kind === 'ignored') assert.deepEqual([wanted, all.base.has(path)], [undefined, false]);
          if (kind.startsWith('delete')) assert.ok(all.base.has(path), 'it was never synced');
          if (kind === 'conflict') assert.ok(!force && (wanted !== undefined || all.base.has(path)));
        }
      }),
    ));

  it('pulls of pointers below pointers what can be files and folders together', () => {
    const deep = fc.dictionary(fc.constantFrom('a', 'a/b', 'a/b/c', 'd'), digest);
    const overlap = (paths: string[]) => paths.find((path) => paths.some((one) => one.startsWith(`${path}/`)));
    const folder = deep.filter((side) => overlap(Object.keys(side)) === undefined);
    let never = 0;
    fc.assert(
      fc.property(fc.record({ here: folder, there: deep, base: deep }), fc.boolean(), (given, force) => {
        const files = new Set(Object.keys(given.here).filter((path) => Object.hasOwn(given.there, path)));
        for (const { kind, path } of plan(maps(given), 'pull', { force }))
          if (kind === 'pull') files.add(path);
          else if (kind === 'delete_here') files.delete(path);
          else if (kind === 'conflict' && force) never++;
        assert.equal(overlap([...files]), undefined);
      }),
      { numRuns: 500 },
    );
    assert.ok(never > 0);
  });
});

describe('Markdown on a terminal', () => {
  it('sets tables, lists, code and quotes so that they can be read', () => {
    const text =
      '# A\n\n| a | n |\n|---|--:|\n| 日本 | 1 |\n| longer | 10 |\n\n- one\n  - two\n- [x] done\n\n```\n  x = 1\n```\n\n> said\n\na &amp; b';
    assert.deepEqual(stripVTControlCharacters(renderMarkdown(text)).split('\n'), [
      'A',
      '',
      'a      │  n',
      '───────┼───',
      '日本   │  1',
      'longer │ 10',
      '',
      '• one',
      '  • two',
      '☒ done',
      '',
      '      x = 1',
      '',
      '│ said',
      '',
      'a & b',
      '',
    ]);
  });

  it('breaks lines at the terminal’s width, and never shows what would steer it', () =>
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme', maxLength: 300 }),
        fc.integer({ min: 20, max: 90 }),
        (text, columns) => {
          const shown = renderMarkdown(text, columns);
          // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
          assert.doesNotMatch(shown.replaceAll(/\u001b\[\d+m/g, ''), /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/);
        },
      ),
    ));

  it('measures wide letters as terminals draw them', () => {
    for (const [text, cells] of [
      ['abc', 3],
      ['日本', 4],
      ['😀', 2],
      ['e\u0301', 1],
      ['', 0],
    ] as const)
      assert.equal(width(text), cells, text);
  });
});
