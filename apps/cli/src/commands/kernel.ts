/** `hauki kernel`, `evolve`, `rollback`, `history` and their like: a server that changes while it serves. */
import { once } from 'node:events';
import { readFileSync, statSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { BadInput, connectKernel, type Evolved, type EvolveRequest, type KernelDoor, type Trial } from '@hauki/mesh';
import { bundle } from '@hauki/mesh/bundle';
import { defaultDataDir, kernelDataDir, kernelTokenFile, nodeTokenFile } from '@hauki/mesh/data-dir';
import type { Command } from 'commander';
import { askedToEnd, type Common, collect, common, coreUrl, milliseconds, within, withMesh } from '../context.ts';
import { startKernel } from '../local-mesh.ts';
import { duration, paint, printable, report, size, table } from '../output.ts';

interface KernelFlags extends Common {
  to?: string;
  id?: string;
}

interface EvolveFlags extends KernelFlags {
  name?: string;
  tests?: string;
  driver?: string;
  memory?: string;
  fetch?: string[];
  read?: string[];
  write?: string[];
  connect?: string[];
  time?: boolean;
  random?: boolean;
  alias?: string;
  weight?: string;
  maxErrorRate?: string;
  maxP99?: string;
  dryRun?: boolean;
  watch?: boolean;
  replicas?: string;
  wave?: string;
  watchFor?: string;
}

const DEFAULT_URL = 'http://127.0.0.1:8881';
/** Saving writes a file more than once; the last one counts. */
const SETTLE_MS = 60;

const withKernel = (command: Command) =>
  command
    .option('--to <url>', 'the kernel; default: HAUKI_KERNEL, else http://127.0.0.1:8881')
    .option('--id <id>', 'its number, to find its token in the data folder', '77');

/** The kernel as the command line says. Its token: HAUKI_KERNEL_TOKEN, else its file; an open kernel needs none. */
function openKernel({ to, id = '77', data = defaultDataDir() }: KernelFlags): KernelDoor {
  const url = to ?? process.env.HAUKI_KERNEL ?? DEFAULT_URL;
  let token = process.env.HAUKI_KERNEL_TOKEN;
  try {
    token ??= readFileSync(kernelTokenFile(kernelDataDir(data, id)), 'utf8').trim();
  } catch {
    // Perhaps it is open.
  }
  return connectKernel({ url, ...(token ? { token } : {}) });
}

const ENDINGS = /\.(?:ts|mts|js|mjs|py)$/;

/** A module's text: as it stands in the file, or bundled where it has imports. */
async function read(file: string, driver: string | undefined): Promise<Pick<EvolveRequest, 'content' | 'language'>> {
  let source: string;
  try {
    source = readFileSync(file, 'utf8');
  } catch {
    throw new BadInput({ what: file, why: 'there is no such file' });
  }
  const imports = /^\s*(?:import|export)\b[^;]*?\bfrom\s*['"](?!gem-pointer:|node:)/m.test(source);
  if (!imports || file.endsWith('.py')) return { content: source };
  const made = await bundle(file, { driver });
  return { content: made.source, language: made.language };
}

function request(file: string, flags: EvolveFlags): EvolveRequest {
  const number = (what: string, text: string | undefined) => {
    if (text === undefined) return undefined;
    if (!Number.isFinite(Number(text))) throw new BadInput({ what, why: `${JSON.stringify(text)} is no number` });
    return Number(text);
  };
  const { fetch = [], connect = [], read = [], write = [], time = false, random = false } = flags;
  const granted = time || random || [fetch, connect, read, write].some((list) => list.length > 0);
  const bounds = {
    max_error_rate: number('--max-error-rate', flags.maxErrorRate),
    max_p99_ms: number('--max-p99', flags.maxP99),
  };
  const wanted = {
    target_module: flags.name ?? basename(file),
    driver: flags.driver,
    memory_mib: number('--memory', flags.memory),
    grants: granted ? { fetch, connect, meshfs: { read, write }, time, random } : undefined,
    tests: flags.tests === undefined ? undefined : readTests(flags.tests),
    alias: flags.alias,
    weight: number('--weight', flags.weight),
    bounds: bounds.max_error_rate === undefined && bounds.max_p99_ms === undefined ? undefined : bounds,
    dry_run: flags.dryRun,
  };
  return Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== undefined)) as never;
}

function readTests(file: string): Trial[] {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new BadInput({ what: file, why: `it is no list of tests in JSON: ${(error as Error).message}` });
  }
}

