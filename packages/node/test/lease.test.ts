/** Leases: only the owner's heartbeat moves the deadline on, and a beat that was held back moves nothing. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, Unauthorised } from '@hauki/protocol';
import { destructText, heartbeatText, leaseKey, mac, randomText } from '@hauki/rpc';
import { Lease } from '../src/lease.ts';

const WORKER = 'w-one';
const EPOCH = 3;

async function make(
  terms: { lease_ms?: number; ttl_ms?: number; lasting?: boolean } = {},
  expired: () => void = () => {},
) {
  const clock = { now: 1_000_000, ahead: 0 };
  const jti = randomText(16);
  const key = await leaseKey(randomText(32), jti);
  const all = { worker: WORKER, epoch: EPOCH, key, jti, lease_ms: 5_000, ttl_ms: 0, ...terms };
  const lease = new Lease(
    all,
    expired,
    () => clock.now,
    () => clock.now + clock.ahead,
  );
  const beat = (challenge: string) => mac(key, heartbeatText(WORKER, EPOCH, challenge));
  return { lease, clock, jti, key, beat };
}

const unauthorised = (error: unknown) => isError(error, Unauthorised);

describe('a lease', () => {
  it('is renewed by the owner’s beats, each over the challenge that the one before brought', async () => {
    const { lease, clock, jti, beat } = await make();
    let challenge = jti;
    for (let i = 1; i <= 5; i++) {
      clock.now += 1_000;
      const answer = await lease.renew(challenge, await beat(challenge));
      assert.deepEqual([answer.renewed, answer.lease_until], [true, clock.now + 5_000]);
      assert.notEqual(answer.next, challenge);
      challenge = answer.next;
    }
    lease.stop();
  });

  it('is told by the clock of the machine, also after that was set or has slept, and runs on as before', async () => {
    const { lease, clock, jti, beat } = await make();
    clock.ahead = 3_600_000;
    clock.now += 1_000;
    assert.equal(lease.until, clock.now + clock.ahead + 4_000);
    assert.equal((await lease.renew(jti, await beat(jti))).lease_until, clock.now + clock.ahead + 5_000);
    lease.stop();
  });

  it('is not renewed by a beat that was used or held back, however honest; the owner learns what to beat over', async () => {
    const { lease, clock, jti, beat } = await make();
    const first = await beat(jti);
    const { next } = await lease.renew(jti, first);
    const until = lease.until;
    clock.now += 1_000;
    const stale = await lease.renew(jti, first);
    assert.deepEqual(stale, { renewed: false, lease_until: until, next });
    assert.equal((await lease.renew(next, await beat(next))).renewed, true);
    lease.stop();
  });

  it('is renewed once by any number of the same beat at once', async () => {
    const { lease, jti, beat } = await make();
    const one = await beat(jti);
    const answers = await Promise.all(Array.from({ length: 50 }, () => lease.renew(jti, one)));
    assert.equal(answers.filter((a) => a.renewed).length, 1);
    lease.stop();
  });

  it('is not renewed by a wrong MAC: another key’s, worker’s, epoch’s or message’s, or no MAC at all', async () => {
    const { lease, clock, jti, key } = await make();
    const text = heartbeatText(WORKER, EPOCH, jti);
    const other = await leaseKey(randomText(32), jti);
    const wrong: unknown[] = [
      await mac(other, text),
      await mac(key, heartbeatText('w-two', EPOCH, jti)),
      await mac(key, heartbeatText(WORKER, EPOCH + 1, jti)),
      await mac(key, destructText(WORKER, EPOCH)),
      '',
      null,
      undefined,
      7,
      {},
    ];
    clock.now += 1_000;
    for (const proof of wrong) await assert.rejects(lease.renew(jti, proof as string), unauthorised);
    const odd = { toString: () => assert.fail('it was asked for its text') };
    for (const challenge of [null, undefined, {}, 5, odd])
      await assert.rejects(lease.renew(challenge as never, await mac(key, text)), unauthorised);
    assert.equal(lease.until, 1_005_000);
    assert.equal((await lease.renew(jti, await mac(key, text))).renewed, true, 'what was refused used nothing up');
    lease.stop();
  });

  it('with a ttl lasts at least so long, and is renewed past it', async () => {
    const { lease, clock, jti, beat } = await make({ lease_ms: 1_500, ttl_ms: 900_000 });
    assert.equal(lease.until, 1_900_000);
    const { lease_until, next } = await lease.renew(jti, await beat(jti));
    assert.equal(lease_until, 1_900_000);
    clock.now = 1_900_000;
    assert.equal((await lease.renew(next, await beat(next))).lease_until, 1_901_500);
    lease.stop();
  });

  it('lets only its owner ask for the end', async () => {
    const { lease, key } = await make();
    assert.equal(await lease.mayDestruct(await mac(key, destructText(WORKER, EPOCH))), true);
    assert.equal(await lease.mayDestruct(await mac(key, destructText('w-two', EPOCH))), false);
    assert.equal(await lease.mayDestruct(undefined as never), false);
    lease.stop();
  });

  it('expires once when nobody renews it, and never before it is made', async () => {
    const jti = randomText(16);
    const key = await leaseKey(randomText(32), jti);
    let times = 0;
    const terms = { worker: WORKER, epoch: EPOCH, key, jti, lease_ms: 0, ttl_ms: 0 };
    const lease = new Lease(terms, () => times++);
    assert.equal(times, 0);
    // A busy machine may be late with its timers; then it has a while for a second time.
    const rest = () => new Promise((resolve) => setTimeout(resolve, 100));
    for (let i = 0; i < 100 && times === 0; i++) await rest();
    await rest();
    assert.equal(times, 1);
    lease.stop();
  });

  it('lasts one more when its agent stood still, with a heartbeat perhaps unread, and no third', async () => {
    let times = 0;
    const { lease, clock } = await make({ lease_ms: 100 }, () => times++);
    clock.now += 60_000;
    await new Promise((resolve) => setTimeout(resolve, 250));
    assert.equal(times, 0);
    assert.equal(lease.until, clock.now + 100);
    clock.now += 60_000;
    await new Promise((resolve) => setTimeout(resolve, 250));
    assert.equal(times, 1);
  });

  it('has that again for as often as its owner has come between', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    let times = 0;
    const { lease, clock, jti, beat } = await make({ lease_ms: 100 }, () => times++);
    const standStill = () => {
      clock.now += 60_000;
      t.mock.timers.tick(100);
    };
    standStill();
    await lease.renew(jti, await beat(jti));
    standStill();
    assert.equal(times, 0);
    standStill();
    assert.equal(times, 1);
  });

  it('stands still while it is paused, and goes on with a whole one', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    let times = 0;
    const { lease, clock } = await make({ lease_ms: 100 }, () => times++);
    const pass = (steps: number) => {
      for (let i = 0; i < steps; i++) {
        clock.now += 10;
        t.mock.timers.tick(10);
      }
    };
    pass(5);
    lease.pause();
    lease.pause();
    pass(50);
    assert.deepEqual([times, lease.until], [0, 0]);
    lease.resume();
    assert.equal(lease.until, clock.now + 100);
    pass(9);
    assert.equal(times, 0);
    pass(1);
    assert.equal(times, 1);
  });

  it('of what lasts never runs out', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { lease, clock } = await make({ lease_ms: 100, lasting: true }, () => assert.fail('it ran out'));
    clock.now += 100;
    t.mock.timers.tick(100);
    assert.equal(lease.until, 0);
  });

  it('that was renewed waits for the rest of its time', async () => {
    const jti = randomText(16);
    const key = await leaseKey(randomText(32), jti);
    let expired = false;
    const terms = { worker: WORKER, epoch: EPOCH, key, jti, lease_ms: 1_600, ttl_ms: 0 };
    const lease = new Lease(terms, () => {
      expired = true;
    });
    let challenge = jti;
    for (let i = 0; i < 8; i++) {
      await new Promise((resolve) => setTimeout(resolve, 300));
      challenge = (await lease.renew(challenge, await mac(key, heartbeatText(WORKER, EPOCH, challenge)))).next;
    }
    assert.equal(expired, false);
    lease.stop();
  });
});
