/** docs/protocol.md says what the code does, where that can be counted: errors, limits, tags, names, links, vectors. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
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