function show(evolved: Evolved, took_ms: number, url: string): void {
  const { module, version, digest, prefix, alias, routes, report: said, dry_run, diff } = evolved;
  const what = dry_run ? `would be version ${version}` : `serves as version ${version}`;
  console.log(`${paint('bold', module)} ${paint('green', what)} (${duration(took_ms)}), ${digest.slice(0, 12)}`);
  console.log(`  at      ${url}${prefix}${alias ? ` and ${url}${alias}` : ''}`);
  console.log(`  routes  ${printable(routes.join(', '))}`);
  console.log(`  stages  ${said.stages.map(({ stage, ms }) => `${stage} ${duration(ms)}`).join(', ')}`);
  if (said.tests.length > 0) console.log(`  tests   ${said.tests.length} passed`);
  if (diff) console.log(printable(diff));
}

/** By the core, on several kernels. */
async function rollOut(wanted: EvolveRequest, flags: EvolveFlags): Promise<void> {
  const replicas = flags.replicas === 'all' ? ('all' as const) : wholeNumber(flags.replicas!);
  const watch_ms = milliseconds('--watch-for', flags.watchFor);
  await withMesh(flags, async (mesh) => {
    const more = { replicas, wave: wholeNumber(flags.wave ?? '1'), ...(watch_ms === undefined ? {} : { watch_ms }) };
    const { module, kernels, waves } = await mesh.kernels.evolve({ ...wanted, ...more });
    if (flags.json) return console.log(JSON.stringify({ module, kernels, waves }));
    console.log(
      `${paint('bold', module)} ${paint('green', `serves on ${kernels.length} kernels`)}, after ${waves} waves`,
    );
    const rows = kernels.map(({ kernel, version, digest }) => [kernel, String(version), digest.slice(0, 12)]);
    console.log(table([['KERNEL', 'VERSION', 'DIGEST'], ...rows]));
  });
}

async function evolve(file: string, flags: EvolveFlags): Promise<void> {
  const kernel = openKernel(flags);
  const once_ = async () => {
    const wanted = request(file, flags);
    // A bundle is JavaScript, whatever the file was: its name says no language then.
    const source = await read(file, flags.driver);
    if (source.language) wanted.target_module = wanted.target_module.replace(ENDINGS, '');
    const began = performance.now();
    if (flags.replicas !== undefined) return rollOut({ ...wanted, ...source }, flags);
    const evolved = await kernel.evolve({ ...wanted, ...source });
    if (flags.json) console.log(JSON.stringify(evolved));
    else show(evolved, performance.now() - began, kernel.url);
  };
  if (!flags.watch) return once_();
  const asked = askedToEnd();
  const tryOnce = () => once_().catch((error) => void report(error, flags.json ?? false));
  await tryOnce();
  // The folder, not the file: editors put a new file in the place of the old one.
  let timer: NodeJS.Timeout | undefined;
  let last = statSync(file).mtimeMs;
  const watcher = watch(dirname(file), (_, name) => {
    if (name !== null && name !== basename(file)) return;
    clearTimeout(timer);
    timer = setTimeout(() => {
      const now = statSync(file, { throwIfNoEntry: false })?.mtimeMs;
      if (now === undefined || now === last) return;
      last = now;
      void tryOnce();
    }, SETTLE_MS);
  });
  if (!flags.json) console.log(`Each save of ${file} evolves; Ctrl-C ends this`);
  await asked;
  clearTimeout(timer);
  watcher.close();
}

const percent = (share: number) => `${Math.round(share * 1000) / 10} %`;
const ms = (value: number | null) => (value === null ? '–' : `${value} ms`);
const when = (at: number) => new Date(at).toISOString().replace('T', ' ').slice(0, 19);

