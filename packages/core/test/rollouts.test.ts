/** Roll-outs over kernels that are played: one of a module at a time, and what is taken back when one fails. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BadInput,
  ConnectionLost,
  EditRefused,
  EvolveRejected,
  isError,
  Overloaded,
  type RolloutRequest,
  Unauthorised,
} from '@hauki/protocol';
import { Kernels, type RegisteredKernel } from '../src/kernels/kernels.ts';
import { KERNELS_LIMITS } from '../src/kernels/limits.ts';
import { Rollouts } from '../src/kernels/rollouts.ts';
import { ADMIN, type Principal } from '../src/rights.ts';

type Live = { version: number; weight: number };

/**
 * A kernel with one module, `m`: it refuses what is `bad`, holds what is `slow` up until it is let go of, and takes back
 * by itself what is `poor`, which finishes what it has begun.
 */
class Played {
  live: Live[] = [];
  draining: Live[] = [];
  latest = 0;
  /** What it serves, by version. */
  readonly sources = new Map<number, string>();
  readonly calls: string[] = [];
  readonly #slow = Promise.withResolvers<void>();
  readonly #begun = Promise.withResolvers<void>();
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  /** Resolves when it is asked for what is slow. */
  get begun(): Promise<void> {
    return this.#begun.promise;
  }

  letGo(): void {
    this.#slow.resolve();
  }

  get serves(): string | undefined {
    return this.sources.get(this.#main ?? 0);
  }

  get #main(): number | undefined {
    return this.live.toSorted((a, b) => b.weight - a.weight)[0]?.version;
  }

  /** A change by somebody at its own port. */
  post(source: string, weights?: Live[]): number {
    this.sources.set(++this.latest, source);
    this.live = weights ?? [{ version: this.latest, weight: 100 }];
    return this.latest;
  }

  async call(method: string, args: any[]): Promise<unknown> {
    this.calls.push(method);
    if (method === 'evolve') {
      const { content } = args[0];
      if (content.includes('slow')) {
        this.#begun.resolve();
        await this.#slow.promise;
      }
      if (content.includes(`bad on ${this.name}`))
        throw new EvolveRejected({ module: 'm', stage: 'tests', why: 'it is bad' });
      const before = this.live;
      const version = this.post(content);
      if (content.includes('poor')) [this.live, this.draining] = [before, [{ version, weight: 0 }]];
      const diff = '-what ran before';
      if (content.includes('stale')) throw new EditRefused({ why: 'the base is not what runs', running: 'd', diff });
      const vault = { driver: 'quickjs', level: 'vm' };
      return { module: 'm', version, digest: '', diff, ...(content.includes('old') ? {} : { vault }) };
    }
    if (method === 'rollback') this.live = [{ version: args[1], weight: 100 }];
    if (method === 'remove') this.live = [];
    if (method === 'own') {
      const { versions } = args[2];
      this.live = Object.entries(versions).map(([version, weight]) => ({
        version: Number(version),
        weight: Number(weight),
      }));
      return [200, {}];
    }
    return undefined;
  }

