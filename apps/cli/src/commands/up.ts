/** `hauki up`, `hauki node`: a mesh on this machine; a further node for a mesh. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { BlockList, isIP, isIPv6 } from 'node:net';
import { join } from 'node:path';
import { BadInput, connect } from '@hauki/mesh';
import { defaultDataDir, isThisMachine, nodeTokenFile } from '@hauki/mesh/data-dir';
import type { Command } from 'commander';
import {
  askedToEnd,
  type Common,
  checkOwnMachine,
  collect,
  common,
  coreUrl,
  DEFAULT_CORE,
  DRIVERS,
  dataFlag,
  HOST_NAME,
  oneOf,
  pairs,
  unlessAsked,
  whole,
} from '../context.ts';
import { type LocalMesh, type Started, startMesh, startNode } from '../local-mesh.ts';
import { EXIT, paint } from '../output.ts';

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
    .option(
      '--mesh-host <address>',
      'the address that workers listen on: this machine’s, as callers reach it',
      '127.0.0.1',
    );

const WHOSE_TOKEN =
  'It is core/node.token in the core’s data folder: copy it to this machine, or name the folder with --data';

/** Resolves when one of the processes has ended by itself, with what to say of it. */
export const anyEnded = (started: Record<string, Started>): Promise<string> =>
  Promise.race(
    Object.entries(started).map(async ([name, { child }]) => {
      const [code, signal] = await once(child, 'exit');
      return `${name} has ended by itself (${signal ?? `exit code ${code}`})`;
    }),
  );

/** Says that the mesh ends although nobody asked for it. */
export function tellEnd(why: string | undefined, more: string): void {
  if (why === undefined) return;
  console.error(`hauki: ${why}${more}`);
  process.exitCode = EXIT.failed;
}

/**
 * The core that is joined, and the file with the token for it: what `--token-file` names, else, for a core on this machine,
 * that of the data folder. Throws BadInput where it cannot be read, Unauthorised for another machine and no file.
 */
export function coreToJoin(flags: Common, token_file?: string): { core_url: string; token_file: string } {
  const core_url = coreUrl(flags);
  if (token_file === undefined)
    checkOwnMachine(core_url, 'copy its core/node.token to this machine and name it with --token-file');
  const file = token_file ?? nodeTokenFile(flags.data ?? defaultDataDir());
  try {
    if (readFileSync(file, 'utf8').trim() !== '') return { core_url, token_file: file };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'is not there' : `cannot be read (${code})`;
    throw new BadInput({ what: '--token-file', why: `${file} ${why}. ${WHOSE_TOKEN}` });
  }
  throw new BadInput({ what: '--token-file', why: `${file} is empty. ${WHOSE_TOKEN}` });
}

/** What is up, what each node offers and why not the rest, and what to do next. */
async function describeMesh({ url, token, data_dir }: LocalMesh, data: string, logs: boolean): Promise<void> {
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
  // The token of a data folder is sent to no address but loopback's, so that there it is named.
  const [before, after] = isThisMachine(url) ? ['', data] : [`HAUKI_TOKEN=$(hauki token${data}) `, ''];
  const core = url === DEFAULT_CORE ? '' : ` --core ${url}`;
  console.log(`  try   ${before}hauki clone examples/workers/greeter.ts${core}${after}`);
}

