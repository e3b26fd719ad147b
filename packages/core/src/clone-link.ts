/**
 * A caller's lasting link: whoever clones again and again asks for it over one connection. A request over HTTP takes
 * longer there and back than all that the core does for a clone.
 *
 * What always holds: a request over it is checked as the route's is, its token and scope included, each time; nothing but
 * plain JSON passes; the connection ends with its token, and when nothing is asked over it.
 */
import type { Duplex } from 'node:stream';
import { TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox';
import { type MeshError, NoSuchMethod } from '@hauki/protocol';
import { readably } from '@hauki/protocol/schema-refusal';
import { encode, Session } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { CLONE_LINK_LIMITS } from './limits.ts';
import type { Principal } from './rights.ts';
import { checkFirst, Spawn } from './routes/swarm.ts';
import type { SpawnRequest, Swarm } from './swarm.ts';

export interface CloneLinkPowers {
  swarm: Pick<Swarm, 'spawn'>;
  /** Who asks, if its token has the scope. Throws Unauthorised or Forbidden. */
  principal(): Principal;
  /** What of a failure a caller may hear. */
  typed(error: Error): MeshError;
  /** After which a link over which nothing is asked ends. */
  idle_ms?: number;
}

let check: ReturnType<ReturnType<typeof readably>> | undefined;

/** A request as the route takes it. Throws BadInput in the same words. */
function checked(body: unknown): SpawnRequest {
  check ??= readably(TypeBoxValidatorCompiler as never)({ schema: Spawn, httpPart: 'body' });
  const { error } = check(body);
  if (error) throw error;
  const request = body as SpawnRequest;
  checkFirst(request);
  return request;
}

/** Answers clones for as long as the connection lasts: `spawn(number, request)`, and `part(number, part)` before that. */
export function serveCloneLink(
  stream: Duplex,
  { swarm, principal, typed, idle_ms = CLONE_LINK_LIMITS.idle_ms }: CloneLinkPowers,
): Session {
  let under_way = 0;
  // Where this process stood still, what has come meanwhile is read first.
  const idle = setTimeout(() => setImmediate(() => under_way === 0 && session.close('idle')), idle_ms);
  const spawn = async (number: unknown, body: unknown): Promise<object> => {
    under_way++;
    try {
      const asks = principal();
      return await swarm.spawn(checked(body), asks, (part) => {
        if (session.open) session.notify('part', [number, part]);
      });
    } catch (error) {
      throw typed(error as Error);
    } finally {
      under_way--;
      if (session.open) idle.refresh();
    }
  };
  const session = new Session({
    transport: streamTransport(stream, () => CLONE_LINK_LIMITS.message_bytes),
    dispatch(method, params) {
      if (method !== 'spawn' || !Array.isArray(params)) throw new NoSuchMethod({ method, has: ['spawn'] });
      return spawn(params[0], params[1]);
    },
    literal: encode,
    bounds: { kept: 0, references: 0 },
  });
  void session.closed.then(() => clearTimeout(idle));
  return session;
}
