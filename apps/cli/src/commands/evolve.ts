/** `hauki evolve`: a module from a file to a kernel, or by the core to several; once, or at each save. */
import { readFileSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  BadInput,
  EvolveRejected,
  type EvolveRequest,
  isError,
  type RolloutRequest,
  SourceRejected,
  type Trial,
} from '@hauki/mesh';
import { bundleWithFiles, type Places, sourceText } from '@hauki/mesh/bundle';
import { bundlePython } from '@hauki/mesh/bundle-python';
import { ISOLATION_LEVELS } from '@hauki/protocol';
import type { Command } from 'commander';
import {
  askedToEnd,
  collect,
  common,
  DRIVERS,
  decimal,
  fetchGrant,
  given,
  milliseconds,
  oneOf,
  volumeGrant,
  whole,
  withMesh,
} from '../context.ts';
import { isKernelName, type KernelFlags, openKernel, show, warnOf, withKernel } from '../kernel-door.ts';
import { languageOf, withoutEnding } from '../languages.ts';
import { EXIT, paint, printable, report, table } from '../output.ts';

interface EvolveFlags extends KernelFlags {
  name?: string;
  tests?: string;
  driver?: string;
  minIsolation?: string;
  memory?: string;
  fetch?: string[];
  read?: string[];
  write?: string[];
  connect?: string[];
  time?: boolean;
  random?: boolean;
  volume?: string;
  alias?: string;
  keepTests?: boolean;
  weight?: string;
  maxErrorRate?: string;
  maxP99?: string;
  dryRun?: boolean;
  watch?: boolean;
  replicas?: string;
  wave?: string;
  watchFor?: string;
}

/** Saving writes a file more than once; the last one counts. */
const SETTLE_MS = 60;
/** How often it is asked whether a file was saved. */
const LOOK_MS = 100;
/** So far a file's time may be behind the clock. */
const CLOCK_MS = 20;

/** What may be an import or an export from elsewhere, also without a name, also at run time. */
const IMPORTS = [/\bfrom\s*['"](?!gem-pointer:|node:)/, /\bimport\s*\(?\s*['"`](?!gem-pointer:|node:)/];
/** What no vault takes as it is. */
const BUNDLED = /\.(?:tsx|jsx|cjs)$/;

interface Source extends Pick<EvolveRequest, 'content' | 'language'> {
  /** The files that it is made of. */
  files: string[];
  bundled: boolean;
  /** Of a bundle: where in those files what is told of it lies. */
  places?: Places;
}

/** What a file has in it. Throws BadInput. */
function textOf(file: string): string {
  let content: Buffer;
  try {
    content = readFileSync(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new BadInput({
      what: file,
      why: code === 'ENOENT' ? 'there is no such file' : `it cannot be read (${code})`,
    });
  }
  return sourceText(file, content);
}

/** A module's text: as it stands in the file, or bundled where it has imports. `sought`: told of what those may mean. */
async function read(file: string, driver: string | undefined, sought: (file: string) => void): Promise<Source> {
  if (file.endsWith('.py')) {
    const { source: content, language, files } = await bundlePython(file, sought);
    return { content, language, files, bundled: false };
  }
  const source = textOf(file);
  const as_it_is = { content: source, language: languageOf(file), files: [file], bundled: false };
  const bundles = BUNDLED.test(file) || IMPORTS.some((one) => one.test(source));
  if (!bundles) return as_it_is;
  const { source: content, language, files, places } = await bundleWithFiles(file, { driver, sought });
  // What looked like an import was a text or a comment. In TypeScript it may have been one of types, which is gone now.
  if (files.length === 1 && as_it_is.language === 'javascript') return as_it_is;
  return { content, language, files, places, bundled: true };
}

/** An error as it came; what was rejected in a bundle says so by the lines of the files. */
function located(error: unknown, places: Places | undefined): unknown {
  if (!places || !isError(error, EvolveRejected)) return error;
  const { why, line, log, ...rest } = error.fields;
  return new EvolveRejected({
    ...rest,
    why: places.inText(why),
    ...(line === undefined ? {} : { line: places.line(line, why) }),
    ...(log === undefined ? {} : { log: places.inText(log) }),
  });
}

/** An error as it came; what cannot be bundled is rejected as what the kernel rejects is. */
const unmade = (error: unknown, module: string): unknown =>
  isError(error, SourceRejected)
    ? new EvolveRejected({ module, stage: error.fields.stage, why: error.fields.reason })
    : error;

function request(file: string, flags: EvolveFlags): EvolveRequest {
  const { fetch = [], connect = [], read = [], write = [], time = false, random = false, volume } = flags;
  const granted =
    time || random || volume !== undefined || [fetch, connect, read, write].some((list) => list.length > 0);
  const bounds = {
    max_error_rate: given(flags.maxErrorRate, (text) => decimal('--max-error-rate', text, 0, 1)),
    max_p99_ms: given(flags.maxP99, (text) => decimal('--max-p99', text, 0, 3_600_000)),
  };
  const wanted = {
    target_module: flags.name ?? basename(file),
    driver: given(flags.driver, (text) => oneOf('--driver', text, DRIVERS)),
    min_isolation: given(flags.minIsolation, (text) => oneOf('--min-isolation', text, ISOLATION_LEVELS)),
    memory_mib: given(flags.memory, (text) => whole('--memory', text, 1)),
    grants: granted
      ? {
          fetch: fetch.map(fetchGrant),
          connect,
          meshfs: { read, write },
          time,
          random,
          ...(volume === undefined ? {} : { volume: volumeGrant(volume) }),
        }
      : undefined,
    tests: flags.tests === undefined ? undefined : readTests(flags.tests),
    alias: flags.alias === '' ? null : flags.alias,
    keep_tests: flags.keepTests === false ? false : undefined,
    weight: given(flags.weight, (text) => whole('--weight', text, 0, 100)),
    bounds: bounds.max_error_rate === undefined && bounds.max_p99_ms === undefined ? undefined : bounds,
    dry_run: flags.dryRun,
  };
  return Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== undefined)) as never;
}

function readTests(file: string): Trial[] {
  const text = textOf(file);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BadInput({ what: file, why: `it is no list of tests in JSON: ${(error as Error).message}` });
  }
}

