/**
 * The vault host: the process, outside the agent's, that holds all quickjs vaults of one node, in threads. A watchdog
 * ends a thread whose VM does not come back; nothing else of the process is touched. The host ends when the agent does.
 */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { makeImages } from './image.ts';
import { lean } from './lean.ts';
import { END_MS, WATCH_EVERY_MS } from './limits.ts';
import { CLOCK, type HostData, type Order, type Report, type StartMessage } from './messages.ts';
import { type Thread, Threads } from './threads.ts';

interface Home {
  thread: Thread;
  doom: Int32Array;
  late?: NodeJS.Timeout;
}

const homes = new Map<string, Home>();

const report = (message: Report) => void process.send?.(message, () => {});

function forget(id: string): void {
  clearTimeout(homes.get(id)?.late);
  homes.delete(id);
}

/** Ends a vault, also in the middle of its turn: a VM that spins hears no message, but sees the flag. */
function doomVault(id: string): void {
  const home = homes.get(id);
  if (!home) return;
  Atomics.store(home.doom, 0, 1);
  threads.send(home.thread, { op: 'kill', id });
  threads.hurry(home.thread);
  if (!home.late) awaitEnd(home);
}

/**
 * Whatever is in a turn is the watchdog's affair. What is stuck outside any goes with its thread: not with the whole host.
 */
function awaitEnd(home: Home): void {
  const { clock } = home.thread;
  const spent = clock[CLOCK.spent];
  home.late = setTimeout(() => {
    if (clock[CLOCK.until] !== 0 || clock[CLOCK.spent] !== spent) awaitEnd(home);
    else threads.lose(home.thread, 'code in its thread did not return, and its thread had to be ended');
  }, END_MS);
}

const [wasm, { thread, address, ...scripts }] = await Promise.all([
  readFile(fileURLToPath(import.meta.resolve('quickjs-wasi/quickjs.wasm'))).then((bytes) =>
    WebAssembly.compile(lean(bytes)),
  ),
  new Promise<HostData>((resolve) => process.once('message', (m) => resolve(m as HostData))),
]);

const threads = new Threads({
  script: thread,
  wasm,
  address,
  images: await makeImages(wasm, scripts),
  left: forget,
  unfit: (ids) => report({ op: 'unfit', ids }),
  stranded() {
    console.error('a thread of the vault host could not be ended: the host ends, with all quickjs vaults of this node');
    process.kill(process.pid, 'SIGKILL');
  },
  lost(ids, reason) {
    for (const id of ids) forget(id);
    report({ op: 'lost', ids, reason });
  },
});

function start(message: StartMessage): void {
  const thread = threads.take(message.owner, message.id);
  const doom = new SharedArrayBuffer(4);
  homes.set(message.id, { thread, doom: new Int32Array(doom) });
  threads.send(thread, { ...message, doom });
}

process.on('message', (message: Order) => {
  if (message.op === 'start') start(message);
  else doomVault(message.id);
});
// An orderly exit would wait for its threads, also for one that cannot be stopped.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
// Who ends a whole service asks all its processes: the agent decides when this one ends.
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => {});
setInterval(() => threads.watch(), WATCH_EVERY_MS);
process.send!({ op: 'ready' });
