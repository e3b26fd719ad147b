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

const ROUTES = /^\/api\/(?:status|history|modules\/[\w%.~-]+\/(?:versions(?:\/\d+)?|log|diff|rollback|weights|pin))$/;
const JSON_TYPE = { 'content-type': 'application/json' };
const [WORD, BY] = ['x-hauki-inside', 'x-hauki-by'] as const;

export class OwnRoutes {
  readonly #word = randomBytes(32).toString('base64url');

  /** In whose name this is asked over the link; undefined where it came over the port. */
  by({ [WORD]: word, [BY]: by }: IncomingHttpHeaders): string | undefined {
    return word === this.#word ? decodeURIComponent(String(by)) : undefined;
  }

  /** Answers by `app`, whose routes these are. */
  asked(app: Pick<FastifyInstance, 'inject'>): KernelForCore['own'] {
    return async (method: string, path, body, by) => {
      const { pathname = '', search = '' } = URL.parse(path, 'http://kernel') ?? {};
      const route = pathname.replace(/\/$/, '');
      if (!ROUTES.test(route)) throw new NoSuchMethod({ method: `${method} ${pathname}` });
      const { statusCode, payload } = await app.inject({
        // Of HEAD the core itself leaves the content out.
        method: method === 'POST' ? 'POST' : 'GET',
        url: route + search,
        headers: { [WORD]: this.#word, [BY]: encodeURIComponent(by), ...(method === 'POST' ? JSON_TYPE : {}) },
        // As text: of 0, false and '' as they are there would be no body.
        ...(method === 'POST' ? { payload: JSON.stringify(body ?? {}) } : {}),
      });
      return [statusCode, JSON.parse(payload)];
    };
  }
}
