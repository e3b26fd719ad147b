/**
 * The kernel's own routes as the core asks for them over its link: a kernel in a sandbox has no other way to be asked.
 *
 * What always holds: what comes over the link is answered as at the port, in the name of the token that asks; never an
 * evolve, which has a way of its own; who else claims to be the core does not know the word, which never leaves the process.
 */
import { randomBytes } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { type KernelForCore, NoSuchMethod } from '@hauki/protocol';
import type { FastifyInstance } from 'fastify';

const ROUTES =
  /^\/api\/(?:status|history(?:\?module=[\w%.~-]+)?|modules\/[\w%.~-]+\/(?:versions(?:\/\d+)?|log(?:\?version=\d+)?|diff\?from=\d+&to=\d+|rollback|weights|pin))$/;
const [WORD, BY] = ['x-hauki-inside', 'x-hauki-by'] as const;

export class OwnRoutes {
  readonly #word = randomBytes(32).toString('base64url');

  /** In whose name this is asked over the link; undefined where it came over the port. */
  by({ [WORD]: word, [BY]: by }: IncomingHttpHeaders): string | undefined {
    return word === this.#word ? decodeURIComponent(String(by)) : undefined;
  }

  /** Answers by `app`, whose routes these are. */
  asked(app: Pick<FastifyInstance, 'inject'>): KernelForCore['own'] {
    return async (method, path, body, by) => {
      if (!ROUTES.test(path)) throw new NoSuchMethod({ method: `${method} ${path.split('?')[0]}` });
      const { statusCode, payload } = await app.inject({
        method,
        url: path,
        headers: { [WORD]: this.#word, [BY]: encodeURIComponent(by) },
        ...(method === 'POST' ? { payload: (body ?? {}) as object } : {}),
      });
      return [statusCode, JSON.parse(payload)];
    };
  }
}
