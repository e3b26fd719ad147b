/**
 * `npm run bench -- vault`: from a request through the SDK to its first result, for quickjs, for lxc from the pool and
 * for lxc from nothing, beside bubblewrap and LXC with Node started by hand in the same run, in turn, each after a rest of a
 * quarter of a second, in which is made ahead what the one before took; the same for quickjs back to back, one clone after the
 * other without a rest, beside bubblewrap likewise (rows `quickjs_back_to_back_…`: what a stream of clones finds warm, no
 * figure for one that comes by itself); how many idle vaults a GiB holds; fifty lxc vaults at once; what a neighbour's vault
 * does to the p99 of calls; and destruct until nothing is left. Words after the name choose parts: starts, stream, density,
 * burst, neighbours.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startMesh } from '@hauki/cli';
import { connect, type Mesh } from '@hauki/mesh';
import { traces } from '../../test/support/mesh.ts';
import { bareLxc } from '../clone/bare-lxc.ts';
import { finish, note, percentile, type Row, row, timed } from '../harness.ts';
import { startBwrap, stopBwrap } from './bare-bwrap.ts';
import { neighbourRows } from './neighbours.ts';

const ROUNDS = 50;
const WARM_UP = 8;
/**
 * Before each start, for the pool to start what was taken: so a request finds one, as it does in use, and what is started
 * by hand finds the machine at rest, as a request does.
 */
const REST_MS = 250;
const BURST = 50;
/** Back to back: of these, and of bubblewrap's, which come in blocks between them. */
const STREAM = { clones: 200, blocks: 4, peers: 10 };
const DENSITY = { quickjs: 200, lxc: 12 };
const SOURCE = { source: 'export const add = (a, b) => a + b;' };

type Driver = 'quickjs' | 'lxc';
interface Adder {
  add(a: number, b: number): number;
}

interface Took {
  first: number[];
  gone: number[];
}

/**
 * One worker from the request to its first result, then to nothing left of it. `look`: at what is left on the machine,
 * which takes as long as several clones.
 */
async function one(mesh: Mesh, driver: Driver, took: Took | undefined, look = true): Promise<string> {
  const began = performance.now();
  const worker = mesh.clone<Adder>(SOURCE, { driver });
  if ((await worker.add(1, 2)) !== 3) throw new Error('a wrong result');
  took?.first.push(performance.now() - began);
  const { worker: name } = await mesh.details(worker);
  const pooled = look && traces(`=${name}`).length > 0;
  const gone_ms = await timed(() => mesh.destruct(worker));
  const left = look ? traces(name) : [];
  if (left.length > 0) throw new Error(`destruct left ${left.join(', ')}`);
  took?.gone.push(gone_ms);
  return pooled ? 'pool' : 'start';
}

/** Clones one after the other, each ended before the next, without a rest; then the peer in the same way; in turn. */
async function streamRows(mesh: Mesh): Promise<Row[]> {
  const took: Took = { first: [], gone: [] };
  const wrapped: number[] = [];
  for (let i = 0; i < WARM_UP; i++) await one(mesh, 'quickjs', undefined, false);
  for (let block = 0; block < STREAM.blocks; block++) {
    for (let i = 0; i < STREAM.clones / STREAM.blocks; i++) await one(mesh, 'quickjs', took, false);
    for (let i = 0; i < STREAM.peers; i++) {
      const began = performance.now();
      const child = await startBwrap();
      wrapped.push(performance.now() - began);
      await stopBwrap(child);
    }
  }
  return [50, 95].map((p) =>
    row(`quickjs_back_to_back_p${p}_ms`, 'ms', percentile(took.first, p), [
      'bwrap + node, back to back',
      percentile(wrapped, p),
    ]),
  );
}

async function burst(mesh: Mesh): Promise<number> {
  const workers = Array.from({ length: BURST }, () => mesh.clone<Adder>(SOURCE, { driver: 'lxc' }));
  const took = await timed(() => Promise.all(workers.map((worker, i) => worker.add(i, i))));
  await Promise.all(workers.map((worker) => mesh.destruct(worker)));
  return took / 1000;
}

/** Memory of a process in MiB, what it shares with others divided among them. */
const pss_mib = (pid: number) =>
  Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))![1]) / 1024;
const parent = (pid: number) => Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);

/** How many idle vaults a GiB holds: what all take beyond the first, and what the first takes for all. */
async function perGib(mesh: Mesh, driver: Driver): Promise<number> {
  const count = DENSITY[driver];
  const workers: object[] = [];
  const more = async (n: number) => {
    for (let i = 0; i < n; i += 10) {
      const some = Array.from({ length: Math.min(10, n - i) }, () => mesh.clone<Adder>(SOURCE, { driver }));
      await Promise.all(some.map((worker) => worker.add(1, 1)));
      workers.push(...some);
    }
    await sleep(2_000);
    const pids = new Set((await mesh.registry()).workers.filter((w) => w.driver === driver).map((w) => w.pid));
    // An lxc vault is its guest and LXC's monitor of it.
    const all = driver === 'lxc' ? [...pids].flatMap((pid) => [pid, parent(pid)]) : [...pids];
    return all.map(pss_mib).reduce((a, b) => a + b, 0);
  };
  const first = await more(1);
  const each = ((await more(count)) - first) / count;
  await Promise.all(workers.map((worker) => mesh.destruct(worker)));
  const shared = driver === 'lxc' ? 0 : first - each;
  note(`${driver}: ${each.toFixed(2)} MiB each, ${Math.max(0, shared).toFixed(0)} MiB once`);
  return Math.floor((1024 - Math.max(0, shared)) / each);
}

