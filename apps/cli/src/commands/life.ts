/** `hauki logs`, `why`, `exec`, `pause`, `resume`: a worker in its owner's hands, also after its end. */
import {
  CAUSES,
  type Fate,
  isCause,
  isError,
  LIMITS,
  type LogLine,
  type Mesh,
  type Usage,
  WorkerUnknown,
} from '@hauki/mesh';
import type { Command } from 'commander';
import { common, milliseconds, whole, withMesh } from '../context.ts';
import { duration, EXIT, paint, printable, report, size } from '../output.ts';

const at = (ms: number) => new Date(ms).toISOString();

/** A line as all that shows a log shows it. */
export function lineOf({ at: said_at, level, text }: LogLine): string {
  const style = level === 'error' ? 'red' : level === 'warn' ? 'yellow' : 'dim';
  return `${paint('dim', at(said_at))} ${paint(style, level.padEnd(5))} ${printable(text)}`;
}

/** What was used, in a few words; `-` where nothing is known. */
export function used(usage: Usage | undefined): Record<'cpu' | 'memory' | 'calls' | 'log' | 'fetched', string> {
  const { cpu_ms = null, memory_bytes = null, calls = null, log_lines, fetched_bytes } = usage ?? {};
  return {
    cpu: cpu_ms === null ? '-' : duration(cpu_ms),
    memory: memory_bytes === null ? '-' : size(memory_bytes),
    calls: calls === null ? '-' : String(calls),
    log: log_lines === undefined ? '-' : String(log_lines),
    fetched: fetched_bytes === undefined ? '-' : size(fetched_bytes),
  };
}

const orderly = (fate: Fate) => isCause(fate.cause) && CAUSES[fate.cause].orderly;

function showFate(fate: Fate): void {
  const { worker, cause, reason, at: died_at, born_at, epoch, node, driver, exit, usage, owner, lines } = fate;
  const meaning = isCause(cause) ? `: ${CAUSES[cause].meaning}` : '';
  console.log(`${paint('bold', worker)}  ${paint(orderly(fate) ? 'green' : 'red', cause)}${meaning}`);
  console.log(`  why      ${printable(reason)}`);
  if (exit) console.log(`  its end  ${printable(exit)}`);
  const lived = born_at === undefined ? 'it was never born' : `it had lived for ${duration(died_at - born_at)}`;
  console.log(`  when     ${at(died_at)}, ${duration(Math.max(0, Date.now() - died_at))} ago; ${lived}`);
  const start = epoch !== undefined && epoch > 1 ? `, start ${epoch}` : '';
  console.log(`  where    ${node ?? '-'}, ${driver ?? '-'}${start}; owner ${owner}`);
  if (usage) {
    const { cpu, memory, calls, log, fetched } = used(usage);
    console.log(
      `  it used  ${cpu} of CPU, ${memory}, ${calls} calls when last asked, ${log} log lines, ${fetched} fetched`,
    );
  }
  if (lines.length === 0) return console.log('  it said  nothing');
  console.log('  it said, last:');
  for (const line of lines) console.log(`    ${lineOf(line)}`);
}

/** Says what became of a worker, and gives the exit code. */
export async function why(mesh: Mesh, worker: string, json: boolean): Promise<number> {
  const state = await mesh.why(worker);
  if (json) console.log(JSON.stringify(state));
  if (state.state === 'dead') {
    if (!json) showFate(state.fate);
    return orderly(state.fate) ? EXIT.ok : EXIT.failed;
  }
  if (!json) {
    const { info, node } = state;
    const where = state.state === 'alive' ? `lives on ${node}` : `may live: its node ${node} is away`;
    const paused = info?.paused_at === undefined ? '' : `, paused since ${at(info.paused_at)}`;
    console.log(`${paint('bold', worker)}  ${where}${paused}`);
    if (info) console.log(`  since    ${at(info.born_at)}; owner ${info.owner}`);
    console.log(`  it says  hauki logs ${worker}`);
  }
  return EXIT.alive;
}

async function logs(
  mesh: Mesh,
  worker: string,
  flags: { follow?: boolean; lines: number; json?: boolean },
): Promise<void> {
  const stop = new AbortController();
  // What is in the pipe's other end is gone: nobody reads.
  process.stdout.on('error', () => stop.abort());
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort());
  const lines = mesh.logs(worker, {
    follow: flags.follow ?? false,
    lines: flags.lines,
    signal: stop.signal,
  });
  try {
    for (;;) {
      const next = await lines.next();
      if (!next.done) {
        console.log(flags.json ? JSON.stringify(next.value) : lineOf(next.value));
        continue;
      }
      const fate = next.value;
      if (!fate) return;
      if (flags.json) console.log(JSON.stringify({ fate }));
      else
        console.error(
          `hauki: ${worker} has ended (${fate.cause}: ${printable(fate.reason)}). More: hauki why ${worker}`,
        );
      return;
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  }
}

