/** `hauki up`, `hauki node`: a mesh on this machine; a further node for a mesh. */
import { once } from 'node:events';
import { join } from 'node:path';
import { BadInput, connect } from '@hauki/mesh';
import { defaultDataDir, nodeTokenFile } from '@hauki/mesh/data-dir';
import type { Command } from 'commander';
import { askedToEnd, collect, common, coreUrl, DRIVERS, oneOf, pairs, whole } from '../context.ts';
import { type LocalMesh, type Started, startMesh, startNode } from '../local-mesh.ts';
import { paint } from '../output.ts';

interface NodeFlags {
  driver?: string[];
  label?: string[];
  memory?: string;
  meshHost?: string;
}

const nodeOptions = (flags: NodeFlags) => ({
  ...(flags.driver ? { drivers: flags.driver.map((text) => oneOf('--driver', text, DRIVERS)) } : {}),
  ...(flags.memory === undefined ? {} : { memory_mib: whole('--memory', flags.memory, 1) }),
  ...(flags.meshHost ? { listen_host: flags.meshHost } : {}),
  labels: pairs('--label', flags.label),
});

const withNodeFlags = (command: Command) =>
  command
    .option('--driver <name>', 'offer only this driver (lxc, quickjs, process); may be repeated', collect)
    .option('--label <key=value>', 'a label that jobs can ask for; may be repeated', collect)
    .option('--memory <MiB>', 'what all vaults of a node may have together')
    .option('--mesh-host <address>', 'the address that workers listen on', '127.0.0.1');

/** Resolves when one of the processes has ended by itself. */
const anyEnded = (...started: Started[]) => Promise.race(started.map(({ child }) => once(child, 'exit')));

/** What is up, what each node offers and why not the rest, and what to do next. */
async function describeMesh({ url, token, data_dir }: LocalMesh, port: number, logs: boolean): Promise<void> {
  const mesh = await connect({ core: url, token });
  const { nodes } = await mesh.registry();
  await mesh.close();
  console.log(`${paint('bold', 'The mesh is up')} at ${url}; Ctrl-C ends it`);
  for (const { node, drivers } of nodes)
    for (const [name, offer] of Object.entries(drivers))
      console.log(
        `  ${node}  ${name}: ${offer.available ? paint('green', 'offered') : `not offered: ${offer.reason}`}`,
      );
  console.log(`  API   ${url}/docs`);
  console.log(`  data  ${data_dir}${logs ? '' : ` (logs in ${join(data_dir, 'hauki.log')})`}`);
  console.log(`  try   hauki clone examples/workers/greeter.ts${port === 8000 ? '' : ` --core ${url}`}`);
}

export function upCommands(program: Command): void {
  withNodeFlags(program.command('up'))
    .description('start a core and a node on this machine, as processes of their own; Ctrl-C ends them cleanly')
    .option('--port <number>', 'the core’s port', '8000')
    .option('--nodes <count>', 'how many node agents', '1')
    .option('--logs', 'show the logs of core and nodes here; else they go to hauki.log in the data folder')
    .action(async (flags, command: Command) => {
      const { data = defaultDataDir(), json } = common(command);
      const count = whole('--nodes', flags.nodes, 0, 64);
      const port = whole('--port', flags.port, 0, 65_535);
      const asked = askedToEnd();
      const mesh = await startMesh({
        data_dir: data,
        port,
        nodes: Array.from({ length: count }, (_, i) => ({
          ...nodeOptions(flags),
          name: count === 1 ? 'node' : `node-${i + 1}`,
        })),
        log: flags.logs ? 'inherit' : { file: join(data, 'hauki.log') },
      });
      const { url, core, nodes } = mesh;
      if (json) console.log(JSON.stringify({ url, data_dir: data, nodes: nodes.map((n) => n.node), pid: process.pid }));
      else await describeMesh(mesh, port, flags.logs);
      await Promise.race([asked, anyEnded(core, ...nodes)]);
      await mesh.stop();
    });

  withNodeFlags(program.command('node'))
    .description('join this machine to a mesh as a node')
    .option('--token-file <file>', 'the core’s node.token; default: that of a core on this machine')
    .option(
      '--name <name>',
      'what this node is called, and its folder below the data folder; default: as this machine',
      'node',
    )
    .action(async (flags, command: Command) => {
      const { data = defaultDataDir() } = common(command);
      if (!/^[a-z0-9][a-z0-9-]*$/.test(flags.name)) throw new BadInput({ what: '--name', why: 'a name is [a-z0-9-]' });
      const asked = askedToEnd();
      const node = await startNode(
        {
          ...nodeOptions(flags),
          ...(flags.name === 'node' ? {} : { name: flags.name }),
          core_url: coreUrl(common(command)),
          data_dir: join(data, flags.name),
          token_file: flags.tokenFile ?? nodeTokenFile(data),
        },
        'inherit',
      );
      await Promise.race([asked, anyEnded(node)]);
      await node.stop();
    });
}
