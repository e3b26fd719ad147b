/** Attempts to take more time than given, to hold others up, and to live on when the vault is to end. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startNode } from '@hauki/cli';
import { connect } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { type DriverName, descendants, lives, traces, until } from '../support/mesh.ts';
import { PATIENCE, patiently } from './patience.ts';
import { type Attempt, blocked, judged, type Outcome, opened } from './table.ts';
import type { World } from './world.ts';

const HOLDING: Partial<Record<DriverName, string>> = {
  lxc: 'a process of its own; kill',
  process: 'a process of its own; kill',
  quickjs: 'a thread of its owner; watchdog, kill',
};

const SPINS: [string, string][] = [
  ['infinite loop', 'for (;;) {}'],
  ['microtask loop', 'const again = () => Promise.resolve().then(again); await again()'],
  ['regular expression bomb', `return /^(a+)+$/.test('a'.repeat(48) + 'b')`],
];

/** In a plain Node nothing else of the process runs meanwhile. */
function holdsNodeUp(body: string): Promise<Outcome> {
  const code = `setTimeout(() => console.log('the rest goes on'), 50); (async () => { ${body} })();`;
  return new Promise((resolve) => {
    execFile(process.execPath, ['-e', code], { timeout: 2_000, killSignal: 'SIGKILL' }, (error, out) =>
      resolve(error && out === '' ? opened('nothing else of its process ran') : blocked(out)),
    );
  });
}

async function spins(world: World, driver: DriverName, body: string): Promise<Outcome> {
  await world.neighbourAnswers(driver);
  const ghost = world.clone(driver, `export const ready = () => 1; export const attempt = async () => { ${body} };`);
  await ghost.ready();
  Promise.resolve(ghost.attempt()).catch(() => {});
  await sleep(200);
  try {
    const took_ms = await world.neighbourAnswers(driver);
    if (took_ms > 4_000) return opened(`its neighbour waited ${took_ms} ms`);
    await world.vanishes(ghost);
    return blocked('its neighbour answered, and it was ended');
  } catch (error) {
    return opened((error as Error).message);
  }
}

const LINES = 100_000;