/** Which kernels, and how; undefined where the core has nothing to do with it. Throws BadInput. */
function placeOf(flags: EvolveFlags): Partial<RolloutRequest> | undefined {
  const { replicas, to, wave, watchFor } = flags;
  if (replicas !== undefined && to !== undefined)
    throw new BadInput({ what: '--to', why: 'with --replicas the core chooses the kernels' });
  const by_core = replicas !== undefined || isKernelName(to);
  for (const [flag, value] of [
    ['--wave', wave],
    ['--watch-for', watchFor],
  ] as const)
    if (value !== undefined && !by_core)
      throw new BadInput({ what: flag, why: 'it is for the core: give --replicas, or --to with the name of a kernel' });
  if (!by_core) return undefined;
  const watch_ms = milliseconds('--watch-for', watchFor);
  return {
    ...(replicas === undefined
      ? { kernel: to! }
      : { replicas: replicas === 'all' ? ('all' as const) : whole('--replicas', replicas, 1) }),
    wave: whole('--wave', wave ?? '1', 1),
    ...(watch_ms === undefined ? {} : { watch_ms }),
  };
}

/** By the core, on several kernels, or on one that is named. */
async function rollOut(wanted: RolloutRequest, flags: EvolveFlags): Promise<void> {
  await withMesh(flags, async (mesh) => {
    const rolled_out = await mesh.kernels.evolve(wanted);
    if (flags.json) return console.log(JSON.stringify(rolled_out));
    const { module, kernels, waves, dry_run, diff, vault, removed = [], not_removed = [], away = [] } = rolled_out;
    const what = dry_run ? 'would serve' : 'serves';
    const on = kernels.length === 1 ? kernels[0]!.kernel : `${kernels.length} kernels`;
    console.log(
      `${paint('bold', module)} ${paint('green', `${what} on ${on}`)}, after ${waves} wave${waves === 1 ? '' : 's'}`,
    );
    const rows = kernels.map((one) => [one.kernel, String(one.version), one.digest.slice(0, 12), one.driver]);
    console.log(table([['KERNEL', 'VERSION', 'DIGEST', 'VAULT'], ...rows]));
    warnOf(vault);
    if (removed.length > 0)
      console.log(
        `${dry_run ? 'would be removed' : 'removed'} from ${removed.join(', ')}, which held it beyond --replicas`,
      );
    if (not_removed.length > 0) console.error(`It may still serve on ${not_removed.join(', ')}`);
    if (away.length > 0)
      console.error(
        `Held before, and away: ${away.join(', ')}. What comes back serves what it served; then roll out again`,
      );
    if (diff) console.log(printable(diff));
  });
}

