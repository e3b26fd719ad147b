/** What a process closes at its start of what it inherited, and what it must not: a thread of Node's reads certificates then. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const skip = process.platform === 'linux' ? false : 'only Linux tells which descriptors a child would inherit';

test('descriptors from outside are closed, but not the one that certificates are read by', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-descriptors-'));
  const [certificates, other] = ['certificates', 'other'].map((name) => join(folder, name));
  for (const file of [certificates!, other!]) writeFileSync(file, '');
  const fds = [openSync(certificates!, 'r'), openSync(other!, 'r')];
  // Node itself sees to those up to the first gap above 15.
  const stdio: ('ignore' | 'pipe' | number)[] = ['ignore', 'pipe', 'ignore', ...Array(27).fill('ignore'), ...fds];
  const from = JSON.stringify(import.meta.resolve('../src/drivers/lxc/descriptors.ts'));
  const script = `import { closeInheritedDescriptors } from ${from}; console.log(JSON.stringify(closeInheritedDescriptors()));`;
  const closed = (extra: NodeJS.ProcessEnv) => {
    const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
    const args = ['--input-type=module-typescript', '-e', script];
    const options = { stdio: stdio as never, env: { ...env, ...extra }, encoding: 'utf8' } as const;
    const all: number[] = JSON.parse(execFileSync(process.execPath, args, options));
    // What surrounds the tests may leak others.
    return all.filter((fd) => fd === 30 || fd === 31);
  };
  assert.deepEqual(closed({ NODE_EXTRA_CA_CERTS: certificates }), [31]);
  assert.deepEqual(closed({}), [30, 31]);
  for (const fd of fds) closeSync(fd);
  rmSync(folder, { recursive: true });
});
