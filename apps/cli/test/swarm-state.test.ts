import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { BadInput, isError } from '@hauki/protocol';
import { checkFolder } from '../src/swarm.ts';
import { clear, stateOf, swarmDir, writeState } from '../src/swarm-state.ts';

it('what is kept of a swarm is there whole, or is not; damaged, it is not taken for a swarm that has ended', () => {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-swarm-state-'));
  try {
    assert.equal(stateOf(folder), undefined);
    writeState(folder, null, [{ kernel: 'Microkernel-1', pid: 1 }]);
    assert.deepEqual(readdirSync(folder), ['swarm.json']);
    assert.equal(stateOf(folder)?.lives, true);
    for (const damaged of ['', '{"pid":', 'null', '[]']) {
      writeFileSync(join(folder, 'swarm.json'), damaged);
      assert.throws(
        () => stateOf(folder),
        (error) => isError(error, BadInput) && error.message.includes('swarm.json'),
      );
    }
    clear(folder);
    assert.deepEqual(readdirSync(folder), []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('a data folder in which no Unix socket can be is refused before anything is begun', () => {
  const rest = swarmDir('/').length + '/50/net/outside'.length;
  const longest = `/${'d'.repeat(106 - rest)}`;
  checkFolder(longest, 50);
  assert.throws(
    () => checkFolder(`${longest}ü`, 50),
    (error) =>
      isError(error, BadInput) && error.message.includes('2 bytes too long') && error.message.includes('--data'),
  );
});
