/**
 * A kernel's process. Options come as JSON in HAUKI_KERNEL_OPTIONS. It ends with its parent when it has a channel to one.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, lstatSync, mkdirSync, readFileSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { syncFolder, writeNew } from '@hauki/backplane';
import { BadInput, describe, MeshError, toWire } from '@hauki/protocol';
import { LOG_OUTPUT, whenToEnd } from '@hauki/rpc/node';
import { closeInheritedDescriptors } from '@hauki/vault';
import { pino } from 'pino';
import { CoreLink } from './core-link.ts';
import { Kernel } from './kernel.ts';
import { onlineOf } from './lines.ts';
import { dialThrough } from './outside.ts';
import { createKernelServer } from './server.ts';

export interface KernelProcessOptions {
  data_dir: string;
  id: string;
  host?: string;
  /** 0: a free one. */
  port?: number;
  /** Callers on this machine need no token. */
  open?: boolean;
  host_names?: string[];
  drivers?: string[];
  memory_mib?: number;
  /** The core of the mesh that it belongs to, and the file with a token that may be a node. */
  core_url?: string;
  token_file?: string;
  /** For a kernel without a network: Unix sockets to the core, and to whoever makes its granted connections. */
  core_socket?: string;
  outside_socket?: string;
}

// Whatever a shell or a supervisor left open must not reach a vault.
closeInheritedDescriptors();

const options = JSON.parse(process.env.HAUKI_KERNEL_OPTIONS ?? '{}') as KernelProcessOptions;
delete process.env.HAUKI_KERNEL_OPTIONS;
const output = pino.destination(LOG_OUTPUT).on('error', () => {});
const logger = pino({ name: 'hauki-kernel', base: { kernel: options.id } }, output);
const log = (line: string, fields: object = {}) => logger.info(fields, line);

/** The token that opens this kernel, made at its first start. */
async function tokenOf(data_dir: string): Promise<string> {
  const file = join(data_dir, 'kernel.token');
  if (!existsSync(file)) {
    const secret = `hauki_${randomBytes(32).toString('base64url')}`;
    // Under its name it is whole: a start that was killed half way must not leave a token that is empty.
    await rm(`${file}.tmp`, { force: true });
    await writeNew(`${file}.tmp`, Buffer.from(`${secret}\n`), { mode: 0o600, sync: true });
    await rename(`${file}.tmp`, file);
    await syncFolder(data_dir);
  }
  const token = readFileSync(file, 'utf8').trim();
  if (token !== '') return token;
  throw new BadInput({ what: file, why: 'it is empty. Remove it and start again: then a new token is made' });
}

try {
  const { data_dir, id, open = false, host = '127.0.0.1', port = 8881, host_names, drivers, memory_mib } = options;
  const { core_socket, outside_socket } = options;
  if (open && !/^(?:127\.|::1$|localhost$)/.test(host)) throw new Error('--open is for loopback only');
  mkdirSync(data_dir, { recursive: true });
  // Vaults' mapped users pass through it to what is theirs; what is secret in it has modes of its own.
  chmodSync(data_dir, 0o711);
  const wiki = join(data_dir, 'wiki');
  if (lstatSync(wiki, { throwIfNoEntry: false })?.isDirectory()) chmodSync(wiki, 0o700);
  const kernel = await Kernel.open({
    data_dir,
    id,
    log,
    ...(drivers ? { drivers } : {}),
    ...(memory_mib ? { memory_mib } : {}),
    ...(outside_socket ? { dial: (target, signal) => dialThrough(outside_socket, target, signal) } : {}),
  });
  const token = await tokenOf(data_dir);
  const server = await createKernelServer(kernel, { token, open, log, ...(host_names ? { host_names } : {}) });
  let link: CoreLink | undefined;
  whenToEnd(async (reason) => {
    log(`ending: ${reason}`);
    link?.stop();
    await server.close();
    await kernel.close();
    process.exit(0);
  });
  const url = await server.listen({ host, port });
  if (open) logger.warn('started with --open: anybody on this machine may change what it serves');
  log(onlineOf(kernel.name), { url });
  const { core_url = 'the core', token_file } = options;
  if (core_socket || (options.core_url && token_file)) {
    const mesh_token = token_file ? readFileSync(token_file, 'utf8').trim() : '';
    link = new CoreLink(kernel, { core_url, core_socket, token: mesh_token, url, own: server.own, log });
    await link.run().first;
  }
  process.send?.({ ready: true, url });
} catch (error) {
  logger.fatal(describe(error));
  if (process.send)
    process.send({ failed: describe(error), ...(error instanceof MeshError && { typed: toWire(error) }) }, () =>
      process.exit(1),
    );
  else process.exit(1);
}