export function kernelCommands(program: Command): void {
  program
    .command('kernel')
    .description('start a microkernel here: an empty server that modules are posted to')
    .option('--port <number>', 'its port', '8881')
    .option('--id <id>', 'its number, as in Microkernel-77', '77')
    .option('--open', 'callers on this machine need no token')
    .option('--join', 'belong to the mesh of the core (--core): its gateway serves what this kernel holds')
    .option('--token-file <file>', 'the core’s node.token; default: that of a core on this machine')
    .option('--driver <name>', 'run modules in these vaults only; may be repeated', collect)
    .addHelpText(
      'after',
      `
Example:
  hauki kernel --port 8881 --id 77 --open
  curl -X POST localhost:8881/api/evolve_plugin -H 'content-type: application/json' \\
    -d '{"target_module": "hello.js", "content": "export default { fetch: () => new Response(\\"hello\\") }"}'
  curl localhost:8881/api/plugins/hello/`,
    )
    .action(async (flags, command: Command) => {
      const { data = defaultDataDir(), json } = common(command);
      const port = within('--port', flags.port, 0, 65_535);
      if (!/^[a-z0-9-]{1,16}$/.test(flags.id)) throw new BadInput({ what: '--id', why: 'as in 77: [a-z0-9-]' });
      const asked = askedToEnd();
      const data_dir = kernelDataDir(data, flags.id);
      const joined = flags.join
        ? {
            core_url: coreUrl(common(command)),
            token_file: flags.tokenFile ?? nodeTokenFile(data),
          }
        : {};
      const kernel = await startKernel(
        {
          ...joined,
          data_dir,
          id: flags.id,
          port,
          open: flags.open ?? false,
          ...(flags.driver ? { drivers: flags.driver } : {}),
        },
        'inherit',
      );
      if (json) console.log(JSON.stringify({ url: kernel.url, id: flags.id, data_dir, pid: kernel.child.pid }));
      else {
        console.log(`${paint('bold', `[Microkernel-${flags.id}]`)} Online. Awaiting DNA Injection.`);
        console.log(`  at     ${kernel.url}, described at ${kernel.url}/docs; Ctrl-C ends it`);
        console.log(`  token  ${flags.open ? 'none needed on this machine' : kernelTokenFile(data_dir)}`);
        console.log(`  try    hauki evolve examples/plugins/hello.ts${port === 8881 ? '' : ` --to ${kernel.url}`}`);
      }
      await Promise.race([asked, once(kernel.child, 'exit')]);
      await kernel.stop();
    });

  withKernel(program.command('evolve'))
    .argument('<file>', 'a module: .ts, .js; bundled where it imports files or packages')
    .description('post a module to a kernel: it is tested, then it serves; what fails changes nothing')
    .option('--name <module>', 'another name than the file’s')
    .option('--tests <file>', 'JSON: [{"path": "/x", "expect": {"status": 200, "json": …}}]')
    .option('--driver <name>', 'the vault that it runs in')
    .option('--memory <MiB>', 'memory of the vault')
    .option('--fetch <host:port>', 'grant: may fetch from there; may be repeated', collect)
    .option('--connect <host:port>', 'grant: may open a byte stream to there; may be repeated', collect)
    .option('--time', 'grant: may read the clock')
    .option('--random', 'grant: may draw random numbers')
    .option('--read <prefix>', 'grant: may read pointers below this; may be repeated', collect)
    .option('--write <prefix>', 'grant: may write pointers below this; may be repeated', collect)
    .option('--alias <path>', 'serve it at this absolute path too, as in /api/v2/meshfs/')
    .option('--weight <0-100>', 'its share of requests; the version before keeps the rest')
    .option('--max-error-rate <0-1>', 'take it back when more of its answers are errors')
    .option('--max-p99 <ms>', 'take it back when it is slower')
    .option('--dry-run', 'everything but the change')
    .option('--watch', 'evolve again at each save')
    .option('--replicas <n|all>', 'by the core: on so many kernels of the mesh')
    .option('--wave <n>', 'with --replicas: kernels at once; the first wave that fails takes all back', '1')
    .option('--watch-for <duration>', 'with --replicas: how long each wave must do well')
    .addHelpText('after', '\nExample:\n  hauki evolve examples/plugins/hello.ts --watch')
    .action((file: string, flags: EvolveFlags, command: Command) => evolve(file, { ...flags, ...common(command) }));

  withKernel(program.command('modules'))
    .description('what a kernel serves, and how each module does')
    .action(async (flags: KernelFlags, command: Command) => {
      const status = await openKernel({ ...flags, ...common(command) }).status();
      if (common(command).json) return console.log(JSON.stringify(status));
      if (status.modules.length === 0) return console.log(`${status.kernel} is empty. Post to it: hauki evolve <file>`);
      const head = [
        'MODULE',
        'VERSION',
        'STATE',
        'SHARE',
        'REQUESTS',
        'ERRORS',
        'P99',
        'MEMORY',
        'VAULT',
        'DIGEST',
        'ROUTES',
      ];
      const rows = status.modules.flatMap((module) =>
        module.live.map((live) => [
          module.module,
          String(live.version),
          live.draining ? 'draining' : module.pinned ? `${module.state}, pinned` : module.state,
          `${live.weight} %`,
          String(live.requests),
          percent(live.error_rate),
          ms(live.p99_ms),
          live.memory_bytes == null ? '–' : size(live.memory_bytes),
          live.driver,
          live.digest.slice(0, 12),
          printable(live.routes.slice(0, 4).join(', ')),
        ]),
      );
      console.log(table([head, ...rows]));
    });

  withKernel(program.command('rollback'))
    .argument('<module>')
    .argument('[version]', 'default: the last good one')
    .description('let an earlier version serve again, with the state from before it was left')
    .action(async (module: string, version: string | undefined, flags: KernelFlags, command: Command) => {
      const kernel = openKernel({ ...flags, ...common(command) });
      const began = performance.now();
      const evolved = await kernel.rollback(module, version === undefined ? undefined : wholeNumber(version));
      if (common(command).json) console.log(JSON.stringify(evolved));
      else show(evolved, performance.now() - began, kernel.url);
    });

  withKernel(program.command('weights'))
    .argument('<module>')
    .argument('<shares...>', 'as in 3=10 2=90; they add up to 100, and one of 0 is reached by header only')
    .description('let two versions serve side by side')
    .action(async (module: string, shares: string[], flags: KernelFlags, command: Command) => {
      const versions = Object.fromEntries(
        shares.map((share) => {
          const [version, weight] = share.split('=');
          return [wholeNumber(version!), wholeNumber(weight ?? '')];
        }),
      );
      const view = await openKernel({ ...flags, ...common(command) }).weigh(module, versions);
      if (common(command).json) console.log(JSON.stringify(view));
      else for (const { version, weight } of view.live) console.log(`version ${version}  ${weight} %`);
    });

  for (const [verb, pinned] of [
    ['pin', true],
    ['unpin', false],
  ] as const)
    withKernel(program.command(verb))
      .argument('<module>')
      .description(pinned ? 'refuse changes of a module' : 'take changes of a module again')
      .action(async (module: string, flags: KernelFlags, command: Command) => {
        await openKernel({ ...flags, ...common(command) }).pin(module, pinned);
        console.log(common(command).json ? JSON.stringify({ module, pinned }) : `${module} is ${verb}ned`);
      });

  withKernel(program.command('versions'))
    .argument('<module>')
    .argument('[from]', 'with to: what differs between the two; alone: the source of this one')
    .argument('[to]')
    .description('the versions of a module, their sources and differences')
    .action(
      async (
        module: string,
        from: string | undefined,
        to: string | undefined,
        flags: KernelFlags,
        command: Command,
      ) => {
        const { json } = common(command);
        const kernel = openKernel({ ...flags, ...common(command) });
        if (from !== undefined) {
          const text = to
            ? await kernel.diff(module, wholeNumber(from), wholeNumber(to))
            : (await kernel.version(module, wholeNumber(from))).source;
          return console.log(json ? JSON.stringify(to ? { diff: text } : { source: text }) : printable(text));
        }
        const versions = await kernel.versions(module);
        if (json) return console.log(JSON.stringify({ versions }));
        const rows = versions.map(({ version, at, by, language, driver, bytes, digest, report: said }) => [
          String(version),
          when(at),
          by,
          language,
          driver,
          `${bytes} B`,
          `${said.tests.length} tests`,
          digest.slice(0, 12),
        ]);
        console.log(table([['VERSION', 'WHEN', 'BY', 'LANGUAGE', 'VAULT', 'SIZE', 'PASSED', 'DIGEST'], ...rows]));
      },
    );

  withKernel(program.command('history'))
    .argument('[module]', 'default: all')
    .description('the journal of a kernel: who changed what into what, chained by digests')
    .action(async (module: string | undefined, flags: KernelFlags, command: Command) => {
      const entries = await openKernel({ ...flags, ...common(command) }).history(module);
      if (common(command).json) return console.log(JSON.stringify({ entries }));
      if (entries.length === 0) return console.log('Nothing has changed yet');
      const rows = entries.map(({ seq, at, module: name, deed, by, version, digest, note, hash }) => [
        String(seq),
        when(at),
        name,
        deed,
        version === null ? '' : String(version),
        by,
        digest?.slice(0, 12) ?? '',
        printable(note ?? ''),
        hash.slice(0, 12),
      ]);
      console.log(table([['SEQ', 'WHEN', 'MODULE', 'DEED', 'VERSION', 'BY', 'DIGEST', 'NOTE', 'HASH'], ...rows]));
    });
}

function wholeNumber(text: string): number {
  if (!/^\d{1,8}$/.test(text)) throw new BadInput({ what: text, why: 'that is no whole number' });
  return Number(text);
}
