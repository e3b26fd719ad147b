/** The log of what a command starts. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startCore } from '../src/index.ts';

describe('the log of a core', () => {
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-log-'));
  after(() => rmSync(data_dir, { recursive: true, force: true }));

  it('ends neither it nor who started it when its disk is full', async () => {
    const core = await startCore(data_dir, {}, { file: '/dev/full' });
    try {
      // Each change is a line.
      for (let i = 0; i < 3; i++) {
        const headers = { authorization: `Bearer ${core.token}`, 'content-type': 'application/json' };
        const asked = { method: 'POST', headers, body: JSON.stringify({ name: `one-${i}`, scopes: ['read'] }) };
        assert.equal((await fetch(`${core.url}/api/v2/tokens`, asked)).status, 200);
        await sleep(50);
      }
      assert.equal((await fetch(`${core.url}/health`)).status, 200);
    } finally {
      await core.stop();
    }
  });
});