  get registered(): RegisteredKernel {
    const view = () => {
      const live = [
        ...this.live.map((one) => ({ ...one, draining: false })),
        ...this.draining.map((one) => ({ ...one, draining: true })),
      ];
      return this.latest === 0 ? [] : [{ module: 'm', version: this.#main ?? null, live }];
    };
    return {
      info: { kernel: this.name, url: '' },
      modules: [],
      rpc: { modules: async () => view() },
      session: { call: (method: string, args: unknown[]) => this.call(method, args), close() {}, open: true },
      gatherers: undefined,
      since: 0,
      heard_at: performance.now(),
    } as unknown as RegisteredKernel;
  }
}

function mesh(options?: { turn_ms?: number }, asker: (owner: string) => Principal | undefined = () => ADMIN) {
  const kernels = new Kernels(() => {});
  const played = ['a', 'b'].map((name) => new Played(name));
  for (const one of played) kernels.register(one.registered);
  const rollouts = new Rollouts(kernels, () => {}, asker, options);
  const roll = (content: string, more: Partial<RolloutRequest> = {}, signal?: AbortSignal) =>
    rollouts.rollOut({ target_module: 'm.js', content, replicas: 'all', ...more }, 'somebody', () => true, signal);
  const serves = () => played.map((one) => one.serves);
  return { played: played as [Played, Played], rollouts, roll, serves };
}

const refused = (promise: Promise<unknown>) =>
  assert.rejects(promise, (error) => isError(error, EvolveRejected) && error.fields.stage === 'tests');

describe('roll-outs', () => {
  it('of one module come one after the other: what is refused leaves what another has brought', async () => {
    const { played, roll, serves } = mesh();
    await roll('base');
    const first = roll('first, slow');
    const second = refused(roll('second, bad on b'));
    await played[0].begun;
    for (const one of played) one.letGo();
    assert.equal((await first).kernels.length, 2);
    await second;
    assert.deepEqual(serves(), ['first, slow', 'first, slow']);
    assert.deepEqual([...played[0].sources.values()], ['base', 'first, slow', 'second, bad on b']);
  });

  it('and removals of one module come one after the other, those of others beside them', async () => {
    const { played, rollouts, roll } = mesh();
    await roll('base');
    const slow = roll('slow');
    await played[0].begun;
    const removed = rollouts.remove('m', 'a', 'somebody', () => true);
    await rollouts.rollOut({ target_module: 'other', content: 'x' }, 'somebody', () => true);
    await roll('dry', { dry_run: true });
    assert.ok(!played[0].calls.includes('remove'));
    for (const one of played) one.letGo();
    await slow;
    assert.deepEqual((await removed).removed, ['a']);
  });

  it('and removals whose token has ended while they waited change nothing', async () => {
    const ended = new Set<string>();
    const { played, rollouts, roll, serves } = mesh({}, (owner) => (ended.has(owner) ? undefined : ADMIN));
    await roll('base');
    const slow = roll('slow');
    await played[0].begun;
    const removed = rollouts.remove('m', 'a', 'another', () => true);
    ended.add('another');
    for (const one of played) one.letGo();
    await assert.rejects(removed, (error) => isError(error, Unauthorised));
    await slow;
    assert.ok(!played[0].calls.includes('remove'));
    assert.equal(serves()[0], 'slow');
  });

  it('reach the kernels where the module fails too, after those where it serves', async () => {
    const kernels = new Kernels(() => {});
    const rollouts = new Rollouts(
      kernels,
      () => {},
      () => ADMIN,
    );
    const [fails, serves] = ['fails', 'serves'].map((name) => new Played(name).registered);
    for (const [one, serving] of [
      [fails, false],
      [serves, true],
    ] as const) {
      kernels.register(one!);
      kernels.report(one!, [{ module: 'm', version: 1, digest: '', serving }], null);
    }
    const { kernels: on } = await rollouts.rollOut({ target_module: 'm.js', content: 'x' }, 'me', () => true);
    assert.deepEqual(
      on.map(({ kernel }) => kernel),
      ['serves', 'fails'],
    );
  });

  it('name the kernels that held the module and have gone, until they are back; so do removals', async () => {
    const kernels = new Kernels(() => {});
    const rollouts = new Rollouts(
      kernels,
      () => {},
      () => ADMIN,
    );
    const roll = (replicas?: number) =>
      rollouts.rollOut({ target_module: 'm.js', content: 'x', ...(replicas ? { replicas } : {}) }, 'me', () => true);
    const [stays, leaves, never] = ['stays', 'leaves', 'never'].map((name) => new Played(name).registered);
    for (const one of [stays, leaves, never]) kernels.register(one!);
    const held = [{ module: 'm', version: 1, digest: '', serving: true }];
    for (const one of [stays, leaves]) kernels.report(one!, held, null);
    assert.equal((await roll()).away, undefined);
    for (const one of [leaves, never]) kernels.away(one!, 'a restart');
    assert.deepEqual((await roll(1)).away, ['leaves']);
    const reached = (kernel: string) => kernel === 'stays';
    assert.equal((await rollouts.rollOut({ target_module: 'm', content: 'x' }, 'me', reached)).away, undefined);
    assert.equal(
      (await rollouts.rollOut({ target_module: 'm', content: 'x', kernel: 'stays' }, 'me', () => true)).away,
      undefined,
    );
    const removed = await rollouts.remove('m', undefined, 'me', () => true);
    assert.deepEqual(removed, { module: 'm', removed: ['stays'], not_removed: ['leaves'] });
    kernels.register(new Played('leaves').registered);
    kernels.report(stays!, held, null);
    assert.equal((await roll()).away, undefined);
  });

  it('to a kernel that is named and to a number of them at once are refused: others would lose the module', async () => {
    const { played, roll, serves } = mesh();
    await roll('base');
    await assert.rejects(
      roll('next', { kernel: 'a', replicas: 1 }),
      (error) => isError(error, BadInput) && error.fields.what === 'replicas',
    );
    assert.deepEqual(serves(), ['base', 'base']);
    assert.ok(!played[1].calls.includes('remove'));
  });

  it('that fail of a kernel that is lost say that the others have their version back', async () => {
    const { played, roll, serves } = mesh();
    await roll('base');
    const lost = new ConnectionLost({ why: 'the other side closed the connection' });
    const call = played[1].call.bind(played[1]);
    played[1].call = (method, args) => (method === 'evolve' ? Promise.reject(lost) : call(method, args));
    await assert.rejects(
      roll('next'),
      /\(on b, in wave 2 of 2\)\. What it had changed on other kernels is taken back$/,
    );
    assert.deepEqual(serves(), ['base', 'base']);
  });

  it('that wait for too long are refused and change nothing, and hold nobody up behind them', async () => {
    const { played, roll, serves } = mesh({ turn_ms: 20 });
    const slow = roll('slow');
    await played[0].begun;
    await assert.rejects(
      roll('late'),
      (error) => isError(error, Overloaded) && error.retryable && /Nothing was changed: try again/.test(error.message),
    );
    for (const one of played) one.letGo();
    await slow;
    await roll('next');
    assert.deepEqual(serves(), ['next', 'next']);
    assert.equal(played[0].latest, 2);
  });

  it('are bounded in how many wait', async () => {
    const { played, roll } = mesh();
    const slow = roll('slow');
    await played[0].begun;
    const waiting = Array.from({ length: KERNELS_LIMITS.changes_waiting }, (_, i) => roll(`next ${i}`));
    await assert.rejects(
      roll('one too many'),
      (error) => isError(error, Overloaded) && error.fields.limit === KERNELS_LIMITS.changes_waiting,
    );
    for (const one of played) one.letGo();
    await Promise.all([slow, ...waiting]);
    await roll('last');
    assert.equal(played[0].serves, 'last');
  });

  it('that fail give the weights back that versions had', async () => {
    const { played, roll } = mesh();
    await roll('one');
    const weights = [
      { version: 1, weight: 90 },
      { version: 2, weight: 10 },
    ];
    for (const one of played) one.post('two', weights);
    await refused(roll('three, bad on b', { wave: 1 }));
    assert.equal(played[0].latest, 3);
    assert.deepEqual(
      played.map(({ live }) => live),
      [weights, weights],
    );
  });

  it('that are watched fail where a kernel has taken the version back, also while it finishes what it has begun', async () => {
    const { roll, serves } = mesh();
    await roll('base');
    await assert.rejects(
      roll('poor', { watch_ms: 1 }),
      (error) => isError(error, EvolveRejected) && /a took version 2 back \(on a, in wave 1 of 2\)/.test(error.message),
    );
    assert.deepEqual(serves(), ['base', 'base']);
  });

  it('over a kernel that answers as an earlier version does are refused with what to do, and taken back', async () => {
    const { roll, serves } = mesh();
    const is_told = (error: unknown) =>
      isError(error, EvolveRejected) &&
      /Start the kernel with the core’s version of Hauki \(on a, in wave 1 of 2\)/.test(error.message);
    await assert.rejects(roll('old'), is_told);
    assert.deepEqual(serves(), [undefined, undefined]);
    await roll('base');
    await assert.rejects(roll('old again'), is_told);
    assert.deepEqual(serves(), ['base', 'base']);
  });

  it('that fail take nothing from who changed the module on a kernel meanwhile', async () => {
    const { played, roll, serves } = mesh();
    await roll('base');
    const failing = refused(roll('slow, bad on b'));
    // The first has it already, and waits in its place for the second.
    played[0].letGo();
    await played[1].begun;
    played[0].post('somebody’s own');
    played[1].letGo();
    await failing;
    assert.deepEqual(serves(), ['somebody’s own', 'base']);
    assert.ok(!played[0].calls.includes('rollback'));
  });

  it('go to no further kernel when their token has ended or their sender has gone, and are taken back', async () => {
    for (const ends of ['token', 'sender'] as const) {
      let asker: Principal | undefined = ADMIN;
      const sender = new AbortController();
      const { played, roll, serves } = mesh(undefined, () => asker);
      await roll('base');
      const rolled = roll('slow', {}, sender.signal);
      await played[0].begun;
      if (ends === 'token') asker = undefined;
      else sender.abort();
      for (const one of played) one.letGo();
      await assert.rejects(rolled, (error) => isError(error, ends === 'token' ? Unauthorised : ConnectionLost));
      assert.deepEqual(serves(), ['base', 'base']);
      assert.equal(played[1].latest, 1);
    }
  });

  it('that are watched hold nobody up when their token has ended or their sender has gone', async () => {
    for (const ends of ['token', 'sender'] as const) {
      let asker: Principal | undefined = ADMIN;
      const sender = new AbortController();
      const { played, roll, serves } = mesh(undefined, () => asker);
      await roll('base');
      const watched = roll('slow', { watch_ms: 600_000 }, sender.signal);
      await played[0].begun;
      played[0].letGo();
      if (ends === 'token') asker = undefined;
      else sender.abort();
      await assert.rejects(watched);
      asker = ADMIN;
      played[1].letGo();
      await roll('next');
      assert.deepEqual(serves(), ['next', 'next']);
    }
  });

  it('tell what differs from the source that runs to admins alone, also where edits are refused', async () => {
    const narrow: Principal = { ...ADMIN, id: 'narrow', name: 'narrow', scopes: ['evolve'] };
    for (const asker of [ADMIN, narrow]) {
      const diff = asker === ADMIN ? '-what ran before' : undefined;
      const { roll } = mesh(undefined, () => asker);
      assert.equal((await roll('base', { dry_run: true })).diff, diff);
      await assert.rejects(
        roll('stale'),
        (error) => isError(error, EditRefused) && error.fields.running === 'd' && error.fields.diff === diff,
      );
    }
  });
});
