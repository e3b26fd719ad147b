/** `hauki kernel`, `rollback`, `history` and their like: a server that changes while it serves. */
import { BadInput, type KernelDoor } from '@hauki/mesh';
import { defaultDataDir, kernelDataDir, kernelTokenFile } from '@hauki/mesh/data-dir';
import type { Command } from 'commander';
import {
  askedToEnd,
  collect,
  common,
  DRIVERS,
  dataFlag,
  given,
  HOST_NAME,
  oneOf,
  unlessAsked,
  whole,
  withMesh,
} from '../context.ts';
import { isKernelName, type KernelFlags, openKernel, show, useKernel, withKernel } from '../kernel-door.ts';
import { startKernel } from '../local-mesh.ts';
import { EXIT, paint, printable, size, table } from '../output.ts';
import { lineOf } from './life.ts';
import { anyEnded, coreToJoin, tellEnd } from './up.ts';

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
    .option('--token-file <file>', 'the core’s node.token; default, for a core on this machine: its own')
    .option('--driver <name>', 'run modules in these vaults only; may be repeated', collect)
    .option('--host-name <name>', HOST_NAME, collect)
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
      const port = whole('--port', flags.port, 0, 65_535);
      if (!/^[a-z0-9-]{1,16}$/.test(flags.id)) throw new BadInput({ what: '--id', why: 'as in 77: [a-z0-9-]' });
      const asked = askedToEnd();
      const data_dir = kernelDataDir(data, flags.id);
      const options = {
        ...(flags.join ? coreToJoin(common(command), flags.tokenFile) : {}),
        data_dir,
        id: flags.id,
        port,
        open: flags.open ?? false,
        ...(flags.hostName ? { host_names: flags.hostName } : {}),
        ...(flags.driver ? { drivers: flags.driver.map((text: string) => oneOf('--driver', text, DRIVERS)) } : {}),
      };
      const kernel = await unlessAsked(asked, (signal) => startKernel(options, 'inherit', signal));
      if (!kernel) return;
      if (json) console.log(JSON.stringify({ url: kernel.url, id: flags.id, data_dir, pid: kernel.child.pid }));
      else {
        console.log(`${paint('bold', `[Microkernel-${flags.id}]`)} Online. Awaiting DNA Injection.`);
        console.log(`  at     ${kernel.url}, described at ${kernel.url}/docs; Ctrl-C ends it`);
        console.log(`  token  ${flags.open ? 'none needed on this machine' : kernelTokenFile(data_dir)}`);
        const to = port === 8881 ? '' : ` --to ${kernel.url}`;
        const id = flags.open || flags.id === '77' ? '' : ` --id ${flags.id}`;
        console.log(`  try    hauki evolve examples/plugins/hello.ts${to}${id}${flags.open ? '' : dataFlag(command)}`);
      }
      const ended = await Promise.race([asked, anyEnded({ 'the kernel': kernel })]);
      await kernel.stop();
      tellEnd(ended, '');
    });

  program
    .command('kernels')
    .description('the kernels of the mesh, and what each holds')
    .action(async (_flags, command: Command) => {
      const kernels = await withMesh(common(command), (mesh) => mesh.kernels.list());
      if (common(command).json) return console.log(JSON.stringify({ kernels }));
      if (kernels.length === 0) return console.log('No kernel has joined. Start one: hauki kernel --join');
      const rows = kernels.map(({ kernel, url, since, modules }) => [
        kernel,
        url,
        when(since),
        modules.map(({ module, serving }) => (serving ? module : `${module} (failed)`)).join(', ') || '–',
      ]);
      console.log(table([['KERNEL', 'URL', 'SINCE', 'MODULES'], ...rows]));
    });

  const modules = program.command('modules');
  withKernel(modules)
    .description('what a kernel serves, and how each module does')
    .action(async (flags: KernelFlags, command: Command) => {
      const status = await useKernel({ ...flags, ...common(command) }, (kernel) => kernel.status());
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
      const rows = status.modules.flatMap((module) => [
        // One of whose versions none runs just now.
        ...(module.live.length > 0 ? [] : [[module.module, String(module.version ?? '–'), module.state]]),
        ...module.live.map((live) => [
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
      ]);
      console.log(table([head, ...rows]));
    });

  withKernel(modules.command('log'))
    .argument('<module>')
    .argument('[version]', 'default: all that live, and the one that ended last')
    .description('what a module says: print, console, and tracebacks')
    .action(async (module: string, version: string | undefined, flags: KernelFlags, command: Command) => {
      const wanted = given(version, (text) => whole('version', text, 1));
      const logs = await useKernel({ ...flags, ...common(command) }, (kernel) => kernel.logs(module, wanted));
      if (common(command).json) return console.log(JSON.stringify({ module, logs }));
      for (const { version: of, worker, ended, lines } of logs) {
        const ended_of = ended === undefined ? '' : `, ended: ${printable(ended)}`;
        console.log(
          `${paint('bold', `version ${of}`)}  ${worker}${ended_of}${lines.length === 0 ? ', said nothing' : ''}`,
        );
        for (const line of lines) console.log(lineOf(line));
      }
    });

  withKernel(program.command('rollback'))
    .argument('<module>')
    .argument('[version]', 'default: the last good one')
    .description('let an earlier version serve again, with the state from before it was left')
    .action(async (module: string, version: string | undefined, flags: KernelFlags, command: Command) => {
      const wanted = given(version, (text) => whole('version', text, 1));
      await useKernel({ ...flags, ...common(command) }, async (kernel) => {
        const began = performance.now();
        const evolved = await kernel.rollback(module, wanted);
        if (common(command).json) console.log(JSON.stringify(evolved));
        else show(evolved, performance.now() - began, kernel.url);
      });
    });

  withKernel(program.command('weights'))
    .argument('<module>')
    .argument('<shares...>', 'as in 3=10 2=90; they add up to 100, and one of 0 is reached by header only')
    .description('let two versions serve side by side')
    .action(async (module: string, shares: string[], flags: KernelFlags, command: Command) => {
      const versions = Object.fromEntries(
        shares.map((share) => {
          const [version, weight] = share.split('=');
          if (weight === undefined)
            throw new BadInput({ what: 'share', why: `${JSON.stringify(share)} is not version=share, as in 3=10` });
          return [whole('version', version!, 1), whole('share', weight, 0, 100)];
        }),
      );
      const view = await useKernel({ ...flags, ...common(command) }, (kernel) => kernel.weigh(module, versions));
      if (common(command).json) console.log(JSON.stringify(view));
      else for (const { version, weight } of view.live) console.log(`version ${version}  ${weight} %`);
    });

  withKernel(program.command('remove'))
    .argument('<module>')
    .description('take a module away: it finishes what it has begun, and its versions stay readable')
    .option('--everywhere', 'by the core: from all kernels of the mesh that hold it')
    .action(async (module: string, flags: KernelFlags & { everywhere?: boolean }, command: Command) => {
      const { json } = common(command);
      const { everywhere = false, to } = flags;
      if (everywhere && to !== undefined)
        throw new BadInput({ what: '--to', why: 'with --everywhere the module is taken from all kernels' });
      const by_core = everywhere || isKernelName(to);
      if (!by_core) await openKernel({ ...flags, ...common(command) }).remove(module);
      const { removed, not_removed } = by_core
        ? await withMesh(common(command), (mesh) => mesh.kernels.remove(module, to))
        : { removed: [], not_removed: [] };
      if (json) console.log(JSON.stringify({ module, ...(by_core ? { removed, not_removed } : {}) }));
      else console.log(`${module} is removed${removed.length > 0 ? ` from ${removed.join(', ')}` : ''}`);
      if (not_removed.length === 0) return;
      if (!json) console.error(`It may still serve on ${not_removed.join(', ')}`);
      process.exitCode = EXIT.failed;
    });

  for (const [verb, pinned] of [
    ['pin', true],
    ['unpin', false],
  ] as const)
    withKernel(program.command(verb))
      .argument('<module>')
      .description(pinned ? 'refuse changes of a module' : 'take changes of a module again')
      .action(async (module: string, flags: KernelFlags, command: Command) => {
        await useKernel({ ...flags, ...common(command) }, (kernel) => kernel.pin(module, pinned));
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
        const [first, last] = [from, to].map((text, i) => given(text, (one) => whole(i === 0 ? 'from' : 'to', one, 1)));
        const kernel = <T>(use: (kernel: KernelDoor) => Promise<T>) => useKernel({ ...flags, ...common(command) }, use);
        if (first !== undefined) {
          const text = await kernel((one) =>
            last ? one.diff(module, first, last) : one.version(module, first).then(({ source }) => source),
          );
          return console.log(json ? JSON.stringify(to ? { diff: text } : { source: text }) : printable(text));
        }
        const versions = await kernel((one) => one.versions(module));
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
      const entries = await useKernel({ ...flags, ...common(command) }, (kernel) => kernel.history(module));
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
