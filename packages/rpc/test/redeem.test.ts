/** A caller redeems its ticket with the worker that it names and no other, and believes nothing before that has proved itself. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type ErrorClass, isError, LIMITS, ProtocolViolation, TicketForged } from '@hauki/protocol';
import { sessionKey, transcript } from '../src/handshake.ts';
import { encode, mac, makeCallerKey, memoryPair, randomText, redeemTicket, Session, secretHash } from '../src/index.ts';

const secret = randomText(32);
const shared = await sessionKey(secret, 'jti');
const key = await makeCallerKey();

interface Given {
  nonce: string;
  proof: string;
}

/** Redeems a ticket of the worker `w-a`, with a worker that answers so beside a right proof. */
async function redeem(answer: (given: Given) => object | Promise<object>, of: { secret_hash?: string } = {}) {
  const [near, far] = memoryPair();
  const session = new Session({ transport: near, literal: encode });
  new Session({
    transport: far,
    literal: encode,
    async dispatch(method, params) {
      if (method === 'rpc.hello') return { nonce: 'n' };
      const [given] = params as [Given];
      const proof = await mac(shared, transcript('worker', 'jti', 'n', given.nonce));
      return { worker: 'w-a', proof, methods: ['greet'], ...(await answer(given)) };
    },
  });
  const body = { jti: 'jti', worker: 'w-a', secret_hash: await secretHash(secret), ...of };
  const signed = `h.${Buffer.from(JSON.stringify(body)).toString('base64url')}.s`;
  return redeemTicket(session, { signed, secret }, key).finally(() => session.close());
}

const refused = (promise: Promise<unknown>, kind: ErrorClass<any>) =>
  assert.rejects(promise, (error: Error) => isError(error, kind) || assert.fail(`${error.name}: ${error.message}`));

describe('a ticket', () => {
  it('is redeemed with who proves that it holds it', async () => {
    assert.deepEqual(await redeem(() => ({})), ['greet']);
    const most = Array.from({ length: LIMITS.methods }, (_, i) => `m${i}`);
    assert.deepEqual(await redeem(() => ({ methods: most })), most);
  });

  it('is not redeemed with another worker, or one whose proof is another’s or our own', async () => {
    await refused(
      redeem(() => ({ worker: 'w-b' })),
      ProtocolViolation,
    );
    for (const proof of [undefined, '', 5, 'x'.repeat(43)])
      await refused(
        redeem(() => ({ proof })),
        ProtocolViolation,
      );
    await refused(
      redeem(({ proof }) => ({ proof })),
      ProtocolViolation,
    );
    const other = async ({ nonce }: Given) => ({
      proof: await mac(await sessionKey(randomText(32), 'jti'), transcript('worker', 'jti', 'n', nonce)),
    });
    await refused(redeem(other), ProtocolViolation);
    await refused(
      redeem(() => assert.fail('nothing is sent'), { secret_hash: 'another' }),
      TicketForged,
    );
  });

  it('brings names of methods, and not too many', async () => {
    const many = Array.from({ length: LIMITS.methods + 1 }, (_, i) => `m${i}`);
    for (const methods of [many, ['a', 5], 'greet', null, { length: 1 }])
      await refused(
        redeem(() => ({ methods })),
        ProtocolViolation,
      );
  });
});
