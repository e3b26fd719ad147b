/** The demo runs to its end and leaves nothing. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { assertConversation, play } from './support/demo.ts';

it('npm run demo plays every act and leaves nothing', async () => {
  const stdout = await play();
  assert.match(
    stdout,
    /Act 1\. Scouts[\s\S]+Act 2\. Raw source[\s\S]+Act 3\. Silence[\s\S]+Act 4\. A kernel[\s\S]+Act 5\. On #ops[\s\S]+Done in/,
  );
  assert.match(stdout, /requests failed +0/);
  assert.match(stdout, /processes of their vaults +0/);
  assertConversation(stdout);
});