export async function run(args: string[]): Promise<void> {
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-bench-'));
  const rows: Row[] = [];
  const only = (part: string) => args.length === 0 || args.includes(part);
  try {
    await using local = await startMesh({ data_dir: join(data_dir, 'pooled'), nodes: [{}] });
    await using mesh = await connect({ core: local.url, token: local.token });
    await using cold_local = await startMesh({ data_dir: join(data_dir, 'cold'), nodes: [{ pool: false }] });
    await using cold = await connect({ core: cold_local.url, token: cold_local.token });
    const lxc = (await mesh.registry()).nodes[0]!.drivers.lxc;
    if (!lxc?.available) throw new Error(`this benchmark needs lxc: ${lxc?.reason}`);

    if (only('starts')) {
      const none = (): Took => ({ first: [], gone: [] });
      const took = { quickjs: none(), pooled: none(), cold: none(), lxc: none(), bwrap: none() };
      const bare = bareLxc();
      let from_pool = 0;
      for (let round = -WARM_UP; round < ROUNDS; round++) {
        const counts = round >= 0;
        await sleep(REST_MS);
        await one(mesh, 'quickjs', counts ? took.quickjs : undefined);
        await sleep(REST_MS);
        if ((await one(mesh, 'lxc', counts ? took.pooled : undefined)) === 'pool' && counts) from_pool++;
        await sleep(REST_MS);
        await one(cold, 'lxc', counts ? took.cold : undefined);
        await sleep(REST_MS);
        const name = `hauki-bare-${process.pid}-${round + WARM_UP}`;
        let began = performance.now();
        const child = await bare.start(name);
        if (counts) took.lxc.first.push(performance.now() - began);
        const lxc_gone = await timed(() => bare.stop(name, child));
        if (counts) took.lxc.gone.push(lxc_gone);
        await sleep(REST_MS);
        began = performance.now();
        const wrapped = await startBwrap();
        if (counts) took.bwrap.first.push(performance.now() - began);
        const bwrap_gone = await timed(() => stopBwrap(wrapped));
        if (counts) took.bwrap.gone.push(bwrap_gone);
        if (counts && (round + 1) % 10 === 0) note(`round ${round + 1} of ${ROUNDS}`);
      }
      bare.close();
      note(`${from_pool} of ${ROUNDS} came from the pool`);
      const by = { lxc: 'bare lxc-execute + node', bwrap: 'bwrap + node' } as const;
      const against = (peer: 'lxc' | 'bwrap', what: keyof Took, p: number): [string, number] => [
        by[peer],
        percentile(took[peer][what], p),
      ];
      const goals = { quickjs: [2, 5], pooled: [10, 25], cold: [80, 150] } as const;
      for (const [kind, [p50, p95]] of Object.entries(goals) as [keyof typeof goals, readonly [number, number]][]) {
        const metric = kind === 'quickjs' ? kind : `lxc_${kind}`;
        const peer = kind === 'cold' ? 'lxc' : 'bwrap';
        rows.push(row(`${metric}_p50_ms`, 'ms', percentile(took[kind].first, 50), against(peer, 'first', 50), p50));
        rows.push(row(`${metric}_p95_ms`, 'ms', percentile(took[kind].first, 95), against(peer, 'first', 95), p95));
      }
      rows.push(
        row('lxc_cold_beside_bwrap_p50_ms', 'ms', percentile(took.cold.first, 50), against('bwrap', 'first', 50)),
      );
      for (const kind of ['quickjs', 'pooled', 'cold'] as const) {
        const metric = kind === 'quickjs' ? kind : `lxc_${kind}`;
        for (const p of [50, 95])
          rows.push(
            row(`${metric}_destruct_p${p}_ms`, 'ms', percentile(took[kind].gone, p), against('lxc', 'gone', p)),
          );
      }
    }
    if (only('stream')) {
      note(`${STREAM.clones} quickjs vaults back to back`);
      rows.push(...(await streamRows(mesh)));
    }
    if (only('density')) {
      note('idle vaults in a GiB');
      rows.push(row('quickjs_per_gib', 'vaults', await perGib(cold, 'quickjs'), undefined, 800));
      rows.push(row('lxc_per_gib', 'vaults', await perGib(cold, 'lxc')));
    }
    if (only('burst')) {
      note(`${BURST} lxc vaults at once`);
      const bursts = [await burst(mesh), await burst(mesh), await burst(mesh)];
      rows.push(row('lxc_burst50_s', 's', percentile(bursts, 50), undefined, 3));
    }
    if (only('neighbours')) {
      rows.push(...(await neighbourRows(mesh, local.url, 'quickjs')));
      rows.push(...(await neighbourRows(mesh, local.url, 'lxc')));
    }
  } finally {
    rmSync(data_dir, { recursive: true, force: true });
  }
  finish('vault', rows, args.length === 0);
}