function lifecycleOf(world: World): Attempt[] {
  return [
    {
      name: 'parked await',
      by: {
        lxc: 'the call’s deadline; kill',
        process: 'the call’s deadline; kill',
        quickjs: 'the call’s deadline; kill',
      },
      async run(driver) {
        const ghost = world.clone(driver, 'export const attempt = () => new Promise(() => {});', { timeout_ms: 700 });
        const said = await judged('\0', () =>
          Promise.race([ghost.attempt(), sleep(6_000 * PATIENCE, 'OPEN: it is still waited for')]),
        );
        await world.vanishes(ghost);
        return said;
      },
      control: {
        what: 'a plain await',
        run: () =>
          judged('\0', () => Promise.race([new Promise(() => {}), sleep(1_500, 'OPEN: it is still waited for')])),
      },
    },
    {
      name: 'deep recursion',
      by: {
        lxc: 'its own stack; its own process',
        process: 'its own stack; its own process',
        quickjs: 'bounded stack',
      },
      async run(driver) {
        await world.neighbourAnswers(driver);
        const ghost = world.clone(driver, 'const f = (n) => f(n + 1) + 1; export const attempt = () => f(0);');
        const said = await judged('\0', () => ghost.attempt());
        await world.neighbourAnswers(driver);
        await world.vanishes(ghost);
        return said;
      },
      control: {
        what: 'Node without a bound for its stack',
        run: () =>
          new Promise((resolve) => {
            const code = 'const f = (n) => f(n + 1) + 1; f(0)';
            const child = spawn(process.execPath, ['--stack-size=900000', '-e', code], { stdio: 'ignore' });
            child.on('exit', (exit, signal) =>
              resolve(signal ? opened(`the process fell (${signal})`) : blocked(`code ${exit}`)),
            );
          }),
      },
    },
    {
      name: 'log flood',
      by: {
        lxc: '200 lines a second; the last 8 KiB',
        process: '200 lines a second; the last 8 KiB',
        quickjs: '200 lines a second; the last 8 KiB',
      },
      async run(driver) {
        const ghost = world.clone(
          driver,
          `export const attempt = () => { for (let i = 0; i < ${LINES}; i++) hauki.log('x'.repeat(100) + i); return 'flooded'; };`,
        );
        const { worker } = await world.mesh.details(ghost);
        await judged('\0', () => ghost.attempt());
        await world.neighbourAnswers(driver);
        await world.mesh.destruct(ghost);
        const answer = await fetch(`${world.local.url}/api/v2/ephemeral/${worker}`, {
          headers: { authorization: `Bearer ${world.local.token}` },
        });
        const kept = String(((await answer.json()) as any).fate?.log_tail ?? '').length;
        return kept > 64 * 1024 ? opened(`${kept} characters were kept`) : blocked(`${kept} characters are kept`);
      },
      control: {
        what: 'a pipe that is read',
        run: () =>
          new Promise((resolve) => {
            const code = `for (let i = 0; i < ${LINES}; i++) console.log('x'.repeat(100) + i)`;
            execFile(process.execPath, ['-e', code], { maxBuffer: 64 << 20 }, (_, out) => {
              const lines = out.split('\n').length - 1;
              resolve(lines === LINES ? opened(`${lines} lines came`) : blocked(`${lines} lines`));
            });
          }),
      },
    },
    {
      name: 'surviving destruct',
      by: { lxc: 'pid namespace, cgroup', process: 'pid namespace, cgroup', quickjs: 'the VM is the host’s to drop' },
      async run(driver) {
        const body = `if (globalThis.process) for (const s of ['SIGTERM', 'SIGINT', 'SIGHUP', 'beforeExit', 'exit'])
            process.on(s, () => { for (;;) {} });
          setInterval(() => {}, 10); return 1`;
        const ghost = world.clone(driver, `export const attempt = () => { ${body} };`);
        await ghost.attempt();
        return world.vanishes(ghost).then(
          () => blocked('nothing is left'),
          (error) => opened(error.message),
        );
      },
      control: {
        what: 'a process that is asked to end',
        async run() {
          const code = `process.on('SIGTERM', () => {}); setInterval(() => {}, 100); console.log('ready')`;
          const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'ignore'] });
          await once(child.stdout!, 'data');
          child.kill('SIGTERM');
          await sleep(300);
          const outcome = lives(child.pid!) ? opened('it lives on') : blocked('it ended');
          child.kill('SIGKILL');
          return outcome;
        },
      },
    },
    {
      name: 'surviving kill -9 of the agent',
      by: {
        lxc: 'parent-death signals; fd 4',
        process: 'parent-death signals; fd 4',
        quickjs: 'its host ends with the channel',
      },
      run: (driver) => outlivesAgent(world, driver),
      control: {
        what: 'a detached child of a killed parent',
        async run() {
          const code = `const c = require('child_process').spawn(process.execPath, ['-e', 'setTimeout(() => {}, 15000)'], { detached: true, stdio: 'ignore' }); console.log(c.pid); setInterval(() => {}, 1000)`;
          const parent = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'ignore'] });
          const [told] = await once(parent.stdout!, 'data');
          parent.kill('SIGKILL');
          await once(parent, 'exit');
          await sleep(300);
          const pid = Number(String(told));
          const outcome = lives(pid) ? opened('it lives on') : blocked('it is gone');
          process.kill(pid, 'SIGKILL');
          return outcome;
        },
      },
    },
  ];
}

async function outlivesAgent(world: World, driver: DriverName): Promise<Outcome> {
  const { local } = world;
  const name = `doomed-${driver}-${process.pid}`;
  const node = await startNode({
    ...{ core_url: local.url, name, drivers: [driver], labels: { doomed: driver } },
    data_dir: join(local.data_dir, name),
    token_file: nodeTokenFile(local.data_dir),
  });
  const mesh = await connect({ core: local.url, token: local.token });
  try {
    const body = `if (globalThis.process) for (const s of ['SIGTERM', 'SIGHUP', 'SIGPIPE', 'disconnect']) process.on(s, () => {});
      setInterval(() => {}, 10); return 1`;
    const source = `export const attempt = () => { ${body} };`;
    const { worker } = await patiently(async () => {
      const ghost: any = mesh.clone({ source }, { driver, labels: { doomed: driver } });
      await ghost.attempt();
      return mesh.details(ghost);
    });
    const below = descendants(node.child.pid!);
    await node.kill();
    await until('no process of the agent is left', () => below.every((pid) => !lives(pid)));
    await until(`nothing of ${worker} is left`, () => traces(worker).length === 0);
    return blocked(`all ${below.length} processes are gone`);
  } catch (error) {
    return opened((error as Error).message);
  } finally {
    await node.stop();
    await mesh.close();
  }
}

export function lifecycleAttempts(world: World): Attempt[] {
  return [
    ...SPINS.map(
      ([name, body]): Attempt => ({
        name,
        by: HOLDING,
        run: (driver) => spins(world, driver, body),
        control: { what: 'plain Node', run: () => holdsNodeUp(body) },
      }),
    ),
    ...lifecycleOf(world),
  ];
}
