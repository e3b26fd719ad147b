/** `hauki events`: what happens in the mesh, as a table or as it happens. */
import { EVENTS_LOST, type MeshEvent } from '@hauki/mesh';
import type { Command } from 'commander';
import { askedToEnd, type Common, collect, common, whole, withMesh } from '../context.ts';
import { paint, printable, table } from '../output.ts';

interface EventFlags extends Common {
  follow?: boolean;
  name?: string[];
  worker?: string;
  after?: string;
  limit?: string;
}

/** How much of the past `-f` shows before it follows. */
const PAST = 10;

const time = (at: number) => {
  const date = new Date(at);
  return `${date.toTimeString().slice(0, 8)}.${String(date.getMilliseconds()).padStart(3, '0')}`;
};

const value = (given: unknown) =>
  printable(typeof given === 'string' && /^[^\s"=]+$/.test(given) ? given : JSON.stringify(given));

const words = ({ fields }: MeshEvent) =>
  Object.entries(fields)
    .map(([key, given]) => `${printable(key)}=${value(given)}`)
    .join(' ');

function line(event: MeshEvent, json: boolean | undefined): string {
  if (json) return JSON.stringify(event);
  const name = printable(event.name);
  return `${time(event.at)}  ${paint(event.name === EVENTS_LOST ? 'red' : 'bold', name.padEnd(18))} ${words(event)}`;
}

async function events(flags: EventFlags): Promise<void> {
  const { follow, json, worker, after } = flags;
  const limit = whole('--limit', flags.limit ?? String(follow ? PAST : 100), 0, 4096);
  const chosen = { names: flags.name ?? [], ...(worker === undefined ? {} : { worker }) };
  await withMesh(flags, async (mesh) => {
    if (!follow) {
      const found: MeshEvent[] = [];
      if (limit > 0)
        for await (const event of mesh.events({ ...chosen, limit, ...(after === undefined ? {} : { after }) }))
          found.push(event);
      if (json) for (const event of found) console.log(line(event, json));
      else if (found.length === 0) console.log('No such events are remembered. hauki events -f waits for them');
      else
        console.log(
          table([['TIME', 'EVENT', 'FIELDS'], ...found.map((e) => [time(e.at), printable(e.name), words(e)])]),
        );
      return;
    }
    const leaving = new AbortController();
    void askedToEnd().then(() => leaving.abort());
    // Who read them has gone (`| head`).
    process.stdout.once('error', () => leaving.abort());
    let from = after;
    if (from === undefined) {
      from = '0';
      // Also where none of the past is shown, its end is where to go on from.
      for await (const event of mesh.events({ ...chosen, limit: Math.max(limit, 1) })) {
        if (limit > 0) console.log(line(event, json));
        from = event.id;
      }
    }
    for await (const event of mesh.events({ ...chosen, follow: true, after: from, signal: leaving.signal }))
      console.log(line(event, json));
  });
}

export function eventCommands(program: Command): void {
  program
    .command('events')
    .description('what happens in the mesh: what the core remembers, or with -f as it happens')
    .option('-f, --follow', `show the last ${PAST}, then go on until Ctrl-C; comes back by itself after a cut`)
    .option('--name <prefix>', 'only events whose name begins so, as in WORKER_; may be repeated', collect)
    .option('--worker <name>', 'only events of this worker')
    .option('--after <id>', 'begin after the event with this id; 0: with the oldest remembered')
    .option('--limit <count>', 'at most so many of the past; default: 100')
    .addHelpText(
      'after',
      '\nExamples:\n  hauki events -f --name SPAWN_DISTRIBUTED --name WORKER_\n  hauki events --json | tail -1\n\nWith --json, one event a line: {id, seq, at, name, fields}.',
    )
    .action((_flags, command: Command) => events({ ...command.opts<EventFlags>(), ...common(command) }));
}
