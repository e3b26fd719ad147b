/** docs/protocol.md says what the code does, where that can be counted: errors, limits, tags, names, links, vectors. */
import assert from 'node:assert/strict';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { startCore } from '@hauki/cli';
import * as protocol from '@hauki/protocol';

const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');
const page = read('docs/protocol.md');

/** The text of a section, by its number. */
const section = (number: number) => {
  const [, text] = page.split(new RegExp(`^## ${number}\\. `, 'm'));
  return text!.split(/^## /m)[0]!;
};

describe('the page of the protocol', () => {
  it('has every error of the table with its code, status and retryability', () => {
    const rows = Object.values(protocol)
      .map((made) => (made as { row?: { name: string; code: number; status: number; retryable: boolean } }).row)
      .filter((row) => row !== undefined);
    assert.ok(rows.length > 30);
    const expected = rows.map(({ name, code, status, retryable }) => `${code} ${name} ${status} ${retryable}`).sort();
    const found = [...section(13).matchAll(/^\| −(\d+) \| `(\w+)` \| (\d+) \| (yes|no) \|/gm)].map(
      ([, code, name, status, retryable]) => `-${code} ${name} ${status} ${retryable === 'yes'}`,
    );
    assert.deepEqual(found.sort(), expected);
  });

  it('and the page of vaults have every cause of an end, with its meaning', () => {
    const rows = read('docs/vaults.md').matchAll(/^\| `(\w+)` \| (in order|fault) \| (.+) \|$/gm);
    assert.deepEqual(
      Object.fromEntries(
        [...rows].map(([, cause, kind, meaning]) => [cause, { orderly: kind === 'in order', meaning }]),
      ),
      protocol.CAUSES,
    );
  });

  it('has every limit', () => {
    const limits = section(14);
    const names = [...Object.keys(protocol.LIMITS), ...Object.keys(protocol.LEASE).map((name) => `LEASE.${name}`)];
    assert.deepEqual(
      names.filter((name) => !limits.includes(`\`${name}\``)),
      [],
    );
  });

  it('has every tag and every name of ours on the wire', () => {
    const values = read('packages/rpc/src/codec-decode.ts');
    const [, arity] = values.match(/const ITEMS[^{]*\{([^}]*)\}/)!;
    const tags = [...arity!.matchAll(/^ {2}([a-z]+):/gm)].map(([, tag]) => tag!);
    assert.ok(tags.length > 12);
    assert.deepEqual(
      tags.filter((tag) => !section(12).includes(`["${tag}"`)),
      [],
    );
    const names = new Set<string>();
    for (const file of globSync('packages/{rpc,vault}/src/**/*.ts'))
      for (const [, name] of readFileSync(file, 'utf8').matchAll(/'(rpc\.[a-z]+)'/g)) names.add(name!);
    assert.ok(names.size > 12);
    assert.deepEqual(
      [...names].filter((name) => !section(6).includes(`\`${name}\``)),
      [],
    );
  });

  it('has every route that the core describes of itself, and no other', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-page-'));
    const core = await startCore(data_dir, { port: 0 });
    try {
      const answer = await fetch(new URL('/docs/json', core.url));
      const { paths } = (await answer.json()) as { paths: Record<string, Record<string, unknown>> };
      const served = Object.entries(paths).flatMap(([path, methods]) =>
        Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, '<$1>')}`),
      );
      assert.ok(served.length > 30);
      const rows = [...section(15).matchAll(/^\| (`(?:GET|HEAD|POST|PUT|DELETE) [^|]*) \|/gm)].map(([, row]) => row!);
      const told = rows.flatMap((row) => [...row.matchAll(/`([A-Z]+ \/[^`]*)`/g)].map(([, route]) => route!));
      // The description leaves out itself.
      assert.deepEqual(told.filter((route) => route !== 'GET /docs').sort(), served.sort());
    } finally {
      await core.kill();
      rmSync(data_dir, { recursive: true, force: true });
    }
  });

  it('has every event that the code can emit, and no other; the code emits all that it names', () => {
    const [, table] = section(15).split('| event | fields |');
    const rows = [...table!.split('\n\n')[0]!.matchAll(/^\| (`[A-Z][^|]*) \|/gm)].map(([, row]) => row!);
    const told = rows.flatMap((row) => [...row.matchAll(/`([A-Z_]+)`/g)].map(([, name]) => name!));
    // What is no such name the compiler lets nobody emit.
    assert.deepEqual(told.sort(), [...protocol.EVENT_NAMES].sort());
    const code = globSync('packages/core/src/**/*.ts').map((file) => readFileSync(file, 'utf8'));
    const silent = protocol.EVENT_NAMES.filter((name) => !code.some((text) => text.includes(name)));
    assert.deepEqual(silent, []);
  });

  it('has every method of the internal interfaces, and no other', () => {
    const control = read('packages/protocol/src/control.ts');
    const within = {
      CoreForNode: 'node → core',
      NodeForCore: 'core → node',
      ShellForAgent: 'Agent → shell',
      AgentForShell: 'Shell → agent',
    };
    for (const [name, title] of Object.entries(within)) {
      const [, methods] = control.split(`export interface ${name} {`);
      const declared = [...methods!.split(/^}/m)[0]!.matchAll(/^ {2}(\w+)\??\(/gm)].map(([, method]) => method!);
      const [, table] = section(17).split(new RegExp(`^\\*\\*.*${title}\\.?\\*\\*`, 'm'));
      const rows = [...table!.split(/^\*\*|^\| effect/m)[0]!.matchAll(/^\| (`[^|]*) \|/gm)].map(([, row]) => row!);
      const told = rows.flatMap((row) => [...row.matchAll(/`(\w+)`/g)].map(([, method]) => method!));
      assert.deepEqual(told.sort(), declared.sort(), name);
    }
  });

  it('has links that lead somewhere, and names every file of vectors', () => {
    const heads = [...page.matchAll(/^#+ (.+)$/gm)].map(([, head]) =>
      head!
        .toLowerCase()
        .replaceAll(/[^\w\s-]/g, '')
        .replaceAll(' ', '-'),
    );
    for (const [, link] of page.matchAll(/\]\(#([^)]+)\)/g)) assert.ok(heads.includes(link!), `#${link}`);
    for (const [, link] of page.matchAll(/\]\(([^#)][^)]*)\)/g))
      assert.ok(existsSync(new URL(`../docs/${link}`, import.meta.url)), link!);
    for (const file of globSync('docs/vectors/*.json')) assert.ok(page.includes(`(${file.slice(5)})`), file);
  });
});
