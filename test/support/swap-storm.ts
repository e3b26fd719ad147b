/**
 * Swaps without end under constant load: a stateless module and one with a state are evolved and rolled back in turn
 * while a process of its own asks them, and a neighbour, all the time. For `soak/swaps.ts`, and short in a test.
 */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startKernel } from '@hauki/cli';
import { connectKernel, EvolveRejected, isError } from '@hauki/mesh';
import { descendants } from './mesh.ts';

export interface SwapStorm {
  swaps: number;
  driver: string;
  /** Between two requests to each of the three modules. */
  every_ms: number;
  note(text: string): void;
}

export interface SwapReport {
  swaps: number;
  /** Refused because the state was not handed over in time: the machine was too busy, and nothing changed. */
  refused: number;
  requests: number;
  failed: number;
  /** Why the first of them failed. */
  why: string;
  /** Counted by the module with a state, over all its versions, and by those who asked it. */
  counted: number;
  asked: number;
  seconds: number;
  /** Resident memory in MiB, and processes, at the median of each 500 swaps; of a short run of each tenth. */
  memory: { swaps: number; kernel: number; vaults: number; processes: number }[];
  /** By which resident memory grew in the second half, in MiB for 1,000 swaps: the straight line through all that was seen. */
  growth: { kernel: number; vaults: number };
}

/** A look at the processes: after so many swaps. */
export interface Seen {
  swaps: number;
  kernel: number;
  vaults: number;
  processes: number;
}

const plain = (word: string) => `export default { fetch: () => new Response(${JSON.stringify(word)}) };`;
const counting = (version: number) => `export const state = { count: 0 };
  export default { fetch: (request) => new Response(
    String(new URL(request.url).pathname === '/count' ? state.count : ++state.count), { headers: { 'x-made': '${version}' } }) };`;

