/**
 * Core and agents are killed with -9 at random moments while scripts hand in jobs; then every job is asked for its end.
 * Shared by `test/spool.test.ts` (a few kills) and `npm run soak -- spool` (200).
 *
 * Each run of a job leaves a mark of its own in MeshFS before it gives its result, so that runs can be counted.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type LocalMesh, startCore, startMesh, startNode } from '@hauki/cli';
import {
  BadInput,
  ConnectionLost,
  connect,
  DeadlineExceeded,
  isError,
  type JobDetails,
  type Mesh,
  OutcomeUnknown,
  Overloaded,
} from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { until } from './mesh.ts';
import { keptPort } from './ports.ts';

export interface StormOptions {
  kills: number;
  agents: number;
  /** Scripts that hand in jobs, a few at a time. */
  scripts: number;
  /** Mean pauses between a restart and the next kill, of the core and of each agent. */
  core_ms: number;
  agent_ms: number;
  /** Numbers in [0, 1). */
  random: () => number;
  note?: (text: string) => void;
}

export interface StormReport {
  kills: { core: number; agent: number };
  jobs: number;
  done: number;
  /** Failed with OutcomeUnknown; only jobs of one attempt may. */
  unknown: number;
  /** Runs beyond the first, of jobs that may have several. */
  repeated_runs: number;
  most_attempts: number;
  /** Jobs whose acceptance was asked for more than once, under one key. */
  asked_again: number;
  took_ms: number;
}

const MARKS = 'gem-pointer://storm/';
/** Jobs that a script hands in before it waits for their ends. */
const BATCH = 4;
/** How long a kill waits for new jobs. */
const LOADED_MS = 3_000;

/** What a job does: rests, leaves its mark, answers with what only it can know. */
const JOB = `
  export const work = async (name, rest_ms) => {
    await new Promise((resolve) => setTimeout(resolve, rest_ms));
    await hauki.meshfs.write('${MARKS}' + name + '/' + hauki.worker + Math.random(), name);
    return { name, twice: name + name };
  };
`;

