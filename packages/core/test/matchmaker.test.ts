/** The matchmaker: even loads at scale, constraints always kept, refusals that say why. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ISOLATION_LEVELS, isAtLeast, LEAST_MEMORY_MIB, type MeshError, type NodeInfo } from '@hauki/protocol';
import fc from 'fast-check';
import { type Candidate, loadOf, place, refusal, type Wanted } from '../src/matchmaker.ts';

/** A small generator with a seed (mulberry32), so that a failure can be repeated. */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const LXC = { available: true, level: 'container', isolation: 'kernel' } as const;
const QUICKJS = { available: true, level: 'vm', isolation: 'vm' } as const;
const PROCESS = { available: true, level: 'process', isolation: 'bubblewrap' } as const;
const TRUSTED = { available: true, level: 'none', isolation: 'nothing' } as const;

const node = (name: string, of: Partial<NodeInfo> = {}, load: Partial<Candidate['load']> = {}): Candidate => ({
  info: {
    node: name,
    labels: {},
    drivers: { lxc: LXC, quickjs: QUICKJS },
    memory_mib: 1024,
    cores: 1,
    ...of,
  },
  load: { workers: 0, memory_used_mib: 0, cpu: 0, ...load },
});

const want = (of: Partial<Wanted> = {}): Wanted => ({ labels: {}, memory_mib: () => 64, ...of });

describe('ten thousand nodes and a hundred thousand placements', () => {
  const NODES = 10_000;
  const PLACEMENTS = 100_000;
  const simulate = (nodes: Candidate[], wanted: Wanted, random: () => number, placements: number) => {
    for (let i = 0; i < placements; i++) {
      const placed = place(wanted, nodes, random);
      assert.ok('node' in placed);
      placed.node.load.workers++;
    }
    return Math.max(...nodes.map(({ load }) => load.workers));
  };

  for (const seed of [1, 2, 3, 20_261_120])
    it(`leave the fullest at most 2 above the mean (seed ${seed})`, (t) => {
      const nodes = Array.from({ length: NODES }, (_, i) => node(`n${i}`));
      const fullest = simulate(nodes, want(), seeded(seed), PLACEMENTS);
      t.diagnostic(`fullest ${fullest}, mean ${PLACEMENTS / NODES}`);
      assert.ok(fullest <= PLACEMENTS / NODES + 2, `the fullest holds ${fullest}`);
      assert.equal(
        nodes.reduce((total, { load }) => total + load.workers, 0),
        PLACEMENTS,
      );
    });

  it('would not be so even with a single random pick (positive control)', () => {
    const random = seeded(1);
    const counts = new Array<number>(NODES).fill(0);
    for (let i = 0; i < PLACEMENTS; i++) counts[Math.floor(random() * NODES)]!++;
    assert.ok(Math.max(...counts) > PLACEMENTS / NODES + 2);
  });

  it('fill nodes of different size in proportion to their cores', () => {
    const nodes = Array.from({ length: 1000 }, (_, i) => node(`n${i}`, { cores: 1 + (i % 8) }));
    simulate(nodes, want(), seeded(7), 45_000);
    // On average 10 workers for each core.
    for (const each of nodes) assert.ok(loadOf(each) < 14, `${each.info.node}: ${loadOf(each)}`);
  });
});

