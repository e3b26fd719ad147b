/** What a caller notices of a vault of somebody else that misbehaves: the p99 of its calls, alone and beside that. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connect, type Mesh } from '@hauki/mesh';
import { note, percentile, type Row, row } from '../harness.ts';
import { WAY_NAMES, type Way } from './bad-caller.ts';

const MEASURE_MS = 2_500;
const PAUSE_MS = 2;
/** A vault of one owner is not to be slowed by that of another by more than this. */
const RISE_GOAL_MS = 10;

interface Calculator {
  add(a: number, b: number): number;
}

/** Calls one after the other, with a pause between; milliseconds that each took. */
async function calls(worker: { add(a: number, b: number): Promise<number> | number }): Promise<number[]> {
  const took: number[] = [];
  const until = performance.now() + MEASURE_MS;
  while (performance.now() < until) {
    const began = performance.now();
    await worker.add(1, 2);
    took.push(performance.now() - began);
    await sleep(PAUSE_MS);
  }
  return took;
}

async function beside(core: string, token: string, driver: string, way: Way, measure: () => Promise<number[]>) {
  const bad = fork(fileURLToPath(new URL('./bad-caller.ts', import.meta.url)), [core, token, driver, way]);
  try {
    await once(bad, 'message');
    return await measure();
  } finally {
    const ended = once(bad, 'exit');
    bad.kill('SIGKILL');
    await ended;
  }
}

export async function neighbourRows(mesh: Mesh, core: string, driver: 'quickjs' | 'lxc'): Promise<Row[]> {
  const rows: Row[] = [];
  const owner = async (name: string) => (await mesh.tokens.create({ name, scopes: ['spawn'] })).token;
  await using good = await connect({ core, token: await owner(`good-${driver}`) });
  const worker = await good.clone<Calculator>({ source: 'export const add = (a, b) => a + b;' }, { driver });
  await calls(worker);
  for (const way of WAY_NAMES) {
    note(`${driver}: a neighbour that ${way}`);
    const quiet = percentile(await calls(worker), 99);
    const token = await owner(`bad-${driver}-${WAY_NAMES.indexOf(way)}`);
    const noisy = percentile(await beside(core, token, driver, way, () => calls(worker)), 99);
    // Its vault ends with its lease; it is not to stand beside the next one.
    for (const { worker: name, owner } of (await mesh.registry()).workers)
      if (owner.includes('bad') || name !== (await good.details(worker)).worker)
        await mesh.destruct(name).catch(() => {});
    const metric = `${driver}_p99_beside_${way.replace(/ its /, '_').replaceAll(' ', '_')}`;
    rows.push(row(`${metric}_ms`, 'ms', noisy, ['alone', quiet]));
    rows.push(row(`${metric}_rise_ms`, 'ms', Math.max(0, noisy - quiet), undefined, RISE_GOAL_MS));
  }
  await good.destruct(worker);
  return rows;
}