interface Handed {
  job: string;
  name: string;
  once: boolean;
  /** What was seen of its end, whenever it was seen. */
  seen?: string;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Errors that only say that the core is being started again; whether it heard is no matter, for every job has a key. */
const away = (error: unknown) =>
  [ConnectionLost, OutcomeUnknown, DeadlineExceeded, Overloaded].some((kind) =>
    isError(error, kind as typeof ConnectionLost),
  );

async function patiently<T>(ask: () => Promise<T>, again: () => void = () => {}): Promise<T> {
  for (let times = 1; ; times++) {
    try {
      return await ask();
    } catch (error) {
      if (!away(error) || times > 400) throw error;
      again();
      await pause(100);
    }
  }
}

const endOf = ({ state, error }: JobDetails, result: unknown) => JSON.stringify({ state, error, result });

/** Runs the storm in a folder of its own. Throws at the first thing that must not be. */
export async function storm(options: StormOptions): Promise<StormReport> {
  const { random, note = () => {} } = options;
  const began = performance.now();
  const folder = mkdtempSync(join(tmpdir(), 'hauki-storm-'));
  const log = { file: join(folder, 'log') };
  const names = Array.from({ length: options.agents }, (_, i) => `node-${i + 1}`);
  const local = await startMesh({
    port: await keptPort(),
    data_dir: folder,
    nodes: names.map((name) => ({ name, drivers: ['quickjs'] })),
    log,
  });
  const mesh = await connect({ core: local.url, token: local.token });
  const report: StormReport = {
    kills: { core: 0, agent: 0 },
    jobs: 0,
    done: 0,
    unknown: 0,
    repeated_runs: 0,
    most_attempts: 0,
    asked_again: 0,
    took_ms: 0,
  };
  try {
    const handed: Handed[] = [];
    let over = false;
    const scripts = Array.from({ length: options.scripts }, async () => {
      while (!over) {
        const batch: Handed[] = [];
        for (let i = 0; i < BATCH && !over; i++) batch.push(await handIn(mesh, random, report));
        handed.push(...batch);
        await Promise.all(batch.map((job) => watch(mesh, job)));
      }
    });
    // What a script finds wrong stops the storm.
    let fault: unknown;
    for (const script of scripts)
      script.catch((error) => {
        fault ??= error;
      });
    let killed = 0;
    const killing = async (pause_ms: number, kill: () => Promise<void>) => {
      while (killed < options.kills && fault === undefined) {
        killed++;
        if (killed % 20 === 0) note(`${killed} kills, ${handed.length} jobs accepted`);
        const before = handed.length;
        await kill();
        await pause(pause_ms * 2 * random());
        // A kill is worth something where there is work: on a busy machine that takes its time to come.
        for (let i = 0; i < LOADED_MS / 50 && handed.length < before + options.scripts && fault === undefined; i++)
          await pause(50);
      }
    };
    // Side by side, so that now one, now the other, now both are away.
    await Promise.all([
      killing(options.core_ms, () => killCore(local, log, report)),
      ...names.map((name, at) => killing(options.agent_ms, () => killAgent(local, name, at, log, report))),
    ]);
    if (fault !== undefined) throw fault;
    over = true;
    await Promise.all(scripts);
    note(`the storm is over: ${handed.length} jobs to look at`);
    await check(mesh, handed, report);
    report.took_ms = performance.now() - began;
    return report;
  } finally {
    await mesh.close().catch(() => {});
    await local.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Hands in one job, under a key of its own, until its acceptance is heard. */
async function handIn(mesh: Mesh, random: () => number, report: StormReport): Promise<Handed> {
  const name = randomBytes(8).toString('hex');
  const once = random() < 0.25;
  const rest_ms = Math.floor(random() * 300);
  let again = false;
  const { job } = await patiently(
    () =>
      mesh.spool(
        { source: JOB },
        {
          method: 'work',
          params: [name, rest_ms],
          key: name,
          attempts: once ? 1 : 50,
          retry_on_error: !once,
          driver: 'quickjs',
          grants: { meshfs: { write: [MARKS] }, random: true },
        },
      ),
    () => {
      again = true;
    },
  );
  if (again) report.asked_again++;
  return { job, name, once };
}

/** Waits for its end, through all restarts. */
async function watch(mesh: Mesh, handed: Handed): Promise<void> {
  const job = mesh.jobs.get(handed.job);
  const result = await patiently(() => job.result({ timeout_ms: 60_000 })).catch((error) => {
    if (isError(error, DeadlineExceeded) || isError(error, BadInput)) throw error;
    return undefined;
  });
  handed.seen = endOf(await patiently(() => job.state()), result);
}

type Log = { file: string };

async function killCore(local: LocalMesh, log: Log, report: StormReport): Promise<void> {
  await local.core.kill();
  report.kills.core++;
  local.core = await startCore(local.data_dir, { port: Number(new URL(local.url).port) }, log);
}

/** Kills one agent. It is back when the core is. */
async function killAgent(local: LocalMesh, name: string, at: number, log: Log, report: StormReport): Promise<void> {
  await local.nodes[at]!.kill();
  report.kills.agent++;
  local.nodes[at] = await startNode(
    {
      core_url: local.url,
      name,
      data_dir: join(local.data_dir, name),
      token_file: nodeTokenFile(local.data_dir),
      drivers: ['quickjs'],
    },
    log,
  );
}

/** Every accepted job has one end, the one that was seen before; and ran as often as it may have. */
async function check(mesh: Mesh, handed: Handed[], report: StormReport): Promise<void> {
  const runs = new Map<string, number>();
  for (const { pointer } of await mesh.meshfs.list(MARKS)) {
    const name = pointer.slice(MARKS.length).split('/')[0]!;
    runs.set(name, (runs.get(name) ?? 0) + 1);
  }
  const listed = new Map<string, JobDetails>();
  for (let after: string | undefined; ; ) {
    const page = await mesh.jobs.list({ limit: 1000, ...(after === undefined ? {} : { after }) });
    for (const job of page.jobs) {
      assert.ok(!listed.has(job.job), `${job.job} is listed once`);
      listed.set(job.job, job);
    }
    after = page.next;
    if (after === undefined) break;
  }
  assert.equal(new Set(handed.map(({ job }) => job)).size, handed.length, 'each key is a job of its own');
  assert.equal(listed.size, handed.length, 'what was accepted is listed, and nothing else');
  for (const { job, name, once, seen } of handed) {
    const details = listed.get(job);
    assert.ok(details, `${job} was accepted and is known`);
    const ran = runs.get(name) ?? 0;
    const result = details.state === 'done' ? await mesh.jobs.get(job).result() : undefined;
    assert.equal(endOf(details, result), seen, `the end of ${job} is the one that was seen before`);
    if (details.state === 'done') {
      report.done++;
      assert.deepEqual(result, { name, twice: name + name });
      assert.ok(ran >= 1, `${job} is done, so it ran`);
    } else {
      assert.equal(details.state, 'failed', `${job} has ended: ${details.state}`);
      assert.ok(once, `${job} may be tried again, and is done in the end: ${JSON.stringify(details)}`);
      report.unknown++;
      const end = details.error?.data?.name;
      assert.ok(end === OutcomeUnknown.row.name || ran === 0, `${job} failed as it may: ${JSON.stringify(details)}`);
    }
    assert.ok(ran <= details.attempts, `${job} ran ${ran} times in ${details.attempts} attempts`);
    if (once) assert.ok(ran <= 1, `${job} ran ${ran} times, and was to run once at most`);
    else report.repeated_runs += Math.max(0, ran - 1);
    report.most_attempts = Math.max(report.most_attempts, details.attempts);
  }
  report.jobs = handed.length;
  await until('no worker of a job is left', async () => (await mesh.registry()).workers.length === 0);
}
