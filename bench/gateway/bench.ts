/**
 * `npm run bench -- gateway`: requests/s and p99 of an isolated JavaScript plugin, straight at its kernel and through the
 * core's gateway, beside the same route in the notes' own design (FastAPI, not isolated) and in bare Fastify. The load
 * comes from `wrk`, in its own process, over 32 connections; through the core in LXC over 128 too: there so many are needed
 * until no process has to wait for the others' requests.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startKernel, startMesh } from '@hauki/cli';
import { connectKernel } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { finish, note, percentile, type Row, row } from '../harness.ts';
import { fastapiKernel, fastifyServer, freePort } from '../peers/peers.ts';

const ROUNDS = 5;
const SECONDS = 3;
const CONNECTIONS = 32;
const MANY = 128;
const JS = 'export default { fetch: () => Response.json({ hello: "world" }) };';
const PY = `from fastapi import APIRouter\nrouter = APIRouter()\n\n@router.get("/")\nasync def hello():\n    return {"hello": "world"}\n`;

interface Load {
  per_s: number;
  p99_ms: number;
}

interface Contestant {
  name: string;
  url: string;
  script: string;
  connections: number;
  loads: Load[];
}

/** One run of wrk. Fails where any answer was not a 2xx. */
function load({ url, script, connections }: Contestant): Load {
  const { stdout } = spawnSync('wrk', ['-t1', `-c${connections}`, `-d${SECONDS}s`, '--latency', '-s', script, url], {
    encoding: 'utf8',
  });
  const per_s = Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]);
  const [, p99, unit] = /99%\s+([\d.]+)(us|ms|s)/.exec(stdout) ?? [];
  if (!(per_s > 0) || /Non-2xx/.test(stdout)) throw new Error(`wrk failed:\n${stdout}`);
  return { per_s, p99_ms: Number(p99) * ({ us: 0.001, ms: 1, s: 1000 } as Record<string, number>)[unit!]! };
}

export async function run(): Promise<void> {
  if (!existsSync('/usr/bin/wrk')) throw new Error('wrk is not installed: apt-get install wrk');
  const folder = mkdtempSync(join(tmpdir(), 'hauki-bench-'));
  const script = (name: string, token?: string) => {
    const file = join(folder, `${name}.lua`);
    writeFileSync(file, token ? `wrk.headers["Authorization"] = "Bearer ${token}"\n` : '', { mode: 0o600 });
    return file;
  };
  const rows: Row[] = [];
  await using local = await startMesh({ data_dir: join(folder, 'mesh'), nodes: [] });
  const kernels = [];
  const contestants: Contestant[] = [];
  const add = (name: string, url: string, token?: string, connections = CONNECTIONS) =>
    contestants.push({ name, url, script: script(name, token), connections, loads: [] });
  for (const driver of ['lxc', 'quickjs', 'process']) {
    const kernel = await startKernel({
      data_dir: join(folder, driver),
      id: driver,
      port: 0,
      drivers: [driver],
      core_url: local.url,
      token_file: nodeTokenFile(local.data_dir),
    }).catch((error) => note(`no ${driver} here: ${error.message}`));
    if (!kernel) continue;
    kernels.push(kernel);
    const door = connectKernel({ url: kernel.url, token: kernel.token });
    const evolved = await door
      .evolve({ target_module: `hello_${driver}`, content: JS })
      .catch((error) => note(`${driver}: ${error.message}`));
    if (!evolved) continue;
    const [straight, via] = [kernel, local].map(({ url }) => `${url}/api/plugins/hello_${driver}/`) as [string, string];
    add(driver, straight, kernel.token);
    add(`${driver} via core`, via, local.token);
    if (driver !== 'lxc') continue;
    add('many', straight, kernel.token, MANY);
    add('many via core', via, local.token, MANY);
  }
  const fastapi = await fastapiKernel();
  if (fastapi) {
    const posted = await fetch(`${fastapi.url}/api/evolve_plugin`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ target_module: 'hello.py', content: PY }),
    });
    if (!posted.ok) throw new Error(`the FastAPI peer: ${await posted.text()}`);
    add('fastapi', `${fastapi.url}/api/plugins/hello/`);
  } else note('python3-fastapi is not installed: nothing to measure beside');
  const fastify = await fastifyServer('world', await freePort());
  add('fastify', `${fastify.url}/api/plugins/hello/`);
  try {
    // In turn, round by round, so that what else the machine does falls on all alike. The first warms up.
    for (let round = -1; round < ROUNDS; round++) {
      for (const contestant of contestants) {
        const measured = load(contestant);
        if (round >= 0) contestant.loads.push(measured);
      }
      note(`round ${round + 1} of ${ROUNDS}`);
    }
  } finally {
    await Promise.all([fastify.stop(), fastapi?.stop(), ...kernels.map((kernel) => kernel.stop())]);
    rmSync(folder, { recursive: true, force: true });
  }
  const of = (name: string, part: keyof Load): number | undefined => {
    const found = contestants.find((contestant) => contestant.name === name);
    return (
      found &&
      percentile(
        found.loads.map((one) => one[part]),
        50,
      )
    );
  };
  const peer = (name: string, part: keyof Load): [string, number] | undefined => {
    const value = of(name, part);
    return value === undefined ? undefined : [name, value];
  };
  const fast = of('fastapi', 'per_s');
  for (const driver of ['lxc', 'quickjs', 'process']) {
    const straight = of(driver, 'per_s');
    if (straight === undefined) continue;
    const main = driver === 'lxc';
    const name = (metric: string) => (main ? metric : `${driver}_${metric}`);
    rows.push(row(name('plugin_requests_per_s'), '1/s', straight, peer('fastapi', 'per_s'), fast && 2 * fast));
    rows.push(row(name('plugin_p99_ms'), 'ms', of(driver, 'p99_ms')!, peer('fastapi', 'p99_ms')));
    rows.push(
      row(
        name('plugin_via_core_requests_per_s'),
        '1/s',
        of(`${driver} via core`, 'per_s')!,
        [`straight`, straight],
        0.7 * straight,
      ),
    );
    rows.push(row(name('plugin_via_core_p99_ms'), 'ms', of(`${driver} via core`, 'p99_ms')!, peer(driver, 'p99_ms')));
    if (!main) continue;
    const many = of('many', 'per_s')!;
    const via = of('many via core', 'per_s')!;
    rows.push(row('plugin_via_core_128_connections_requests_per_s', '1/s', via, ['straight', many], 0.7 * many));
    rows.push(row('plugin_beside_fastify', '1/s', straight, peer('fastify', 'per_s')));
  }
  finish('gateway', rows);
}
