/** A thread of the vault host: it holds one owner's QuickJS vaults, each a VM, a shell, and a listening socket. */
import { readlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import { describe, LIMITS } from '@hauki/protocol';
import { joinBytes, type PortTransport, portTransport } from '@hauki/rpc';
import { runShell } from '../../guest/shell.ts';
import { hinted, stripTypes } from '../../guest/typescript.ts';
import { Engines } from './engines.ts';
import type { VmImage } from './image.ts';
import { SPARES, TURN_MS, WEB_AFTER_MS } from './limits.ts';
import { openLine, type ThreadLine, Unsent } from './line.ts';
import {
  type Aside,
  CLOCK,
  type Down,
  type Gone,
  now_ms,
  type Order,
  type StartMessage,
  type ThreadData,
} from './messages.ts';
import { Meter } from './meter.ts';
import { Rota } from './rota.ts';
import { Spares } from './spares.ts';
import { Vm, type VmCause } from './vm.ts';

const { wasm, images, address, clock: shared } = workerData as ThreadData;
const clock = new Float64Array(shared);
const aside = (message: Aside) => parentPort!.postMessage(message);

interface Held {
  vm: Vm;
  server: Server;
  sockets: Set<Socket>;
  control: PortTransport;
}

/** How often is looked whether the agent has taken a vault's end. */
const LEFT_MS = 5;
/** Without it the thread can do nothing: its host tells what became of its vaults. */
let line!: ThreadLine;
const opened = openLine(address, hear, () => process.exit(1)).then(
  (made) => {
    line = made;
  },
  () => process.exit(1),
);

const vaults = new Map<string, Held>();
const unsent = new Unsent();

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
function parsing<T>(run: () => T): T {
  busy(TURN_MS.default);
  try {
    return run();
  } finally {
    busy(0);
  }
}
const prepare = (source: string, language: string, name?: string): string =>
  language === 'typescript' ? parsing(() => stripTypes(source, name)) : source;
const explain = (refusal: unknown, source: string, language: string): unknown =>
  language === 'javascript' ? parsing(() => hinted(refusal, source)) : refusal;

function gone(id: string, how: Gone): void {
  line.send({ op: 'gone', id, ...how });
  // The host may end the thread then: not before that has left.
  const left = () => (line.unsent > 0 ? void setTimeout(left, LEFT_MS) : aside({ op: 'left', id }));
  left();
}

/** What a vault says to the agent, who may be slow to take it. */
function say(id: string, text: string, bytes: Uint8Array | undefined): void {
  const waiting = unsent.add(id, text.length + (bytes?.length ?? 0), line.unsent);
  if (waiting > LIMITS.unsent_bytes) release(id, 'misbehaved', 'it flooded its control channel');
  else line.send({ op: 'text', id, text, bytes });
}

function release(id: string, cause: 'killed' | VmCause | 'exited', reason: string): void {
  const held = vaults.get(id);
  if (!held) return;
  vaults.delete(id);
  const usage = held.vm.used();
  held.vm.dispose();
  // The port first: whose connection has ended finds it closed.
  held.server.close(() => gone(id, { cause, reason, usage }));
  for (const socket of held.sockets) socket.destroy();
  held.control.closed(reason);
}

const rota = new Rota();
const engines = new Engines(wasm, images.bare.memory_bytes);
const sparesOf = (image: VmImage, least: number, after_ms?: number) =>
  new Spares<Vm>({
    make: async () =>
      new Vm({
        ...{ engine: await engines.take(), image, rota, busy, extend },
        ended: (engine) => engines.give(engine),
        soiled: () => aside({ op: 'soiled' }),
      }),
    now: () => performance.now(),
    least,
    most: SPARES,
    ...(after_ms === undefined ? {} : { after_ms }),
  });
const spares = { bare: sparesOf(images.bare, 1), web: sparesOf(images.web, 0, WEB_AFTER_MS) };

async function start({ id, listen_host, web, doom }: StartMessage): Promise<void> {
  const server = createServer();
  const doomed = new Int32Array(doom!);
  await opened;
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
      server.close(() => gone(id, { cause: 'killed', reason: 'killed' }));
      return;
    }
    if (!vm.own({ doom: doomed, lost })) throw new Error('its VM failed before it was used');
    const sockets = new Set<Socket>();
    server.on('connection', (socket) => {
      socket.on('error', () => socket.destroy());
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
    });
    const control = portTransport((text, bytes) => say(id, text, bytes && joinBytes(bytes)));
    vaults.set(id, { vm, server, sockets, control });
    void runShell({ control, server, prepare, explain, inside: (setup, outside) => vm.inside(setup, outside) }).then(
      (reason) => release(id, 'exited', reason),
    );
    line.send({ op: 'started', id, port: (server.address() as { port: number }).port });
  } catch (error) {
    server.close();
    gone(id, { cause: 'failed_to_start', reason: describe(error) });
  }
}

// One vault's mishap must not end the thread of all.
process.on('unhandledRejection', () => {});

function hear(message: Down): void {
  const held = vaults.get(message.id);
  if (message.op === 'assign') held?.vm.limit(message, new Meter(message.cpu, () => performance.now()));
  if (message.op === 'assign' || message.op === 'text') held?.control.deliver(message.text!, message.bytes);
  else if (held) {
    if (message.op === 'pause') held.vm.pause(message.on);
    line.send({ op: 'used', id: message.id, ask: message.ask, ...held.vm.used() });
  }
}

parentPort!.on('message', (message: Order) => {
  if (message.op === 'start') void start(message);
  else release(message.id, 'killed', 'killed');
});

try {
  // PID/task/TID, as the thread that asks sees itself.
  const tid = Number(readlinkSync('/proc/thread-self').split('/').at(-1));
  if (tid > 0) aside({ op: 'thread', tid });
} catch {
  // Not Linux: then no thread gives way to another.
}
spares.bare.fill();
