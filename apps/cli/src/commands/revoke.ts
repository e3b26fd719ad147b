/** `hauki revoke`: taking grants from a worker while it lives. */
import { BadInput, type Revocation } from '@hauki/mesh';
import type { Command } from 'commander';
import { common, withMesh } from '../context.ts';

const LISTS = ['fetch', 'connect', 'meshfs.read', 'meshfs.write', 'secrets'];
const WHOLE = ['volume', 'clone'];

function revocation(kind: string, names: string[]): Revocation {
  if (!LISTS.includes(kind) && !WHOLE.includes(kind))
    throw new BadInput({ what: kind, why: `what can be revoked is: ${[...LISTS, ...WHOLE].join(', ')}` });
  if (WHOLE.includes(kind) && names.length > 0)
    throw new BadInput({ what: kind, why: 'it is revoked as a whole: name nothing behind it' });
  const some = names.length > 0 ? names : true;
  const [group, right] = kind.split('.');
  return (right === undefined ? { [kind]: some } : { [group!]: { [right]: some } }) as Revocation;
}

export function revokeCommands(program: Command): void {
  program
    .command('revoke')
    .argument('<worker>', 'as hauki ps shows it')
    .argument('<kind>', [...LISTS, ...WHOLE].join(', '))
    .argument('[names...]', 'which: host:port, pointer prefixes, names of secrets; none: all of the kind')
    .description('take grants from a worker and its clones, from the next thing that they ask for')
    .addHelpText('after', '\nExamples:\n  hauki revoke w-abc fetch example.org:443\n  hauki revoke w-abc meshfs.write')
    .action(async (worker: string, kind: string, names: string[], _flags, command: Command) => {
      const flags = common(command);
      await withMesh(flags, async (mesh) => {
        const grants = await mesh.revoke(worker, revocation(kind, names));
        console.log(flags.json ? JSON.stringify({ worker, grants }) : `${worker} has left: ${JSON.stringify(grants)}`);
      });
    });
}
