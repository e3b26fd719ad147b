/** Workers in Python that are made of several files: bundled here, taken apart again in the vault. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, it } from 'node:test';
import { BadInput, isError, RemoteError, SourceRejected } from '@hauki/mesh';
import { bundlePython } from '@hauki/mesh/bundle-python';
import { missing, useMesh } from './support/mesh.ts';

const no_python = !existsSync('/usr/bin/python3') && process.env.CI !== 'true' && 'python3 is not installed';
const folder = mkdtempSync(join(tmpdir(), 'hauki-python-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Writes files by their names; gives the path of the first. */
function files(name: string, texts: Record<string, string>): string {
  const at = Object.entries(texts).map(([path, text]) => {
    const file = join(folder, name, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    return file;
  });
  return at[0]!;
}

const SHOP = {
  'main.py': `"""import nothing_here as such"""
import json, state as st
from prices import rates, twice
from prices.deep.more import (
    thing,  # of the folder without an __init__
    other,
)
if True: import lonely

def all(n): return [st.NAME, rates.up("a"), twice(n), thing(), other, lonely.X, json.dumps([]), __name__]
def fail(): return rates.broken()
`,
  'state.py': 'NAME = "not the guest’s own state.py"\n',
  'lonely.py': 'import state\r\nX = state.NAME[:3]',
  'prices/__init__.py': 'from . import rates\nfrom .numbers import twice\n',
  'prices/rates.py':
    'def up(text):\n    """# hauki: file x.py"""\n    return text.upper()\n\ndef broken(): raise KeyError("no")\n',
  'prices/numbers.py': 'def twice(n): return n * 2\n',
  'prices/deep/more.py': 'from ..rates import up\nother = up("o")\ndef thing(): return up("thing")\n',
  'unused.py': 'raise ValueError\n',
};

describe('files of a worker in Python', () => {
  it('are bundled where they are imported, behind a first one whose lines keep their numbers', async () => {
    const main = files('shop', SHOP);
    const sought = new Set<string>();
    const { source, files: taken } = await bundlePython(main, (file) => void sought.add(file));
    assert.ok(source.startsWith(SHOP['main.py']));
    const names = Object.keys(SHOP).filter((name) => name !== 'unused.py');
    assert.deepEqual(taken.toSorted(), names.map((name) => join(folder, 'shop', name)).toSorted());
    assert.ok(sought.has(join(folder, 'shop', 'json.py')), 'one that could come is looked for');
  });

  it('are left as they are where there is but one', async () => {
    const main = files('alone', { 'main.py': 'import os\ndef one(): return 1' });
    assert.equal((await bundlePython(main)).source, 'import os\ndef one(): return 1');
  });

  it('are taken once where they import each other', async () => {
    const main = files('round', { 'main.py': 'import a', 'a.py': 'import b', 'b.py': 'import a, main' });
    assert.equal((await bundlePython(main)).files.length, 4);
  });

  it('are refused by name where they are not in UTF-8', async () => {
    const main = files('coding', { 'main.py': 'import part', 'part.py': '' });
    const part = join(folder, 'coding', 'part.py');
    writeFileSync(part, Buffer.from('# -*- coding: latin-1 -*-\nX = "caf\u00e9"\n', 'latin1'));
    for (const file of [main, part])
      await assert.rejects(
        bundlePython(file),
        (error) => isError(error, BadInput) && /part\.py.*UTF-8/.test(error.message),
      );
  });

  it('are refused where they are too much together', async () => {
    const main = files('large', { 'main.py': 'import data', 'data.py': `X = "${'x'.repeat(4 * 1024 * 1024)}"` });
    await assert.rejects(bundlePython(main), /main\.py with what it imports is too large/);
  });
});

for (const driver of ['process', 'lxc'] as const)
  describe(`a worker of several files in Python, in a ${driver} vault`, { skip: missing(driver) || no_python }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });

    it('has them by the names that they have beside it, before the guest’s own', async () => {
      const worker: any = used.mesh.clone({ file: files('shop', SHOP) }, { driver });
      assert.deepEqual(await worker.all(4), [
        SHOP['state.py'].split('"')[1],
        ...['A', 8, 'THING', 'O', 'not', '[]', 'worker'],
      ]);
      await assert.rejects(
        Promise.resolve(worker.fail()),
        (error: Error) => error instanceof RemoteError && /broken \(prices\/rates\.py:5\)/.test(error.stack!),
      );
      await used.mesh.destruct(worker);
    });

    it('is refused with the file and the line where one of them is wrong', async () => {
      const main = files('wrong', { 'main.py': '\nimport part\ndef a(): 1', 'part.py': 'x = 1\ny = (\n' });
      await assert.rejects(
        Promise.resolve((used.mesh.clone({ file: main }, { driver }) as any).a()),
        (error) => isError(error, SourceRejected) && /part\.py, line 2.*worker\.py:2: import part/.test(error.message),
      );
    });
  });
