/** What the soak of swaps makes of what it has seen: memory that grows is found, memory that only goes up and down is not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { growthOf, judge, type Seen, type SwapReport } from './support/swap-storm.ts';

/** 10,000 swaps, seen each ten: full after 3,000, then growing by so many MiB for 1,000, up and down by 8 all the while. */
const seen = (growth_mib: number): Seen[] =>
  Array.from({ length: 1_000 }, (_, i) => {
    const swaps = (i + 1) * 10;
    const filled = Math.min(swaps, 3_000) / 50;
    return { swaps, kernel: 100 + filled + (swaps * growth_mib) / 1_000 + (i % 17) / 2, vaults: 200, processes: 2 };
  });

const report = (of: readonly Seen[]): SwapReport => ({
  swaps: of.length * 10,
  refused: 0,
  requests: 1,
  failed: 0,
  why: '',
  counted: 7,
  asked: 7,
  seconds: 1,
  memory: of.filter(({ swaps }) => swaps % 500 === 0),
  growth: { kernel: growthOf(of, 'kernel'), vaults: growthOf(of, 'vaults') },
});

test('memory that grows in the second half of a soak is found, however full the heaps were by then', () => {
  assert.ok(Math.abs(growthOf(seen(3), 'kernel') - 3) < 0.1);
  assert.throws(() => judge(report(seen(3)), { growth_mib: 1 }), /kernel: memory grows by [23]/);
});

test('memory that has reached its size and goes up and down passes a soak', () => {
  judge(report(seen(0)), { growth_mib: 1 });
  assert.equal(growthOf(seen(0), 'vaults'), 0);
});

test('a failed request, a lost count and a process too many end a soak', () => {
  const good = report(seen(0));
  const most = { slack_mib: 64 };
  assert.throws(() => judge({ ...good, failed: 1, why: 'cut off' }, most), /cut off/);
  assert.throws(() => judge({ ...good, counted: 6 }, most), /a count was lost/);
  const memory = [...good.memory, { ...good.memory.at(-1)!, processes: 9 }];
  assert.throws(() => judge({ ...good, memory }, most), /processes/);
});
