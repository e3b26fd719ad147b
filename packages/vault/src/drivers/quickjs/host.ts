/**
 * The vault host: the process, outside the agent's, that holds all quickjs vaults of one node. A thread holds the vaults
 * of one owner only. A watchdog ends a thread whose VM does not come back, with every vault in it; nothing else of the
 * process is touched. The host ends when the agent does.
 */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { LIMITS } from '@hauki/protocol';
import { QuickJS } from 'quickjs-wasi';
import type { Down, StartMessage, ThreadData, Up } from './messages.ts';

/** One turn of a guest's code: generous for honest work, short against the 30 s of a lease. */
const TURN_MS = 5_000;
/** The VM's own interrupt comes first; past this the thread itself is ended. */
const GRACE_MS = 500;
const WATCH_EVERY_MS = 250;
const THREADS_PER_OWNER = 4;
/** Vaults that a thread takes before its owner gets another. */
const VAULTS_BEFORE_NEXT_THREAD = 16;
/** An owner's last thread is kept for a moment, because who clones once clones again. */
const IDLE_THREAD_MS = 30_000;

interface Thread {
  worker: Worker;
  owner: string | undefined;
  vaults: Set<string>;
  busy: Float64Array;
  idle_timer?: NodeJS.Timeout;
}

const threads = new Set<Thread>();
const homes = new Map<string, { thread: Thread; doom: Int32Array }>();
/** Text that a vault has sent up and the agent has not taken yet. */
const unsent = new Map<string, number>();

function up(message: Up): void {
  if (message.op !== 'text') {
    if (message.op === 'gone') unsent.delete(message.id);
    process.send?.(message, () => {});
    return;
  }
  const { id, text, bytes } = message;
  const size = text.length + (bytes?.length ?? 0);
  const waiting = (unsent.get(id) ?? 0) + size;
  unsent.set(id, waiting);
  if (waiting > LIMITS.unsent_bytes) return doomVault(id);
  process.send?.(message, () => {
    const left = (unsent.get(id) ?? 0) - size;
    if (left > 0) unsent.set(id, left);
    else unsent.delete(id);
  });
}

/** Ends a vault, also in the middle of its turn: a VM that spins hears no message, but sees the flag. */
function doomVault(id: string): void {
  const home = homes.get(id);
  if (!home) return;
  Atomics.store(home.doom, 0, 1);
  home.thread.worker.postMessage({ op: 'kill', id });
}

const wasm = await WebAssembly.compile(await readFile(fileURLToPath(import.meta.resolve('quickjs-wasi/quickjs.wasm'))));
const script = await new Promise<string>((resolve) => process.once('message', (m) => resolve(m as string)));
const compiler = await QuickJS.create({ wasm });
const bytecode = compiler.compile(script, 'guest.js');
compiler.dispose();

function gone(thread: Thread, reason: string): void {
  if (!threads.delete(thread)) return;
  clearTimeout(thread.idle_timer);
  for (const id of thread.vaults) {
    homes.delete(id);
    up({ op: 'gone', id, cause: 'misbehaved', reason });
  }
}

function startThread(): Thread {
  const busy = new SharedArrayBuffer(8);
  const data: ThreadData = { wasm, bytecode, turn_ms: TURN_MS, busy };
  const worker = new Worker(new URL('./thread.ts', import.meta.url), {
    workerData: data,
    stdout: false,
    stderr: false,
  });
  const thread: Thread = { worker, owner: undefined, vaults: new Set(), busy: new Float64Array(busy) };
  threads.add(thread);
  worker.on('message', (message: Up) => {
    if (message.op === 'gone') {
      homes.delete(message.id);
      thread.vaults.delete(message.id);
      if (thread.vaults.size === 0) rest(thread);
    }
    up(message);
  });
  worker.on('error', (error: Error) => gone(thread, `its thread failed: ${error.message}`));
  worker.on('exit', () => gone(thread, 'its thread ended'));
  return thread;
}

function rest(thread: Thread): void {
  thread.idle_timer = setTimeout(() => {
    threads.delete(thread);
    void thread.worker.terminate();
  }, IDLE_THREAD_MS);
}

function threadFor(owner: string): Thread {
  const own = [...threads].filter((t) => t.owner === owner).sort((a, b) => a.vaults.size - b.vaults.size);
  const [least] = own;
  if (least && (least.vaults.size < VAULTS_BEFORE_NEXT_THREAD || own.length >= THREADS_PER_OWNER)) return least;
  const spare = [...threads].find((t) => t.owner === undefined);
  const thread = spare ?? startThread();
  thread.owner = owner;
  setImmediate(() => {
    if (![...threads].some((t) => t.owner === undefined)) startThread();
  });
  return thread;
}

function start(message: StartMessage): void {
  const thread = threadFor(message.owner);
  clearTimeout(thread.idle_timer);
  thread.vaults.add(message.id);
  const doom = new SharedArrayBuffer(4);
  homes.set(message.id, { thread, doom: new Int32Array(doom) });
  thread.worker.postMessage({ ...message, doom });
}

function watch(): void {
  const now = performance.timeOrigin + performance.now();
  for (const thread of threads) {
    const since = thread.busy[0]!;
    if (since === 0 || now - since < TURN_MS + GRACE_MS) continue;
    gone(thread, `code in its thread ran for more than ${TURN_MS} ms and could not be interrupted`);
    void thread.worker.terminate();
  }
}

process.on('message', (message: Down) => {
  if (message.op === 'start') return start(message);
  const home = homes.get(message.id);
  if (!home) return;
  if (message.op === 'kill') doomVault(message.id);
  else home.thread.worker.postMessage(message);
});
process.on('disconnect', () => process.exit(0));
startThread();
setInterval(watch, WATCH_EVERY_MS);
process.send!({ op: 'ready' });