describe('where a job may go', () => {
  it('is by levels of which each is at least itself, and what is none holds nothing', () => {
    for (const [i, level] of ISOLATION_LEVELS.entries())
      for (const [j, least] of ISOLATION_LEVELS.entries()) assert.equal(isAtLeast(level, least), i >= j);
    for (const unknown of [undefined, 'fortress', '__proto__'])
      assert.deepEqual([isAtLeast(unknown, 'none'), isAtLeast(unknown, 'process')], [true, false]);
  });

  it('is, with a volume, only where there are volumes', () => {
    const volumes = { available: false, reason: 'no loop devices' };
    const refused = place(want({ volume: true }), [node('a'), node('b', { volumes })], () => 0);
    assert.deepEqual(refused, {
      refused: [
        'a (no volumes: this node is too old, no driver process)',
        'b (no volumes: no loop devices, no driver process)',
      ],
    });
    const placed = place(want({ volume: true }), [node('a'), node('c', { volumes: { available: true } })], () => 0);
    assert.ok('node' in placed && placed.node.info.node === 'c');
  });

  it('is the left one of two that are as busy as each other', () => {
    const placed = place(want(), [node('a'), node('b')], () => 0);
    assert.ok('node' in placed && placed.node.info.node === 'a');
  });

  const labels = fc.dictionary(fc.constantFrom('zone', 'gpu', 'disk'), fc.constantFrom('a', 'b'));
  const offer = (...levels: (typeof ISOLATION_LEVELS)[number][]) =>
    fc.record({
      available: fc.boolean(),
      level: fc.constantFrom(...levels),
      isolation: fc.constant('a sentence'),
      reason: fc.constant('no ids'),
    });
  const drivers = fc.record(
    {
      lxc: offer('container'),
      quickjs: offer('vm'),
      process: offer('process', 'none'),
    },
    { requiredKeys: [] },
  );
  const anyNode = fc
    .record({
      labels,
      drivers,
      memory_mib: fc.integer({ min: 0, max: 512 }),
      memory_used_mib: fc.integer({ min: 0, max: 512 }),
      workers: fc.nat({ max: 50 }),
      cpu: fc.double({ min: 0, max: 1, noNaN: true }),
      cores: fc.integer({ min: 0, max: 16 }),
    })
    .map(({ labels, drivers, memory_mib, cores, ...load }) => ({ info: { labels, drivers, memory_mib, cores }, load }));
  const anyWanted = fc.record({
    driver: fc.constantFrom(undefined, 'lxc', 'quickjs', 'process', '__proto__', 'constructor'),
    min_isolation: fc.constantFrom(undefined, ...ISOLATION_LEVELS),
    labels: fc.oneof(fc.constant({}), labels),
    lxc: fc.integer({ min: 0, max: 256 }),
    quickjs: fc.integer({ min: 0, max: 128 }),
  });

  it('is always a node that has driver, isolation, labels and memory; and a refusal means that there is none', () => {
    fc.assert(
      fc.property(fc.array(anyNode, { maxLength: 24 }), anyWanted, fc.integer(), (given, asked, seed) => {
        const nodes = given.map(({ info, load }, i) => ({ info: { node: `n${i}`, ...info } as NodeInfo, load }));
        const memory = (driver: string) => (driver === 'lxc' ? asked.lxc : asked.quickjs);
        const wanted: Wanted = {
          driver: asked.driver,
          min_isolation: asked.min_isolation,
          labels: asked.labels as Record<string, string>,
          memory_mib: memory,
        };
        const fits = ({ info, load }: Candidate, driver: string) =>
          (Object.hasOwn(info.drivers, driver) && info.drivers[driver]!.available) === true &&
          isAtLeast(info.drivers[driver]!.level, asked.min_isolation ?? 'none') &&
          (asked.driver !== undefined || info.drivers[driver]!.level !== 'none') &&
          Object.entries(wanted.labels).every(([name, value]) => info.labels[name] === value) &&
          memory(driver) >= (LEAST_MEMORY_MIB[driver] ?? 1) &&
          info.memory_mib - load.memory_used_mib >= memory(driver);
        const placed = place(wanted, nodes, seeded(seed));
        const choices = asked.driver === undefined ? ['lxc', 'quickjs', 'process'] : [asked.driver];
        const best = choices.find((driver) => nodes.some((each) => fits(each, driver)));
        if ('node' in placed) {
          assert.equal(placed.driver, best);
          assert.ok(fits(placed.node, placed.driver));
        } else {
          assert.equal(best, undefined);
          assert.equal(placed.refused.length, Math.min(20, nodes.length));
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('has no label that nobody gave it, whatever that is called', () => {
    const refused = place(want({ labels: { constructor: 'north' } }), [node('a')], Math.random);
    assert.ok('refused' in refused);
    assert.match(refused.refused[0]!, /label constructor is not set/);
  });

  it('is refused in words that say once what no driver changes', () => {
    const refused = place(want({ labels: { zone: 'north' } }), [node('a')], Math.random);
    assert.ok('refused' in refused);
    assert.equal(refused.refused[0]!.match(/label zone is not set/g)?.length, 1);
  });

  it('is refused in words for whatever is no driver', () => {
    for (const driver of ['__proto__', 'constructor', 'toString', '', '../lxc'])
      assert.deepEqual(place(want({ driver }), [node('a')], Math.random), { refused: [`a (no driver ${driver})`] });
  });

  it('is found even when one of many thousands fits', () => {
    const nodes = Array.from({ length: 5000 }, (_, i) => node(`n${i}`, { labels: i === 4321 ? { gpu: 'yes' } : {} }));
    for (const seed of [1, 2, 3]) {
      const placed = place(want({ labels: { gpu: 'yes' } }), nodes, seeded(seed));
      assert.ok('node' in placed && placed.node.info.node === 'n4321');
    }
  });

  it('is the only node when there is one, and every node is reached when there are few', () => {
    const single = [node('alone')];
    assert.deepEqual(
      place(want(), single, () => 0.999_999),
      { node: single[0], driver: 'lxc' },
    );
    for (const count of [2, 3, 5]) {
      const nodes = Array.from({ length: count }, (_, i) => node(`n${i}`));
      const random = seeded(count);
      const seen = new Set<string>();
      for (let i = 0; i < 200; i++) {
        const placed = place(want(), nodes, random);
        assert.ok('node' in placed);
        placed.node.load.workers++;
        seen.add(placed.node.info.node);
      }
      assert.equal(seen.size, count);
    }
  });

  it('prefers lxc, and takes quickjs only where no node offers it', () => {
    const weak = node('weak', {
      drivers: { lxc: { ...LXC, available: false, reason: 'x' }, quickjs: QUICKJS },
    });
    const strong = node('strong', {}, { workers: 500, cpu: 1 });
    for (const seed of [1, 2, 3, 4, 5]) {
      const placed = place(want(), [weak, strong], seeded(seed));
      assert.ok('node' in placed);
      assert.deepEqual([placed.node.info.node, placed.driver], ['strong', 'lxc']);
      const named = place(want({ driver: 'quickjs' }), [weak, strong], seeded(seed));
      assert.ok('node' in named);
      assert.deepEqual([named.node.info.node, named.driver], ['weak', 'quickjs']);
    }
    const fallback = place(want(), [weak], seeded(1));
    assert.ok('node' in fallback && fallback.driver === 'quickjs');
  });

  it('takes a node that has fallen silent only where no other can run the same driver', () => {
    const silent = node('silent');
    const busy = node('busy', {}, { workers: 500, cpu: 1 });
    const weak = node('weak', { drivers: { quickjs: QUICKJS } });
    const chosen = (nodes: Candidate[], seed: number) => {
      const placed = place(want(), nodes, seeded(seed), (one) => one === silent);
      return 'node' in placed && placed.node;
    };
    for (const seed of [1, 2, 3, 4, 5]) {
      assert.equal(chosen([silent, busy], seed), busy);
      assert.equal(chosen([silent, weak], seed), silent);
    }
  });

  it('refuses rather than go below the isolation that was asked for, and says which that was', () => {
    const weak = node('weak', { drivers: { quickjs: QUICKJS, process: PROCESS } });
    const refused = place(want({ min_isolation: 'container' }), [weak], seeded(1));
    assert.ok('refused' in refused);
    assert.match(refused.refused[0]!, /quickjs is of isolation vm, less than container/);
    const named = place(want({ driver: 'process', min_isolation: 'vm' }), [weak], seeded(1));
    assert.ok('refused' in named, 'naming a driver asks for no less');
    const met = place(want({ min_isolation: 'vm' }), [weak], seeded(1));
    assert.ok('node' in met && met.driver === 'quickjs');
  });

  it('never takes a driver that isolates nothing unless it is named', () => {
    const trusting = node('trusting', { drivers: { process: TRUSTED } });
    for (const min_isolation of [undefined, 'none'] as const) {
      const refused = place(want({ min_isolation }), [trusting], seeded(1));
      assert.ok('refused' in refused);
      assert.match(refused.refused[0]!, /process isolates nothing here, so it is taken only when it is named/);
    }
    const named = place(want({ driver: 'process' }), [trusting], seeded(1));
    assert.ok('node' in named && named.driver === 'process');
    const unsaid = node('older', { drivers: { process: { available: true, isolation: '?' } as never } });
    assert.ok('refused' in place(want(), [unsaid], seeded(1)), 'a node that says no level isolates nothing');
  });

  it('takes the less loaded of two', () => {
    const idle = node('idle');
    const busy = node('busy', {}, { workers: 3 });
    for (const nodes of [
      [idle, busy],
      [busy, idle],
    ]) {
      const placed = place(want(), nodes, seeded(1));
      assert.ok('node' in placed && placed.node === idle);
    }
  });

  it('changes nothing: the same jobs, nodes and numbers give the same places', () => {
    const nodes = Array.from({ length: 50 }, (_, i) => node(`n${i}`, {}, { workers: i % 3 }));
    const before = structuredClone(nodes);
    const names = (seed: number) => {
      const random = seeded(seed);
      return Array.from({ length: 20 }, () => (place(want(), nodes, random) as { node: Candidate }).node.info.node);
    };
    assert.deepEqual(names(9), names(9));
    assert.notDeepEqual(names(9), names(10));
    assert.deepEqual(nodes, before);
  });
});

describe('a refusal', () => {
  it('tells what was wanted as far as it was said, and the memory of each driver where none was and they differ', () => {
    const wanted = (of: Partial<Wanted>) => (refusal(want(of), ['n: no']) as MeshError).fields;
    assert.deepEqual(wanted({}), { wanted: { memory_mib: 64 }, have: ['n: no'] });
    const memory_mib = (driver: string) => (driver === 'quickjs' ? 32 : 128);
    const each = { lxc: 128, quickjs: 32, process: 128 };
    assert.deepEqual(wanted({ memory_mib }), { wanted: { memory_mib: each }, have: ['n: no'] });
    assert.deepEqual(
      wanted({ memory_mib, driver: 'quickjs', min_isolation: 'vm', labels: { zone: 'b' }, runtime: 'python' }).wanted,
      { driver: 'quickjs', min_isolation: 'vm', labels: { zone: 'b' }, language: 'python', memory_mib: 32 },
    );
  });

  it('says for each node what is missing and what there is', () => {
    const nodes = [
      node('small', { memory_mib: 100 }, { memory_used_mib: 60 }),
      node('elsewhere', { labels: { zone: 'b' } }),
      node('plain'),
      node('bare', { drivers: {} }),
      node('broken', { drivers: { lxc: { ...LXC, available: false, reason: 'no user namespaces' } } }),
    ];
    const placed = place(want({ driver: 'lxc', labels: { zone: 'a' } }), nodes, seeded(1));
    assert.ok('refused' in placed);
    assert.deepEqual(placed.refused, [
      'small (label zone is not set)',
      'elsewhere (label zone is b)',
      'plain (label zone is not set)',
      'bare (no driver lxc)',
      'broken (no lxc: no user namespaces)',
    ]);
    const memory = place(want({ driver: 'lxc' }), [nodes[0]!], seeded(1));
    assert.deepEqual(memory, { refused: ['small (40 MiB free of 100)'] });
  });

  it('is empty when there are no nodes, and bounded when there are many', () => {
    assert.deepEqual(place(want(), [], seeded(1)), { refused: [] });
    const many = Array.from({ length: 500 }, (_, i) => node(`n${i}`, { drivers: {} }));
    const placed = place(want(), many, seeded(1));
    assert.ok('refused' in placed && placed.refused.length === 20);
  });
});

describe('a job in a language', () => {
  const runs = { ...PROCESS, runtimes: ['node', 'python'] as ('node' | 'python')[] };

  it('goes to the strongest driver that runs it', () => {
    const nodes = [node('a'), node('b', { drivers: { lxc: LXC, quickjs: QUICKJS, process: runs } })];
    const placed = place(want({ runtime: 'python' }), nodes, seeded(1));
    assert.ok('node' in placed);
    assert.deepEqual([placed.node.info.node, placed.driver], ['b', 'process']);
  });

  it('is refused by name where no driver runs it', () => {
    const placed = place(want({ runtime: 'python', driver: 'quickjs' }), [node('a')], seeded(1));
    assert.deepEqual(placed, { refused: ['a (quickjs runs no python here)'] });
  });
});
