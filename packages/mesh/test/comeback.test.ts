/** Bringing a session back: how long it is dialled, over which routes, and when it is given up. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConnectionLost, type MeshError, SessionLost, WorkerDied } from '@hauki/protocol';
import { Comeback } from '../src/comeback.ts';
import type { Routing } from '../src/powers.ts';
import type { WorkerRoute } from '../src/route.ts';

const away = new ConnectionLost({ why: 'nobody answers' });
const gone = new SessionLost({ why: 'it was forgotten' });
const dead = (cause: string) => new WorkerDied({ worker: 'w-a', cause, reason: 'r' }) as MeshError;

/** A way whose dials fail so, one after the other; the last goes on. */
function over(errors: Error[], routing: Routing = 'p2p_preferred', fate?: MeshError) {
  const dialled: Routing[] = [];
  const failed: string[] = [];
  const way = {
    stopped: false,
    channel: { attached: false, owes_bye: false, fail: (why: string) => void failed.push(why) },
    given: { routing, fate: async () => fate },
    async dial(by: Routing) {
      dialled.push(by);
      throw errors[Math.min(dialled.length, errors.length) - 1]!;
    },
  };
  const comeback = new Comeback(way as unknown as WorkerRoute);
  return {
    way,
    comeback,
    dialled,
    failed,
    again: (until = performance.now() + 5_000) => comeback.again('it was cut', until),
  };
}

describe('a session that was cut', () => {
  it('is given up at once where its worker no longer has it', async () => {
    const { again, dialled, failed } = over([gone]);
    await again();
    assert.deepEqual([dialled.length, failed], [1, [gone.message]]);
  });

  it('is given up where its worker is dead, and not while its node may only be away', async () => {
    const ended = over([away], 'p2p_preferred', dead('exited'));
    await ended.again();
    assert.deepEqual([ended.dialled.length, ended.failed], [1, ['it was cut']]);
    const lost = over([away, away, gone], 'p2p_preferred', dead('node_lost'));
    await lost.again();
    assert.deepEqual([lost.dialled.length, lost.failed], [3, [gone.message]]);
  });

  it('is dialled for as long as it may live, and then told why', async () => {
    const { again, dialled, failed } = over([away]);
    await again(performance.now());
    assert.deepEqual([dialled.length, failed], [1, ['it was cut; it could not be made again']]);
  });

  it('is dialled over what its caller allows, and by the relay alone in turn where both are', async () => {
    for (const [routing, wanted] of [
      ['p2p_preferred', ['p2p_preferred', 'relay_only', 'p2p_preferred']],
      ['p2p_only', ['p2p_only', 'p2p_only', 'p2p_only']],
      ['relay_only', ['relay_only', 'relay_only', 'relay_only']],
    ] as const) {
      const { again, dialled } = over([away, away, gone], routing);
      await again();
      assert.deepEqual(dialled, wanted);
    }
  });

  it('is not dialled once it was left, nor where it goes on already', async () => {
    for (const change of [{ stopped: true }, { channel: { attached: true, owes_bye: false } }]) {
      const { way, again, dialled } = over([away]);
      Object.assign(way, change);
      await again();
      assert.deepEqual(dialled, []);
    }
  });

  it('is dialled once more where the other side has yet to hear that it was left', async () => {
    const { way, again, dialled } = over([away]);
    Object.assign(way, { stopped: true, channel: { attached: false, owes_bye: true } });
    await again();
    assert.deepEqual(dialled, ['p2p_preferred']);
  });
});

describe('a connection that is in doubt', () => {
  it('is replaced by one attempt at a time, by the relay where the direct route says nothing', async () => {
    const { way, comeback, dialled, failed } = over([away, gone]);
    way.channel.attached = true;
    comeback.doubt();
    comeback.doubt();
    while (failed.length === 0) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([dialled, failed], [['p2p_preferred', 'relay_only'], [gone.message]]);
  });

  it('is left alone where it was cut meanwhile: then it is dialled anyway', async () => {
    const { comeback, dialled, again } = over([gone]);
    comeback.doubt();
    await again();
    assert.deepEqual(dialled, ['p2p_preferred']);
  });
});
