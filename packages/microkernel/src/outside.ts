/**
 * The ways out of a kernel that has no network: Unix sockets that whoever runs it serves. One leads to the core; over the
 * other a stream to `host:port` is asked for by a line, `connect host:port`, and begins behind the answer `ok`.
 */
import { connect, type Socket } from 'node:net';
import { LIMITS, RemoteError } from '@hauki/protocol';

/** An answer is one line. */
const ANSWER_BYTES = 1_024;

/** A stream over a Unix socket. Rejects as `node:net` does, or when the signal is aborted. */
export function dialSocket(path: string, signal = AbortSignal.timeout(LIMITS.connect_ms)): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket = connect(path);
  const give_up = () => socket.destroy(signal.reason);
  signal.addEventListener('abort', give_up);
  socket.once('error', reject);
  socket.once('connect', () => {
    signal.removeEventListener('abort', give_up);
    socket.off('error', reject);
    resolve(socket);
  });
  if (signal.aborted) give_up();
  return promise;
}

/**
 * The line with which a connection begins; empty where there is none within `most` bytes. What comes behind it is left
 * to be read, and the socket stands still.
 */
export function firstLine(socket: Socket, most: number, take: (line: string) => void): void {
  let said = Buffer.alloc(0);
  const gather = (chunk: Buffer) => {
    said = Buffer.concat([said, chunk]);
    const end = said.indexOf(10);
    if (end < 0 && said.length < most) return;
    socket.off('data', gather).pause();
    if (end + 1 < said.length) socket.unshift(said.subarray(end + 1));
    take(said.subarray(0, Math.max(end, 0)).toString());
  };
  socket.on('data', gather);
}

/** A stream to `host:port` from the one who serves `path`. Rejects with RemoteError where it is refused. */
export async function dialThrough(path: string, target: string, signal: AbortSignal): Promise<Socket> {
  const socket = await dialSocket(path, signal);
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const refuse = (why: string) => {
    reject(new RemoteError({ error_name: 'Error' }, `connect failed: ${target}: ${why}`));
    socket.destroy();
  };
  const lost = () => refuse('whoever has the network went away');
  const give_up = () => refuse('it took too long');
  firstLine(socket, ANSWER_BYTES, (said) => {
    socket.off('close', lost);
    signal.removeEventListener('abort', give_up);
    if (said === 'ok') resolve(socket);
    else refuse(said.replace(/^no /, '').slice(0, 300));
  });
  socket.on('close', lost).on('error', () => {});
  signal.addEventListener('abort', give_up);
  socket.write(`connect ${target}\n`);
  return promise;
}
