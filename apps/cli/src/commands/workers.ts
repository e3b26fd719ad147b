/** `hauki clone`, `call`, `ps`, `kill`: workers from a terminal. */
import { BadInput, describe, ID_PATTERN, type Mesh, NoSuchMethod, Unserialisable, type WorkerInfo } from '@hauki/mesh';
import { encode, sourceOf } from '@hauki/rpc';
import type { Command } from 'commander';
import {
  argument,
  askedToEnd,
  type CloneFlags,
  cloneOptions,
  common,
  given,
  milliseconds,
  openMesh,
  originOf,
  routingOf,
  withMesh,
  withModuleFlags,
} from '../context.ts';
import { duration, paint, printable, report, shown, table } from '../output.ts';
import { used, why } from './life.ts';

/** A result as a line of JSON. Throws Unserialisable for what JSON would change: the call is over by then. */
function jsonOf(what: 'result' | 'item', value: unknown): string {
  try {
    return encode({ [what]: value });
  } catch (error) {
    throw new Unserialisable(
      { why: describe(error) },
      `The call has run, but JSON cannot say its ${what} (${describe(error)}). Without --json it is shown as it is`,
    );
  }
}

/** Prints a result, of a stream each item as it comes: on a terminal without what would steer it, in a pipe as it is. */
async function show(result: unknown, json: boolean): Promise<void> {
  const plain = (value: unknown) => (process.stdout.isTTY ? printable(shown(value)) : shown(value));
  const line = (what: 'result' | 'item', value: unknown) => console.log(json ? jsonOf(what, value) : plain(value));
  if (typeof result === 'object' && result !== null && Symbol.asyncIterator in result)
    for await (const item of result as AsyncIterable<unknown>) line('item', item);
  else line('result', result);
}

async function clone(what: string, flags: CloneFlags): Promise<void> {
  const origin = originOf(what);
  const options = cloneOptions(flags);
  const mesh = await openMesh(flags);
  const started = performance.now();
  const ghost = mesh.clone(origin, options);
  const details = await mesh.details(ghost);
  // Before the worker is announced: who reads the announcement may end the command at once.
  const asked = askedToEnd();
  const took = duration(performance.now() - started);
  const { worker, node, driver, isolation, route, methods } = details;
  if (flags.json) console.log(JSON.stringify(details));
  else {
    console.log(
      `${paint('bold', worker)} lives in a ${driver} vault (isolation: ${isolation}) on ${node}, reached over the ${route} route (${took})`,
    );
    console.log(`  methods  ${printable(methods.join(', '))}`);
    console.log(`  call it  hauki call ${worker} ${printable(methods[0] ?? '')} …`);
  }
  if (options.ttl_ms) {
    if (!flags.json) console.log(`  it ends  in ${duration(options.ttl_ms)}, or with: hauki kill ${worker}`);
    return mesh.close();
  }
  if (!flags.json) console.log('  it ends  with this command: Ctrl-C');
  // The heartbeat does not keep a process alive; a person at a terminal does.
  const alive = setInterval(() => {}, 1 << 30);
  const ended = await Promise.race([asked, mesh.ended(ghost)]);
  clearInterval(alive);
  try {
    if (ended === undefined) return;
    if (!flags.json) console.error(`hauki: ${worker} has ended: ${ended}`);
    process.exitCode = await why(mesh, worker, flags.json ?? false);
  } finally {
    await mesh.close();
  }
}

/** An empty name, or dots, would be the path of something else. */
async function destruct(mesh: Mesh, worker: string): Promise<void> {
  if (!new RegExp(ID_PATTERN).test(worker)) throw new BadInput({ what: 'worker', why: 'a name is like w-abc123' });
  return mesh.destruct(worker);
}

const left = (until: number) => duration(Math.max(0, until - Date.now()));

/** When a worker ends if nobody does anything, as far as that is known. */
function ending({ lasting, paused_at, lease_until, ends_at }: WorkerInfo): string {
  const most = ends_at === undefined ? '' : `, at most ${left(ends_at)}`;
  if (paused_at !== undefined) return `paused for ${duration(Date.now() - paused_at)}${most}`;
  if (lasting) return 'lasts';
  return `${lease_until > 0 ? left(lease_until) : '?'}${most}`;
}

async function ps(mesh: Mesh, json: boolean): Promise<void> {
  const { nodes, workers } = await mesh.registry();
  if (json) return console.log(JSON.stringify({ nodes, workers }));
  const drivers = (n: (typeof nodes)[number]) =>
    Object.entries(n.drivers)
      .map(([name, offer]) => (offer.available ? `${name} (${offer.level})` : `${name}: no`))
      .join(', ');
  const labels = (n: (typeof nodes)[number]) =>
    Object.entries(n.labels)
      .map(([k, v]) => `${k}=${v}`)
      .join(' ');
  console.log(
    table([
      ['NODE', 'WORKERS', 'MEMORY', 'CPU', 'DRIVERS', 'LABELS'],
      ...nodes.map((n) => [
        n.node,
        String(n.workers),
        `${n.memory_used_mib}/${n.memory_mib} MiB`,
        `${Math.round(n.cpu * 100)} %`,
        drivers(n),
        labels(n),
      ]),
    ]),
  );
  if (workers.length === 0) return console.log('\nNo workers. Make one: hauki clone <file or pointer>');
  console.log(
    `\n${table([
      ['WORKER', 'NODE', 'DRIVER', 'OWNER', 'CPU TIME', 'MEMORY', 'CALLS', 'LOG', 'FETCHED', 'AGE', 'ENDS IN'],
      ...workers.map((w) => {
        const { cpu, memory, calls, log, fetched } = used(w.usage);
        return [
          w.parent ? `${w.worker} (of ${w.parent})` : w.worker,
          w.node,
          `${w.driver} (${w.isolation})`,
          w.owner,
          cpu,
          `${memory} of ${w.memory_mib}`,
          calls,
          log,
          fetched,
          duration(Date.now() - w.born_at),
          ending(w),
        ];
      }),
    ])}`,
  );
}

