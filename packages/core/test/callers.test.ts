/** Whose a session is, is the core's word: what a guest says of another worker's, or of its callers' rank, is not taken. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LIMITS, type SessionInfo } from '@hauki/protocol';
import { Callers } from '../src/callers.ts';

const told = (worker: string, session: string): SessionInfo => ({
  ...{ worker, session, role: 'visitor', opened_at: 1 },
  ...{ connected: true, connections: 1, carried_bytes: 0, unconfirmed_bytes: 0 },
});

describe('who calls whom', () => {
  it('is known by the ticket, also its role; of another worker’s ticket and of an unknown one nothing is said', () => {
    const callers = new Callers();
    callers.issued('t-1', { worker: 'w-1', role: 'owner', caller: 'ann' });
    assert.deepEqual(callers.known(told('w-1', 't-1')), { ...told('w-1', 't-1'), role: 'owner', caller: 'ann' });
    for (const other of [told('w-2', 't-1'), told('w-1', 't-2')]) assert.deepEqual(callers.known(other), other);
    callers.over('w-1');
    assert.deepEqual(callers.known(told('w-1', 't-1')), told('w-1', 't-1'));
  });

  it('is kept of so many tickets of a worker, the oldest visitor’s goes first', () => {
    const callers = new Callers();
    callers.issued('own', { worker: 'w-1', role: 'owner', caller: 'ann' });
    for (let i = 0; i < LIMITS.callers; i++)
      callers.issued(`t-${i}`, { worker: 'w-1', role: 'visitor', caller: 'bob' });
    const whose = ['own', 't-0', 't-1'].map((session) => callers.known(told('w-1', session)).caller);
    assert.deepEqual(whose, ['ann', undefined, 'bob']);
  });

  it('over HTTP is one row for each caller, with what is under way', () => {
    const callers = new Callers();
    const ends = [1, 2, 3].map(() => callers.begin('w-1', 'ann'));
    ends[0]!();
    callers.begin('w-1', 'bob');
    const rows = () => callers.atTheDoor().map(({ caller, connected, stats }) => [caller, connected, stats]);
    assert.deepEqual(rows(), [
      ['ann', true, { calls_served: 3, serving: 2 }],
      ['bob', true, { calls_served: 1, serving: 1 }],
    ]);
    for (let i = 0; i < LIMITS.callers; i++) callers.begin('w-1', `many-${i}`)();
    assert.equal(rows().length, LIMITS.callers);
    callers.over('w-1');
    assert.deepEqual(rows(), []);
  });
});
