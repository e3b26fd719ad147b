/**
 * `npm run bench -- evolve`: from posting a new version to its first answer, by driver, beside the notes' own design
 * (FastAPI, import check in a child process), Caddy's /load of a changed configuration, and a Fastify server that is
 * restarted; rollback; and what 1,000 swaps under constant load cost: failed requests, a neighbour's p99, memory.
 *
 * Kernels and peers are asked by one process that does nothing else (`probe.ts`). `cutover` is the time from the answer to
 * the POST to the first answer of the new version, over a connection that is open, of all drivers together, 100 swaps each;
 * beside it stands what a Fastify server that nobody changes takes for an answer, asked in the same way after each of them:
 * that much is the machine's; `cutover_undisturbed` is of those about which the host gave none of the processors' time to
 * other machines. The neighbour's p99 is of a module that is left alone, asked every 10 ms by a process of its
 * own (`load.ts`): in ten times two seconds without a swap; in turn with those, during 1,000 swaps of which one begins every
 * 50 ms (or later, where the one before lasts longer); and, as `swaps_without_pause_…`, during 300 that come one right after
 * the other, which takes all of two cores.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type StartedKernel, startKernel } from '@hauki/cli';
import { connectKernel, type KernelDoor } from '@hauki/mesh';
import { finish, note, percentile, type Row, row, stolenTicks } from '../harness.ts';
import { caddy, fastapiKernel, fastifyServer, freePort } from '../peers/peers.ts';
import { type Change, Probe } from './probe.ts';

const ROUNDS = 25;
/** Of each driver: a p99 of fewer is the one that was slowest. */
const CUTOVERS = 100;
const SWAPS = 1_000;
const SWAP_EVERY_MS = 50;
/** Swaps between two looks at the neighbour without any, so that what else the machine does meets both. */
const BLOCK = 100;
const QUIET_MS = 2_000;
const SWAPS_WITHOUT_PAUSE = 300;
const EVERY_MS = 10;
/** A kernel starts a vault ahead for the next version and ends the last one's: not into another's measurement. */
const SETTLE_MS = 400;

const js = (word: string) => `export default { fetch: () => Response.json({ hello: ${JSON.stringify(word)} }) };`;
const py = (word: string) =>
  `from fastapi import APIRouter\nrouter = APIRouter()\n\n@router.get("/")\nasync def hello():\n    return {"hello": ${JSON.stringify(word)}}\n`;

/** What came of requests to a module (`load.ts`). */
interface Told {
  failed: number;
  times: number[];
  why: string;
}

/** Posts a version to a kernel, or asks for what another has changed. */
function changeOf({ url, token }: StartedKernel, word: string, target_module = 'hello', content = js(word)): Change {
  const headers = { authorization: `Bearer ${token}` };
  const body = JSON.stringify({ target_module, content });
  const prefix = `/api/plugins/${target_module.split('.')[0]}/`;
  return {
    post: { url: `${url}/api/evolve_plugin`, headers, body },
    get: { url: url + prefix, headers },
    word,
  };
}

