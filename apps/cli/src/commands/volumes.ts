/** `hauki volumes`: private lasting folders of one's workers. */
import type { Command } from 'commander';
import { type Common, common, withMesh } from '../context.ts';
import { size, table } from '../output.ts';

async function list(flags: Common): Promise<void> {
  await withMesh(flags, async (mesh) => {
    const volumes = await mesh.volumes.list();
    if (flags.json) return console.log(JSON.stringify({ volumes }));
    if (volumes.length === 0)
      return console.log('No volumes. A worker gets one by a grant: hauki clone … --volume data');
    console.log(
      table([
        ['VOLUME', 'OWNER', 'NODE', 'USED', 'OF', 'IN USE BY'],
        ...volumes
          .toSorted((a, b) => (`${a.owner} ${a.name}` < `${b.owner} ${b.name}` ? -1 : 1))
          .map(({ name, owner, node, node_away, used_bytes, quota_mib, worker }) => [
            name,
            owner,
            node_away ? `${node} (away)` : node,
            used_bytes === null ? '?' : size(used_bytes),
            quota_mib === null ? '?' : `${quota_mib} MiB`,
            worker ?? '-',
          ]),
      ]),
    );
  });
}

interface RemoveFlags extends Common {
  owner?: string;
  forget?: boolean;
}

async function remove(names: string[], flags: RemoveFlags): Promise<void> {
  await withMesh(flags, async (mesh) => {
    for (const name of names) {
      await mesh.volumes.delete(name, { owner: flags.owner, forget: flags.forget });
      console.log(flags.json ? JSON.stringify({ deleted: name }) : `${name} is deleted`);
    }
  });
}

export function volumeCommands(program: Command): void {
  const volumes = program.command('volumes').description('private lasting folders of workers: list and delete them');
  volumes
    .command('ls')
    .description('list volumes: where they are, how full, and which worker has them')
    .action((_flags, command: Command) => list(common(command)));
  volumes
    .command('rm')
    .argument('<names...>', 'as hauki volumes ls shows them')
    .description('delete volumes with all that is in them; refused while a worker has one')
    .option('--owner <owner>', 'whose; default: the token’s own')
    .option('--forget', 'where its node is away: only give the name free')
    .addHelpText('after', '\nExample:\n  hauki volumes rm data')
    .action((names: string[], _flags, command: Command) =>
      remove(names, { ...command.opts<RemoveFlags>(), ...common(command) }),
    );
}
