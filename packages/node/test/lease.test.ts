/** Leases: only the owner's heartbeat moves the deadline on, each counter once. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, Unauthorised } from '@hauki/protocol';
import { destructText, heartbeatText, leaseKey, mac, randomText, sessionKey } from '@hauki/rpc';
import { Lease } from '../src/lease.ts';

const WORKER = 'w-1';
const EPOCH = 2;

/** A lease with a clock of its own, far from running out in real time. */
async function open(terms: { lease_ms?: number; ttl_ms?: number } = {}) {
  const secret = randomText(32);
  const jti = randomText(16);
  const key = await leaseKey(secret, jti);
  let now = 1_000_000;
  const lease = new Lease(
    { worker: WORKER, epoch: EPOCH, key, lease_ms: 600_000, ttl_ms: 0, ...terms },
    () => assert.fail('it expired'),
    () => now,
  );
  return {
    lease,
    key,
    secret,
    jti,
    pass: (ms: number) => {
      now += ms;
    },
    beat: (counter: number) => mac(key, heartbeatText(WORKER, EPOCH, counter)),
  };
}

const refused = async (promise: Promise<unknown>, pattern: RegExp) => {
  const thrown = await promise.then(
    () => assert.fail('it was renewed'),
    (error) => error,
  );
  assert.ok(isError(thrown, Unauthorised) && pattern.test((thrown as Error).message), String(thrown));
};

describe('a lease', () => {
  it('is renewed by the owner’s heartbeats, from the time of each', async () => {
    const { lease, beat, pass } = await open();
    assert.equal(lease.until, 1_600_000);
    pass(5_000);
    assert.equal(await lease.renew(1, await beat(1)), 1_605_000);
    pass(5_000);
    // A lost heartbeat leaves a gap, which does no harm.
    assert.equal(await lease.renew(7, await beat(7)), 1_610_000);
    assert.equal(lease.until, 1_610_000);
    lease.stop();
  });

  it('is not renewed by a heartbeat that was used before, nor by an earlier one', async () => {
    const { lease, beat, pass } = await open();
    await lease.renew(5, await beat(5));
    const { until } = lease;
    pass(5_000);
    for (const counter of [5, 4, 1, 0, -1]) await refused(lease.renew(counter, await beat(counter)), /used before/);
    assert.equal(lease.until, until);
    await lease.renew(6, await beat(6));
    assert.ok(lease.until > until);
    lease.stop();
  });

  it('counts a heartbeat once, however many copies come at once', async () => {
    const { lease, beat } = await open();
    const one = await beat(1);
    const outcomes = await Promise.allSettled(Array.from({ length: 50 }, () => lease.renew(1, one)));
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
    lease.stop();
  });

  it('is not renewed by a counter that is no counter', async () => {
    const { lease, beat } = await open();
    for (const counter of [Number.NaN, Infinity, 1.5, 2 ** 53, '1', null, undefined, {}, [1]] as number[])
      await refused(lease.renew(counter, await beat(counter)), /used before/);
    lease.stop();
  });

  it('is not renewed by a wrong MAC: another key’s, another worker’s, another epoch’s, another message’s', async () => {
    const { lease, key, secret, jti, pass } = await open();
    const { until } = lease;
    pass(5_000);
    const text = heartbeatText(WORKER, EPOCH, 1);
    for (const wrong of [
      await mac(await leaseKey(randomText(32), jti), text),
      await mac(await leaseKey(secret, randomText(16)), text),
      // The key that the vault has is not this one.
      await mac(await sessionKey(secret, jti), text),
      await mac(key, heartbeatText('w-2', EPOCH, 1)),
      await mac(key, heartbeatText(WORKER, EPOCH + 1, 1)),
      await mac(key, heartbeatText(WORKER, EPOCH, 2)),
      await mac(key, destructText(WORKER, EPOCH)),
      '',
      'x'.repeat(43),
      undefined,
      null,
      5,
      {},
    ])
      await refused(lease.renew(1, wrong as string), /not from the worker’s owner/);
    assert.equal(lease.until, until);
    // What was refused did not use the counter up.
    await lease.renew(1, await mac(key, text));
    lease.stop();
  });

  it('lives as long as its ttl, and a heartbeat never makes it shorter', async () => {
    const { lease, beat, pass } = await open({ lease_ms: 1_000, ttl_ms: 900_000 });
    assert.equal(lease.until, 1_900_000);
    pass(5_000);
    assert.equal(await lease.renew(1, await beat(1)), 1_900_000);
    pass(895_500);
    assert.equal(await lease.renew(2, await beat(2)), 1_901_500);
    lease.stop();
  });

  it('lets only the owner ask for the end', async () => {
    const { lease, key, secret, jti, beat } = await open();
    assert.equal(await lease.mayDestruct(await mac(key, destructText(WORKER, EPOCH))), true);
    for (const wrong of [
      await mac(await sessionKey(secret, jti), destructText(WORKER, EPOCH)),
      await mac(key, destructText('w-2', EPOCH)),
      await mac(key, destructText(WORKER, EPOCH + 1)),
      await beat(1),
      '',
      undefined,
      5,
    ])
      assert.equal(await lease.mayDestruct(wrong as string), false);
    lease.stop();
  });

  const short = (lease_ms: number, expired: () => void) =>
    new Lease({ worker: WORKER, epoch: EPOCH, key: randomText(32), lease_ms, ttl_ms: 0 }, expired);

  it('expires once when nobody renews it, not before its time', async () => {
    const started = Date.now();
    let times = 0;
    await new Promise<void>((resolve) => {
      short(60, () => {
        times++;
        resolve();
      });
    });
    assert.ok(Date.now() - started >= 59);
    await new Promise((resolve) => setTimeout(resolve, 150));
    assert.equal(times, 1);
  });

  it('that was renewed waits for the rest of its time', async () => {
    const key = randomText(32);
    let expired_at = 0;
    let over!: () => void;
    const ended = new Promise<void>((resolve) => {
      over = resolve;
    });
    const lease = new Lease({ worker: WORKER, epoch: EPOCH, key, lease_ms: 400, ttl_ms: 0 }, () => {
      expired_at = Date.now();
      over();
    });
    for (let counter = 1; counter <= 5; counter++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      await lease.renew(counter, await mac(key, heartbeatText(WORKER, EPOCH, counter)));
    }
    const { until } = lease;
    await ended;
    assert.ok(expired_at >= until, `expired ${until - expired_at} ms early`);
  });

  it('that was stopped does not expire', async () => {
    let times = 0;
    short(20, () => times++).stop();
    await new Promise((resolve) => setTimeout(resolve, 120));
    assert.equal(times, 0);
  });

  it('of many days does not run out at once', async () => {
    let times = 0;
    const lease = short(60 * 24 * 3600 * 1000, () => times++);
    await new Promise((resolve) => setTimeout(resolve, 60));
    assert.equal(times, 0);
    lease.stop();
  });
});
