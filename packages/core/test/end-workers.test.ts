/** What ends with a token, on demand: all that was made with it or below it, also what comes while it is looked for. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { JobEnded, WorkerUnknown } from '@hauki/protocol';
import { type EndPowers, endWorkers } from '../src/end-workers.ts';
import { type RegisteredNode, type RegisteredWorker, Registry } from '../src/registry.ts';

function setUp() {
  const registry = new Registry();
  const notes: string[] = [];
  const jobs = new Map<string, string>();
  const lasting = new Map<string, string>();
  const ownedIn = (all: Map<string, string>) => (meant: (owner: string) => boolean) =>
    [...all].filter(([, owner]) => meant(owner)).map(([name]) => name);
  let onEnd = (_name: string): void => {};
  const ends = (all: Map<string, unknown>, kind: string) => async (name: string) => {
    notes.push(`${kind} ${name}`);
    all.delete(name);
    onEnd(name);
  };
  const destruct = ends(registry.workers, 'worker');
  registry.nodes.set('north', { rpc: { destruct } } as unknown as RegisteredNode);
  const has = (worker: string, owner: string, more: Partial<RegisteredWorker> = {}) =>
    registry.workers.set(worker, { worker, owner, node: 'north', epoch: 1, ...more } as RegisteredWorker);
  const spool = { owned: ownedIn(jobs), cancel: ends(jobs, 'job') };
  const powers = { registry, spool, lasting: { owned: ownedIn(lasting), remove: ends(lasting, 'lasting') } };
  const whenEnded = (run: typeof onEnd) => {
    onEnd = run;
  };
  return {
    registry,
    notes,
    jobs,
    lasting,
    has,
    spool,
    end: () => endWorkers(powers as unknown as EndPowers, ['a-1']),
    whenEnded,
  };
}

describe('with a token', () => {
  it('end its jobs, then what lasts, then the rest, and nothing of others', async () => {
    const { notes, jobs, lasting, has, end } = setUp();
    jobs.set('j-1', 'a-1').set('j-2', 'b-1');
    lasting.set('bank', 'a-1/c-1').set('other', 'a-11');
    has('w-1', 'a-1');
    has('w-2', 'z-1/a-1/b-1');
    has('w-3', 'admin');
    has('bank', 'a-1/c-1', { lasting: true });
    const ended = await end();
    assert.deepEqual(ended, { jobs: ['j-1'], workers: ['bank', 'w-1', 'w-2'], left: [] });
    assert.deepEqual(notes, ['job j-1', 'lasting bank', 'worker w-1', 'worker w-2']);
  });

  it('ends what was still on its way, or being made, when it was looked for', async () => {
    const { registry, has, end, whenEnded } = setUp();
    has('w-1', 'a-1');
    registry.forging.set('w-2', { worker: 'w-2', owner: 'a-1', node: 'north', grants: {} as never });
    whenEnded((name) => {
      if (name === 'w-1') has('w-late', 'a-1');
    });
    assert.deepEqual((await end()).workers.sort(), ['w-1', 'w-2', 'w-late']);
  });

  it('ends for good what lasts and came meanwhile: a destruct would only have it started again', async () => {
    const { notes, lasting, has, end, whenEnded } = setUp();
    lasting.set('bank', 'a-1');
    whenEnded((name) => {
      if (name !== 'bank') return;
      lasting.set('late', 'a-1');
      has('late', 'a-1', { lasting: true });
    });
    assert.deepEqual((await end()).workers, ['bank', 'late']);
    assert.deepEqual(notes, ['lasting bank', 'lasting late']);
  });

  it('is told what is left, and nothing of what ended by itself', async () => {
    const { jobs, has, spool, end } = setUp();
    jobs.set('j-1', 'a-1').set('j-2', 'a-1');
    spool.cancel = async (job) => {
      throw job === 'j-1' ? new JobEnded({ job, state: 'done' }) : new WorkerUnknown({ worker: job });
    };
    has('w-away', 'a-1', { node: 'south' });
    assert.deepEqual(await end(), { jobs: [], workers: [], left: ['w-away'] });
  });
});
