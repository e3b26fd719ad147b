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
  /** Refused because what was under way did not end in time: the machine was too busy, and nothing changed. */
  refused: number;
  requests: number;
  failed: number;
  /** Why the first of them failed. */
  why: string;
  /** Counted by the module with a state, over all its versions, and by those who asked it. */
  counted: number;
  asked: number;
  seconds: number;
  /** By tenths of the swaps: of the kernel itself, and of the processes below it. */
  kernel_rss_mib: number[];
  vaults_rss_mib: number[];
  processes: number[];
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
    const seen = { kernel: [[]] as number[][], vaults: [[]] as number[][], processes: [[]] as number[][] };
    const look = (tenth: number) => {
      const pid = kernel.child.pid!;
      const below = descendants(pid);
      for (const [list, value] of [
        [seen.kernel, rss_mib(pid)],
        [seen.vaults, below.reduce((sum, one) => sum + rss_mib(one), 0)],
        [seen.processes, 1 + below.length],
      ] as const) {
        list[tenth] ??= [];
        list[tenth].push(value);
      }
    };
    let refused = 0;
    const tenth_of = (i: number) => Math.min(9, Math.floor(((i - 1) * 10) / swaps));
    for (let i = 1; i <= swaps; i++) {
      const module = i % 4 === 0 ? 'counting' : 'plain';
      // Every tenth goes back; the one after goes on from there.
      const content = module === 'plain' ? plain(String(i)) : counting(i);
      const swap = i % 10 === 5 ? door.rollback('plain') : door.evolve({ target_module: module, content });
      await swap.catch((error) => {
        if (!(isError(error, EvolveRejected) && /were still under way/.test(error.message))) throw error;
        refused++;
      });
      look(tenth_of(i));
      if (tenth_of(i) !== tenth_of(i + 1) || i === swaps) {
        const tenth = tenth_of(i);
        note(
          `${i} of ${swaps} swaps: kernel ${median(seen.kernel[tenth]!)} MiB, vaults ${median(seen.vaults[tenth]!)} MiB in ${median(seen.processes[tenth]!)} processes`,
        );
      }
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
      kernel_rss_mib: seen.kernel.map(median),
      vaults_rss_mib: seen.vaults.map(median),
      processes: seen.processes.map(median),
    };
  } finally {
    await kernel.stop();
    rmSync(data_dir, { recursive: true, force: true });
  }
}

/** Throws where the storm has found something. `slack_mib`: what memory may be more at the end than after the beginning. */
export function judge(report: SwapReport, slack_mib: number): void {
  assert.equal(report.failed, 0, `${report.failed} requests failed: ${report.why}`);
  assert.equal(report.counted, report.asked, 'a count was lost on its way from version to version');
  for (const list of [report.kernel_rss_mib, report.vaults_rss_mib]) {
    const [, early = 0] = list;
    const late = list.at(-1)!;
    assert.ok(late - early <= slack_mib, `memory has grown from ${early} to ${late} MiB: ${list.join(', ')}`);
  }
  const [, early = 0] = report.processes;
  assert.ok(report.processes.at(-1)! <= early + 1, `processes: ${report.processes.join(', ')}`);
}