/** Resident memory and number of a process and all below it. */
function treeOf(pid: number): { processes: number; rss_mib: number } {
  const below = (of: number): number[] => {
    try {
      const children = readFileSync(`/proc/${of}/task/${of}/children`, 'utf8')
        .trim()
        .split(' ')
        .filter(Boolean)
        .map(Number);
      return [of, ...children.flatMap(below)];
    } catch {
      return [];
    }
  };
  const all = below(pid);
  const rss = all.map((one) => {
    try {
      return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${one}/status`, 'utf8'))?.[1] ?? 0);
    } catch {
      return 0;
    }
  });
  return { processes: all.length, rss_mib: rss.reduce((a, b) => a + b, 0) / 1024 };
}

async function cutoverRows(kernels: { kernel: StartedKernel }[], still: string, probe: Probe): Promise<Row[]> {
  const looks: { took: number; unchanged: number; disturbed: boolean }[] = [];
  for (let i = 1; i <= CUTOVERS; i++) {
    for (const { kernel } of kernels) {
      const stolen = stolenTicks();
      const { cutover_ms } = await probe.change(changeOf(kernel, `c${i}`));
      await sleep(SETTLE_MS);
      const get = { url: `${still}/api/plugins/hello/`, headers: {} };
      const { live_ms } = await probe.change({ get, word: 'still' });
      looks.push({ took: cutover_ms, unchanged: live_ms, disturbed: stolenTicks() > stolen });
    }
    if (i % 25 === 0) note(`${i} of ${CUTOVERS} cutovers of each driver`);
  }
  const undisturbed = looks.filter(({ disturbed }) => !disturbed);
  note(`${undisturbed.length} of ${looks.length} cutovers were undisturbed`);
  const of = (name: string, some: typeof looks, p: number, goal?: number) => {
    const [took, unchanged] = (['took', 'unchanged'] as const).map((what) =>
      percentile(
        some.map((one) => one[what]),
        p,
      ),
    );
    return row(`${name}_p${p}_ms`, 'ms', took!, ['no change', unchanged!], goal);
  };
  return [
    of('cutover', looks, 50),
    of('cutover', looks, 99, 5),
    ...(undisturbed.length > 0 ? [of('cutover_undisturbed', undisturbed, 99)] : []),
  ];
}

async function underLoad(kernel: StartedKernel, door: KernelDoor, rows: Row[]): Promise<void> {
  await door.evolve({ target_module: 'neighbour', content: js('neighbour') });
  await door.evolve({ target_module: 'swapped', content: js('0') });
  const urls = ['swapped', 'neighbour'].map((module) => `${kernel.url}/api/plugins/${module}/`);
  // One for both: a new process would be measured warming up.
  const load = fork(fileURLToPath(new URL('./load.ts', import.meta.url)), [], {
    env: { ...process.env, LOAD: JSON.stringify({ urls, token: kernel.token, every_ms: EVERY_MS }) },
    execArgv: ['--disable-warning=ExperimentalWarning'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  await once(load, 'message');
  const told: Told[] = [];
  const report = async (what: 'report' | 'end') => {
    const message = once(load, 'message');
    load.send(what);
    const [swapped, neighbour] = (await message)[0] as [Told, Told];
    told.push(swapped, neighbour);
    return { swapped, neighbour };
  };
  await sleep(5_000);
  await report('report');
  const before = treeOf(kernel.child.pid!);
  let half = before;
  const times = { quiet: [] as number[], swapped: [] as number[], neighbour: [] as number[] };
  for (let i = 1; i <= SWAPS; i++) {
    if (i % BLOCK === 1) {
      await sleep(SETTLE_MS);
      await report('report');
      await sleep(QUIET_MS);
      times.quiet.push(...(await report('report')).neighbour.times);
    }
    const next = sleep(SWAP_EVERY_MS);
    await door.evolve({ target_module: 'swapped', content: js(String(i)) });
    if (i === SWAPS / 2) half = treeOf(kernel.child.pid!);
    await next;
    if (i % BLOCK > 0) continue;
    note(`${i} of ${SWAPS} swaps, ${Math.round(treeOf(kernel.child.pid!).rss_mib)} MiB`);
    const { swapped, neighbour } = await report('report');
    times.swapped.push(...swapped.times);
    times.neighbour.push(...neighbour.times);
  }
  await sleep(2_000);
  const after = treeOf(kernel.child.pid!);
  await report('report');
  for (let i = 1; i <= SWAPS_WITHOUT_PAUSE; i++)
    await door.evolve({ target_module: 'swapped', content: js(String(SWAPS + i)) });
  const fast = await report('end');
  load.disconnect();
  const why = told.find((one) => one.why)?.why;
  if (why) note(`failed: ${why}`);
  note(`${times.swapped.length + times.neighbour.length} requests during ${SWAPS} swaps`);
  const quiet_p99 = percentile(times.quiet, 99);
  const failed = told.reduce((sum, one) => sum + one.failed, 0);
  const rise = (during: number[]) => percentile(during, 99) - quiet_p99;
  rows.push(row('swaps_failed_requests', 'requests', failed, undefined, 0));
  rows.push(row('swaps_p99_ms', 'ms', percentile(times.swapped, 99)));
  rows.push(row('swaps_neighbour_p99_rise_ms', 'ms', rise(times.neighbour), ['quiet p99', quiet_p99], 5));
  const name = 'swaps_without_pause_neighbour_p99_rise_ms';
  rows.push(row(name, 'ms', rise(fast.neighbour.times), ['quiet p99', quiet_p99]));
  rows.push(row('swaps_rss_growth_mib', 'MiB', after.rss_mib - before.rss_mib));
  rows.push(row('swaps_rss_growth_second_half_mib', 'MiB', after.rss_mib - half.rss_mib));
  rows.push(row('swaps_process_growth', 'processes', after.processes - before.processes, undefined, 0));
}

export async function run(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-bench-'));
  const rows: Row[] = [];
  const kernels: Record<string, { kernel: StartedKernel; door: KernelDoor }> = {};
  for (const driver of ['quickjs', 'lxc', 'process']) {
    const kernel = await startKernel({ data_dir: join(folder, driver), id: driver, port: 0, drivers: [driver] });
    const door = connectKernel({ url: kernel.url, token: kernel.token });
    const offer = (await door.status()).drivers[driver];
    if (offer?.available) kernels[driver] = { kernel, door };
    else {
      note(`no ${driver} here: ${offer?.reason}`);
      await kernel.stop();
    }
  }
  const fastapi = await fastapiKernel();
  const python = fastapi && (kernels.lxc ?? kernels.process);
  const loaded = await caddy();
  const port = await freePort();
  let fastify = await fastifyServer('first', port);
  const still = await fastifyServer('still', await freePort());
  const probe = new Probe();
  const live: Record<string, number[]> = {};
  const rollback: number[] = [];
  const first = Object.values(kernels)[0]!;
  const push = (name: string, value: number) => {
    live[name] ??= [];
    live[name].push(value);
  };
  try {
    for (let round = -2; round < ROUNDS; round++) {
      const word = `w${round + 2}`;
      for (const [driver, { kernel, door }] of Object.entries(kernels)) {
        const { live_ms } = await probe.change(changeOf(kernel, word));
        await sleep(SETTLE_MS);
        if (round < 0) continue;
        push(driver, live_ms);
        if (kernel !== first.kernel) continue;
        const began = performance.now();
        await door.rollback('hello');
        rollback.push(performance.now() - began);
        await sleep(SETTLE_MS);
      }
      // The module that the FastAPI peer imports into itself, here in a vault of its own for each version.
      if (python) {
        const { live_ms } = await probe.change(changeOf(python.kernel, word, 'router.py', py(word)));
        await sleep(SETTLE_MS);
        if (round >= 0) push('python', live_ms);
      }
      if (fastapi) {
        const body = JSON.stringify({ target_module: 'hello.py', content: py(word) });
        const post = { url: `${fastapi.url}/api/evolve_plugin`, headers: {}, body };
        const get = { url: `${fastapi.url}/api/plugins/hello/`, headers: {} };
        const { live_ms } = await probe.change({ post, get, word });
        if (round >= 0) push('fastapi', live_ms);
      }
      if (loaded) {
        const get = { url: loaded.url, headers: {} };
        const { live_ms } = await probe.change({ post: loaded.load(word), get, word });
        if (round >= 0) push('caddy', live_ms);
      }
      const began = performance.now();
      await fastify.stop();
      fastify = await fastifyServer(word, port);
      await probe.change({ get: { url: `${fastify.url}/api/plugins/hello/`, headers: {} }, word });
      if (round >= 0) push('fastify', performance.now() - began);
      if ((round + 1) % 10 === 0) note(`round ${round + 1} of ${ROUNDS}`);
    }
    const goals: Record<string, number> = { quickjs: 20, lxc: 150 };
    const beside = (peer: string, p: number): [string, number] | undefined =>
      live[peer] ? [peer, percentile(live[peer], p)] : undefined;
    for (const driver of Object.keys(kernels)) {
      const times = live[driver]!;
      rows.push(row(`evolve_${driver}_p50_ms`, 'ms', percentile(times, 50), beside('fastapi', 50), goals[driver]));
      rows.push(row(`evolve_${driver}_p99_ms`, 'ms', percentile(times, 99), beside('fastapi', 99)));
      rows.push(row(`evolve_${driver}_beside_caddy_p50_ms`, 'ms', percentile(times, 50), beside('caddy', 50)));
      rows.push(row(`evolve_${driver}_beside_restart_p50_ms`, 'ms', percentile(times, 50), beside('fastify', 50)));
    }
    for (const p of live.python ? [50, 99] : [])
      rows.push(row(`evolve_python_p${p}_ms`, 'ms', percentile(live.python!, p), beside('fastapi', p)));
    rows.push(...(await cutoverRows(Object.values(kernels), still.url, probe)));
    rows.push(row('rollback_p50_ms', 'ms', percentile(rollback, 50), undefined, 100));
    const quick = kernels.quickjs ?? Object.values(kernels)[0]!;
    await underLoad(quick.kernel, quick.door, rows);
  } finally {
    probe.stop();
    await Promise.all([
      fastify.stop(),
      still.stop(),
      fastapi?.stop(),
      loaded?.stop(),
      ...Object.values(kernels).map(({ kernel }) => kernel.stop()),
    ]);
    rmSync(folder, { recursive: true, force: true });
  }
  finish('evolve', rows);
}