async function evolve(file: string, flags: EvolveFlags): Promise<void> {
  const place = placeOf(flags);
  const kernel = place ? undefined : openKernel(flags);
  // What is wrong with the flags no save mends.
  request(file, flags);
  const given = flags.tests === undefined ? [file] : [file, flags.tests];
  /** What the module was made of, or would be. */
  let files = given;
  const once = async () => {
    const sought = new Set(files);
    const source = await read(file, flags.driver, (one) => void sought.add(one)).catch((error) => {
      files = [...sought].filter(isOwn);
      throw unmade(error, flags.name ?? basename(file));
    });
    files = [...given, ...source.files.filter(isOwn)];
    const wanted = request(file, flags);
    const { content, language } = source;
    // A bundle is JavaScript, whatever the file was: its name says no language then.
    if (source.bundled) wanted.target_module = withoutEnding(wanted.target_module.replace(BUNDLED, ''));
    const posted = { ...wanted, content: content!, ...(language ? { language } : {}) };
    const began = performance.now();
    try {
      if (!kernel) return await rollOut({ ...posted, ...place }, flags);
      const evolved = await kernel.evolve(posted);
      if (flags.json) console.log(JSON.stringify(evolved));
      else show(evolved, performance.now() - began, kernel.url);
    } catch (error) {
      throw located(error, source.places);
    }
  };
  if (!flags.watch) return once();
  let ended = false;
  const asked = askedToEnd().then(() => {
    ended = true;
  });
  if (!flags.json) console.log(`Each save of ${file} evolves; Ctrl-C ends this`);
  while (!ended) {
    // Taken before it is read: what is saved meanwhile evolves too.
    const before = new Map(files.map((one) => [one, stampOf(one)]));
    const began = Date.now() - CLOCK_MS;
    const over = once().catch((error) => void report(error, flags.json ?? false));
    await Promise.race([asked, over]);
    if (ended) {
      console.error('hauki: what was posted last may still come to serve; `hauki modules` tells');
      process.exit(EXIT.ok);
    }
    for (const one of files) if (!before.has(one)) before.set(one, stampOf(one, began));
    // One that is gone for a moment is being saved.
    const saved = () => files.some((one) => !['', before.get(one)].includes(stampOf(one)));
    while (!ended && !saved()) await Promise.race([asked, sleep(LOOK_MS)]);
    await Promise.race([asked, sleep(SETTLE_MS)]);
  }
}

/** Whether people save it: packages are installed. */
const isOwn = (file: string) => !/[\\/]node_modules[\\/]/.test(file);

/** Another one after each save; empty where there is no such file, or where it was saved after `until`. */
function stampOf(file: string, until = Number.POSITIVE_INFINITY): string {
  try {
    const found = statSync(file);
    return found.isFile() && found.mtimeMs < until
      ? `${found.ino} ${found.mtimeMs} ${found.ctimeMs} ${found.size}`
      : '';
  } catch {
    return '';
  }
}

export function evolveCommand(program: Command): void {
  withKernel(program.command('evolve'))
    .argument(
      '<file>',
      'a module: .ts, .js, .py; bundled where it imports files or packages (Python: files beside it), and where it is .tsx, .jsx or .cjs',
    )
    .description('post a module to a kernel: it is tested, then it serves; what fails changes nothing')
    .option('--name <module>', 'another name than the file’s')
    .option('--tests <file>', 'JSON: [{"path": "/x", "expect": {"status": 200, "json": …}}]')
    .option('--no-keep-tests', 'let go of the tests that were kept from earlier versions')
    .option('--driver <name>', 'the vault that it runs in')
    .option('--min-isolation <level>', `no vault that holds less strongly: ${ISOLATION_LEVELS.join(' < ')}`)
    .option('--memory <MiB>', 'memory of the vault')
    .option('--fetch <[METHODS@]host:port[/n]>', 'grant: may fetch from there, n times a minute; repeatable', collect)
    .option('--connect <host:port>', 'grant: may open a byte stream to there; may be repeated', collect)
    .option('--time', 'grant: may read the clock')
    .option('--random', 'grant: may draw random numbers')
    .option('--read <prefix>', 'grant: may read pointers below this; may be repeated', collect)
    .option('--write <prefix>', 'grant: may write pointers below this; may be repeated', collect)
    .option('--volume <name[=MiB]>', 'grant: keeps the files below its home, the same for all its versions')
    .option('--alias <path>', 'serve it at this absolute path too, as in /api/v2/meshfs/; "": at none any more')
    .option('--weight <0-100>', 'its share of requests; the version before keeps the rest')
    .option('--max-error-rate <0-1>', 'take it back when more of its answers are errors')
    .option('--max-p99 <ms>', 'take it back when it is slower')
    .option('--dry-run', 'everything but the change')
    .option('--watch', 'evolve again at each save, also of a file that it imports, and of --tests')
    .option(
      '--replicas <n|all>',
      'by the core: on so many kernels of the mesh; those that hold it beyond have it removed',
    )
    .option('--wave <n>', 'with --replicas: kernels at once; the first wave that fails takes all back (default: 1)')
    .option('--watch-for <duration>', 'with --replicas: how long each wave must do well')
    .addHelpText(
      'after',
      `
Examples:
  hauki evolve examples/plugins/hello.ts --watch          at each save
  hauki evolve app.ts --weight 10 --max-error-rate 0.01   a tenth of the requests; taken back when it does badly
  hauki evolve app.ts --tests tests.json --dry-run        only whether it would serve, and what would change`,
    )
    .action((file: string, flags: EvolveFlags, command: Command) => evolve(file, { ...flags, ...common(command) }));
}
