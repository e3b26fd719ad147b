/**
 * Starts cores and node agents as processes of their own on this machine, for `hauki up`, the demo, tests, benchmarks.
 * Each has a channel to the process that started it and ends with that, however that ends.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { appendFileSync, readFileSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CoreProcessOptions } from '@hauki/core';
import { adminTokenFile, kernelTokenFile, nodeTokenFile } from '@hauki/mesh/data-dir';
import type { KernelProcessOptions } from '@hauki/microkernel';
import type { NodeOptions } from '@hauki/node';
import { fromWire } from '@hauki/protocol';
import { readableLog } from './log-lines.ts';
import { makeFolder } from './named-files.ts';

/** A core may have much to repair at its start, a node a runtime to stage. */
const READY_MS = 180_000;
/** Workers get their end hook; past this a process is killed. */
const STOP_MS = 10_000;

export interface Started {
  child: ChildProcess;
  /** Asks it to end, then sees to it. */
  stop(): Promise<void>;
  /** Kills it as a crash would. */
  kill(): Promise<void>;
}

/** Where a process's log goes: the terminal, or a file. */
export type LogTo = 'inherit' | 'ignore' | { file: string };

/** A log of this size becomes FILE.1, in place of the one before. */
const LOG_BYTES = 32 * 1024 * 1024;

/** Puts lines at the end of a log. */
function keepLog(file: string, lines: Buffer): void {
  try {
    const bytes = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
    if (bytes > 0 && bytes + lines.length > LOG_BYTES) renameSync(file, `${file}.1`);
    appendFileSync(file, lines, { mode: 0o600 });
  } catch {
    // A full disk: these lines are lost, and nothing else. The mesh goes on.
  }
}

interface ReadyMessage {
  ready?: boolean;
  failed?: string;
  /** What failed, as on the wire, where it is an error of ours. */
  typed?: unknown;
  url?: string;
  node?: string;
}

async function start(
  entry: string,
  env: Record<string, string>,
  log: LogTo,
  signal: AbortSignal | undefined,
  flags: string[] = [],
): Promise<Started & { said: ReadyMessage }> {
  signal?.throwIfAborted();
  // What of its files is secret has a mode of its own. The others are read by vaults' mapped users, which must not depend
  // on who starts it, and code that it compiles is kept among them, which nobody else may change.
  const umask = process.umask(0o022);
  const for_people = log === 'inherit' && process.stderr.isTTY;
  let child: ChildProcess;
  try {
    child = fork(fileURLToPath(import.meta.resolve(entry)), [], {
      env: { ...process.env, ...env },
      // Options of this process (a test runner's, a debugger's) are not the children's.
      execArgv: ['--disable-warning=ExperimentalWarning', ...flags],
      stdio: ['ignore', 'ignore', typeof log === 'object' || for_people ? 'pipe' : log, 'ipc'],
    });
  } finally {
    process.umask(umask);
  }
  if (for_people)
    child.stderr!.on(
      'data',
      readableLog((text) => process.stderr.write(text)),
    );
  if (typeof log === 'object') child.stderr!.on('data', (lines: Buffer) => keepLog(log.file, lines));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const started: Started = {
    child,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      await ended;
      clearTimeout(timer);
    },
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
  };
  const breakOff = () => void started.stop();
  signal?.addEventListener('abort', breakOff);
  const told = typeof log === 'object' ? `. Its log: ${log.file}` : '';
  const said = await new Promise<ReadyMessage>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`${entry} was not ready within ${READY_MS} ms${told}`));
    }, READY_MS);
    child.once('message', (message: ReadyMessage) => {
      clearTimeout(timer);
      if (message.failed) reject(message.typed ? fromWire(message.typed) : new Error(message.failed));
      else resolve(message);
    });
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(new Error(`${entry} could not be started: ${error.message}`));
    });
    child.once('exit', (code, killed_by) => {
      clearTimeout(timer);
      reject(new Error(`${entry} ended before it was ready (${killed_by ?? `code ${code}`})${told}`));
    });
  }).finally(() => signal?.removeEventListener('abort', breakOff));
  return { ...started, said };
}

export interface StartedCore extends Started {
  url: string;
  data_dir: string;
  /** The admin token; kept out of logs by whoever has it. */
  token: string;
}

/**
 * Where Node keeps what it has compiled, beside what is installed. Reading that, instead of stripping types again,
 * saves a core a third of its memory and of its start. Where the folder cannot be written it does without.
 */
const COMPILED = fileURLToPath(new URL('../../../node_modules/.cache/hauki', import.meta.url));

/** A request of a core leaves little behind; with the default of 16 MiB its young heap alone would take 50. */
const CORE_FLAGS = ['--max-semi-space-size=4'];

