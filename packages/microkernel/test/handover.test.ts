/** States of several versions: such a module no change makes, but the record may have one from elsewhere. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { deserialize } from 'node:v8';
import type { VersionFacts } from '@hauki/protocol';
import { handOver } from '../src/handover.ts';
import type { Instance } from '../src/instance.ts';
import { Module } from '../src/module.ts';
import { VersionStats } from '../src/stats.ts';
import { emptyRecord, type ModuleRecord, type Store } from '../src/store.ts';

const factsOf = (version: number) => ({ module: 'm', version, digest: `d${version}` }) as VersionFacts;

/** A module of which these serve, each with its weight and, where it has one, its state. */
async function serving(...versions: { weight: number; state?: unknown }[]) {
  const taken: unknown[] = [];
  const kept: Record<number, unknown> = {};
  const commits: { record: ModuleRecord; facts: readonly VersionFacts[] }[] = [];
  const store = {
    facts: async (_: string, version: number) => factsOf(version),
    async keepState(_: string, version: number, state: Uint8Array) {
      kept[version] = deserialize(state);
      return `state of ${version}`;
    },
    async commit(record: ModuleRecord, _: object, facts: readonly VersionFacts[]) {
      commits.push({ record, facts });
    },
  } as unknown as Store;
  /** What is under way comes to its end: it counts in the state. */
  const finish = async (state: unknown) => {
    await new Promise((resolve) => setImmediate(resolve));
    if (state !== undefined) (state as { n: number }).n++;
    return true;
  };
  const instance = (version: number, state?: unknown) =>
    ({
      version,
      spec: { version, digest: `d${version}`, language: 'javascript', source: '' },
      has_state: state !== undefined,
      stats: new VersionStats(),
      in_flight: 0,
      gone: new Promise(() => {}),
      idle: async () => finish(state),
      quiet: async () => finish(state),
      dehydrate: async () => state,
      hydrate: async (...given: unknown[]) => taken.push(given.slice(0, 2)),
      end: async () => {},
    }) as unknown as Instance;
  const module = new Module(emptyRecord('m'), {
    start: () => assert.fail('nothing is to be started'),
    abort: async () => {},
    log: () => {},
  });
  const live = versions.map(({ weight }, at) => ({ version: at + 1, weight }));
  const instances = versions.map(({ state }, at) => instance(at + 1, state));
  await module.swap({ ...module.record, latest: live.length, live }, instances, async () => {});
  const change = (version: number, started?: Instance) =>
    handOver(store, {
      module,
      next: { ...module.record, live: [{ version, weight: 100 }] },
      instance: started,
      deed: 'weights',
      by: 'admin',
      facts: factsOf(version),
    });
  return { instance, change, taken, kept, last: () => commits.at(-1)! };
}

describe('a handover', () => {
  it('keeps the state of a version that is left for one that serves beside it', async () => {
    const { change, kept, last } = await serving({ weight: 90, state: { n: 5 } }, { weight: 10 });
    await change(2);
    assert.deepEqual(kept, { 1: { n: 6 } });
    const { record, facts } = last();
    assert.equal(record.state, null);
    assert.equal(facts.find(({ version }) => version === 1)?.state_pointer, 'state of 1');
  });

  it('gives the state to the next version, also of one that does not serve the most', async () => {
    const { instance, change, taken, kept, last } = await serving({ weight: 40, state: { n: 5 } }, { weight: 60 });
    await change(3, instance(3, {}));
    assert.deepEqual(taken, [[{ n: 6 }, 1]]);
    assert.deepEqual(kept, { 1: { n: 6 } });
    assert.deepEqual(last().record.state, { pointer: 'state of 1', from: 1 });
  });
});
