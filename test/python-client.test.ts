/**
 * A peer in another language: `clients/python/hauki.py`, written from docs/protocol.md with Python's standard library
 * alone, against every vector and a living mesh. What it does there stands in `clients/python/test_live.py`.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as protocol from '@hauki/protocol';
import { DRIVERS, missing, useMesh } from './support/mesh.ts';

const folder = fileURLToPath(new URL('../clients/python/', import.meta.url));

/** Why this cannot run here, or false. In CI there is no such excuse. */
const no_python =
  process.env.CI !== 'true' &&
  !(process.env.PATH ?? '').split(':').some((path) => existsSync(`${path}/python3`)) &&
  'python3 is not installed';

/** Runs a script of the client's folder to its end; gives the lines that it printed, or fails with all it said. */
async function python(args: string[], env: Record<string, string> = {}): Promise<string[]> {
  const { stdout } = await promisify(execFile)('python3', ['-X', 'dev', '-B', ...args], {
    cwd: folder,
    env: { ...process.env, PYTHONWARNINGS: 'error::DeprecationWarning', ...env },
    timeout: 120_000,
  }).catch((error) => assert.fail(`${error.stdout ?? ''}${error.stderr ?? error}`));
  return stdout.trim().split('\n');
}

describe('the Python client', { skip: no_python }, () => {
  it('is one file that imports nothing but the standard library', async () => {
    const source = readFileSync(`${folder}hauki.py`, 'utf8');
    const imported = [...source.matchAll(/^(?:import|from) ([\w.]+)/gm)].map(([, name]) => name!.split('.')[0]!);
    const program = `import sys; print([n for n in ${JSON.stringify(imported)} if n not in sys.stdlib_module_names])`;
    assert.ok(imported.length > 10);
    assert.deepEqual(await python(['-c', program]), ['[]']);
  });

  it('has a class for every error of the table, with its code', async () => {
    const [line] = await python([
      '-c',
      'import hauki, json; print(json.dumps({n: [e.code, e.retryable] for n, e in hauki._ERRORS.items()}))',
    ]);
    const rows = Object.values(protocol)
      .map((made) => (made as { row?: { name: string; code: number; retryable: boolean } }).row)
      .filter((row) => row !== undefined);
    const expected = Object.fromEntries(rows.map(({ name, code, retryable }) => [name, [code, retryable]]));
    assert.deepEqual(JSON.parse(line!), expected, 'an error of the table is missing in hauki.py: add it to _CODES');
  });

  it('holds to every vector of docs/vectors', async () => {
    const lines = await python(['test_vectors.py']);
    assert.deepEqual(
      lines.map((line) => line.split(':')[0]),
      ['handshake', 'resume', 'frames', 'values', 'calls'],
    );
  });

  for (const driver of DRIVERS)
    describe(`with workers in ${driver} vaults`, { skip: missing(driver) }, () => {
      const used = useMesh({ nodes: [{ drivers: [driver] }] });

      it('calls, passes values both ways, streams, is called back, resumes, is told of errors, and destructs', async () => {
        const env = { HAUKI_URL: used.local.url, HAUKI_TOKEN: used.local.token };
        assert.deepEqual(await python(['test_live.py', driver], env), [
          'calls',
          'values both ways',
          'errors',
          'streams',
          'callbacks',
          'references',
          'pipelines',
          'giving up',
          'resuming',
          'leases',
          'visitors',
          'destructing',
        ]);
        assert.deepEqual((await used.mesh.registry()).workers, [], 'and leaves no worker behind');
      });
    });
});
