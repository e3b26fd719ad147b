/**
 * `npm run soak -- orphans [--kills 1000] [--agents 4] [--scripts 4] [--life 3000] [--driver NAME]… [--seed N]
 * [--state FILE --for SECONDS]`: agents are killed with -9 at random moments under a stream of clones; afterwards nothing of
 * them and of their vaults is left. `--life` is the longest time that an agent gets once it is ready, in milliseconds.
 * With `--state` it stops after so many seconds, keeps in the file what was done, and goes on from there the next time;
 * each part ends with the whole search for what is left. The first fault ends it all: the file then says so, for good.
 */
import { randomInt } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { DRIVERS, type DriverName, missing } from '../test/support/mesh.ts';
import { type OrphanReport, orphanStorm } from '../test/support/orphan-storm.ts';
import { seeded } from '../test/support/seeded.ts';
import type { Soaked } from './main.ts';

/** How many kills make the whole soak. */
const WHOLE = 1_000;

interface State {
  seed: string;
  /** Parts that came to their end, and those that were begun. */
  parts: number;
  begun: number;
  took_s: number;
  report: OrphanReport;
  fault?: string;
}

export async function run(args: string[]): Promise<Soaked> {
  const { values } = parseArgs({
    args,
    options: {
      kills: { type: 'string', default: String(WHOLE) },
      agents: { type: 'string', default: '4' },
      scripts: { type: 'string', default: '4' },
      life: { type: 'string', default: '3000' },
      driver: { type: 'string', multiple: true },
      seed: { type: 'string', default: String(randomInt(2 ** 31)) },
      state: { type: 'string' },
      for: { type: 'string' },
    },
  });
  const drivers = (values.driver as DriverName[] | undefined) ?? DRIVERS.filter((driver) => !missing(driver));
  const kills = Number(values.kills);
  const before: State =
    values.state !== undefined && existsSync(values.state)
      ? JSON.parse(readFileSync(values.state, 'utf8'))
      : { seed: values.seed, parts: 0, begun: 0, took_s: 0, report: NOTHING };
  if (before.fault !== undefined) throw new Error(`${values.state} tells of a fault: ${before.fault}`);
  const { seed } = before;
  const done = before.report.kills;
  console.error(`seed ${seed}, drivers ${drivers.join(', ')}, ${done} kills before`);
  const began = performance.now();
  const keep = (state: State) => {
    if (values.state !== undefined) writeFileSync(values.state, `${JSON.stringify(state, undefined, 2)}\n`);
    return state;
  };
  const begun = before.begun + 1;
  keep({ ...before, begun });
  try {
    const report = await orphanStorm({
      kills: kills - done,
      agents: Number(values.agents),
      scripts: Number(values.scripts),
      life_ms: Number(values.life),
      ...(values.for === undefined ? {} : { for_ms: Number(values.for) * 1_000 }),
      drivers,
      random: seeded(`${seed}/${done}`),
      note: (text) => console.error(`  ${Math.round(performance.now() / 1000)} s: ${text}`),
    });
    const took_s = Math.round((performance.now() - began) / 1_000) + before.took_s;
    const state = keep({ seed, took_s, parts: before.parts + 1, begun, report: sum(before.report, report) });
    return {
      report: { ...state.report, agents: Number(values.agents), parts: state.parts, begun, seed },
      shown: 'no process, container, cgroup, mount, loop device, id claim, file or socket is left',
      took_s,
      whole: drivers.length === DRIVERS.length && state.report.kills >= WHOLE,
    };
  } catch (error) {
    keep({ ...before, begun, fault: (error as Error).message });
    throw error;
  }
}

const NOTHING: OrphanReport = { kills: 0, at_start: 0, processes: 0, clones: {}, cleared: 0, slowest_ms: 0 };

/** What two parts come to together. */
function sum(one: OrphanReport, other: OrphanReport): OrphanReport {
  const clones = structuredClone(one.clones);
  for (const [driver, { answered, failed }] of Object.entries(other.clones)) {
    const count = clones[driver] ?? { answered: 0, failed: 0 };
    clones[driver] = { answered: count.answered + answered, failed: count.failed + failed };
  }
  return {
    kills: one.kills + other.kills,
    at_start: one.at_start + other.at_start,
    processes: one.processes + other.processes,
    clones,
    cleared: one.cleared + other.cleared,
    slowest_ms: Math.max(one.slowest_ms, other.slowest_ms),
  };
}
