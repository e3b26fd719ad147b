/**
 * The granted `connect`: a byte stream both ways to a listed host and port. The guest hands in what it will send, and gets
 * what comes, both as streams with credit, so that neither side holds more than a window. It ends with the vault, with
 * its grant, and when nothing has moved for long.
 */
import { connect, type Socket } from 'node:net';
import {
  BadInput,
  canonicalTarget,
  DeadlineExceeded,
  GrantMissing,
  LIMITS,
  MeshError,
  Overloaded,
  RemoteError,
} from '@hauki/protocol';
import { type Pieces, piecesFrom, piecesOf, pour } from './bytes.ts';
import { type EffectMaker, wasRevoked } from './effect.ts';
import { partsOf, type Route, reachable, routeTo } from './network.ts';

/** What a guest gets for `connect`. */
export interface Connected {
  /** The address that was connected to. */
  address: string;
  incoming: Pieces;
}

export const connectEffect: EffectMaker = (vault) => {
  const { network } = vault;
  let open = 0;

  const granted = (target: string): readonly string[] => {
    const { connect: listed } = vault.grants;
    if (!listed.includes(target)) throw new GrantMissing({ grant: 'connect', wanted: target });
    return listed;
  };

  return {
    async connect([given, outgoing], given_up): Promise<Connected> {
      const target = typeof given === 'string' ? canonicalTarget(given) : undefined;
      if (target === undefined)
        throw new BadInput({ what: 'connect', why: 'that is not host:port, as in irc.example.org:6697' });
      const listed = granted(target);
      const pieces = piecesFrom('what is sent to a connection', outgoing);
      if (open >= LIMITS.connections_out) {
        void pieces.return?.();
        throw new Overloaded({ what: 'connections of this worker', limit: LIMITS.connections_out });
      }
      open++;
      let letGo: (() => void) | undefined;
      let stopWatching: (() => void) | undefined;
      let why: Error | undefined;
      let socket: Socket | undefined;
      const end = (error: Error) => {
        why ??= error;
        socket?.destroy();
      };
      const over = () => {
        vault.ended.removeEventListener('abort', stop);
        stopWatching?.();
        letGo?.();
        open--;
      };
      const stop = () => end(new RemoteError({ error_name: 'Error' }, 'the vault has ended'));
      const late = AbortSignal.timeout(LIMITS.connect_ms);
      try {
        // A window each way.
        letGo = vault.hold(2 * LIMITS.stream_bytes);
        const signal = AbortSignal.any([given_up, late]);
        socket = network.dial
          ? await network.dial(target, signal)
          : await connected(
              await routeTo(target, { network, asker: vault.asker(), grant: 'connect', listed, signal }),
              signal,
            );
        const { remoteAddress: address = '' } = socket;
        vault.ended.addEventListener('abort', stop);
        stopWatching = vault.onRegrant(() => {
          const now = vault.grants.connect;
          const reached = network.dial !== undefined || reachable(network, now, address, partsOf(target).port);
          if (!now.includes(target) || !reached) end(wasRevoked({ grant: 'connect', wanted: target }));
        });
        // What changed while it was being opened.
        if (vault.ended.aborted) stop();
        granted(target);
        const failure = (error: unknown) => why ?? vault.told(failed(error, target));
        const timeout_ms = LIMITS.connection_idle_ms;
        socket.setTimeout(timeout_ms, () =>
          end(new DeadlineExceeded({ what: `The connection to ${target}`, timeout_ms, may_have_run: true })),
        );
        const incoming = piecesOf(socket, { failure, over });
        pour(pieces, socket, () => void pieces.return?.()).catch((error) => end(vault.told(error)));
        return { address, incoming };
      } catch (error) {
        socket?.destroy();
        void pieces.return?.();
        over();
        if (!late.aborted || given_up.aborted) throw failed(error, target);
        throw new DeadlineExceeded({ what: `connect ${target}`, timeout_ms: LIMITS.connect_ms, may_have_run: false });
      }
    },
  };
};

function connected(route: Route, signal: AbortSignal): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket = connect({ ...route, noDelay: true });
  const give_up = () => socket.destroy(signal.reason);
  signal.addEventListener('abort', give_up);
  socket.once('error', reject);
  socket.once('close', () => {
    signal.removeEventListener('abort', give_up);
    reject(new Error('it was closed'));
  });
  socket.once('connect', () => {
    signal.removeEventListener('abort', give_up);
    socket.off('error', reject);
    resolve(socket);
  });
  return promise;
}

/** Typed errors as they are, others by their code. */
function failed(error: unknown, target: string): Error {
  if (error instanceof MeshError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  return new RemoteError({ error_name: 'Error' }, `connect failed: ${target}: ${code ?? message}`);
}
