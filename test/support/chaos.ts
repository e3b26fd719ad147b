/**
 * A whole mesh under everything at once, while any process of it is killed, stopped for a while or asked to end: a core, two
 * agents, a kernel that belongs to the mesh, scripts that clone. What dies is started again by who supervises it, or here.
 * Afterwards, in the quiet, and once more after all were killed in one moment, everything that was acknowledged must be
 * there, and when all has ended nothing may be left.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Started, startCore, startKernel, startNode } from '@hauki/cli';
import { connect, connectKernel } from '@hauki/mesh';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { Book, type Load } from './chaos-book.ts';
import { comings, files, jobs, lasting, type MeshWorld, tokens } from './chaos-loads.ts';
import { journal, type KernelWorld, module } from './chaos-modules.ts';
import { type Kind, PARTS, takes, type Victim, victims } from './chaos-victims.ts';
import { type DriverName, processes, traces } from './mesh.ts';
import { otherTraces, ownedBy, settled, stillThere } from './orphan-storm.ts';

export interface ChaosOptions {
  for_ms: number;
  drivers: DriverName[];
  /** Mean pause between two signals. */
  mean_ms: number;
  random(): number;
  note?(text: string): void;
}

export interface ChaosReport {
  /** By kind: how often which signal was sent. */
  signals: Record<string, Record<string, number>>;
  /** By load: how often what came out. */
  outcomes: Record<string, Record<string, number>>;
  /** Which kind was not killed, and what its process took at the beginning and at the end. */
  spared: { kind: string; before?: object; after?: object };
  /** How long after the storm all was as it must be; and after the kill of all at once. */
  whole_after_ms: number;
  back_after_ms: number;
  faults: string[];
}

/** In a share of such a sum each kind is hit. */
const WEIGHTS: Record<Kind, number> = {
  ...{ core: 3, agent: 3, kernel: 3, caller: 2, vault: 3, 'vault host': 2, 'gate host': 2, launcher: 1, reaper: 1 },
};
const [TERM, STOP] = [0.1, 0.15];
const STOPPED_MS = 4_000;
/** A lasting worker whose vault died again and again is tried again once in a minute. */
const WHOLE_MS = 180_000;
/** After a fault nothing more has to be waited for. */
const LOOK_MS = 500;
const HURRIED_MS = 30_000;
const MOST_FAULTS = 10;
/** What a process that was never killed may have more at the end. */
const GROWTH = { rss_mib: 200, descriptors: 40 };
const CALLERS = 2;

