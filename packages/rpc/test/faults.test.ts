/**
 * A thousand seeded schedules of faults between a caller and a worker, in memory and without waiting: no call is executed twice, order is kept, nothing hangs past its deadline, and every caller is told the
 * truth. Before that is believed, the checks are shown to see what is wrong. `FAULT_SEED=7 npm test -- faults` runs one.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { FrameTransport, Transport } from '../src/index.ts';
import { Channel } from '../src/index.ts';
import { type Dice, tally } from './fault-proxy.ts';
import { type Bench, type Outcome, openBench, runSchedule, type ScheduleOptions } from './faults-schedule.ts';

const IN_MEMORY = 1_000;
const only = process.env.FAULT_SEED;
const seeds = (count: number) => (only ? [Number(only)] : Array.from({ length: count }, (_, i) => i + 1));

const told = ({ seed, faults, story }: Outcome) =>
  `Seed ${seed}: ${faults.join('; ')}\nOnce more: FAULT_SEED=${seed} npm test -- rpc/test/faults\n${only ? story.join('\n') : ''}`;

type Deliver = (text: string, bytes?: Uint8Array) => void;

/** A transport whose incoming messages go through `change` first. */
const changed =
  (change: (dice: Dice, deliver: Deliver, transport: Transport) => Deliver) =>
  (transport: Transport, dice: Dice): Transport => ({
    start: (events) =>
      transport.start({ message: change(dice, events.message, transport), close: (reason) => events.close(reason) }),
    send: (text, bytes) => transport.send(text, bytes),
    close: (reason) => transport.close(reason),
    retract: (from_newest) => transport.retract?.(from_newest) ?? false,
    get buffered_bytes() {
      return transport.buffered_bytes;
    },
    get carried_bytes() {
      return transport.carried_bytes;
    },
    get unsent() {
      return transport.unsent ?? 0;
    },
  });

/** Deliberately broken ends, and what the checks must say of each. */
const BROKEN: Record<string, { with: Partial<ScheduleOptions>; says: RegExp }> = {
  'a worker that hears a message twice': {
    with: {
      spoil: changed((dice, deliver) => (text, bytes) => {
        deliver(text, bytes);
        if (dice.chance(0.1)) deliver(text, bytes);
      }),
    },
    says: /executed \d+ 2 times/,
  },
  'a worker that hears messages in another order': {
    with: {
      spoil: changed((dice, deliver) => {
        let late: [string, Uint8Array | undefined] | undefined;
        return (text, bytes) => {
          const before = late;
          late = undefined;
          if (!before && dice.chance(0.2)) late = [text, bytes?.slice()];
          else deliver(text, bytes);
          if (before) deliver(...before);
        };
      }),
    },
    says: /began after/,
  },
  'a worker that does not hear some messages': {
    with: {
      spoil: changed((dice, deliver) => (text, bytes) => {
        if (!dice.chance(0.05)) deliver(text, bytes);
      }),
    },
    says: /in place of|quietly|not within|never settled|not empty/,
  },
  'a worker that answers for what it did not do': {
    with: {
      spoil: changed((dice, deliver, transport) => (text, bytes) => {
        const { id, method, params } = JSON.parse(text);
        if (method === 'now' && dice.chance(0.2))
          transport.send(JSON.stringify({ jsonrpc: '2.0', id, result: { tag: params[0] } }));
        else deliver(text, bytes);
      }),
    },
    says: /resolved, but executed 0 times/,
  },
  'a channel that takes again what it had': {
    with: {
      caller: 'reckless',
      channel: (detached) =>
        new (class extends Channel {
          override attach(link: FrameTransport, peer_has?: number): void {
            super.attach(link, peer_has);
          }
        })(detached),
    },
    says: /the caller executed|in place of/,
  },
  'a channel that sends again what the other side has': {
    with: {
      caller: 'reckless',
      channel: (detached) =>
        new (class extends Channel {
          override attach(link: FrameTransport, peer_has = 0, received?: number): void {
            super.attach(link, Math.max(0, peer_has - 1), received);
          }
          override canResume(count: unknown): count is number {
            return super.canResume(count) || super.isOvertaken(count);
          }
        })(detached),
    },
    says: /the worker executed \d+ \d times/,
  },
};

describe('faults between a caller and its worker', () => {
  let bench: Bench;
  const lost: unknown[] = [];
  const rejected = (reason: unknown) => void lost.push(reason);
  before(async () => {
    bench = await openBench();
    process.on('unhandledRejection', rejected);
  });
  after(async () => {
    process.off('unhandledRejection', rejected);
    await bench.office.close();
  });

  for (const [name, { with: broken, says }] of Object.entries(BROKEN))
    it(`are not forgiven: ${name} is found out`, async () => {
      const found: string[] = [];
      for (let seed = 1; seed <= 60 && !says.test(found.join('\n')); seed++) {
        const outcome = await runSchedule({ ...broken, seed, bench, tally: tally() }).catch((error) => error as Error);
        found.push(...(outcome instanceof Error ? [outcome.message] : outcome.faults));
      }
      assert.match(found.join('\n'), says);
    });

  it(`do no harm: ${IN_MEMORY} schedules in memory`, async () => {
    const counted = tally();
    let calls = 0;
    for (const seed of seeds(IN_MEMORY)) {
      const outcome = await runSchedule({ seed, bench, tally: counted });
      assert.deepEqual(outcome.faults, [], told(outcome));
      calls += outcome.calls;
    }
    assert.deepEqual(lost, []);
    if (only) return;
    // The schedules contain what they are for.
    assert.ok(calls > IN_MEMORY * 10, `${calls} calls`);
    for (const [what, times] of Object.entries(counted)) assert.ok(times > IN_MEMORY / 20, `${what}: ${times}`);
  });
});
