/** Building what runs in vaults. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildVmScripts } from '../src/guest/bundle.ts';

/** Processes that this one has started. */
const children = () =>
  readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);

describe('the scripts of quickjs vaults', () => {
  it('are not built where what builds them is missing, which is what is said', async () => {
    const missing = registerHooks({
      resolve(specifier, context, next) {
        if (specifier === 'esbuild') throw new Error('there is no esbuild');
        return next(specifier, context);
      },
    });
    try {
      await assert.rejects(buildVmScripts(), { message: 'there is no esbuild' });
    } finally {
      missing.deregister();
    }
  });

  it('are built although the process that builds them is killed meanwhile', async () => {
    const building = buildVmScripts();
    let killed: number[] = [];
    while (killed.length === 0) {
      await sleep(1);
      killed = children();
    }
    for (const pid of killed) process.kill(pid, 'SIGKILL');
    const scripts = await building;
    for (const text of Object.values(scripts)) assert.ok(text.length > 1_000);
    // Others build as ever.
    assert.deepEqual(await buildVmScripts(), scripts);
  });
});
