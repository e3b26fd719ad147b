/** The mint: no secret is handed out twice, also of those that are made ahead. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Mint } from '../src/mint.ts';

it('a ticket that was made ahead goes to one owner', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const mint = new Mint();
  const tickets = [await mint.owner()];
  t.mock.timers.tick(20);
  for (let n = 0; n < 3; n++) tickets.push(await mint.owner());
  assert.equal(new Set(tickets.map(({ ticket }) => ticket.secret)).size, 4);
  assert.equal(new Set(tickets.map(({ lease_key }) => lease_key)).size, 4);
});
