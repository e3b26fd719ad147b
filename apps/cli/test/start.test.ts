/** What is said of a process that does not start. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { startCore } from '../src/local-mesh.ts';

const folder = mkdtempSync(join(tmpdir(), 'hauki-start-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Starts a core by another program than Node. */
function startBy(program: string): Promise<unknown> {
  const { execPath } = process;
  process.execPath = program;
  const started = startCore(folder, {}, { file: join(folder, 'hauki.log') });
  process.execPath = execPath;
  return started;
}

it('a core that the system does not start, as where no more processes may be, is an error of whoever starts it', async () => {
  // Told as EAGAIN is, behind the call.
  await assert.rejects(startBy(join(folder, 'no-such-node')), /core\/main could not be started: spawn .*ENOENT/);
});

it('a core that ends at once is an error that names its log', async () => {
  const log = join(folder, 'hauki.log');
  await assert.rejects(startBy('/usr/bin/false'), {
    message: `@hauki/core/main ended before it was ready (code 1). Its log: ${log}`,
  });
});

it('a core that cannot be started at all leaves the umask of whoever starts it as it was', async () => {
  const before = process.umask(0o077);
  try {
    // More than the system passes to a process.
    await assert.rejects(startCore(folder, { host: 'x'.repeat(2 ** 18) }), { code: 'E2BIG' });
    assert.equal(process.umask(), 0o077);
  } finally {
    process.umask(before);
  }
});
