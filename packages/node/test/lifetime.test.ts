/** Longest life, idle time-out and pause, with a lease and a vault that only note what is asked of them. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Activity, BadInput, isError, LIMITS } from '@hauki/protocol';
import { Lifetime } from '../src/lifetime.ts';
import { LogRing, lastOf } from '../src/log-ring.ts';

interface Terms {
  max_life_ms?: number;
  idle_ms?: number;
  able?: boolean;
  asked?: () => Promise<Activity>;
}

function make(terms: Terms = {}) {
  const notes: string[] = [];
  const activity: Activity = { calls: 0, under_way: 0, idle_ms: 0 };
  const note = (what: string) => async () => void notes.push(what);
  const { promise: over, resolve } = Promise.withResolvers<string>();
  const lifetime = new Lifetime(
    {
      max_life_ms: terms.max_life_ms ?? 0,
      idle_ms: terms.idle_ms ?? 0,
      vault: terms.able === false ? {} : { pause: note('pause'), resume: note('resume') },
      lease: { pause: () => void notes.push('lease stands'), resume: () => void notes.push('lease goes on') },
      activity: terms.asked ?? (async () => activity),
    },
    (cause) => {
      notes.push(cause);
      resolve(cause);
    },
  );
  return { lifetime, notes, activity, over };
}

describe('a lifetime', () => {
  it('ends once, by whichever comes first', async () => {
    const { lifetime, notes, activity, over } = make({ max_life_ms: 60, idle_ms: 10 });
    Object.assign(activity, { under_way: 1, idle_ms: 1e6 });
    assert.equal(await over, 'max_life');
    await sleep(30);
    assert.deepEqual(notes, ['max_life']);
    lifetime.stop();
  });

  it('is idle only when the guest says so, for as long as was asked', async () => {
    const { activity, over, notes } = make({ idle_ms: 40 });
    const asked = setInterval(() => {
      activity.idle_ms = 10;
    }, 5);
    await sleep(150);
    assert.deepEqual(notes, []);
    clearInterval(asked);
    activity.idle_ms = 1_000;
    assert.equal(await over, 'idle');
  });

  it('stops vault and lease in order, each once, and takes both up again in order', async () => {
    const { lifetime, notes } = make();
    await Promise.all([lifetime.pause(), lifetime.pause(), lifetime.resume(), lifetime.resume(), lifetime.pause()]);
    assert.deepEqual(notes, ['pause', 'lease stands', 'resume', 'lease goes on', 'pause', 'lease stands']);
    assert.ok(lifetime.paused_at! > 0);
    lifetime.stop();
  });

  it('is not idle while it is paused, but old all the same', async () => {
    const { lifetime, activity, over } = make({ idle_ms: 20, max_life_ms: 100 });
    activity.idle_ms = 1e6;
    await lifetime.pause();
    assert.equal(await over, 'max_life');
  });

  it('is not idle for longer than it is there, whatever the guest says', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { lifetime, notes, activity } = make({ idle_ms: 600_000 });
    activity.idle_ms = 1e9;
    t.mock.timers.tick(600_000);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(notes, []);
    lifetime.stop();
  });

  it('asks once more a guest that did not answer', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    let asked = 0;
    const { lifetime, notes } = make({
      idle_ms: 100,
      asked: () => {
        asked++;
        return new Promise(() => {});
      },
    });
    for (const ms of [100, 2_000, 100]) {
      t.mock.timers.tick(ms);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual([asked, notes], [2, []]);
    lifetime.stop();
  });

  it('that was paused while it was asked is not idle by what it says then', async () => {
    const { promise: told, resolve: tell } = Promise.withResolvers<Activity>();
    const { promise: asked, resolve: ask } = Promise.withResolvers<void>();
    const { lifetime, notes } = make({
      idle_ms: 20,
      asked: () => {
        ask();
        return told;
      },
    });
    await asked;
    await lifetime.pause();
    tell({ calls: 0, under_way: 0, idle_ms: 1e6 });
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(notes, ['pause', 'lease stands']);
    lifetime.stop();
  });

  it('lets what waits for it go on when it is resumed, or ended', async () => {
    for (const go of ['resume', 'stop'] as const) {
      const { lifetime } = make();
      await lifetime.running();
      await lifetime.pause();
      let went = false;
      const waiting = lifetime.running().then(() => {
        went = true;
      });
      await sleep(5);
      assert.equal(went, false);
      await lifetime[go]();
      await waiting;
      lifetime.stop();
    }
  });

  it('says that vaults of a driver cannot be paused', async () => {
    const { lifetime } = make({ able: false });
    await assert.rejects(lifetime.pause(), (error) => isError(error, BadInput));
    assert.equal(lifetime.paused_at, undefined);
  });
});

describe('the ring of a log', () => {
  it('keeps the newest lines, numbered, and says how many a reader missed', () => {
    const ring = new LogRing(1_000);
    for (let i = 1; i <= 100; i++) ring.add('info', `line ${i}`);
    const { lines, missed } = ring.after(10);
    assert.equal(lines.at(-1)!.seq, 100);
    assert.equal(lines[0]!.seq, 10 + missed + 1);
    assert.ok(missed > 0 && lines.length < 30);
    assert.deepEqual(ring.after(100), { lines: [], missed: 0 });
    assert.deepEqual(
      ring.after(-2).lines.map(({ seq }) => seq),
      [99, 100],
    );
    assert.deepEqual(
      ring.after(90, 3).lines.map(({ seq }) => seq),
      [91, 92, 93],
    );
  });

  it('wakes whoever waits for the next line, and nobody waits for ever', async () => {
    const ring = new LogRing();
    const waiting = ring.wait(0, 60_000);
    ring.add('warn', 'now');
    await waiting;
    await ring.wait(0, 60_000);
    await ring.wait(1, 5);
  });

  it('ends in a text that fits', () => {
    const line = (text: string) => ({ seq: 1, at: 0, level: 'info' as const, text });
    const four = ['aaaa', 'bbbb', 'cccc', 'dddd'].map(line);
    assert.deepEqual(lastOf(four, 18), four.slice(1));
    assert.deepEqual(lastOf(four, 19), four);
    assert.deepEqual(lastOf([line('x'.repeat(100))], 5), [line('xx…xx')]);
    assert.deepEqual(lastOf([], 5), []);
  });

  it('loses no line to a long one after it: that is shortened', () => {
    const ring = new LogRing();
    ring.add('error', 'the real reason');
    ring.add('info', `first${'\n'.repeat(LIMITS.log_tail_chars)}last`);
    const [reason, long, ...more] = ring.tail();
    assert.deepEqual([reason!.text, more], ['the real reason', []]);
    assert.match(long!.text, /^first\n+…\n+last$/);
    assert.equal(ring.text().includes('the real reason'), true);
    assert.equal(reason!.text.length + 1 + long!.text.length, LIMITS.log_tail_chars);
    for (const _ of [1, 2]) ring.add('info', ' '.repeat(LIMITS.log_line_chars));
    assert.equal(ring.tail()[0]!.text, 'the real reason');
  });
});
