/**
 * The gate host: the one process of a node that holds the gates of its vaults without a listening socket
 * (`guest/outer-shell.ts`). It has the callers' keys and the vaults' ports, and nothing of the agent; it ends with the
 * agent, and then fd 4 of every such vault ends, and the vault with it.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { describe, LIMITS } from '@hauki/protocol';
import { joinBytes, type PortTransport, portTransport } from '@hauki/rpc';
import { runOuterShell } from '../guest/outer-shell.ts';
import type { Down, Up } from './messages.ts';

interface Held {
  control: PortTransport;
  /** Text for the agent that it has not taken yet. */
  unsent: number;
}

const gates = new Map<string, Held>();
const up = (message: Up, sent: () => void = () => {}) => process.send?.(message, undefined, {}, sent);

async function open(id: string, listen_host: string, link: Socket): Promise<void> {
  const server = createServer();
  const sockets = new Set<Socket>();
  const gone = (cause: 'exited' | 'misbehaved', reason: string) => {
    gates.delete(id);
    link.destroy();
    // The port first: whose connection has ended finds it closed.
    server.close(() => up({ op: 'gone', id, cause, reason }));
    for (const socket of sockets) socket.destroy();
  };
  link.on('error', () => {});
  try {
    await listening(server, listen_host);
  } catch (error) {
    return gone('exited', `no port on ${listen_host}: ${describe(error)}`);
  }
  server.on('connection', (socket) => {
    socket.on('error', () => socket.destroy());
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  const held: Held = {
    unsent: 0,
    control: portTransport((text, bytes) => {
      const whole = bytes && joinBytes(bytes);
      const size = text.length + (whole?.length ?? 0);
      held.unsent += size;
      if (held.unsent > LIMITS.unsent_bytes) return held.control.closed('it flooded its control channel');
      up({ op: 'text', id, text, bytes: whole }, () => {
        held.unsent -= size;
      });
    }),
  };
  gates.set(id, held);
  void runOuterShell({ control: held.control, server, link }).then(({ cause, reason }) => gone(cause, reason));
  up({ op: 'opened', id, port: (server.address() as { port: number }).port });
}

function listening(server: Server, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, host, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

process.on('message', (message: Down, handle: unknown) => {
  const { id } = message;
  if (message.op === 'open') {
    if (handle) void open(id, message.listen_host, handle as Socket);
    else up({ op: 'gone', id, cause: 'exited', reason: 'its channel was closed before its gate was open' });
  } else if (message.op === 'text') gates.get(id)?.control.deliver(message.text, message.bytes);
  else gates.get(id)?.control.closed(message.reason);
});
// One gate's mishap must not end all of them.
process.on('unhandledRejection', () => {});
process.on('disconnect', () => process.exit(0));
