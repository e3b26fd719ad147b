/** Going on over a new connection: only with who proves the session, and with counts that can be; else all is as before. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  ConnectionLost,
  type ErrorClass,
  isError,
  OutcomeUnknown,
  ProtocolViolation,
  SessionLost,
} from '@hauki/protocol';
import { Channel, encode, mac, memoryPair, randomText, resumeTranscript, Session } from '../src/index.ts';
import { resumeKey, resumeSession } from '../src/resume.ts';
import { settle, until } from './support.ts';

const key = await resumeKey(randomText(32), 'jti');

/** A caller's channel with a connection, of whose messages the worker has had one. */
async function setUp() {
  const caller = new Channel();
  const worker = new Channel();
  const [a, b] = memoryPair();
  caller.attach(a);
  worker.attach(b);
  for (const each of [caller, worker]) each.start({ message: () => {}, close: () => {} });
  caller.send('first');
  await until(() => caller.buffered_bytes === 0, 'it is acknowledged');
  return { caller, worker };
}

/** Resumes with a worker that says so much, and proves it with that key. */
function resume(caller: Channel, received: number, by = key) {
  const [near, far] = memoryPair();
  const told: any[] = [];
  const other = new Session({
    transport: far,
    literal: encode,
    async dispatch(method, params) {
      if (method === 'rpc.hello') return { nonce: 'n' };
      const [given] = params as any[];
      told.push(given);
      if (by === 'reflected') return { received, proof: given.proof };
      return { received, proof: await mac(by, resumeTranscript('worker', 'jti', 'n', given.nonce, received)) };
    },
  });
  return { done: resumeSession(near, caller, 'jti', key), other, told };
}

describe('a session that is resumed', () => {
  it('goes on over the new connection, with a proof of how much has come', async () => {
    const { caller } = await setUp();
    const { done, told } = resume(caller, 1);
    await done;
    const [{ session, nonce, received, proof }] = told;
    assert.equal(proof, await mac(key, resumeTranscript('caller', 'jti', 'n', nonce, 0)));
    assert.deepEqual([session, received, caller.connections], ['jti', 0, 2]);
  });

  for (const [what, kind, received, by] of [
    ['who does not hold the session', ProtocolViolation, 1, randomText(32)],
    ['who says our own proof after us', ProtocolViolation, 0, 'reflected'],
    ['who has messages that were never sent', SessionLost, 2, key],
    ['who was overtaken by another connection', ConnectionLost, 0, key],
    ['who says no number', ProtocolViolation, undefined as never, randomText(32)],
  ] as [string, ErrorClass<any>, number, string][])
    it(`does not go on with ${what}, and goes on as before`, async () => {
      const { caller, worker } = await setUp();
      const { done, other } = resume(caller, received, by);
      await assert.rejects(done, (error) => isError(error, kind) || assert.fail(String(error)));
      await other.closed;
      assert.equal(caller.connections, 1);
      worker.send('more');
      await until(() => worker.buffered_bytes === 0, 'what comes over the older connection is acknowledged again');
    });
});

describe('calls of a session that is not brought back', () => {
  it('say whether they may have run: not those that never left', async () => {
    const { caller, worker } = await setUp();
    const session = new Session({ transport: caller });
    const left = session.call('left').catch((error) => error);
    await settle();
    caller.detach();
    const never = session.call('never').catch((error) => error);
    await settle();
    caller.fail('it was given up');
    assert.ok(isError(await left, OutcomeUnknown));
    assert.ok(isError(await never, ConnectionLost));
    worker.close();
  });
});
