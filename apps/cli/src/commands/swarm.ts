/** `hauki swarm up`, `ls`, `down`: microkernels in sandboxes of their own, many at once. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { BadInput } from '@hauki/mesh';
import { defaultDataDir, nodeTokenFile } from '@hauki/mesh/data-dir';
import { canonicalTarget } from '@hauki/protocol';
import type { Command } from 'commander';
import { askedToEnd, common, coreUrl, decimal, openMesh, whole, withMesh } from '../context.ts';
import { duration, paint, table } from '../output.ts';
import { clear, runs, type SwarmKernel, stateOf, writeState } from '../swarm-state.ts';

/** How long `down` waits for the process of `up` to have taken everything away. */
const DOWN_MS = 120_000;
/** Memory of each. A kernel takes some 150 MiB itself, and half is for modules: with less its first evolve may end it. */
const MEMORY_MIB = { least: 320, most: 65_536 } as const;

/** The token with which kernels join. Throws BadInput. */
function tokenIn(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    const why = `${file} cannot be read; start a core here with \`hauki up\`, or give a core’s node.token`;
    throw new BadInput({ what: '--token-file', why });
  }
}

export function swarmCommands(program: Command): void {
  const swarm = program.command('swarm').description('microkernels in LXC sandboxes of their own, many at once');

  swarm
    .command('up')
    .description('start kernels, each in a sandbox on port 8000 of its own network; Ctrl-C or `swarm down` ends them')
    .option('--count <n>', 'how many', '50')
    .option('--irc <host:port>', 'give each the IRC plugin, for this server (the mesh’s own: hauki:16667)')
    .option('--first <number>', 'the number of the first, as in Microkernel-1', '1')
    .option('--memory <MiB>', `memory of each, at least ${MEMORY_MIB.least}; half of it is for its modules`, '384')
    .option('--cpu <cores>', 'cores of each, at most', '1')
    .option('--at-once <n>', 'how many are started at the same time; default: as many as there are cores')
    .option('--token-file <file>', 'the core’s node.token; default: that of a core on this machine')
    .addHelpText('after', '\nExample:\n  hauki up &\n  hauki swarm up --count 50 --irc 127.0.0.1:6667')
    .action(async (flags, command: Command) => {
      const { data = defaultDataDir(), core, json } = common(command);
      // What it takes is much, and no other command's to load.
      const [{ sandboxObstacle }, { startSwarm }] = await Promise.all([import('@hauki/vault'), import('../swarm.ts')]);
      const obstacle = sandboxObstacle();
      if (obstacle !== undefined) throw new BadInput({ what: 'swarm', why: obstacle });
      const count = whole('--count', flags.count, 1, 250);
      const irc = flags.irc === undefined ? undefined : canonicalTarget(flags.irc);
      if (flags.irc !== undefined && irc === undefined)
        throw new BadInput({
          what: '--irc',
          why: `${JSON.stringify(flags.irc)} is no host:port such as 127.0.0.1:6667`,
        });
      const limits = {
        first: whole('--first', flags.first, 0, 1_000_000),
        memory_mib: whole('--memory', flags.memory, MEMORY_MIB.least, MEMORY_MIB.most),
        cpu: decimal('--cpu', flags.cpu, 0.05, availableParallelism()),
        at_once: flags.atOnce === undefined ? availableParallelism() : whole('--at-once', flags.atOnce, 1, 64),
      };
      const node_token = tokenIn(flags.tokenFile ?? nodeTokenFile(data));
      const before = stateOf(data);
      if (before?.lives)
        throw new BadInput({
          what: 'swarm',
          why: `there is one (process ${before.pid}); \`hauki swarm down\` ends it`,
        });
      clear(data);
      // Whoever may write to a kernel's sockets is that kernel to the core; and what is staged here is read by all kernels.
      process.umask(0o022);
      const asked = askedToEnd();
      const mesh = await openMesh({ ...(core ? { core } : {}), data });
      const began = performance.now();
      let done = 0;
      const written = (kernels: SwarmKernel[]) => writeState(data, irc ?? null, kernels);
      written([]);
      const started = await startSwarm({
        data_dir: data,
        mesh,
        core_url: coreUrl({ core }),
        ...{ node_token, count, irc, asked, ...limits },
        log: (line) => console.error(line),
        progress(kernel, what, took_ms) {
          if (json || what === 'starting') return;
          if (what === (irc ? 'has the IRC plugin' : 'online')) done++;
          console.log(`${String(done).padStart(4)}/${count}  ${kernel} ${what} (${duration(took_ms)})`);
        },
      }).catch(async (error) => {
        clear(data);
        await mesh.close();
        throw error;
      });
      try {
        const { kernels } = started;
        written(kernels);
        if (json) console.log(JSON.stringify({ pid: process.pid, kernels }));
        else {
          const took = duration(performance.now() - began);
          console.log(`${paint('bold', 'The swarm is up')} (${took}); Ctrl-C or \`hauki swarm down\` ends it`);
        }
        const reason = await Promise.race([asked, started.broken]);
        if (reason !== undefined) throw new Error(`the swarm ends, because a kernel did: ${reason}`);
      } finally {
        await started.stop();
        clear(data);
        await mesh.close();
      }
    });

  swarm
    .command('ls')
    .description('the kernels of the swarm')
    .action(async (_flags, command: Command) => {
      const options = common(command);
      const state = stateOf(options.data ?? defaultDataDir());
      if (!state?.lives) {
        if (options.json) console.log(JSON.stringify({ kernels: [] }));
        else console.log('There is no swarm. Start one: hauki swarm up --count 50');
        return;
      }
      const online = await withMesh(options, (mesh) => mesh.kernels.list());
      const rows = state.kernels.map(({ kernel, pid }) => {
        const modules = online.find((one) => one.kernel === kernel)?.modules;
        return { kernel, pid, online: modules !== undefined, modules: (modules ?? []).map(({ module }) => module) };
      });
      if (options.json) return console.log(JSON.stringify({ irc: state.irc, kernels: rows }));
      console.log(
        table([
          ['KERNEL', 'PID', 'STATE', 'MODULES'],
          ...rows.map((row) => [
            row.kernel,
            String(row.pid),
            row.online ? 'online' : 'away',
            row.modules.join(', ') || '–',
          ]),
        ]),
      );
    });

  swarm
    .command('down')
    .description('end the swarm; nothing of it is left')
    .action(async (_flags, command: Command) => {
      const { data = defaultDataDir(), json } = common(command);
      const state = stateOf(data);
      if (state?.lives) {
        process.kill(state.pid, 'SIGTERM');
        for (const until = performance.now() + DOWN_MS; runs(state); await sleep(50))
          if (performance.now() > until)
            throw new Error(`process ${state.pid} is still ending the swarm after ${DOWN_MS} ms`);
      }
      clear(data);
      const ended = state?.lives ? state.kernels.length : 0;
      if (json) console.log(JSON.stringify({ ended }));
      else console.log(ended === 0 ? 'There was no swarm' : `${ended} ${ended === 1 ? 'kernel' : 'kernels'} ended`);
    });
}
