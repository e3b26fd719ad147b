/** The gentle end: the hook is bounded, and one that no longer answers is told from one that nobody renewed. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Cause, LIMITS, OutcomeUnknown } from '@hauki/protocol';
import { endGently } from '../src/ending.ts';
import type { Living } from '../src/forge.ts';

const never = () => new Promise<never>(() => {});
const turns = async () => {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
};

/** Ends a worker whose guest does so; `cpu_ms`: what it has used, each time that is asked. */
function ending(cause: Cause, guest: { activity?: () => Promise<unknown>; end?: () => unknown; cpu_ms?: number[] }) {
  const logged: string[] = [];
  let asked = 0;
  const { activity = async () => ({}), end = () => {}, cpu_ms } = guest;
  const usage = async () => ({ cpu_ms: cpu_ms![Math.min(asked++, cpu_ms!.length - 1)] });
  const living = {
    job: { lease: { lease_ms: 5_000 } },
    shell: { activity, end },
    log: { add: (_level: string, text: string) => logged.push(text) },
    vault: cpu_ms ? { usage } : {},
  } as unknown as Living;
  return { done: endGently(living, cause, 'its owner is gone'), logged };
}

describe('the gentle end of a worker', () => {
  it('waits for its hook, and tells what that throws', async () => {
    const hook = Promise.withResolvers<void>();
    const { done, logged } = ending('idle', {
      end: () => hook.promise,
      activity: () => assert.fail('it is not asked'),
    });
    let over = false;
    void done.then(() => {
      over = true;
    });
    await turns();
    assert.equal(over, false);
    hook.reject(new Error('a hook that fails'));
    assert.deepEqual(await done, { cause: 'idle', reason: 'its owner is gone' });
    assert.match(logged.join(), /^onEnd: .*a hook that fails/);
  });

  it('writes nothing into its log that it did not throw: not that its vault ended in its hook, nor what comes too late', async (t) => {
    const cut = ending('idle', {
      end: () => Promise.reject(new OutcomeUnknown({ method: 'end', why: 'the vault ended' })),
    });
    await cut.done;
    assert.deepEqual(cut.logged, []);
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const hook = Promise.withResolvers<void>();
    const slow = ending('idle', { end: () => hook.promise });
    await turns();
    t.mock.timers.tick(LIMITS.end_hook_ms);
    await slow.done;
    hook.reject(new Error('too late'));
    await turns();
    assert.deepEqual(slow.logged, []);
  });

  it('waits for no hook for ever', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { done } = ending('max_life', { end: never });
    await turns();
    t.mock.timers.tick(LIMITS.end_hook_ms);
    assert.deepEqual(await done, { cause: 'max_life', reason: 'its owner is gone' });
  });

  it('is that of a lease where it still answers, however long its hook takes', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { done } = ending('lease_expired', { end: never });
    await turns();
    t.mock.timers.tick(LIMITS.end_hook_ms);
    assert.equal((await done).cause, 'lease_expired');
  });

  it('is its own where it does not answer: it computed, or waits in one place, or nobody can say', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    for (const [cpu_ms, why] of [
      [[100, 1_600], /It computed for 1500 ms of that time$/],
      [[100, 105], /It did not compute either: its code waits in one place$/],
      [undefined, /It may compute without end or wait without an await$/],
    ] as const) {
      const { done } = ending('lease_expired', { activity: never, end: never, ...(cpu_ms && { cpu_ms: [...cpu_ms] }) });
      await turns();
      t.mock.timers.tick(LIMITS.end_hook_ms);
      await turns();
      t.mock.timers.tick(1_000);
      const { cause, reason } = await done;
      assert.equal(cause, 'unresponsive');
      assert.match(reason, /did not answer .* when its lease of 5000 ms ran out/);
      assert.match(reason, why);
    }
  });
});