/** Runs the storm in a folder of its own. What must not be is in the report's faults; then the folder stays. */
export async function chaos(options: ChaosOptions): Promise<ChaosReport> {
  const { random, drivers, note = () => {} } = options;
  const folder = mkdtempSync(join(tmpdir(), 'hauki-chaos-'));
  const temporary = join(folder, 'tmp');
  mkdirSync(temporary, { mode: 0o777 });
  const had = process.env.TMPDIR;
  process.env.TMPDIR = temporary;
  const log = { file: join(folder, 'log') };
  const book = new Book();
  await book.open();
  const tag = `c${process.pid.toString(36)}`;
  const report: ChaosReport = {
    ...{ signals: {}, outcomes: book.counts, faults: book.faults, whole_after_ms: 0, back_after_ms: 0 },
    spared: { kind: (['core', 'agent', 'kernel', 'none'] as const)[Math.floor(random() * 4)]! },
  };
  /** Whoever was told to end, and every process that ever was. */
  const hit = new Set<number>();
  const owners = new Set<string>();
  let over = false;
  /** Nobody is started again any more. */
  const down = new AbortController();

  /** Keeps one process there: starts it again whenever it has ended, and says when it should not have. */
  const keeping = (kind: Kind, launch: () => Promise<Started>) => {
    const part: { started?: Started | undefined; kept: Promise<void>; kind: Kind } = { kind, kept: Promise.resolve() };
    part.kept = (async () => {
      while (!down.signal.aborted) {
        const hits = hit.size;
        try {
          part.started = await launch();
          const { child } = part.started;
          if (down.signal.aborted) await part.started.stop();
          if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
          if (!down.signal.aborted && !hit.has(child.pid!))
            book.fault(`${kind} ${child.pid} ended by itself (${child.signalCode ?? child.exitCode})`);
        } catch (error) {
          if (!down.signal.aborted && !(/ended before it was ready/.test(String(error)) && hit.size > hits))
            book.fault(`${kind} could not be started: ${error}`);
        }
        part.started = undefined;
        if (!over) await sleep(Math.random() ** 2 * 1_500);
      }
    })();
    return part;
  };
  const look = (): Victim[] => {
    const all = victims(process.pid, owners);
    for (const { owner } of all) owners.add(owner);
    return all;
  };

  const first = await startCore(folder, { port: 0 }, log);
  const mesh = await connect({ core: first.url, token: first.token });
  const names = ['a', 'b'].map((one) => `${tag}${one}`);
  const node = (name: string, offered: DriverName[]) =>
    startNode(
      ...([
        {
          core_url: first.url,
          name,
          data_dir: join(folder, name),
          token_file: nodeTokenFile(folder),
          drivers: offered,
        },
      ] as const),
      log,
      down.signal,
    );
  const kernel_dir = join(folder, 'kernel');
  const kernel_options = {
    data_dir: kernel_dir,
    id: tag,
    drivers,
    core_url: first.url,
    token_file: nodeTokenFile(folder),
  };
  const k = await startKernel({ ...kernel_options, port: 0 }, log);
  const port = (url: string) => Number(new URL(url).port);
  const once_first = <T extends Started>(one: T, again: () => Promise<Started>) => {
    let given: T | undefined = one;
    return () => {
      const now = given ? Promise.resolve(given) : again();
      given = undefined;
      return now;
    };
  };
  look();
  /** A script of its own, and what it tells. */
  const caller = (i: number): Started => {
    const python = drivers.find((one) => one !== 'quickjs' && existsSync('/usr/bin/python3'));
    const child = fork(
      fileURLToPath(new URL('./chaos-caller.ts', import.meta.url)),
      [JSON.stringify({ drivers: i === 0 ? ['quickjs'] : drivers, target: book.target, python, tag: `${tag}-${i}-` })],
      {
        env: { ...process.env, HAUKI_URL: first.url, HAUKI_TOKEN: first.token },
        execArgv: ['--disable-warning=ExperimentalWarning'],
        stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      },
    );
    child.on('message', ([what, text]: [string, string]) => {
      if (what === 'fault') book.fault(`caller: ${text}`);
      else if (what !== 'ran') book.count(what, text);
      else if (book.runs(text) !== 1) book.fault(`${text} was answered, and ran ${book.runs(text)} times`);
    });
    const kill = async () => {
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    };
    return { child, kill, stop: kill };
  };

  const parts = [
    keeping(
      'core',
      once_first(first, () => startCore(folder, { port: port(first.url) }, log, down.signal)),
    ),
    keeping(
      'kernel',
      once_first(k, () => startKernel({ ...kernel_options, port: port(k.url) }, log, down.signal)),
    ),
    keeping('agent', () => node(names[0]!, drivers)),
    keeping('agent', () => node(names[1]!, ['quickjs'])),
    ...Array.from({ length: CALLERS }, (_, i) => keeping('caller', async () => caller(i))),
  ];

  /** Whether it was still there. */
  const signalled = ({ pid, owner }: Victim, signal: NodeJS.Signals): boolean => {
    if (!stillThere(owner)) return false;
    if (signal === 'SIGKILL' || signal === 'SIGTERM') hit.add(pid);
    try {
      return process.kill(pid, signal);
    } catch {
      return false;
    }
  };
  /** Signals somebody. */
  const strike = async () => {
    const there = look().filter(({ kind }) => kind !== report.spared.kind);
    const kinds = [...new Set(there.map(({ kind }) => kind))];
    const drawn = kinds.flatMap((one) => Array<Kind>(WEIGHTS[one]).fill(one));
    const kind = drawn[Math.floor(random() * drawn.length)]!;
    const them = there.filter((one) => one.kind === kind);
    const one = them[Math.floor(random() * them.length)]!;
    const how = random();
    const signal = how < STOP ? 'SIGSTOP' : how < STOP + TERM && PARTS.includes(kind) ? 'SIGTERM' : 'SIGKILL';
    if (!signalled(one, signal)) return;
    note(`${signal} ${kind} ${one.owner}`);
    report.signals[kind] ??= {};
    const of = report.signals[kind];
    of[signal] = (of[signal] ?? 0) + 1;
    if (signal === 'SIGSTOP') void resume(one, 500 + random() * STOPPED_MS);
  };
  const stopped = new Set<Victim>();
  const resume = async (one: Victim, after_ms: number) => {
    stopped.add(one);
    await sleep(after_ms);
    stopped.delete(one);
    signalled(one, 'SIGCONT');
  };

  let count = 0;
  const world: KernelWorld & MeshWorld = {
    ...{ book, random: Math.random, folder, mesh, over: () => over, name: (kind: string) => `${kind}-${count++}` },
    ...{ door: connectKernel(k), kernel: `Microkernel-${tag}`, kernel_token: k.token, mesh_token: first.token },
  };
  const other = drivers.find((one) => one !== 'quickjs') ?? 'quickjs';
  const keepers = drivers.map((driver) => lasting(world, driver));
  const loads: Load[] = [
    ...['wiki/chaos/a.md', 'data/chaos/b'].map((pointer) => files(world, `gem-pointer://${pointer}`)),
    ...[tokens(world), jobs(world), comings(world), journal(world), ...keepers],
    module(world, 'plain', { stateful: false, far: false, driver: 'quickjs' }),
    module(world, 'counts', { stateful: true, far: false, driver: 'quickjs' }),
    module(world, 'far', { stateful: true, far: true, driver: other }),
  ];
  const whole = async (what: string): Promise<number> => {
    const began = performance.now();
    const told = new Map<Load, unknown>();
    const wanting = new Set(loads);
    while (wanting.size > 0 && performance.now() - began < WHOLE_MS) {
      for (const load of wanting)
        await load.check().then(
          () => wanting.delete(load),
          (error) => told.set(load, error),
        );
      if (book.faults.length > 0 && performance.now() - began > HURRIED_MS) break;
      await sleep(500);
    }
    for (const load of wanting) book.fault(`${what}, ${load.what}: ${(told.get(load) as Error).stack}`);
    return Math.round(performance.now() - began);
  };
  const survivor = () => look().find(({ kind }) => kind === report.spared.kind);

  try {
    const busy = new Set(loads);
    for (const load of loads)
      void load
        .run()
        .catch((error) => book.fault(`${load.what} ended: ${error?.stack ?? error}`))
        .finally(() => busy.delete(load));
    await sleep(Math.min(10_000, options.for_ms / 4));
    const one = survivor();
    if (one) report.spared.before = takes(one.pid);
    note(`the storm begins; ${report.spared.kind} is spared`);
    const until = performance.now() + options.for_ms;
    while (performance.now() < until && book.faults.length < MOST_FAULTS) {
      await strike();
      await sleep(options.mean_ms * (0.3 + 1.4 * random()));
    }
    over = true;
    note('quiet');
    for (let waited = 0; busy.size > 0 && waited < WHOLE_MS; waited += LOOK_MS) {
      if (waited % 10_000 === 0) note(`not ended yet: ${[...busy].map(({ what }) => what).join(', ')}`);
      await sleep(LOOK_MS);
    }
    for (const { what } of busy) book.fault(`${what} has not ended`);
    report.whole_after_ms = await whole('after the storm');
    if (one && report.spared.before) {
      report.spared.after = takes(one.pid);
      const grown = report.spared.after as typeof GROWTH;
      for (const what of ['rss_mib', 'descriptors'] as const)
        if (grown[what] > (report.spared.before as typeof GROWTH)[what] + GROWTH[what])
          book.fault(`${report.spared.kind} has grown: ${JSON.stringify(report.spared)}`);
    }
    note('all are killed at once');
    for (const one of look()) if (PARTS.includes(one.kind)) signalled(one, 'SIGKILL');
    report.back_after_ms = await whole('after the kill of all');
    for (const { worker } of keepers) await mesh.lasting.delete(worker);
    for (const { name } of await mesh.volumes.list()) await mesh.volumes.delete(name);
  } catch (error) {
    book.fault(`the storm ended: ${(error as Error).stack}`);
  } finally {
    over = true;
    down.abort();
    for (const one of stopped) signalled(one, 'SIGCONT');
    note('down');
    look();
    await mesh.close();
    // The callers first, the core last: as `hauki up` ends.
    for (const kinds of [['caller'], ['agent', 'kernel'], ['core']])
      await Promise.all(
        parts
          .filter(({ kind }) => kinds.includes(kind))
          .map(async (part) => {
            await part.started?.stop();
            await part.kept;
          }),
      );
    look();
    const left = () => [
      ...[folder, `kernel-${tag}.`, ...names.map((name) => `${name}-`)].flatMap((text) => [
        ...new Set([...traces(text), ...otherTraces(text, folder)]),
      ]),
      ...[...owners].flatMap(ownedBy),
      ...[...owners].filter(stillThere),
      ...processes(folder).map(({ command }) => command),
      ...readdirSync(temporary),
    ];
    await settled('nothing is left', left).catch((error) => book.fault(String(error)));
    if (had === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = had;
    book.close();
    if (book.faults.length === 0) rmSync(folder, { recursive: true, force: true });
    else console.error(`  the log is in ${folder}`);
  }
  return report;
}
