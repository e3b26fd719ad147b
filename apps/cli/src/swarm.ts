/**
 * The Spawner: sandboxes with a microkernel each, for `hauki swarm up`. A kernel serves on port 8000 of its own network
 * namespace, which has a loopback and nothing else; it is a kernel of the mesh, and its modules' granted connections are
 * made out here.
 *
 * What always holds: a kernel gets out over two Unix sockets and no further: one leads to the core, where it can be a
 * kernel and nothing else, the other to the IRC server that the swarm was started with, and to that alone. The mesh's
 * tokens stay out here. When this process ends, however it ends, so do the sandboxes.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { BadInput, type Mesh } from '@hauki/mesh';
import { firstLine, type KernelProcessOptions } from '@hauki/microkernel';
import { makeImage } from '@hauki/node';
import { ConnectionLost, describe, isError, KERNEL_LINK, LIMITS, OutcomeUnknown } from '@hauki/protocol';
import { dialUpgrade } from '@hauki/rpc/node';
import { Sandboxes } from '@hauki/vault';
import { ircPlugin } from './irc-plugin.ts';
import { type SwarmKernel, swarmDir } from './swarm-state.ts';

export interface SwarmOptions {
  data_dir: string;
  mesh: Mesh;
  core_url: string;
  /** May be a node. */
  node_token: string;
  count: number;
  /** The number of the first kernel. */
  first: number;
  /** `host:port` of the IRC server; none: the kernels are silent. */
  irc?: string | undefined;
  memory_mib: number;
  cpu: number;
  /** Kernels that are started at the same time. */
  at_once: number;
  /** Settles when the swarm is to end, also while it is being started. */
  asked: Promise<unknown>;
  log(line: string, fields?: object): void;
  /** A kernel has come so far. */
  progress(kernel: string, what: 'starting' | 'online' | 'has the IRC plugin', took_ms: number): void;
}

export interface Swarm {
  kernels: SwarmKernel[];
  /** Resolves with a reason when a kernel has ended by itself. */
  broken: Promise<string>;
  /** Resolves when nothing of it is left. */
  stop(): Promise<void>;
}

const REPOSITORY = fileURLToPath(new URL('../../../', import.meta.url));
const KERNEL = 'packages/microkernel/src/main.ts';
const KERNEL_PORT = 8_000;
/** What a kernel may keep on the disk, with all that its modules write there. */
const DISK_MIB = 1024;
/** From its sandbox's start to its being registered with the core, on a machine that starts fifty. */
const ONLINE_MS = 180_000;
const LOOK_MS = 100;
/** Of giving a kernel its plugin, where the connection to the core breaks. */
const TRIES = 3;
/** Connections of one kernel to the outside. */
const CONNECTIONS = 16;
/** The longest path of a Unix socket (`sun_path` in unix(7), with the byte that ends it). */
const SOCKET_PATH_BYTES = 107;
/** The line that asks for one. */
const ASKED_BYTES = 512;

export const nameOf = (number: number): string => `Microkernel-${number}`;

/** Copies bytes both ways, until one of the two has ended. */
function splice(one: Socket, other: Socket): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on('error', () => to.destroy());
    from.on('close', () => to.destroy());
    from.pipe(to);
  }
}

/** Answers `connect host:port` with a stream to there, where that is `allowed`. */
function lead(socket: Socket, allowed: string | undefined): void {
  socket.on('error', () => socket.destroy());
  socket.setTimeout(LIMITS.connect_ms, () => socket.destroy());
  firstLine(socket, ASKED_BYTES, (asked) => {
    const target = /^connect (\S+)$/.exec(asked)?.[1];
    if (target === undefined || target !== allowed)
      return void socket.end(`no this swarm connects to ${allowed ?? 'nothing'} alone\n`);
    const at = target.lastIndexOf(':');
    const host = target.slice(0, at).replace(/^\[|\]$/g, '');
    const there = connectTcp({ host, port: Number(target.slice(at + 1)), noDelay: true });
    const failed = (error: Error) => socket.end(`no ${(error as NodeJS.ErrnoException).code ?? error.message}\n`);
    there.once('error', failed);
    socket.once('close', () => there.destroy());
    there.once('connect', () => {
      there.off('error', failed);
      socket.setTimeout(0);
      socket.write('ok\n');
      splice(socket, there);
    });
  });
}

async function listenAt(path: string, take: (socket: Socket) => void): Promise<Server> {
  const server = createServer(take);
  server.maxConnections = CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return server;
}

/** Throws BadInput where the system has no Unix sockets with paths as long as the swarm's would be. */
export function checkFolder(data_dir: string, last: number): void {
  const bytes = Buffer.byteLength(join(swarmDir(data_dir), String(last), 'net', 'outside'));
  if (bytes <= SOCKET_PATH_BYTES) return;
  const why = `its path is ${bytes - SOCKET_PATH_BYTES} bytes too long for Unix sockets in it; name another with --data`;
  throw new BadInput({ what: data_dir, why });
}

