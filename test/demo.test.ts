/** The demo runs to its end and leaves nothing. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { processes, traces } from './support/mesh.ts';

it('npm run demo plays every act and leaves nothing', async () => {
  const main = fileURLToPath(new URL('../demo/main.ts', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, ['--disable-warning=ExperimentalWarning', main], {
    timeout: 280_000,
    maxBuffer: 1 << 24,
  });
  assert.match(
    stdout,
    /Act 1\. Scouts[\s\S]+Act 2\. Raw source[\s\S]+Act 3\. Silence[\s\S]+Act 4\. A kernel[\s\S]+Done in/,
  );
  assert.match(stdout, /requests failed +0/);
  assert.match(stdout, /processes of their vaults +0/);
  const [, nodes = ''] = /nodes (.+); up after/.exec(stdout) ?? [];
  assert.equal(nodes.split(', ').length, 3);
  for (const node of nodes.split(', ')) assert.deepEqual(traces(node), []);
  assert.deepEqual(processes('demo/main.ts'), []);
  assert.deepEqual(processes('hauki-demo-kernel-'), []);
});
