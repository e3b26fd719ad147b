/** Lasting workers' records: how long a restart waits, what counts as a failure, what is shown; and whose news counts. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Cause, type Fate, LIMITS, NO_GRANTS, type WorkerInfo, WorkerRestarting } from '@hauki/protocol';
import fc from 'fast-check';
import { afterDeath, CRASH_LOOP, type LastingRecord, RESTART, viewOf } from '../src/lasting/record.ts';
import { type RegisteredNode, Registry } from '../src/registry.ts';

const record = (change: Partial<LastingRecord> = {}): LastingRecord => ({
  worker: 'counter',
  owner: 'ada',
  state: 'running',
  confirmed: true,
  pointer: null,
  source: { text: '' },
  language: 'javascript',
  driver: 'quickjs',
  labels: {},
  nodes: ['*'],
  memory_mib: null,
  grants: NO_GRANTS,
  load_timeout_ms: 1_000,
  epoch: 3,
  node: 'one',
  failures: 0,
  deaths: [],
  created_at: 1,
  started_at: 1_000_000,
  next_try_at: 0,
  deleted_at: 0,
  ...change,
});
const death = (at: number, cause: Cause = 'exited') => ({
  epoch: 3,
  node: 'one',
  at,
  cause,
  reason: 'it fell',
  log_tail: '',
});

describe('a lasting worker that dies', () => {
  it('waits twice as long after each failure in a row, up to the most', () => {
    let one = record();
    const waits: number[] = [];
    for (let i = 0; i < 12; i++) {
      const at = one.started_at + 10;
      one = afterDeath({ ...one, state: 'running' }, death(at));
      waits.push(one.next_try_at - at);
    }
    assert.deepEqual(waits.slice(0, 4), [500, 1_000, 2_000, 4_000]);
    assert.equal(waits.at(-1), RESTART.most_ms);
    assert.equal(one.deaths.length, LIMITS.lasting_deaths, 'the last ones are kept');
  });

  it('has not failed when it had been stable, or when it was its node that went', () => {
    const worn = record({ failures: 6 });
    const stable = afterDeath(worn, death(worn.started_at + RESTART.stable_ms));
    assert.deepEqual([stable.failures, stable.next_try_at - stable.deaths[0]!.at], [1, RESTART.first_ms]);
    const lost = afterDeath(worn, death(worn.started_at + 10, 'node_lost'));
    assert.deepEqual([lost.failures, lost.next_try_at], [6, lost.deaths[0]!.at], 'at once, and it counts neither way');
    assert.equal(afterDeath(worn, death(worn.started_at + RESTART.stable_ms, 'node_closed')).failures, 0);
  });

  it('never waits longer than the most, never spends an epoch by dying, and forgets no failure by failing', () => {
    const causes = fc.constantFrom<Cause[]>('exited', 'node_lost', 'out_of_memory', 'node_closed', 'rejected');
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(100_000), causes, fc.boolean()), { maxLength: 40 }), (ends) => {
        let one = record();
        for (const [lived_ms, cause, was_running] of ends) {
          const at = one.started_at + lived_ms;
          const next = afterDeath({ ...one, state: was_running ? 'running' : 'starting' }, death(at, cause));
          assert.equal(next.epoch, one.epoch);
          assert.equal(next.state, 'restarting');
          assert.ok(next.next_try_at >= at && next.next_try_at - at <= RESTART.most_ms);
          assert.ok(next.failures <= one.failures + 1);
          if (!was_running) assert.ok(next.failures >= one.failures);
          one = { ...next, started_at: next.next_try_at };
        }
      }),
    );
  });
});

describe('what is shown of a lasting worker', () => {
  it('says where it is, and why it does not run', () => {
    assert.deepEqual([viewOf(record(), true).state, viewOf(record(), true).why], ['running', null]);
    const away = viewOf(record(), false);
    assert.deepEqual([away.state, away.why], ['node_away', 'its node one is away']);
    const crashed = afterDeath(record(), death(1_000_010));
    const shown = viewOf(crashed, true);
    assert.deepEqual([shown.state, shown.why, shown.next_try_at], ['restarting', 'it fell', crashed.next_try_at]);
    assert.equal(viewOf({ ...crashed, failures: CRASH_LOOP }, true).state, 'crash_loop');
    const waiting = viewOf(crashed, true, 'no room');
    assert.deepEqual([waiting.state, waiting.why], ['waiting', 'no room']);
    assert.equal(viewOf(record({ epoch: 1 }), true).restarts, 0);
    const paused = viewOf(record(), true, undefined, 0);
    assert.deepEqual(
      [paused.state, paused.paused_at, paused.why],
      ['running', 0, 'it is paused since 1970-01-01T00:00:00.000Z'],
    );
    assert.deepEqual(
      [viewOf(record(), false, undefined, 0).why, 'paused_at' in viewOf(record(), true)],
      [away.why, false],
    );
  });
});

describe('the registry, of lasting workers', () => {
  const info = (epoch: number): WorkerInfo => ({
    worker: 'counter',
    owner: 'ada',
    driver: 'quickjs',
    isolation: 'vm',
    epoch,
    direct: { host: '127.0.0.1', port: 1, tls: false },
    memory_mib: 8,
    grants: NO_GRANTS,
    lease: { heartbeat_ms: 1, lease_ms: 2 },
    pid: 1,
    born_at: 0,
    lease_until: 0,
    lasting: true,
  });
  const node = (name: string) =>
    ({
      info: { node: name, labels: {}, drivers: {}, memory_mib: 64, cores: 1 },
      load: { workers: 0, memory_used_mib: 0, cpu: 0 },
      since: 0,
    }) as unknown as RegisteredNode;
  const fate = (epoch: number): Fate => ({
    worker: 'counter',
    owner: 'ada',
    cause: 'exited',
    reason: '',
    at: 0,
    lines: [],
    epoch,
  });

  it('takes no news of an earlier epoch for news of the present one', () => {
    const registry = new Registry();
    registry.register(node('one'), []);
    registry.born({ ...info(2), node: 'one' });
    registry.died(fate(1));
    assert.equal(registry.find('counter').epoch, 2);
    registry.register(node('two'), [info(1)]);
    assert.deepEqual([registry.find('counter').epoch, registry.find('counter').node], [2, 'one']);
    registry.born({ ...info(1), node: 'two' });
    assert.equal(registry.find('counter').node, 'one');
    registry.died(fate(2));
    assert.equal(registry.workers.size, 0);
    registry.born({ ...info(2), node: 'one' });
    assert.equal(registry.workers.size, 0, 'a fate that came first stands');
    registry.born({ ...info(3), node: 'two' });
    assert.equal(registry.find('counter').epoch, 3);
  });

  it('says that it is being started again, which is worth asking again', () => {
    const registry = new Registry();
    registry.register(node('one'), []);
    registry.born({ ...info(1), node: 'one' });
    registry.restarting.set('counter', { owner: 'ada', why: 'it fell' });
    assert.equal(registry.find('counter').epoch, 1, 'while it lives it is found');
    registry.died(fate(1));
    assert.throws(
      () => registry.find('counter'),
      (e) => e instanceof WorkerRestarting && e.retryable && e.fields.why === 'it fell',
    );
  });

  it('tells watchers what changes, and of an earlier epoch nothing', () => {
    const registry = new Registry();
    const heard: string[] = [];
    registry.watch({
      registered: ({ info: { node: name } }, workers) => heard.push(`${name} has ${workers.length}`),
      away: (name) => heard.push(`${name} is away`),
      died: ({ worker, epoch }) => heard.push(`${worker} ${epoch} died`),
    });
    const one = node('one');
    registry.born({ ...info(2), node: 'one' });
    registry.register(one, [info(2)]);
    registry.died(fate(1));
    registry.away(one);
    registry.register(node('one'), []);
    assert.deepEqual(heard, ['one has 1', 'one is away', 'counter 2 died', 'one has 0']);
  });
});
