/** What tests of the demo share: playing it, and what is to be heard on #ops. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ircMissing } from './ircd.ts';
import { processes, traces } from './mesh.ts';

const MAIN = fileURLToPath(new URL('../../demo/main.ts', import.meta.url));

/** Plays the demo, sees to it that nothing of it is left, and gives what it said. */
export async function play(...args: string[]): Promise<string> {
  // By its name its processes can be told from those of another that is played beside it.
  const folder = mkdtempSync(join(tmpdir(), 'hauki-demo-test-'));
  // Vaults' users pass through it to what is theirs.
  chmodSync(folder, 0o755);
  try {
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', MAIN, ...args],
      { timeout: 280_000, maxBuffer: 1 << 24, env: { ...process.env, TMPDIR: folder } },
    );
    const [, nodes = ''] = /nodes (.+); up after/.exec(stdout) ?? [];
    assert.equal(nodes.split(', ').length, 3);
    for (const node of nodes.split(', ')) assert.deepEqual(traces(node), []);
    assert.deepEqual(processes(folder), []);
    assert.deepEqual(readdirSync(folder), []);
    return stdout;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What was said on #ops, or why nothing was. */
export const assertConversation = (stdout: string) => {
  if (ircMissing) return assert.match(stdout, /skipped: ngircd is not installed/);
  for (const kernel of ['Microkernel-1', 'Microkernel-2', 'Microkernel-3'])
    assert.match(stdout, new RegExp(`${kernel} │ \\[${kernel}\\] Online\\. Awaiting DNA Injection\\.`));
  assert.match(stdout, /scout\w+ │ !status\n[\s\S]+Evolved\. New routes available at \/api\/plugins\/data_scraper\/\n/);
  assert.match(stdout, /Spawner │ !routes Microkernel-\d\n/);
  assert.match(stdout, /scraped: \{"title":"Ports"/);
};
