/** What keeps a script alive. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';

describe('a script that waits for the end of a worker', () => {
  it('stays until then, and no longer', async () => {
    const parts = new URL('../src/parts.ts', import.meta.url).href;
    const script = `
      const { stay } = await import(${JSON.stringify(parts)});
      const { promise, resolve } = Promise.withResolvers();
      setTimeout(() => resolve('ended'), 20).unref();
      console.log(await stay(promise));`;
    const node = [...process.execArgv.filter((arg) => !arg.startsWith('--test')), '--input-type=module', '-e', script];
    const { stdout } = await promisify(execFile)(process.execPath, node, { timeout: 30_000 });
    assert.equal(stdout, 'ended\n');
  });
});
