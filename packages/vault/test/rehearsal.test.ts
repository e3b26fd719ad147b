/** The rehearsal of a vault that waits in a pool: the real load, ride and handshake, which nothing but itself would miss. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { TicketReplayed } from '@hauki/protocol';
import { streamTransport } from '@hauki/rpc/node';
import { createGuest } from '../src/guest/guest.ts';
import { type InsideOf, openRehearsal, rehearse } from '../src/guest/rehearsal.ts';
import { begin, firstCall, rehearsalTicket, rideAlong } from '../src/guest/rehearsal-caller.ts';

const inside: InsideOf = (_setup, outside) =>
  createGuest({
    outside,
    context: {},
    evaluate: async () => ({ add: (a: number, b: number) => a + b }),
    present: String,
  });

it('goes through to the end', async () => {
  await rehearse(inside);
});

it('is called off between its steps', async () => {
  let asked = 0;
  await rehearse(inside, () => ++asked === 2);
  assert.equal(asked, 2);
});

it('calls before it redeems, and what was answered then is not sent again', async () => {
  const rehearsal = await rehearsalTicket();
  const caller = begin();
  const { words, deliver } = rideAlong(caller);
  const { dial, first, end } = await openRehearsal(rehearsal, inside, words);
  const said = await first;
  assert.equal(said.length, 1);
  await deliver(said);
  await firstCall(streamTransport(dial()), rehearsal, caller);
  assert.equal(caller.channel.received, 2);
  end();
});

it('redeems for real: its ticket opens its gate once', async () => {
  const rehearsal = await rehearsalTicket();
  const { dial, end } = await openRehearsal(rehearsal, inside);
  await firstCall(streamTransport(dial()), rehearsal);
  await assert.rejects(firstCall(streamTransport(dial()), rehearsal), { name: TicketReplayed.row.name });
  end();
});

it('has no use elsewhere: another rehearsal does not know its signer', async () => {
  const [one, other] = await Promise.all([rehearsalTicket(), rehearsalTicket()]);
  const { dial, end } = await openRehearsal(one, inside);
  await assert.rejects(firstCall(streamTransport(dial()), other), { name: 'TicketForged' });
  end();
});
