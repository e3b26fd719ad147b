/** Containers start a few at a time, in the order in which they were asked for. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Lanes } from '../src/drivers/lxc/lanes.ts';

suite('the lanes of starts', () => {
  test('let in as many as there are, and the next when one has left', async () => {
    const lanes = new Lanes(2);
    const order: number[] = [];
    const ways_out: (() => void)[] = [];
    const all = Array.from({ length: 5 }, async (_, i) => {
      ways_out[i] = await lanes.enter();
      order.push(i);
    });
    await Promise.all([all[0], all[1]]);
    assert.deepEqual(order, [0, 1]);
    ways_out[1]!();
    await all[2];
    assert.deepEqual(order, [0, 1, 2]);
    ways_out[0]!();
    ways_out[2]!();
    await Promise.all(all);
    assert.deepEqual(order, [0, 1, 2, 3, 4]);
  });

  test('are free again when all have left', async () => {
    const lanes = new Lanes(1);
    for (let i = 0; i < 3; i++) (await lanes.enter())();
    const leave = await lanes.enter();
    let entered = false;
    const next = lanes.enter().then((way_out) => {
      entered = true;
      return way_out;
    });
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(entered, false);
    leave();
    (await next)();
  });
});
