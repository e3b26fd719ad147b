/** Places that all share: nobody takes the last one, whatever comes and goes, and what is given back is free again. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import type { MeshFs } from '@hauki/meshfs';
import { isError, Overloaded } from '@hauki/protocol';
import fc from 'fast-check';
import Fastify from 'fastify';
import { ADMIN } from '../src/rights.ts';
import { meshfsRoutes } from '../src/routes/meshfs.ts';
import { Shares } from '../src/shares.ts';

describe('places that all share', () => {
  it('are half of them one’s who is alone, with all its tokens, and never all but an admin’s', () => {
    const shares = new Shares('readers', 8);
    const taken = [1, 2, 3, 4].map((i) => shares.take(i % 2 ? 'ada' : 'ada/child'));
    assert.throws(
      () => shares.take('ada/other'),
      (error) => isError(error, Overloaded) && /readers, of one token and all below it/.test(error.message),
    );
    for (const owner of ['bob', 'bob', 'eve']) shares.take(owner);
    assert.throws(() => shares.take('dan'), 'the last one');
    shares.take('admin');
    assert.throws(() => shares.take('admin'), 'there is none left');
    taken[0]!();
    taken[0]!();
    shares.take('admin');
    assert.throws(() => shares.take('admin'), 'one is given back once');
  });

  it('may be taken several at once, where as many are left', () => {
    const shares = new Shares('bytes', 100);
    const giveBack = shares.take('ada', 40);
    assert.throws(() => shares.take('ada', 11));
    shares.take('ada', 10);
    giveBack();
    shares.take('ada', 40);
    assert.throws(() => shares.take('admin', 51));
    shares.take('admin', 50);
  });

  it('are no more than one may have at most, and always one for an admin', () => {
    const owners = fc.constantFrom('a', 'a/b', 'b', 'c', 'd/e/f');
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), fc.array(fc.tuple(owners, fc.boolean())), (each, steps) => {
        const shares = new Shares('places', 16, each);
        const held: { first: string; giveBack: () => void }[] = [];
        for (const [owner, takes] of steps) {
          if (!takes) held.shift()?.giveBack();
          else
            try {
              held.push({ first: owner.split('/')[0]!, giveBack: shares.take(owner) });
            } catch (error) {
              assert.ok(isError(error, Overloaded));
            }
          for (const { first } of held)
            assert.ok(held.filter((one) => one.first === first).length <= Math.min(each, 8));
          shares.take('admin')();
        }
        for (const { giveBack } of held) giveBack();
        const all = Array.from({ length: 16 }, () => shares.take('admin'));
        assert.equal(all.length, 16);
      }),
    );
  });

  it('are given back by a watcher of MeshFS that leaves while the store is still being asked', async (t) => {
    const app = Fastify();
    t.after(() => app.close());
    app.addHook('onRequest', async (request, reply) => {
      request.principal = ADMIN;
      left = once(reply.raw, 'close');
    });
    let left: Promise<unknown> | undefined;
    const asked = Promise.withResolvers<void>();
    const watched = Promise.withResolvers<AbortSignal>();
    const meshfs = {
      async revision() {
        asked.resolve();
        await left;
        return 1;
      },
      watch(_prefix: string, { signal }: { signal: AbortSignal }) {
        watched.resolve(signal);
        return (async function* () {})();
      },
    } as unknown as MeshFs;
    let held = 0;
    const hold = () => {
      held++;
      return () => void held--;
    };
    await app.register(meshfsRoutes, { meshfs, tokens: { hold } });
    const port = Number(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port);
    const socket = connect(port, '127.0.0.1');
    socket.write('GET /api/v2/meshfs/watch HTTP/1.1\r\nHost: x\r\n\r\n');
    await asked.promise;
    socket.destroy();
    const { aborted } = await watched.promise;
    assert.deepEqual([aborted, held], [true, 0]);
  });
});