/** Workers by name, one after another; the first that fails ends it. */
function each(command: Command, workers: string[], done: string, act: (mesh: Mesh, worker: string) => Promise<void>) {
  const flags = common(command);
  return withMesh(flags, async (mesh) => {
    for (const worker of workers) {
      await act(mesh, worker);
      console.log(flags.json ? JSON.stringify({ [done]: worker }) : worker);
    }
  });
}

export function lifeCommands(program: Command): void {
  program
    .command('logs')
    .argument('<worker>', 'its name, as hauki ps shows it; also of one that has ended')
    .option('-f, --follow', 'go on as lines come, to the worker’s end')
    .option('--lines <n>', 'begin with so many of the lines that there are', '200')
    .description('what a worker logged (console, hauki.log), oldest first')
    .addHelpText(
      'after',
      `
A worker that logs too much is cut to 200 lines a second, and a reader that is too slow misses lines: both are said.
A lasting worker is followed over its restarts. With --json each line is one: {seq, at, level, text}; the last with -f
is {fate}.

Example:
  hauki logs w-abc123 -f`,
    )
    .action((worker: string, flags, command: Command) => {
      const lines = whole('--lines', flags.lines, 0, LIMITS.log_lines);
      return withMesh(common(command), (mesh) => logs(mesh, worker, { ...flags, ...common(command), lines }));
    });

  program
    .command('why')
    .argument('<worker>', 'its name; also long after its end, and of one whose birth failed')
    .description('why a worker ended: cause, reason, what it used, its last words')
    .addHelpText(
      'after',
      `
Causes (ended in order: exit code 0; by a fault: exit code 1):
${Object.entries(CAUSES)
  .map(([cause, { meaning, orderly }]) => `  ${cause.padEnd(15)}${orderly ? 'in order' : 'fault   '}  ${meaning}`)
  .join('\n')}

Exit codes: 0 it ended in order, 1 it ended by a fault, 3 nobody knows it (any more), 7 it lives

Example:
  hauki why w-abc123`,
    )
    .action((worker: string, _flags, command: Command) =>
      withMesh(common(command), async (mesh) => {
        process.exitCode = await why(mesh, worker, common(command).json ?? false).catch((error) => {
          if (!isError(error, WorkerUnknown) || common(command).json) throw error;
          const code = report(error, false);
          console.error('What became of a worker is kept for the last 10,000 that ended');
          return code;
        });
      }),
    );

  program
    .command('exec')
    .argument('<worker>', 'a worker of your own')
    .argument('<expression>', 'evaluated beside it; await is allowed')
    .option('--timeout <duration>', 'how long it may take, at most 30s', '10s')
    .description('look into a worker: evaluate an expression beside it and print what comes of it')
    .addHelpText(
      'after',
      `
In scope: worker (the live object: the class's instance, or the module), hauki (its context: log, fetch, meshfs …), and
the globals of its runtime. The expression has the worker's rights, and what it changes is changed. One that never
returns counts as the worker's own code: a quickjs worker ends when it computes for 2 s, or as long as its --turn says.

Examples:
  hauki exec w-abc123 'worker'
  hauki exec w-abc123 'await worker.analyze("…")'
  hauki exec w-abc123 'Object.keys(globalThis)'`,
    )
    .action((worker: string, expression: string, flags, command: Command) => {
      const timeout_ms = milliseconds('--timeout', flags.timeout, 1)!;
      return withMesh(common(command), async (mesh) => {
        const result = await mesh.inspect(worker, expression, { timeout_ms });
        if (common(command).json) console.log(JSON.stringify({ worker, result }));
        else console.log(process.stdout.isTTY ? printable(result) : result);
      });
    });

  program
    .command('pause')
    .argument('<workers...>')
    .description('stop workers where they stand; their leases stand still, calls wait for their deadlines')
    .addHelpText('after', '\nExample:\n  hauki pause w-abc123\n  hauki resume w-abc123')
    .action((workers: string[], _flags, command: Command) =>
      each(command, workers, 'paused', (mesh, worker) => mesh.pause(worker)),
    );
  program
    .command('resume')
    .argument('<workers...>')
    .description('let paused workers go on, each with a whole lease')
    .action((workers: string[], _flags, command: Command) =>
      each(command, workers, 'resumed', (mesh, worker) => mesh.resume(worker)),
    );
}