/** Starts the kernels, all or none. Rejects with what the first of them that failed ran into; then nothing is left. */
export async function startSwarm(options: SwarmOptions): Promise<Swarm> {
  const { data_dir, mesh, core_url, node_token, count, first, irc, memory_mib, cpu, log, progress } = options;
  checkFolder(data_dir, first + count - 1);
  const home = swarmDir(data_dir);
  const sandboxes = new Sandboxes({
    kind: 'swarm',
    data_dir: home,
    code_dir: REPOSITORY,
    program: KERNEL,
    memory_mib,
    cpu,
    log,
  });
  const servers: Server[] = [];
  const links = new Set<Socket>();
  const kernels: SwarmKernel[] = [];
  const { promise: broken, resolve: breaks } = Promise.withResolvers<string>();
  let stopping: Promise<void> | undefined;
  const stop = () => {
    stopping ??= (async () => {
      await sandboxes.close();
      for (const server of servers) server.close();
      for (const socket of links) socket.destroy();
      rmSync(home, { recursive: true, force: true });
    })();
    return stopping;
  };
  const held = (socket: Socket) => {
    links.add(socket);
    socket.once('close', () => links.delete(socket));
  };

  /** What the first that failed ran into. */
  let failed: Error | undefined;
  void options.asked.then(() => {
    failed ??= new Error('it was asked to end');
  });

  const startOne = async (number: number) => {
    const kernel = nameOf(number);
    const began = performance.now();
    const told = (what: Parameters<SwarmOptions['progress']>[1]) => progress(kernel, what, performance.now() - began);
    told('starting');
    const id = String(number);
    const net = join(home, id, 'net');
    mkdirSync(net, { recursive: true, mode: 0o755 });
    const image = join(home, id, 'disk.img');
    await makeImage(image, DISK_MIB);
    servers.push(
      await listenAt(join(net, 'core'), (socket) => {
        held(socket);
        socket.on('error', () => socket.destroy());
        dialUpgrade(core_url, KERNEL_LINK, node_token, LIMITS.handshake_ms).then(
          (there) => {
            held(there);
            splice(socket, there);
          },
          (error) => {
            log(`${kernel}: no way to the core: ${describe(error)}`);
            socket.destroy();
          },
        );
      }),
      await listenAt(join(net, 'outside'), (socket) => {
        held(socket);
        lead(socket, irc);
      }),
    );
    const inside: KernelProcessOptions = {
      data_dir: '/tmp/data/kernel',
      id,
      port: KERNEL_PORT,
      drivers: ['quickjs', 'process'],
      memory_mib: Math.floor(memory_mib / 2),
      core_socket: '/tmp/net/core',
      outside_socket: '/tmp/net/outside',
    };
    const environment = { HOME: '/tmp', HAUKI_KERNEL_OPTIONS: JSON.stringify(inside) };
    const sandbox = await sandboxes.start({
      id,
      folders: { 'tmp/net': net },
      // Its home is one for all its modules: Python's keep files there by its name.
      disk: { image, folders: ['tmp/data', 'root'] },
      environment,
    });
    const ended = sandbox.exited.then(({ reason, log_tail }) => `${reason}\n${log_tail ?? ''}`);
    void ended.then((why) => breaks(`${kernel} ended: ${why}`));
    kernels.push({ kernel, pid: sandbox.pid });
    await whenOnline(kernel, ended);
    told('online');
    if (irc === undefined) return;
    await inject(kernel);
    told('has the IRC plugin');
  };

  /** Where the answer was lost it may have come about. */
  const inject = async (kernel: string) => {
    for (let tries = 1; ; tries++)
      try {
        return await mesh.kernels.evolve({ ...(await plugin()), kernel });
      } catch (error) {
        if (!(isError(error, OutcomeUnknown) || isError(error, ConnectionLost)) || tries === TRIES) throw error;
        log(`${kernel}: ${describe(error)}`);
        await sleep(tries * 1_000);
        const there = (await mesh.kernels.list()).find((one) => one.kernel === kernel);
        if (there?.modules.some(({ module }) => module === 'irc')) return;
      }
  };

  const whenOnline = async (kernel: string, ended: Promise<string>) => {
    let why: string | undefined;
    void ended.then((said) => {
      why = said;
    });
    for (const until = performance.now() + ONLINE_MS; ; ) {
      if (failed) throw new Error('another kernel did not start');
      if ((await mesh.kernels.list()).some((one) => one.kernel === kernel)) return;
      if (why !== undefined) throw new Error(`${kernel} ended before it was online: ${why}`);
      if (performance.now() > until) throw new Error(`${kernel} was not online within ${ONLINE_MS} ms`);
      await sleep(LOOK_MS);
    }
  };

  let bundled: ReturnType<typeof ircPlugin> | undefined;
  const plugin = () => {
    bundled ??= ircPlugin(irc!);
    return bundled;
  };

  try {
    mkdirSync(home, { recursive: true, mode: 0o755 });
    const taken = new Set((await mesh.kernels.list()).map(({ kernel }) => kernel));
    const numbers = Array.from({ length: count }, (_, i) => first + i);
    const twice = numbers.find((number) => taken.has(nameOf(number)));
    if (twice !== undefined)
      throw new BadInput({
        what: '--first',
        why: `the mesh has a ${nameOf(twice)} already; begin with another number`,
      });
    const starters = Array.from({ length: Math.min(options.at_once, count) }, async () => {
      for (let number = numbers.shift(); number !== undefined && !failed; number = numbers.shift())
        await startOne(number).catch((error) => {
          failed ??= error;
        });
    });
    await Promise.all(starters);
    if (failed) throw failed;
    kernels.sort((a, b) => a.kernel.localeCompare(b.kernel, 'en', { numeric: true }));
    return { kernels, broken, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