/** Loopback, and networks that are nobody's on the Internet: private ones, a VPN's, those of one wire. */
const OWN_NETWORKS = new BlockList();
for (const [net, bits] of [
  ['127.0.0.0', 8],
  ['10.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['100.64.0.0', 10],
  ['169.254.0.0', 16],
] as const)
  OWN_NETWORKS.addSubnet(net, bits);
OWN_NETWORKS.addAddress('::1', 'ipv6');
OWN_NETWORKS.addSubnet('fc00::', 7, 'ipv6');
OWN_NETWORKS.addSubnet('fe80::', 10, 'ipv6');

/** Whether who listens on an address may be reached over networks of strangers; false for names, of which it is not known here. */
export const isOpenToStrangers = (host: string): boolean =>
  isIP(host) !== 0 && !OWN_NETWORKS.check(host, isIPv6(host) ? 'ipv6' : 'ipv4');

export function upCommands(program: Command): void {
  withNodeFlags(program.command('up'))
    .description('start a core and a node on this machine, as processes of their own; Ctrl-C ends them cleanly')
    .option('--port <number>', 'the core’s port', '8000')
    .option(
      '--host <address>',
      'the address that the core listens on. Tokens cross it in the clear: loopback, or a VPN’s',
      '127.0.0.1',
    )
    .option('--host-name <name>', HOST_NAME, collect)
    .option('--nodes <count>', 'how many node agents', '1')
    .option('--logs', 'show the logs of core and nodes here; else they go to hauki.log in the data folder')
    .action(async (flags, command: Command) => {
      const { data = defaultDataDir(), json } = common(command);
      const count = whole('--nodes', flags.nodes, 0, 64);
      const port = whole('--port', flags.port, 0, 65_535);
      const asked = askedToEnd();
      const options = {
        data_dir: data,
        port,
        host: flags.host,
        host_names: [flags.host, ...(flags.hostName ?? [])],
        nodes: Array.from({ length: count }, (_, i) => ({
          ...nodeOptions(flags),
          name: count === 1 ? 'node' : `node-${i + 1}`,
        })),
        log: flags.logs ? ('inherit' as const) : { file: join(data, 'hauki.log') },
      };
      const mesh = await unlessAsked(asked, (signal) => startMesh({ ...options, signal }));
      if (!mesh) return;
      if (isOpenToStrangers(flags.host))
        console.error(
          `hauki: the core listens on ${flags.host}, for others than loopback and private networks too: tokens and all else cross them in the clear, and who reads a token may do what it may. Listen on a VPN’s address, or on loopback behind a proxy with TLS`,
        );
      const { url, core, nodes } = mesh;
      if (json) console.log(JSON.stringify({ url, data_dir: data, nodes: nodes.map((n) => n.node), pid: process.pid }));
      else await describeMesh(mesh, dataFlag(command), flags.logs);
      const started = Object.fromEntries(nodes.map((node) => [`node ${node.node}`, node]));
      const ended = await Promise.race([asked, anyEnded({ 'the core': core, ...started })]);
      await mesh.stop();
      tellEnd(ended, `, so the rest was ended too.${flags.logs ? '' : ` Its log: ${join(data, 'hauki.log')}`}`);
    });

  withNodeFlags(program.command('node'))
    .description('join this machine to a mesh as a node')
    .option('--token-file <file>', 'the core’s node.token; default, for a core on this machine: its own')
    .option(
      '--name <name>',
      'what this node is called, and its folder below the data folder; default: as this machine',
      'node',
    )
    .addHelpText(
      'after',
      `
Example, with the core on another machine (hauki up --host 10.8.0.1 there), over a VPN:
  hauki token create --name north --scope node --node north > node.token    there; copy the file to this machine
  hauki node --core http://10.8.0.1:8000 --name north --token-file node.token --mesh-host 10.8.0.2`,
    )
    .action(async (flags, command: Command) => {
      const { data = defaultDataDir() } = common(command);
      if (!/^[a-z0-9][a-z0-9-]*$/.test(flags.name)) throw new BadInput({ what: '--name', why: 'a name is [a-z0-9-]' });
      const asked = askedToEnd();
      const joined = coreToJoin(common(command), flags.tokenFile);
      const options = {
        ...nodeOptions(flags),
        ...(flags.name === 'node' ? {} : { name: flags.name }),
        ...joined,
        data_dir: join(data, flags.name),
      };
      const node = await unlessAsked(asked, (signal) => startNode(options, 'inherit', signal));
      if (!node) return;
      const ended = await Promise.race([asked, anyEnded({ 'the node': node })]);
      await node.stop();
      tellEnd(ended, '');
    });
}
