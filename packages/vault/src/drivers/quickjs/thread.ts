/** A thread of the vault host: it holds one owner's QuickJS vaults, each a VM, a shell, and a listening socket. */
import { readlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import { describe } from '@hauki/protocol';
import { joinBytes, type PortTransport, portTransport } from '@hauki/rpc';
import { runShell } from '../../guest/shell.ts';
import { stripTypes } from '../../guest/typescript.ts';
import type { VmImage } from './image.ts';
import { SPARES, TURN_MS } from './limits.ts';
import { type Aside, CLOCK, type Down, now_ms, type StartMessage, type ThreadData, type Up } from './messages.ts';
import { Meter } from './meter.ts';
import { Spares } from './spares.ts';
import { createVm, type Vm, type VmCause } from './vm.ts';

const { wasm, images, clock: shared } = workerData as ThreadData;
const clock = new Float64Array(shared);
const up = (message: Up | Aside) => parentPort!.postMessage(message);

interface Held {
  vm: Vm;
  server: Server;
  sockets: Set<Socket>;
  control: PortTransport;
}

const vaults = new Map<string, Held>();

/** Tells the watchdog that code of a stranger runs from now on, for so long at most; 0: that it has come back. */
function busy(turn_ms: number): void {
  const now = now_ms();
  if (turn_ms > 0) {
    clock[CLOCK.since] = now;
    clock[CLOCK.until] = now + turn_ms;
  } else {
    clock[CLOCK.spent] = clock[CLOCK.spent]! + (now - clock[CLOCK.since]!);
    clock[CLOCK.until] = 0;
  }
}

const extend = (more_ms: number) => {
  clock[CLOCK.until] = now_ms() + more_ms;
};

/** The parser sees a stranger's text: the watchdog's clock runs for it too. */
function prepare(source: string, language: string, name?: string): string {
  if (language !== 'typescript') return source;
  busy(TURN_MS.default);
  try {
    return stripTypes(source, name);
  } finally {
    busy(0);
  }
}

function release(id: string, cause: 'killed' | VmCause | 'exited', reason: string): void {
  const held = vaults.get(id);
  if (!held) return;
  vaults.delete(id);
  const usage = held.vm.used();
  held.vm.dispose();
  // The port first: whose connection has ended finds it closed.
  held.server.close(() => up({ op: 'gone', id, cause, reason, usage }));
  for (const socket of held.sockets) socket.destroy();
  held.control.closed(reason);
}

const sparesOf = (image: VmImage, least: number) =>
  new Spares<Vm>({
    make: () => createVm({ wasm, image, busy, extend, soiled: () => up({ op: 'soiled' }) }),
    now: () => performance.now(),
    least,
    most: SPARES,
  });
const spares = { bare: sparesOf(images.bare, 1), web: sparesOf(images.web, 0) };

async function start({ id, listen_host, web, doom }: StartMessage): Promise<void> {
  const server = createServer();
  const doomed = new Int32Array(doom!);
  try {
    const [vm] = await Promise.all([
      spares[web ? 'web' : 'bare'].take(),
      new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(0, listen_host, resolve);
      }),
    ]);
    const lost = (cause: VmCause, reason: string) =>
      doomed[0] === 1 ? release(id, 'killed', 'killed') : release(id, cause, reason);
    if (doomed[0] === 1) {
      vm.dispose();
      server.close(() => up({ op: 'gone', id, cause: 'killed', reason: 'killed' }));
      return;
    }
    if (!vm.own({ doom: doomed, lost })) throw new Error('its VM failed before it was used');
    const sockets = new Set<Socket>();
    server.on('connection', (socket) => {
      socket.on('error', () => socket.destroy());
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
    });
    const control = portTransport((text, bytes) => up({ op: 'text', id, text, bytes: bytes && joinBytes(bytes) }));
    vaults.set(id, { vm, server, sockets, control });
    void runShell({ control, server, prepare, inside: (setup, outside) => vm.inside(setup, outside) }).then((reason) =>
      release(id, 'exited', reason),
    );
    up({ op: 'started', id, port: (server.address() as { port: number }).port });
  } catch (error) {
    server.close();
    up({ op: 'gone', id, cause: 'failed_to_start', reason: describe(error) });
  }
}

// One vault's mishap must not end the thread of all.
process.on('unhandledRejection', () => {});

parentPort!.on('message', (message: Down) => {
  if (message.op === 'start') return void start(message);
  if (message.op === 'kill') return release(message.id, 'killed', 'killed');
  const held = vaults.get(message.id);
  if (message.op === 'assign') held?.vm.limit({ ...message, meter: new Meter(message.cpu, () => performance.now()) });
  if (message.op === 'assign' || message.op === 'text') held?.control.deliver(message.text, message.bytes);
  else if (held) {
    if (message.op === 'pause') held.vm.pause(message.on);
    up({ op: 'used', id: message.id, ask: message.ask, ...held.vm.used() });
  }
});

try {
  // PID/task/TID, as the thread that asks sees itself.
  const tid = Number(readlinkSync('/proc/thread-self').split('/').at(-1));
  if (tid > 0) up({ op: 'thread', tid });
} catch {
  // Not Linux: then no thread gives way to another.
}
spares.bare.fill();
