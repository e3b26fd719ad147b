/** What is said of a process that does not start. */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { startCore, startNode } from '../src/local-mesh.ts';

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

it('a core whose data folder is everybody’s, as /tmp is, does not start, and leaves it as it is', {
  skip: process.platform === 'win32' && 'there are no such folders',
}, async () => {
  const data_dir = join(folder, 'everybody’s');
  mkdirSync(data_dir);
  chmodSync(data_dir, 0o1777);
  await assert.rejects(startCore(data_dir), {
    name: 'BadInput',
    message: `${data_dir}: it is everybody’s, as /tmp is; name a folder in it with --data`,
  });
  assert.equal(statSync(data_dir).mode & 0o7777, 0o1777);
});

it('a core and a node that are to listen on an address of another machine do not start, and say so', async () => {
  // For documentation: nobody has it.
  const listen_host = '192.0.2.1';
  const token_file = join(folder, 'node.token');
  writeFileSync(token_file, 'hauki_none');
  await assert.rejects(startCore(join(folder, 'elsewhere'), { host: listen_host }), {
    name: 'BadInput',
    message: `--host: ${listen_host} is no address that this machine has now (EADDRNOTAVAIL)`,
  });
  await assert.rejects(
    startNode({ data_dir: join(folder, 'node'), core_url: 'http://127.0.0.1:1', token_file, listen_host }),
    /^BadInput: --mesh-host: workers cannot listen on 192\.0\.2\.1 \(EADDRNOTAVAIL\): it is no address that this machine has/,
  );
});

it('a core whose port is taken, or whose folder is in use, is an error of a kind that scripts can tell', async () => {
  const data_dir = join(folder, 'in-use');
  const core = await startCore(data_dir, { port: 0 });
  try {
    const port = Number(new URL(core.url).port);
    await assert.rejects(startCore(join(folder, 'other'), { port }), { name: 'BadInput' });
    await assert.rejects(startCore(data_dir, { port: 0 }), {
      name: 'StorageFailed',
      fields: { what: `${join(data_dir, 'core', 'store')} is in use` },
    });
  } finally {
    await core.stop();
  }
});
