/** The demo runs to its end and leaves nothing. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ircMissing } from './support/ircd.ts';
import { processes, traces } from './support/mesh.ts';

const MAIN = fileURLToPath(new URL('../demo/main.ts', import.meta.url));
const play = async (...args: string[]) => {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', MAIN, ...args],
    { timeout: 280_000, maxBuffer: 1 << 24 },
  );
  const [, nodes = ''] = /nodes (.+); up after/.exec(stdout) ?? [];
  assert.equal(nodes.split(', ').length, 3);
  for (const node of nodes.split(', ')) assert.deepEqual(traces(node), []);
  assert.deepEqual(processes(MAIN, ...args), []);
  return stdout;
};
/** What was said on #ops, or why nothing was. */
const assertConversation = (stdout: string) => {
  if (ircMissing) return assert.match(stdout, /skipped: ngircd is not installed/);
  for (const kernel of ['Microkernel-1', 'Microkernel-2', 'Microkernel-3'])
    assert.match(stdout, new RegExp(`${kernel} │ \\[${kernel}\\] Online\\. Awaiting DNA Injection\\.`));
  assert.match(stdout, /scout\d+ │ !status\n[\s\S]+Evolved\. New routes available at \/api\/plugins\/data_scraper\/\n/);
  assert.match(stdout, /Spawner │ !routes Microkernel-\d\n/);
  assert.match(stdout, /scraped: \{"title":"Ports"/);
};

it('npm run demo plays every act and leaves nothing', async () => {
  const stdout = await play();
  assert.match(
    stdout,
    /Act 1\. Scouts[\s\S]+Act 2\. Raw source[\s\S]+Act 3\. Silence[\s\S]+Act 4\. A kernel[\s\S]+Act 5\. On #ops[\s\S]+Done in/,
  );
  assert.match(stdout, /requests failed +0/);
  assert.match(stdout, /processes of their vaults +0/);
  assertConversation(stdout);
  assert.deepEqual(processes('hauki-demo-kernel-'), []);
});

it('npm run demo plays one act alone, and without lxc has its kernels as processes', async () => {
  const stdout = await play('--act', '5', '--driver', 'quickjs');
  assert.doesNotMatch(stdout, /Act [1-4]\./);
  if (!ircMissing)
    assert.match(stdout, /3 kernels start as ordinary processes \(no sandboxes: this demo runs without lxc\)/);
  assertConversation(stdout);
  assert.deepEqual(processes('hauki-demo-ops-'), []);
});
