/**
 * How LXC is run, and one process forked ahead for it: to fork a large process, and to execute what goes before LXC,
 * takes longer than most of what the agent does for a start. It waits with a listening socket for the name of its
 * container; there is nothing of a container before: no ids, no cgroups, no files.
 *
 * The chain of death holds for it as for a container: it dies with the agent, by its parent-death signal and because
 * its standard input ends.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { boundTo, PATIENT } from '../bound.ts';
import { AHEAD_MS } from './limits.ts';

const LXC_START = '/usr/bin/lxc-start';
/**
 * LXC makes its filter of system calls for every architecture that the kernel could run, three on x64, which takes the
 * most of its time. Under this personality it takes the machine for one that has no others, and compiles the filter for
 * the one that it was built for; calls of the others are refused. The vault gets the personality back (`lxc.arch`).
 */
const ONE_ARCHITECTURE = process.arch === 'x64' ? ['/usr/bin/setarch', 'i686'] : [];
/** LXC must not find newuidmap: root then writes the id map itself, and an empty /etc/subuid does not matter. */
const ENVIRONMENT = { PATH: '/nonexistent' };
// $1 LXC's folder, $2 the folder of the containers' files.
const WAITING = `IFS=' ' read -r name id || exit 1
exec ${LXC_START} -F -n "$name" -P "$1" -f "$2/$id/config" -o "$2/$id/lxc.log" -l INFO </dev/null`;

/** Where one container's files are: its configuration, and LXC's log. */
export const configIn = (files_dir: string) => join(files_dir, 'config');
export const logIn = (files_dir: string) => join(files_dir, 'lxc.log');

/** A process that dies with this one, with `listener` as fd 3 and a channel as fd 4. Throws where it cannot be made. */
function spawnBound(first: readonly string[], last: readonly string[], input: 'ignore' | 'pipe', server?: Server) {
  const [command, ...args] = [...first, ...boundTo(process.pid), ...PATIENT, ...ONE_ARCHITECTURE, ...last];
  const listener = server ? (server as unknown as { _handle: { fd: number } })._handle.fd : 'ignore';
  const stdio = [input, 'pipe', 'pipe', listener, 'pipe'] as const;
  const child: ChildProcess = spawn(command!, args, { stdio: [...stdio], env: ENVIRONMENT, cwd: '/' });
  child.on('error', () => {});
  if (child.pid === undefined) throw new Error(`${command} cannot be executed`);
  return child;
}

/** Runs LXC for a container whose configuration is in its folder of files, `starter` before it. */
export function startLxc(
  {
    name,
    lxc_dir,
    files_dir,
    starter = [],
  }: { name: string; lxc_dir: string; files_dir: string; starter?: readonly string[] | undefined },
  server?: Server,
): ChildProcess {
  const paths = ['-P', lxc_dir, '-f', configIn(files_dir), '-o', logIn(files_dir)];
  return spawnBound(starter, [LXC_START, '-F', '-n', name, ...paths, '-l', 'INFO'], 'ignore', server);
}

/** Binds an ephemeral port without ever accepting on it here. */
export async function listen(host: string): Promise<Server> {
  const server = createServer((stray) => stray.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, host, resolve);
  });
  return server;
}

export const portOf = (server: Server): number => (server.address() as { port: number }).port;

/** Forked ahead; used once. */
export interface Ahead {
  readonly port: number;
  /** Becomes LXC for the container `name`, whose files are in the folder `id`. */
  launch(name: string, id: string): ChildProcess;
  /** Ends it, for whom it could not be used. */
  drop(): void;
}

/** Keeps one process ahead for containers that listen on the address that was asked for last. */
export class Launcher {
  readonly #lxc_dir: string;
  readonly #files_dir: string;
  #ready: { host: string; port: number; child: ChildProcess } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #making: Promise<void> | undefined;
  #closed = false;

  /** `files_dir`: below it each container has a folder of files, by its id. */
  constructor(lxc_dir: string, files_dir: string) {
    this.#lxc_dir = lxc_dir;
    this.#files_dir = files_dir;
  }

  /** What is ready for a container that listens on `host`, if it is. */
  take(host: string): Ahead | undefined {
    clearTimeout(this.#timer);
    const ready = this.#ready;
    if (!ready || ready.host !== host) return undefined;
    this.#ready = undefined;
    const { child, port } = ready;
    if (child.exitCode !== null || child.signalCode !== null) return undefined;
    return {
      port,
      launch(name, id) {
        hold(child, true);
        child.stdin!.end(`${name} ${id}\n`);
        return child;
      },
      drop: () => void child.kill('SIGKILL'),
    };
  }

  /** Makes one for `host` when nobody has started a container for a moment. */
  soon(host: string): void {
    clearTimeout(this.#timer);
    if (this.#closed || this.#ready?.host === host) return;
    this.#timer = setTimeout(() => {
      this.#making ??= this.#make(host).finally(() => {
        this.#making = undefined;
      });
    }, AHEAD_MS);
    this.#timer.unref();
  }

  async #make(host: string): Promise<void> {
    await this.#drop();
    // Where there is none a container is started without it, and tells what is wrong.
    const server = await listen(host).catch(() => undefined);
    if (!server) return;
    try {
      const port = portOf(server);
      const child = spawnBound(
        [],
        ['/bin/sh', '-c', WAITING, 'hauki-launcher', this.#lxc_dir, this.#files_dir],
        'pipe',
        server,
      );
      child.stdin!.on('error', () => {});
      hold(child, false);
      this.#ready = { host, port, child };
    } catch {
      // As above.
    } finally {
      server.close();
    }
    if (this.#closed) await this.#drop();
  }

  /** Ends what is ready; resolves when it is gone. */
  async #drop(): Promise<void> {
    const { child } = this.#ready ?? {};
    this.#ready = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.ref();
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
    for (const stream of child.stdio) stream?.destroy();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#making;
    await this.#drop();
  }
}

/** Whether this process stays for it. */
function hold(child: ChildProcess, on: boolean): void {
  const how = on ? 'ref' : 'unref';
  child[how]();
  for (const stream of child.stdio) (stream as Socket | null)?.[how]();
}
