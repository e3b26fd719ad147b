/** What a machine's drivers offer: found out by trial, and again where that failed. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Driver, Offer } from '@hauki/vault';
import { Offers } from '../src/offers.ts';
import { until } from './until.ts';

const driver = (name: string, ...offers: [Offer, ...Offer[]]) => {
  let tried = 0;
  const made = {
    ...{ name, level: 'vm', isolation: 'all of it' },
    probe: async () => offers[Math.min(tried++, offers.length - 1)]!,
    tried: () => tried,
  };
  return made as unknown as Driver & typeof made;
};
const NO: Offer = { available: false, reason: 'the host was killed' };
const YES: Offer = { available: true, note: 'now' };

describe('what drivers offer', () => {
  it('is tried again where it failed, until it does not, and is told as news then', async () => {
    const said: string[] = [];
    const [good, late] = [driver('good', YES), driver('late', NO, NO, YES)];
    const offers = new Offers([good, late], (line) => said.push(line), { first: 1, most: 2 });
    assert.deepEqual(offers.of('late'), { driver: late, offer: { available: false, reason: 'not probed yet' } });
    for (const one of [good, late]) await offers.probe(one);
    assert.equal(offers.version, 0);
    assert.deepEqual(offers.all(), {
      good: { available: true, note: 'now', level: 'vm', isolation: 'all of it' },
      late: { available: false, reason: 'the host was killed', level: 'vm', isolation: 'all of it' },
    });
    offers.keepTrying();
    await until(() => offers.version === 1);
    assert.deepEqual([offers.of('late')!.offer, good.tried(), late.tried()], [YES, 1, 3]);
    assert.deepEqual(said, [
      'driver good is offered: now',
      'driver late is not offered: the host was killed',
      'driver late is offered: now',
    ]);
    offers.close();
    assert.equal(offers.of('none'), undefined);
  });

  it('is not tried any more once it is closed, before the next try as in the middle of one', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    for (const in_the_middle of [false, true]) {
      const never = driver('never', NO);
      const offers = new Offers([never], () => {}, { first: 1, most: 1 });
      offers.keepTrying();
      t.mock.timers.tick(1);
      if (!in_the_middle) await turn();
      offers.close();
      await turn();
      t.mock.timers.tick(10);
      await turn();
      assert.equal(never.tried(), 1);
    }
  });
});
