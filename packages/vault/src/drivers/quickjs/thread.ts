/** A thread of the vault host: it holds one owner's QuickJS vaults, each a VM, a shell, and a listening socket. */
import { createServer, type Server, type Socket } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import { describe } from '@hauki/protocol';
import { joinBytes, type PortTransport, portTransport } from '@hauki/rpc';
import { runShell } from '../../guest/shell.ts';
import { stripTypes } from '../../guest/typescript.ts';
import type { Down, StartMessage, ThreadData, Up } from './messages.ts';
import { createVm, type Vm } from './vm.ts';

const { wasm, bytecode, turn_ms, busy } = workerData as ThreadData;
const clock = new Float64Array(busy);
const up = (message: Up) => parentPort!.postMessage(message);

interface Held {
  vm: Vm;
  server: Server;
  sockets: Set<Socket>;
  control: PortTransport;
}

const vaults = new Map<string, Held>();
/** Long enough for the vault that took the last spare to have loaded its worker. */
const SPARE_AFTER_MS = 10;

/** The parser sees a stranger's text: the watchdog's clock runs for it too. */
function prepare(source: string, language: string, name?: string): string {
  if (language !== 'typescript') return source;
  busyAt(true);
  try {
    return stripTypes(source, name);
  } finally {
    busyAt(false);
  }
}

function release(id: string, cause: 'killed' | 'misbehaved' | 'exited', reason: string): void {
  const held = vaults.get(id);
  if (!held) return;
  vaults.delete(id);
  held.vm.dispose();
  // The port first: whose connection has ended finds it closed.
  held.server.close(() => up({ op: 'gone', id, cause, reason }));
  for (const socket of held.sockets) socket.destroy();
  held.control.closed(reason);
}

const busyAt = (on: boolean) => {
  clock[0] = on ? performance.timeOrigin + performance.now() : 0;
};
const makeVm = (memory_mib: number) => createVm({ wasm, bytecode, memory_mib, turn_ms, busy: busyAt });

/** One VM is prepared ahead, with the memory that was last asked for: whoever clones once clones again. */
let spare: { memory_mib: number; vm: Promise<Vm> } | undefined;

async function takeVm(memory_mib: number): Promise<Vm> {
  const ready = spare?.memory_mib === memory_mib ? spare.vm : undefined;
  spare = undefined;
  const vm = await (ready ?? makeVm(memory_mib));
  // Not at once: first the vault that is being born.
  setTimeout(() => {
    if (spare?.memory_mib === memory_mib) return;
    spare = { memory_mib, vm: makeVm(memory_mib) };
    spare.vm.catch(() => {
      spare = undefined;
    });
  }, SPARE_AFTER_MS);
  return vm;
}

async function start({ id, listen_host, memory_mib, doom }: StartMessage): Promise<void> {
  const server = createServer();
  const doomed = new Int32Array(doom!);
  try {
    const [vm] = await Promise.all([
      takeVm(memory_mib),
      new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(0, listen_host, resolve);
      }),
    ]);
    const misbehaved = (reason: string) =>
      doomed[0] === 1 ? release(id, 'killed', 'killed') : release(id, 'misbehaved', reason);
    if (doomed[0] === 1) {
      vm.dispose();
      server.close(() => up({ op: 'gone', id, cause: 'killed', reason: 'killed' }));
      return;
    }
    if (!vm.own({ doom: doomed, misbehaved })) throw new Error('its VM failed before it was used');
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
  if (message.op === 'start') void start(message);
  else if (message.op === 'kill') release(message.id, 'killed', 'killed');
  else vaults.get(message.id)?.control.deliver(message.text, message.bytes);
});
