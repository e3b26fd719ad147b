/** `hauki spool`: durable one-shot jobs from a terminal. */
import { JOB_STATES, type JobDetails, LIMITS, type SpoolOptions } from '@hauki/mesh';
import { encode } from '@hauki/rpc';
import type { Command } from 'commander';
import {
  argument,
  type CloneFlags,
  type Common,
  cloneOptions,
  common,
  given,
  milliseconds,
  oneOf,
  originOf,
  whole,
  withMesh,
  withModuleFlags,
} from '../context.ts';
import { duration, paint, printable, table } from '../output.ts';

interface RunFlags extends CloneFlags {
  key?: string;
  attempts?: string;
  timeout?: string;
  retryOnError?: boolean;
  wait?: boolean;
}

/** A result: text as it is, on a terminal without what would steer it; all else as JSON. */
function print(result: unknown, json: boolean | undefined): void {
  const text = typeof result === 'string' ? result : JSON.stringify(result, undefined, 2);
  console.log(json ? JSON.stringify({ result }) : process.stdout.isTTY ? printable(text) : text);
}

async function run(what: string, method: string, args: string[], flags: RunFlags): Promise<void> {
  const origin = originOf(what);
  const timeout_ms = milliseconds('--timeout', flags.timeout, 1);
  const { driver, min_isolation, labels, memory_mib, cpu, turn_ms, grants, secrets } = cloneOptions(flags);
  const options = {
    ...{ driver, min_isolation, labels, memory_mib, cpu, turn_ms, grants, secrets, timeout_ms },
    method,
    params: args.map(argument),
    attempts: given(flags.attempts, (text) => whole('--attempts', text, 1, LIMITS.spool_attempts)),
    retry_on_error: flags.retryOnError,
    key: flags.key,
  };
  await withMesh(flags, async (mesh) => {
    // Refuses what a job cannot carry: bigints.
    encode(options.params);
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
    const handle = await mesh.spool(origin, given as unknown as SpoolOptions);
    if (flags.wait) return print(await handle.result(), flags.json);
    if (flags.json) return console.log(JSON.stringify({ job: handle.job }));
    console.log(`${paint('bold', handle.job)} is accepted: it ends with one result, whatever happens here`);
    console.log(`  result   hauki spool wait ${handle.job}`);
  });
}

const ago = (at: number) => `${duration(Math.max(0, Date.now() - at))} ago`;

async function list(flags: Common & { state?: string; limit?: string; after?: string }): Promise<void> {
  const wanted = {
    limit: whole('--limit', flags.limit ?? '50', 1, 1000),
    ...(flags.state === undefined ? {} : { state: oneOf('--state', flags.state, JOB_STATES) }),
    ...(flags.after ? { after: flags.after } : {}),
  };
  await withMesh(flags, async (mesh) => {
    const { jobs, next } = await mesh.jobs.list(wanted);
    if (flags.json) return console.log(JSON.stringify({ jobs, ...(next ? { next } : {}) }));
    if (jobs.length === 0) return console.log('No jobs. Hand one in: hauki spool run <file or pointer> <method>');
    console.log(
      table([
        ['JOB', 'STATE', 'METHOD', 'ATTEMPTS', 'ACCEPTED', 'ENDED', 'OWNER'],
        ...jobs.map((j) => [
          j.job,
          j.state,
          printable(j.method),
          `${j.attempts} of ${j.max_attempts}`,
          ago(j.accepted_at),
          j.ended_at === null ? '-' : ago(j.ended_at),
          j.owner,
        ]),
      ]),
    );
    if (next) console.log(`\nThere are more: hauki spool ls --after ${next}`);
  });
}

function show(details: JobDetails): void {
  const { job, state, method, pointer, attempts, max_attempts, worker, node, why, error, history } = details;
  console.log(`${paint('bold', job)}  ${state}`);
  console.log(`  calls    ${printable(method)}()${pointer ? ` of ${pointer}` : ''}`);
  console.log(`  attempts ${attempts} of ${max_attempts}${worker ? `, the last as ${worker} on ${node}` : ''}`);
  if (why) console.log(`  waits    ${printable(why)}`);
  if (error) console.log(`  error    ${printable(error.message)}`);
  for (const { attempt, node: on, why: reason } of history)
    console.log(`  attempt ${attempt} on ${on} came to nothing: ${printable(reason)}`);
}

export function spoolCommands(program: Command): void {
  const group = program
    .command('spool')
    .description('durable one-shot jobs: hand in code, fetch the result later')
    .addHelpText(
      'after',
      `
Examples:
  hauki spool run examples/workers/greeter.ts greet Ada          hand in a job; prints its id
  hauki spool run report.ts make 2026 --key report-2026 --wait   wait for the result; sent twice, it runs once
  hauki spool wait <job>                                         its result, now or when it is there
  hauki spool ls --state failed                                  which failed

A job that was accepted survives kills of core and nodes. What is interrupted is tried again (--attempts, 3 when left
out), so its code should bear to run twice; --attempts 1 runs it at most once.`,
    );
  withModuleFlags(group.command('run'))
    .argument('<what>', 'a gem-pointer:// or a file (.ts, .js: bundled with all that it imports; .py)')
    .argument('<method>')
    .argument('[arguments...]', 'JSON where it is JSON, else text')
    .description('hand in a job: a worker is made, one method called, the result kept, the worker ended')
    .option('--timeout <duration>', 'how long one attempt’s call may take; default: 60s')
    .option('--attempts <count>', 'how often it may be begun, from 1 to 100; default: 3')
    .option('--retry-on-error', 'try again also what its own code throws')
    .option('--key <text>', 'the same key is the same job: safe to send again')
    .option('--wait', 'wait for the result and print it')
    .action((what: string, method: string, args: string[], flags: RunFlags, command: Command) =>
      run(what, method, args, { ...flags, ...common(command) }),
    );
  group
    .command('ls')
    .description('jobs, newest first')
    .option('--state <state>', 'only accepted, running, done, failed or cancelled')
    .option('--limit <count>', 'how many, at most 1000', '50')
    .option('--after <job>', 'the next page, as a page before said')
    .action((flags, command: Command) => list({ ...flags, ...common(command) }));
  group
    .command('show')
    .argument('<job>')
    .description('where a job stands, and what became of its attempts')
    .action((job: string, _flags, command: Command) =>
      withMesh(common(command), async (mesh) => {
        const details = await mesh.jobs.get(job).state();
        if (common(command).json) console.log(JSON.stringify(details));
        else show(details);
      }),
    );
  group
    .command('wait')
    .argument('<job>')
    .description('wait for a job’s end and print its result')
    .option('--timeout <duration>', 'how long to wait; the job goes on; default: for ever')
    .action((job: string, flags: { timeout?: string }, command: Command) => {
      const timeout_ms = milliseconds('--timeout', flags.timeout, 1);
      return withMesh(common(command), async (mesh) => {
        print(await mesh.jobs.get(job).result(timeout_ms === undefined ? {} : { timeout_ms }), common(command).json);
      });
    });
  group
    .command('cancel')
    .argument('<jobs...>')
    .description('cancel jobs: what waits never runs, what runs is ended')
    .action((jobs: string[], _flags, command: Command) =>
      withMesh(common(command), async (mesh) => {
        for (const job of jobs) {
          await mesh.jobs.get(job).cancel();
          console.log(common(command).json ? JSON.stringify({ cancelled: job }) : job);
        }
      }),
    );
}
