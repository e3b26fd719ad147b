/**
 * The agent's process. Options come as JSON in HAUKI_NODE_OPTIONS (no secret among them: the token is read from a file), so that
 * the command line shows nothing. It ends with its parent when it was started with a channel to one.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { hostname } from 'node:os';
import { describe, MeshError, toWire } from '@hauki/protocol';
import { LOG_OUTPUT, whenToEnd } from '@hauki/rpc/node';
import { closeInheritedDescriptors, createDrivers, Pool } from '@hauki/vault';
import { pino } from 'pino';
import { Agent } from './agent.ts';
import { openFolder } from './folder.ts';
import { Link } from './link.ts';
import { checkListenHost } from './listen-host.ts';
import { defaultMemoryMib } from './memory.ts';
import { Volumes } from './volumes.ts';

export interface NodeOptions {
  core_url: string;
  /** Holds node.json and what drivers keep. */
  data_dir: string;
  token_file: string;
  /** What the node's own name begins with; the machine's name when left out. A few random letters follow. */
  name?: string;
  labels?: Record<string, string>;
  /** Drivers to offer, where they can be; all that there are when left out. */
  drivers?: string[];
  /** Where workers listen: the mesh interface. */
  listen_host?: string;
  /** TLS on the direct route; on by itself off loopback. */
  tls?: boolean;
  memory_mib?: number;
  /** Keep vaults ready that nobody has asked for yet; on when left out. */
  pool?: boolean;
}

// Whatever a shell or a supervisor left open must not reach a vault.
closeInheritedDescriptors();

const options = JSON.parse(process.env.HAUKI_NODE_OPTIONS ?? '{}') as NodeOptions;
delete process.env.HAUKI_NODE_OPTIONS;
const {
  core_url,
  data_dir,
  token_file,
  labels = {},
  listen_host = '127.0.0.1',
  memory_mib = defaultMemoryMib(),
} = options;

/** A name for a new node. */
function newName(): string {
  const host =
    (options.name ?? hostname())
      .toLowerCase()
      .replaceAll(/[^a-z0-9]+/g, '-')
      .replaceAll(/^-+|-+$/g, '')
      .slice(0, 16) || 'node';
  return `${host}-${randomBytes(3).toString('hex')}`;
}

const output = pino.destination(LOG_OUTPUT).on('error', () => {});
const logTo = (base: object) => pino({ name: 'hauki-node', base }, output);

try {
  await checkListenHost(listen_host);
  const folder = openFolder(data_dir, newName);
  const { node } = folder;
  const logger = logTo({ node });
  const log = (line: string, fields: object = {}) => logger.info(fields, line);
  const link = new Link({ core_url, token: readFileSync(token_file, 'utf8').trim(), log });
  const loopback = listen_host === '::1' || (isIPv4(listen_host) && listen_host.startsWith('127.'));
  const drivers = await createDrivers({ node_id: node, data_dir, log, only: options.drivers });
  const pool = new Pool({ room_mib: () => agent.room_mib(), calm_ms: () => agent.calm_ms(), log });
  const agent: Agent = new Agent({
    node,
    labels,
    drivers: options.pool === false ? drivers : drivers.map((driver) => pool.wrap(driver)),
    listen_host,
    tls: options.tls ?? !loopback,
    memory_mib,
    volumes: new Volumes({ node, data_dir, log }),
    core: link.core,
    keys: link.keys,
    log,
  });

  whenToEnd(async (reason) => {
    log(`ending: ${reason}`);
    await agent.close();
    link.stop();
    folder.close();
    process.exit(0);
  });

  await agent.start();
  await link.run(agent).first;
  process.send?.({ ready: true, node });
} catch (error) {
  logTo({}).fatal(describe(error));
  if (process.send)
    process.send({ failed: describe(error), ...(error instanceof MeshError && { typed: toWire(error) }) }, () =>
      process.exit(1),
    );
  else process.exit(1);
}
