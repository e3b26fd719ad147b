/** The rehearsal of a vault that waits in a pool: the real handshake and a call, which nothing but itself would miss. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { TicketReplayed } from '@hauki/protocol';
import { streamTransport } from '@hauki/rpc/node';
import { openRehearsal, rehearse } from '../src/guest/rehearsal.ts';
import { firstCall, rehearsalTicket } from '../src/guest/rehearsal-caller.ts';

it('goes through to the end', async () => {
  await rehearse();
});

it('is called off between its steps', async () => {
  let asked = 0;
  await rehearse(() => ++asked === 2);
  assert.equal(asked, 2);
});

it('redeems for real: its ticket opens its gate once', async () => {
  const rehearsal = await rehearsalTicket();
  const dial = await openRehearsal(rehearsal);
  await firstCall(streamTransport(dial()), rehearsal);
  await assert.rejects(firstCall(streamTransport(dial()), rehearsal), { name: TicketReplayed.row.name });
});

it('has no use elsewhere: another rehearsal does not know its signer', async () => {
  const [one, other] = await Promise.all([rehearsalTicket(), rehearsalTicket()]);
  const dial = await openRehearsal(one);
  await assert.rejects(firstCall(streamTransport(dial()), other), { name: 'TicketForged' });
});