/**
 * What a change of a module leaves behind lives as long as the change: with the default of 16 MiB so much has gathered at
 * each collection of the young heap that requests wait 7 ms for it, 18 at worst. So it is the old heap that it fills: left
 * to itself that is collected when it is some times as large as what is needed, on a machine with much memory far later.
 */
const KERNEL_FLAGS = ['--max-semi-space-size=4', '--heap-growing-percent=50'];

/** Starts a core over `<data_dir>/core`. `signal` breaks it off until it has started, as with all of these. */
export async function startCore(
  data_dir: string,
  options: Omit<CoreProcessOptions, 'data_dir'> = {},
  log: LogTo = 'ignore',
  signal?: AbortSignal,
): Promise<StartedCore> {
  makeFolder(data_dir);
  const all: CoreProcessOptions = { ...options, data_dir: join(data_dir, 'core') };
  const { said, ...started } = await start(
    '@hauki/core/main',
    { NODE_COMPILE_CACHE: COMPILED, HAUKI_CORE_OPTIONS: JSON.stringify(all) },
    log,
    signal,
    CORE_FLAGS,
  );
  return { ...started, url: said.url!, data_dir, token: readFileSync(adminTokenFile(data_dir), 'utf8').trim() };
}

export interface StartedNode extends Started {
  node: string;
}

/** Starts a node agent over `<data_dir>/<name>`, joined to the core at `core_url`, with the token file of `token_dir`. */
export async function startNode(
  options: Omit<NodeOptions, 'data_dir' | 'token_file'> & { data_dir: string; token_file?: string },
  log: LogTo = 'ignore',
  signal?: AbortSignal,
): Promise<StartedNode> {
  const { data_dir, token_file = nodeTokenFile(data_dir), ...rest } = options;
  makeFolder(data_dir);
  const all: NodeOptions = { ...rest, data_dir, token_file };
  const { said, ...started } = await start(
    '@hauki/node/main',
    { HAUKI_NODE_OPTIONS: JSON.stringify(all) },
    log,
    signal,
  );
  return { ...started, node: said.node! };
}

export interface StartedKernel extends Started {
  url: string;
  id: string;
  /** Opens it; kept out of logs by whoever has it. */
  token: string;
}

/** Starts a microkernel over `data_dir`. */
export async function startKernel(
  options: KernelProcessOptions,
  log: LogTo = 'ignore',
  signal?: AbortSignal,
): Promise<StartedKernel> {
  const { data_dir, id } = options;
  makeFolder(data_dir);
  const env = { NODE_COMPILE_CACHE: COMPILED, HAUKI_KERNEL_OPTIONS: JSON.stringify(options) };
  const { said, ...started } = await start('@hauki/microkernel/main', env, log, signal, KERNEL_FLAGS);
  return { ...started, url: said.url!, id, token: readFileSync(kernelTokenFile(data_dir), 'utf8').trim() };
}

export interface LocalMesh extends AsyncDisposable {
  url: string;
  token: string;
  data_dir: string;
  core: StartedCore;
  nodes: StartedNode[];
  stop(): Promise<void>;
}

export interface LocalMeshOptions {
  data_dir: string;
  /** 0: a free one. */
  port?: number;
  /** Where the core listens; loopback when left out. */
  host?: string;
  /** What the core answers for besides loopback's names. */
  host_names?: string[];
  nodes?: Partial<NodeOptions>[];
  log?: LogTo;
  /** Breaks off its start. */
  signal?: AbortSignal;
}

/** A core and its nodes on this machine. What fails to start takes the rest down with it. */
export async function startMesh(options: LocalMeshOptions): Promise<LocalMesh> {
  const { data_dir, port = 0, host, host_names, log = 'ignore', signal } = options;
  const listening = { port, ...(host ? { host } : {}), ...(host_names ? { host_names } : {}) };
  const core = await startCore(data_dir, listening, log, signal);
  const outcomes = await Promise.allSettled(
    (options.nodes ?? [{}]).map(({ name = 'node', ...node }) =>
      startNode(
        {
          core_url: core.url,
          ...(name === 'node' ? {} : { name }),
          ...node,
          data_dir: join(data_dir, name),
          token_file: nodeTokenFile(data_dir),
        },
        log,
        signal,
      ),
    ),
  );
  const nodes = outcomes.filter((o) => o.status === 'fulfilled').map((o) => o.value);
  const mesh: LocalMesh = {
    url: core.url,
    token: core.token,
    data_dir,
    core,
    nodes,
    // What runs now: a process that was killed and started again has taken its place here.
    async stop() {
      await Promise.all(mesh.nodes.map((node) => node.stop()));
      await mesh.core.stop();
    },
    [Symbol.asyncDispose]: () => mesh.stop(),
  };
  const failed = outcomes.find((o) => o.status === 'rejected');
  if (failed) {
    await mesh.stop();
    throw failed.reason;
  }
  return mesh;
}
