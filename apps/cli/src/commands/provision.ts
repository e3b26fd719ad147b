/** `hauki provision`: lasting workers from a terminal. */
import type { LastingWorker, ProvisionOptions } from '@hauki/mesh';
import type { Command } from 'commander';
import { type CloneFlags, cloneOptions, common, originOf, withMesh, withModuleFlags } from '../context.ts';
import { duration, paint, printable, table } from '../output.ts';

async function provision(what: string, flags: CloneFlags & { name?: string }): Promise<void> {
  const origin = originOf(what);
  const options: ProvisionOptions = { ...cloneOptions(flags), ...(flags.name ? { name: flags.name } : {}) };
  await withMesh(flags, async (mesh) => {
    const made = await mesh.provision(origin, options);
    if (flags.json) return console.log(JSON.stringify(made));
    const { worker, node, driver, epoch } = made;
    console.log(`${paint('bold', worker)} lasts, in a ${driver} vault on ${node} (epoch ${epoch})`);
    console.log(`  call it  hauki call ${worker} <method> …`);
    console.log(`  it ends  with: hauki provision rm ${worker}`);
  });
}

const stateOf = ({ state, next_try_at }: LastingWorker) =>
  next_try_at === null ? state : `${state}, next in ${duration(Math.max(0, next_try_at - Date.now()))}`;

function show(worker: LastingWorker): void {
  const { state, node, driver, epoch, restarts, owner, created_at, why, deaths, pointer } = worker;
  console.log(`${paint('bold', worker.worker)}  ${state}`);
  console.log(
    `  on       ${node ?? '-'}, ${driver ?? '-'}, epoch ${epoch}, ${restarts} restart${restarts === 1 ? '' : 's'}`,
  );
  console.log(`  owner    ${owner}, since ${new Date(created_at).toISOString()}`);
  if (pointer) console.log(`  from     ${pointer}, as it was then`);
  if (why) console.log(`  why      ${printable(why)}`);
  for (const { at, epoch: of, cause, reason, log_tail } of deaths) {
    console.log(`  died     ${new Date(at).toISOString()}, epoch ${of}: ${printable(`${cause}: ${reason}`)}`);
    if (log_tail) console.log(printable(log_tail.replaceAll(/^/gm, '    ')));
  }
}

export function provisionCommands(program: Command): void {
  const group = program
    .command('provision')
    .description('lasting workers: no heartbeat, started again with their node, until they are deleted')
    .addHelpText(
      'after',
      `
Examples:
  hauki provision examples/workers/greeter.ts --name greeter   make one
  hauki call greeter greet Ada                                 call it, from anywhere, at any time
  hauki provision ls                                           see how they are
  hauki provision show greeter                                 with its last deaths, and why it died
  hauki provision rm greeter                                   delete it for good`,
    );
  withModuleFlags(group.command('make', { isDefault: true }))
    .argument('<what>', 'a gem-pointer:// or a file (.ts, .js: bundled with all that it imports; .py)')
    .option('--name <name>', 'its name in the mesh, [a-z0-9-]; default: one is made up')
    .description('make a lasting worker; the word "make" may be left out')
    .action((what: string, flags, command: Command) => provision(what, { ...flags, ...common(command) }));
  group
    .command('ls')
    .description('lasting workers: where they are, and why some are not')
    .action((_flags, command: Command) =>
      withMesh(common(command), async (mesh) => {
        const workers = await mesh.lasting.list();
        if (common(command).json) return console.log(JSON.stringify({ workers }));
        if (workers.length === 0) return console.log('No lasting workers. Make one: hauki provision <file or pointer>');
        console.log(
          table([
            ['WORKER', 'STATE', 'NODE', 'DRIVER', 'EPOCH', 'OWNER', 'WHY'],
            ...workers.map((w) => [
              w.worker,
              stateOf(w),
              w.node ?? '-',
              w.driver ?? '-',
              String(w.epoch),
              w.owner,
              printable(w.why ?? '').slice(0, 60),
            ]),
          ]),
        );
      }),
    );
  group
    .command('show')
    .argument('<worker>')
    .description('one lasting worker, with its last deaths')
    .action((worker: string, _flags, command: Command) =>
      withMesh(common(command), async (mesh) => {
        const found = await mesh.lasting.get(worker);
        if (common(command).json) console.log(JSON.stringify(found));
        else show(found);
      }),
    );
  group
    .command('rm')
    .argument('<workers...>')
    .description('delete lasting workers for good')
    .action((workers: string[], _flags, command: Command) =>
      withMesh(common(command), async (mesh) => {
        for (const worker of workers) {
          await mesh.lasting.delete(worker);
          console.log(common(command).json ? JSON.stringify({ deleted: worker }) : worker);
        }
      }),
    );
}
