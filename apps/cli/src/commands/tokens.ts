/** `hauki token`: the admin token, and narrower ones made from it for whoever needs less. */
import { LIMITS, SCOPES, type Scope, type TokenInfo, type TokenTargets } from '@hauki/mesh';
import type { Command } from 'commander';
import { type Common, collect, common, findToken, milliseconds, whole, withMesh } from '../context.ts';
import { duration, table } from '../output.ts';

interface CreateFlags {
  name: string;
  scope: string[];
  expires?: string;
  pointer?: string[];
  worker?: string[];
  node?: string[];
  fetch?: string[];
  vaults?: string;
  memory?: string;
  clones?: string;
}

async function create(flags: CreateFlags & Common): Promise<void> {
  const given = { pointers: flags.pointer, workers: flags.worker, nodes: flags.node, fetch: flags.fetch };
  const targets = Object.fromEntries(Object.entries(given).filter(([, list]) => list !== undefined)) as TokenTargets;
  const expires_in_ms = milliseconds('--expires', flags.expires);
  const limit = (what: string, text: string | undefined, most: number) =>
    text === undefined ? null : whole(what, text, 1, most);
  const quota = {
    vaults: limit('--vaults', flags.vaults, LIMITS.quota),
    memory_mib: limit('--memory', flags.memory, LIMITS.quota),
    clones_per_minute: limit('--clones', flags.clones, LIMITS.quota_clones),
  };
  await withMesh(flags, async (mesh) => {
    const made = await mesh.tokens.create({
      name: flags.name,
      scopes: flags.scope as Scope[],
      targets,
      quota,
      ...(expires_in_ms === undefined ? {} : { expires_in_ms }),
    });
    if (flags.json) return console.log(JSON.stringify(made));
    // The secret alone on standard output, so that it can go into a variable or a file.
    console.log(made.token);
    const until = made.expires_at === null ? 'it lasts until revoked' : `it ends in ${duration(expires_in_ms ?? 0)}`;
    console.error(`${made.id} is made; ${until}. Above is its secret, shown this once.`);
    const use = flags.scope.includes('node')
      ? 'hauki node --core … --name … --token-file <a file with it>'
      : 'HAUKI_TOKEN=… hauki …';
    console.error(`  use it  ${use}\n  end it  hauki token revoke ${made.id}`);
  });
}

const reach = ({ targets: { workers, pointers, nodes, fetch } }: TokenInfo) =>
  [
    ...(workers.length > 0 ? [`workers ${workers.join(' ')}`] : []),
    ...(pointers.includes('gem-pointer://') ? [] : [`pointers ${pointers.join(' ') || 'none'}`]),
    ...(nodes.includes('*') ? [] : [`nodes ${nodes.join(' ') || 'none'}`]),
    ...(fetch.includes('*') ? [] : [`fetch ${fetch.join(' ') || 'none'}`]),
  ].join('; ') || 'all that its scopes do';

/** What of its quota a token has taken; `-` where it has none of its own. */
function quotaOf({ quota, used }: TokenInfo): string {
  const of = (limit: number | null, taken: number | undefined, what: string) =>
    limit === null ? [] : [`${taken ?? '?'}/${limit} ${what}`];
  const parts = [
    ...of(quota.vaults, used?.vaults, 'vaults'),
    ...of(quota.memory_mib, used?.memory_mib, 'MiB'),
    ...of(quota.clones_per_minute, used?.clones_last_minute, 'clones a minute'),
  ];
  return parts.join(', ') || '-';
}

async function list(flags: Common): Promise<void> {
  await withMesh(flags, async (mesh) => {
    const tokens = await mesh.tokens.list();
    if (flags.json) return console.log(JSON.stringify({ tokens }));
    if (tokens.length === 0) return console.log('No tokens but the two of the core. Make one: hauki token create');
    console.log(
      table([
        ['TOKEN', 'SCOPES', 'ENDS IN', 'MADE FROM', 'QUOTA', 'REACHES'],
        ...tokens
          .toSorted((a, b) => (a.owner < b.owner ? -1 : 1))
          .map((t) => [
            t.id,
            t.scopes.join(' '),
            t.expires_at === null ? '-' : duration(Math.max(0, t.expires_at - Date.now())),
            t.owner.split('/').at(-2) ?? 'admin',
            quotaOf(t),
            reach(t),
          ]),
      ]),
    );
  });
}

async function revoke(ids: string[], flags: Common & { endWorkers?: boolean }): Promise<void> {
  await withMesh(flags, async (mesh) => {
    for (const id of ids) {
      const revoked = await mesh.tokens.revoke(id, { end_workers: flags.endWorkers ?? false });
      console.log(flags.json ? JSON.stringify({ revoked }) : revoked.join('\n'));
    }
  });
}

export function tokenCommands(program: Command): void {
  const token = program
    .command('token')
    .description('print the admin token of the core on this machine; or make, list and revoke narrower ones')
    .addHelpText(
      'after',
      `
Scopes:
${Object.entries(SCOPES)
  .map(([scope, what]) => `  ${scope.padEnd(14)} ${what}`)
  .join('\n')}

Examples:
  hauki token                                        print the admin token
  hauki token create --name ci --scope spawn --expires 1h --pointer gem-pointer://wiki/ci/
  HAUKI_TOKEN=… hauki token create --name step --scope spawn.pointer    an even narrower one, from that
  hauki token create --name north --scope node --node north > node.token  for hauki node --token-file`,
    )
    .action((_flags, command: Command) => {
      const { data, json } = common(command);
      const secret = findToken(data);
      console.log(json ? JSON.stringify({ token: secret }) : secret);
    });
  token
    .command('create')
    .description('make a token with no more rights than the one that is used, and print it, this once')
    .requiredOption('--name <name>', 'for people: a word of a-z, 0-9 and -')
    .requiredOption('--scope <scope>', 'what it is for (see hauki token --help); may be repeated', collect)
    .option('--expires <duration>', 'how long it lasts, as in 1h; default: as long as the token it is made from')
    .option('--pointer <prefix>', 'reaches only pointers below this; may be repeated', collect)
    .option('--worker <name>', 'reaches this worker besides its own, or * for all; may be repeated', collect)
    .option('--node <name>', 'its workers are placed only there; scope node: the name it joins as', collect)
    .option('--fetch <host:port>', 'its workers may be granted only this; may be repeated', collect)
    .option('--vaults <n>', 'quota: vaults at once, of it and all tokens below it')
    .option('--memory <MiB>', 'quota: memory of those vaults together')
    .option('--clones <n>', 'quota: clones in a minute')
    .addHelpText(
      'after',
      '\nExample:\n  hauki token create --name ci --scope spawn --scope call --expires 1h --pointer gem-pointer://wiki/x/',
    )
    .action((_flags, command: Command) => create({ ...command.opts<CreateFlags>(), ...common(command) }));
  token
    .command('ls')
    .description('list tokens, without their secrets, with what of their quotas is taken')
    .action((_flags, command: Command) => list(common(command)));
  token
    .command('revoke')
    .argument('<ids...>', 'as hauki token ls shows them')
    .option('--end-workers', 'end also the workers and jobs that were made with them')
    .description('end tokens and all that were made from them, at once')
    .action((ids: string[], flags, command: Command) => revoke(ids, { ...flags, ...common(command) }));
}
