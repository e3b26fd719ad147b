/**
 * `npm run soak -- irc [--kernels 50] [--evolutions 200]`: a swarm of sandboxed kernels on a real ngircd. They evolve all
 * the time; half way the server is killed with -9, and comes back while they evolve. What a watcher has heard at the end
 * must be every change of every kernel, once each, in order per kernel.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect as connectTcp, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { startMesh, startSwarm } from '@hauki/cli';
import { connect } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { startIrcd, Watcher } from '../test/support/ircd.ts';
import { until } from '../test/support/mesh.ts';
import type { Soaked } from './main.ts';

const HEARD_MS = 600_000;
/** After the last line was heard: for the server's confirmations, without which a line is said again. */
const CONFIRMED_MS = 3_000;
/** Kernels that evolve at the same time. */
const AT_ONCE = 4;

export async function run(args: string[]): Promise<Soaked> {
  const { values } = parseArgs({
    args,
    options: { kernels: { type: 'string', default: '50' }, evolutions: { type: 'string', default: '200' } },
  });
  const [count, evolutions] = [Number(values.kernels), Number(values.evolutions)];
  const note = (text: string) => console.error(`  ${Math.round(performance.now() / 1000)} s: ${text}`);
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-soak-irc-'));
  const ircd = await startIrcd();
  const watcher = new Watcher(ircd.port);
  // Kernels come in only while the watcher is there: what is said to an empty channel nobody can count.
  let open = false;
  const gate = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    if (!open) return void socket.destroy();
    const there = connectTcp(ircd.port, '127.0.0.1').on('error', () => socket.destroy());
    there.on('close', () => socket.destroy());
    socket.on('close', () => there.destroy());
    socket.pipe(there).pipe(socket);
  });
  await new Promise<void>((resolve) => gate.listen(0, '127.0.0.1', resolve));
  const { port } = gate.address() as { port: number };
  const local = await startMesh({ data_dir, nodes: [] });
  const mesh = await connect({ core: local.url, token: local.token });
  let stop = async () => {};
  try {
    await watcher.join();
    open = true;
    const began = performance.now();
    const swarm = await startSwarm({
      ...{ data_dir, mesh, count, first: 1, memory_mib: 384, cpu: 1, at_once: 2 },
      core_url: local.url,
      node_token: readFileSync(nodeTokenFile(data_dir), 'utf8').trim(),
      irc: `127.0.0.1:${port}`,
      asked: new Promise(() => {}),
      log: note,
      progress: (kernel, what) => what === 'has the IRC plugin' && note(`${kernel} is on IRC`),
    });
    stop = swarm.stop;
    const up_s = (performance.now() - began) / 1000;
    const route = (kernel: string, module: string) =>
      `[${kernel}] Evolved. New routes available at /api/plugins/${module}/`;
    const expected = new Map(
      swarm.kernels.map(({ kernel }) => [
        kernel,
        [`[${kernel}] Online. Awaiting DNA Injection.`, route(kernel, 'irc')],
      ]),
    );
    const of = (kernel: string) =>
      watcher.lines(/^\[.*\] (?:Online|Evolved)\./).filter((line) => line.startsWith(`[${kernel}]`));
    const all = () => [...expected.values()].reduce((sum, lines) => sum + lines.length, 0);
    const heard = () =>
      until('all was heard', () => watcher.lines(/^\[.*\] (?:Online|Evolved)\./).length >= all(), HEARD_MS);
    let next = 0;
    /** So many evolutions more; those of one kernel come one after the other. */
    const evolve = async (more: number) => {
      const queues = swarm.kernels.map(({ kernel }) => ({ kernel, modules: [] as string[] }));
      for (let i = 0; i < more; i++, next++) queues[next % count]!.modules.push(`m${next % 7}`);
      await Promise.all(
        Array.from({ length: AT_ONCE }, async () => {
          for (let queue = queues.shift(); queue; queue = queues.shift())
            for (const module of queue.modules) {
              const content = `export default { fetch: () => new Response('${next} ${module}') }`;
              await mesh.kernels.evolve({ kernel: queue.kernel, target_module: module, content });
              expected.get(queue.kernel)!.push(route(queue.kernel, module));
            }
        }),
      );
    };
    await evolve(Math.floor(evolutions / 2));
    await heard();
    await sleep(CONFIRMED_MS);
    note('the server is killed');
    open = false;
    await ircd.kill();
    await evolve(Math.floor(evolutions / 4));
    await ircd.start();
    await watcher.join();
    open = true;
    note('the server is back');
    await evolve(evolutions - next);
    await heard();
    await sleep(CONFIRMED_MS);
    for (const [kernel, lines] of expected) assert.deepEqual(of(kernel), lines, kernel);
    const report = { kernels: count, evolutions: next, announcements: all(), up_s: Math.round(up_s) };
    return { report, shown: 'every change was announced once, in order' };
  } finally {
    await stop();
    await mesh.close();
    await local.stop();
    watcher.leave();
    gate.close();
    await ircd.stop();
    rmSync(data_dir, { recursive: true, force: true });
  }
}
