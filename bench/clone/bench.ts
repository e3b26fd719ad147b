/**
 * `npm run bench -- clone`: from a script's request to its first result, through core, node, vault, ticket and session;
 * fifty at once; and destruct until nothing is left. Beside it, in turn, LXC and Node started by hand, which do none of
 * placing, limiting, authorising and calling.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startMesh } from '@hauki/cli';
import { connect, type Mesh } from '@hauki/mesh';
import { finish, note, percentile, type Row, row, timed } from '../harness.ts';
import { type Bare, bareLxc } from './bare-lxc.ts';

const ROUNDS = 60;
const WARM_UP = 5;
const BURST = 50;
const SOURCE = { source: 'export const add = (a, b) => a + b;' };

type Driver = 'quickjs' | 'lxc';

async function one(mesh: Mesh, driver: Driver): Promise<{ first_ms: number; destruct_ms: number }> {
  const began = performance.now();
  const worker = mesh.clone<{ add(a: number, b: number): number }>(SOURCE, { driver });
  if ((await worker.add(1, 2)) !== 3) throw new Error('a wrong result');
  const first_ms = performance.now() - began;
  return { first_ms, destruct_ms: await timed(() => mesh.destruct(worker)) };
}

async function burst(mesh: Mesh, driver: Driver): Promise<number> {
  const workers: object[] = [];
  const took = await timed(async () => {
    const first = [];
    for (let i = 0; i < BURST; i++) {
      const worker = mesh.clone<{ add(a: number, b: number): number }>(SOURCE, { driver });
      workers.push(worker);
      first.push(worker.add(i, i));
    }
    await Promise.all(first);
  });
  await Promise.all(workers.map((worker) => mesh.destruct(worker)));
  return took / 1000;
}

async function bareBurst(bare: Bare): Promise<number> {
  const names = Array.from({ length: BURST }, (_, i) => `hauki-bare-burst-${i}`);
  const began = performance.now();
  const children = await Promise.all(names.map((name) => bare.start(name)));
  const took = (performance.now() - began) / 1000;
  await Promise.all(children.map((child, i) => bare.stop(names[i]!, child)));
  return took;
}

export async function run(): Promise<void> {
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-bench-'));
  const rows: Row[] = [];
  try {
    await using local = await startMesh({ data_dir });
    await using mesh = await connect({ core: local.url, token: local.token });
    const lxc = (await mesh.registry()).nodes[0]!.drivers.lxc;
    const drivers: Driver[] = lxc?.available ? ['quickjs', 'lxc'] : ['quickjs'];
    if (!lxc?.available) note(`no lxc here: ${lxc?.reason}; only quickjs is measured, without a peer`);
    const bare = lxc?.available ? bareLxc() : undefined;

    const first = { quickjs: [] as number[], lxc: [] as number[], bare: [] as number[] };
    const destruct = { quickjs: [] as number[], lxc: [] as number[], bare: [] as number[] };
    // In turn, round by round, so that what else the machine does falls on all alike.
    for (let round = -WARM_UP; round < ROUNDS; round++) {
      for (const driver of drivers) {
        const { first_ms, destruct_ms } = await one(mesh, driver);
        if (round < 0) continue;
        first[driver].push(first_ms);
        destruct[driver].push(destruct_ms);
      }
      if (bare) {
        const name = `hauki-bare-${round + WARM_UP}`;
        const began = performance.now();
        const child = await bare.start(name);
        if (round >= 0) first.bare.push(performance.now() - began);
        const took = await timed(() => bare.stop(name, child));
        if (round >= 0) destruct.bare.push(took);
      }
      if (round === -1 || (round + 1) % 20 === 0) note(`round ${round + 1} of ${ROUNDS}`);
    }
    const peer = (samples: number[], p: number): [string, number] | undefined =>
      bare ? ['bare lxc-execute + node', percentile(samples, p)] : undefined;
    rows.push(row('quickjs_p50_ms', 'ms', percentile(first.quickjs, 50), peer(first.bare, 50), 5));
    rows.push(row('quickjs_p95_ms', 'ms', percentile(first.quickjs, 95), peer(first.bare, 95)));
    if (bare) {
      rows.push(row('lxc_cold_p50_ms', 'ms', percentile(first.lxc, 50), peer(first.bare, 50), 80));
      rows.push(row('lxc_cold_p95_ms', 'ms', percentile(first.lxc, 95), peer(first.bare, 95)));
    }
    rows.push(row('quickjs_destruct_p95_ms', 'ms', percentile(destruct.quickjs, 95), peer(destruct.bare, 95)));
    if (bare) {
      rows.push(row('lxc_destruct_p50_ms', 'ms', percentile(destruct.lxc, 50), peer(destruct.bare, 50)));
      rows.push(row('lxc_destruct_p95_ms', 'ms', percentile(destruct.lxc, 95), peer(destruct.bare, 95), 50));
    }
    note(`${BURST} at once`);
    const bursts = { quickjs: [] as number[], lxc: [] as number[], bare: [] as number[] };
    for (let i = 0; i < 3; i++) {
      for (const driver of drivers) bursts[driver].push(await burst(mesh, driver));
      if (bare) bursts.bare.push(await bareBurst(bare));
    }
    rows.push(row('quickjs_burst50_s', 's', percentile(bursts.quickjs, 50), peer(bursts.bare, 50)));
    if (bare) rows.push(row('lxc_burst50_s', 's', percentile(bursts.lxc, 50), peer(bursts.bare, 50), 3));
    bare?.close();
  } finally {
    rmSync(data_dir, { recursive: true, force: true });
  }
  finish('clone', rows);
}
