/**
 * The vault host: the process, outside the agent's, that holds all quickjs vaults of one node, in threads. A watchdog
 * ends a thread whose VM does not come back; nothing else of the process is touched. The host ends when the agent does.
 */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { LIMITS } from '@hauki/protocol';
import { makeImages } from './image.ts';
import { lean } from './lean.ts';
import { END_MS, WATCH_EVERY_MS } from './limits.ts';
import type { Down, Scripts, StartMessage, UnfitMessage, Up } from './messages.ts';
import { type Thread, Threads } from './threads.ts';

const homes = new Map<string, { thread: Thread; doom: Int32Array; late?: NodeJS.Timeout }>();
/** Text that a vault has sent up and the agent has not taken yet. */
const unsent = new Map<string, number>();

function up(message: Up | UnfitMessage): void {
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
  // One that waits behind another's endless turn, or cannot be stopped, goes with its thread: not with the whole host.
  home.late ??= setTimeout(
    () => threads.lose(home.thread, 'code in its thread did not return, and its thread had to be ended'),
    END_MS,
  );
}

const [wasm, { thread, ...scripts }] = await Promise.all([
  readFile(fileURLToPath(import.meta.resolve('quickjs-wasi/quickjs.wasm'))).then((bytes) =>
    WebAssembly.compile(lean(bytes)),
  ),
  new Promise<Scripts>((resolve) => process.once('message', (m) => resolve(m as Scripts))),
]);

const threads = new Threads({
  script: thread,
  wasm,
  images: await makeImages(wasm, scripts),
  heard(thread, message) {
    if (message.op === 'gone') {
      forget(message.id);
      threads.leave(thread, message.id);
    }
    up(message);
  },
  unfit: (ids) => up({ op: 'unfit', ids }),
  lost(ids, reason) {
    for (const id of ids) {
      forget(id);
      up({ op: 'gone', id, cause: 'misbehaved', reason });
    }
  },
});

function start(message: StartMessage): void {
  const thread = threads.take(message.owner, message.id);
  const doom = new SharedArrayBuffer(4);
  homes.set(message.id, { thread, doom: new Int32Array(doom) });
  threads.send(thread, { ...message, doom });
}

process.on('message', (message: Down) => {
  if (message.op === 'start') return start(message);
  const home = homes.get(message.id);
  if (!home) return;
  if (message.op === 'kill') doomVault(message.id);
  else threads.send(home.thread, message);
});
process.on('disconnect', () => process.exit(0));
setInterval(() => threads.watch(), WATCH_EVERY_MS);
process.send!({ op: 'ready' });
