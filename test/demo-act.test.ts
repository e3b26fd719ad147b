/** One act of the demo alone, as it is on a machine without lxc. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { assertConversation, play } from './support/demo.ts';
import { ircMissing } from './support/ircd.ts';

it('npm run demo has its scouts read all documents without lxc, as an ordinary user does', async () => {
  assert.match(await play('--act', '1', '--driver', 'quickjs'), /\b(\d+) of \1 documents read/);
});

it('npm run demo plays one act alone, and without lxc has its kernels as processes', async () => {
  const stdout = await play('--act', '5', '--driver', 'quickjs');
  assert.doesNotMatch(stdout, /Act [1-4]\./);
  if (!ircMissing)
    assert.match(stdout, /3 kernels start as ordinary processes \(no sandboxes: this demo runs without lxc\)/);
  assertConversation(stdout);
});