async function sessions(mesh: Mesh, json: boolean): Promise<void> {
  const all = await mesh.sessions();
  if (json) return console.log(JSON.stringify({ sessions: all }));
  if (all.length === 0) return console.log('No sessions. One begins with: hauki clone, hauki call');
  const count = (n: number | undefined) => (n === undefined ? '?' : String(n));
  console.log(
    table([
      [
        'WORKER',
        'CALLER',
        'ROLE',
        'ROUTE',
        'SESSION',
        'AGE',
        'CONNECTIONS',
        'BYTES',
        'CALLS',
        'IN FLIGHT',
        'REFERENCES',
        'STREAMS',
      ],
      ...all.map((s) => [
        s.worker,
        s.caller ?? '?',
        s.role,
        s.route ?? '-',
        s.route === 'http' ? '-' : s.session.slice(0, 8),
        duration(Date.now() - s.opened_at),
        s.route === 'http' ? '-' : s.connected ? String(s.connections) : `${s.connections}, now cut`,
        String(s.carried_bytes),
        count(s.stats?.calls_served),
        count(s.stats?.serving),
        count(s.stats && (s.stats.exported ?? 0) + (s.stats.imported ?? 0)),
        count(s.stats?.streams),
      ]),
    ]),
  );
}

export function workerCommands(program: Command): void {
  withModuleFlags(program.command('clone'))
    .argument('<what>', 'a gem-pointer:// or a file (.ts, .js: bundled with all that it imports; .py)')
    .description('make a worker and say how to call it; it ends with the command, or after --ttl')
    .option('--ttl <duration>', 'outlive this command by so long, as in 10m')
    .option('--max-life <duration>', 'end after so long for certain')
    .option('--idle <duration>', 'end when nobody has called it for so long')
    .option('--routing <how>', 'p2p_preferred, p2p_only or relay_only')
    .option('--lease <duration>', 'how long it lives without a sign of its owner')
    .addHelpText(
      'after',
      '\nExample:\n  hauki clone examples/workers/greeter.ts --ttl 10m\n  hauki clone gem-pointer://wiki/workers/web_scout --fetch example.org:443',
    )
    .action((what: string, flags: CloneFlags, command: Command) => clone(what, { ...flags, ...common(command) }));

  program
    .command('call')
    .argument('<worker>', 'its name, as hauki ps shows it')
    .argument('<method>')
    .argument('[arguments...]', 'JSON where it is JSON (integers beyond 2^53 as bigints), else text')
    .description('call a method of a worker and print the result, of a stream item by item')
    .option('--timeout <duration>', 'how long to wait', '60s')
    .option('--routing <how>', 'p2p_preferred, p2p_only or relay_only')
    .addHelpText(
      'after',
      '\nWith --json: one line {"result": …}, of a stream a line {"item": …} for each item.\n\nExample:\n  hauki call w-abc123 add 2 3\n  hauki call w-abc123 analyze \'{"depth": 2}\'',
    )
    .action((worker: string, method: string, args: string[], flags, command: Command) => {
      const timeout_ms = milliseconds('--timeout', flags.timeout, 1)!;
      const routing = given(flags.routing as string | undefined, routingOf);
      return withMesh(common(command), async (mesh) => {
        const ghost = mesh.visit(worker, { timeout_ms, ...(routing ? { routing } : {}) });
        const { methods } = await mesh.details(ghost);
        if (!methods.includes(method)) throw new NoSuchMethod({ method, has: methods });
        // Not `ghost[method]`: some names, as toString, are the ghost's own.
        const result = await sourceOf(ghost)!.call(method, args.map(argument));
        await show(result, common(command).json ?? false);
      });
    });

  program
    .command('ps')
    .description('the nodes and workers of the mesh, and what each uses')
    .action((_flags, command: Command) => withMesh(common(command), (mesh) => ps(mesh, common(command).json ?? false)));

  program
    .command('sessions')
    .description('who calls whom: how each caller is connected, and what its session has done')
    .action((_flags, command: Command) =>
      withMesh(common(command), (mesh) => sessions(mesh, common(command).json ?? false)),
    );

  program
    .command('kill')
    .argument('<workers...>')
    .description('destruct workers at once')
    .action((workers: string[], _flags, command: Command) =>
      withMesh(common(command), async (mesh) => {
        const results = await Promise.allSettled(workers.map((worker) => destruct(mesh, worker)));
        const json = common(command).json ?? false;
        results.forEach((result, i) => {
          if (result.status === 'rejected') process.exitCode = report(result.reason, json);
          else console.log(json ? JSON.stringify({ killed: workers[i] }) : workers[i]);
        });
      }),
    );
}