const rss_mib = (pid: number): number => {
  try {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
};
const median = (list: number[]) => Math.round([...list].sort((a, b) => a - b)[Math.floor(list.length / 2)] ?? 0);
/** Swaps between two looks at the processes, which cost some milliseconds themselves, and those that are told of together. */
const LOOK_EVERY = 10;
const TOLD_EVERY = 500;

/** MiB for 1,000 swaps, by the least squares over the second half. */
export function growthOf(seen: readonly Seen[], what: 'kernel' | 'vaults'): number {
  const last = seen.at(-1)?.swaps ?? 0;
  const late = seen.filter(({ swaps }) => swaps > last / 2);
  const mean = (of: (one: Seen) => number) => late.reduce((sum, one) => sum + of(one), 0) / late.length;
  const [at, level] = [mean(({ swaps }) => swaps), mean((one) => one[what])];
  const spread = mean(({ swaps }) => (swaps - at) ** 2);
  const slope = spread > 0 ? mean((one) => (one.swaps - at) * (one[what] - level)) / spread : 0;
  return Math.round(slope * 1_000 * 100) / 100;
}

export async function swapStorm({ swaps, driver, every_ms, note }: SwapStorm): Promise<SwapReport> {
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-swaps-'));
  const id = `s${process.pid.toString(36)}`;
  const kernel = await startKernel({ data_dir, id, port: 0, drivers: [driver] });
  const door = connectKernel({ url: kernel.url, token: kernel.token });
  const began = performance.now();
  try {
    await door.evolve({ target_module: 'neighbour', content: plain('neighbour') });
    await door.evolve({ target_module: 'plain', content: plain('0') });
    await door.evolve({ target_module: 'counting', content: counting(0) });
    const urls = ['plain', 'counting', 'neighbour'].map((module) => `${kernel.url}/api/plugins/${module}/`);
    const load = fork(fileURLToPath(new URL('../../bench/evolve/load.ts', import.meta.url)), [], {
      env: { ...process.env, LOAD: JSON.stringify({ urls, token: kernel.token, every_ms }) },
      execArgv: ['--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    await once(load, 'message');
    const seen: Seen[] = [];
    const look = (swaps: number) => {
      const pid = kernel.child.pid!;
      const below = descendants(pid);
      const vaults = below.reduce((sum, one) => sum + rss_mib(one), 0);
      seen.push({ swaps, kernel: rss_mib(pid), vaults, processes: 1 + below.length });
    };
    const all = swaps;
    const told_every = Math.max(1, Math.min(TOLD_EVERY, Math.ceil(all / 10)));
    const memory: SwapReport['memory'] = [];
    const tell = (swaps: number) => {
      const late = seen.filter((one) => one.swaps > swaps - told_every);
      const of = (what: 'kernel' | 'vaults' | 'processes') => median(late.map((one) => one[what]));
      const told = { swaps, kernel: of('kernel'), vaults: of('vaults'), processes: of('processes') };
      memory.push(told);
      note(
        `${told.swaps} of ${all} swaps: kernel ${told.kernel} MiB, vaults ${told.vaults} MiB in ${told.processes} processes`,
      );
    };
    let refused = 0;
    for (let i = 1; i <= swaps; i++) {
      const module = i % 4 === 0 ? 'counting' : 'plain';
      // Every tenth goes back; the one after goes on from there.
      const content = module === 'plain' ? plain(String(i)) : counting(i);
      const swap = i % 10 === 5 ? door.rollback('plain') : door.evolve({ target_module: module, content });
      await swap.catch((error) => {
        if (!(isError(error, EvolveRejected) && /a handover has|for which requests wait/.test(error.message)))
          throw error;
        refused++;
      });
      if (i % Math.min(LOOK_EVERY, told_every) === 0) look(i);
      if (i % told_every === 0) tell(i);
    }
    const told = once(load, 'message');
    load.send('end');
    const stats = (await told)[0] as { sent: number; failed: number; why: string }[];
    load.disconnect();
    await once(load, 'exit');
    const counted = Number(
      await (await fetch(`${urls[1]}count`, { headers: { authorization: `Bearer ${kernel.token}` } })).text(),
    );
    const failed = stats.reduce((sum, one) => sum + one.failed, 0);
    return {
      swaps,
      refused,
      requests: stats.reduce((sum, one) => sum + one.sent, 0),
      failed,
      why: stats.map(({ why }) => why).find(Boolean) ?? '',
      counted,
      asked: stats[1]!.sent,
      seconds: Math.round((performance.now() - began) / 1000),
      memory,
      growth: { kernel: growthOf(seen, 'kernel'), vaults: growthOf(seen, 'vaults') },
    };
  } finally {
    await kernel.stop();
    rmSync(data_dir, { recursive: true, force: true });
  }
}

/**
 * Throws where the storm has found something. `most`: what memory may have grown by at the end since after the beginning, in
 * MiB, or in the second half, in MiB for 1,000 swaps.
 */
export function judge(report: SwapReport, most: { slack_mib: number } | { growth_mib: number }): void {
  assert.equal(report.failed, 0, `${report.failed} requests failed: ${report.why}`);
  assert.equal(report.counted, report.asked, 'a count was lost on its way from version to version');
  const { memory } = report;
  const early = memory[1] ?? memory[0]!;
  const late = memory.at(-1)!;
  for (const what of ['kernel', 'vaults'] as const) {
    const list = memory.map((one) => one[what]).join(', ');
    if ('slack_mib' in most)
      assert.ok(late[what] - early[what] <= most.slack_mib, `${what}: memory has grown: ${list} MiB`);
    else
      assert.ok(
        report.growth[what] <= most.growth_mib,
        `${what}: memory grows by ${report.growth[what]} MiB for 1,000 swaps: ${list} MiB`,
      );
  }
  assert.ok(late.processes <= early.processes + 1, `processes: ${memory.map(({ processes }) => processes).join(', ')}`);
}
