/**
 * Act 5: a Spawner, kernels and a worker agent on the channel #ops of a real IRC server, as it happens. The agent hears
 * which kernel is idle, gives it a data scraper as far as its own token lets it, and uses the new route.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ircPlugin, type StartedKernel, startKernel, startSwarm } from '@hauki/cli';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { sandboxObstacle } from '@hauki/vault';
import { NGIRCD, startIrcd, Watcher } from '../../test/support/ircd.ts';
import { until } from '../../test/support/mesh.ts';
import { type Act, holds, ms, type Stage } from '../stage.ts';

const COUNT = 3;
const AGENT = fileURLToPath(new URL('../../examples/agents/ops-agent.ts', import.meta.url));
/** Kernels and the agent compile all that they are at their start. */
const [UP_MS, AGENT_MS] = [120_000, 120_000];
const NEWS = 'Evolved. New routes available at /api/plugins/data_scraper/';

interface Kernels {
  names: string[];
  stop(): Promise<void>;
}

/** Kernels with a voice on `server`: in sandboxes where the machine can make them, else as processes. */
async function spawnKernels({ local, mesh, driver }: Stage, server: string): Promise<Kernels> {
  const obstacle = driver === 'lxc' ? sandboxObstacle() : 'this demo runs without lxc';
  const node_token = nodeTokenFile(local.data_dir);
  if (obstacle === undefined) {
    console.log(`  ${COUNT} kernels start, each in an LXC sandbox, on port 8000 of a network of its own`);
    const { kernels, stop } = await startSwarm({
      ...{ data_dir: local.data_dir, mesh, core_url: local.url, count: COUNT, first: 1, irc: server },
      ...{ memory_mib: 320, cpu: 1, at_once: COUNT, asked: new Promise(() => {}), log() {}, progress() {} },
      node_token: readFileSync(node_token, 'utf8').trim(),
    });
    return { names: kernels.map(({ kernel }) => kernel), stop };
  }
  console.log(`  ${COUNT} kernels start as ordinary processes (no sandboxes: ${obstacle})`);
  const data_dir = mkdtempSync(join(tmpdir(), 'hauki-demo-ops-'));
  const kernels: StartedKernel[] = [];
  const stop = async () => {
    await Promise.all(kernels.map((kernel) => kernel.stop()));
    rmSync(data_dir, { recursive: true, force: true });
  };
  try {
    const place = { port: 0, drivers: ['quickjs'], core_url: local.url, token_file: node_token };
    const plugin = await ircPlugin(server);
    const starting = Array.from({ length: COUNT }, async (_, i) => {
      const id = String(i + 1);
      kernels.push(await startKernel({ data_dir: join(data_dir, id), id, ...place }));
      await mesh.kernels.evolve({ ...plugin, kernel: id });
      return `Microkernel-${id}`;
    });
    const outcomes = await Promise.allSettled(starting);
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failed) throw failed.reason;
    return { names: await Promise.all(starting), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Runs the worker agent to its end. Gives what it printed. */
async function runAgent(server: string, url: string, token: string): Promise<string> {
  const agent = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', AGENT, server], {
    env: { ...process.env, HAUKI_URL: url, HAUKI_TOKEN: token },
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: AGENT_MS,
  });
  let said = '';
  agent.stdout.on('data', (chunk) => {
    said += chunk;
  });
  const [code] = await once(agent, 'close');
  holds(`the agent ends well, and not with ${code}`, code === 0);
  return said;
}

export const ops: Act = {
  title: 'On #ops: a Spawner, kernels and a worker agent',
  async play(stage) {
    if (NGIRCD === undefined) return console.log('  skipped: ngircd is not installed (apt-get install ngircd)');
    const { local, mesh } = stage;
    const began = performance.now();
    const ircd = await startIrcd();
    const server = `127.0.0.1:${ircd.port}`;
    const show = (nick: string, text: string) => console.log(`  ${nick.padStart(13)} │ ${text}`);
    const spawner = new Watcher(ircd.port, { nick: 'Spawner', tell: show });
    const say = (text: string) => {
      spawner.say(text);
      show('Spawner', text);
    };
    let kernels: Kernels | undefined;
    try {
      await spawner.join();
      console.log(`  ngircd at ${server}; the Spawner is in #ops`);
      kernels = await spawnKernels(stage, server);
      const { names } = kernels;
      const online = () => names.every((name) => spawner.lines(`[${name}] Online. Awaiting DNA Injection.`).length > 0);
      await until('every kernel says that it is online', online, UP_MS);

      // IRC informs and never authorises: what the agent may do stands in its token.
      const targets = { nodes: names.map((name) => name.toLowerCase()), pointers: [], fetch: [] };
      const { token } = await mesh.tokens.create({
        name: 'scout',
        scopes: ['evolve'],
        targets,
        expires_in_ms: 600_000,
      });
      const said = await runAgent(server, local.url, token);
      await until('the change is told', () => spawner.lines(NEWS).length > 0);
      const chosen = /^(\S+) holds the least/m.exec(said)?.[1];
      holds(
        'the kernel that the agent chose tells of its new routes',
        spawner.lines(`[${chosen}] ${NEWS}`).length === 1,
      );
      const scraped = /^scraped: (\{"title":"Ports".*)$/m.exec(said)?.[1];
      holds('the new route answers the agent', scraped !== undefined);
      say(`!routes ${chosen}`);
      await until('it lists them', () => spawner.lines(`[${chosen}] /api/plugins/`).length > 0);
      console.log(`  the agent, over the new route, scraped: ${scraped}`);
      console.log(`  ${spawner.heard.length} lines heard in ${ms(performance.now() - began)}`);
    } finally {
      spawner.leave();
      await kernels?.stop();
      await ircd.stop();
    }
  },
};
