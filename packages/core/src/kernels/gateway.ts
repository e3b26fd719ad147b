/**
 * The gateway: requests below /api/plugins/ go to a kernel that holds the module, over the kernel's link, and their
 * answers come back the same way. The token of the mesh is not passed on.
 *
 * What always holds: a body that streams, of a request or of an answer, ends with the token that it was asked for with.
 */
import type { IncomingMessage } from 'node:http';
import {
  BadInput,
  describe,
  type FlatHeaders,
  Forbidden,
  MeshError,
  PLUGINS,
  PluginFailed,
  prefixOf,
  readTarget,
  type Target,
} from '@hauki/protocol';
import { onceForSame } from '@hauki/rpc';
import {
  type Answering,
  type Asked,
  bodyOf,
  hasBody,
  headersOf,
  isWhole,
  leaving,
  onceForHeaders,
  writeAnswer,
  writeError,
} from '@hauki/rpc/node';
import type { Auth } from '../auth.ts';
import { type BodyShares, placeBody } from '../bodies.ts';
import { CALL, type Principal, refusal } from '../rights.ts';
import type { TokenStore } from '../tokens.ts';
import type { Kernels } from './kernels.ts';

/** By which a caller asks for always the same kernel. */
const KEY = 'x-hauki-key';
const KEPT_BACK = new Set(['authorization', 'x-forwarded-prefix', KEY]);

/** Needed of who asks. */
const SCOPE = { scope: [...CALL, 'evolve'] } as const;

/** What a module hears of a request's headers, and the key by which its kernel is chosen. */
export const forwarded = onceForHeaders((request: Asked, module) => {
  const key = request.headers[KEY];
  return {
    headers: [...headersOf(request, KEPT_BACK), 'x-forwarded-prefix', prefixOf(module)],
    key: typeof key === 'string' ? key : undefined,
  };
});

/** Why a token may not ask, if so; what one may never changes. */
const mayAsk = onceForSame((principal: Principal) => refusal(principal, SCOPE));
/** By which an answer can be traced to its kernel. */
export const servedBy = onceForSame((kernel: string): FlatHeaders => ['x-hauki-kernel', kernel]);

export class Gateway {
  readonly #kernels: Kernels;
  readonly #auth: Auth;
  readonly #tokens: Pick<TokenStore, 'hold'>;
  readonly #bodies: Pick<BodyShares, 'places'>;

  constructor(kernels: Kernels, auth: Auth, tokens: Pick<TokenStore, 'hold'>, bodies: Pick<BodyShares, 'places'>) {
    this.#kernels = kernels;
    this.#auth = auth;
    this.#tokens = tokens;
    this.#bodies = bodies;
  }

  /** Takes a request that is for a module. False: it is for the core itself. */
  take(request: Asked, response: Answering): boolean {
    const raw = request.url ?? '';
    // Nearly all others; what is spelled in any other way is none of a module's.
    if (!raw.startsWith(PLUGINS) && raw.startsWith('/')) return false;
    const target = readTarget(raw);
    if (target.kind === 'own') return false;
    void this.#serve(request, response, target);
    return true;
  }

  async #serve(request: Asked, response: Answering, target: Exclude<Target, { kind: 'own' }>): Promise<void> {
    let release: (() => void) | undefined;
    try {
      this.#auth.checkOrigin(request);
      const principal = this.#auth.authenticate(request);
      const refused = mayAsk(principal);
      if (refused) throw new Forbidden(refused);
      if (target.kind === 'refused') throw new BadInput({ what: 'the request target', why: target.why });
      const { module, path, query } = target;
      const { headers, key } = forwarded(request, module);
      const body = hasBody(request) ? await this.#bodyOf(request as IncomingMessage, principal) : null;
      if (!isWhole(body)) release = this.#hold(principal, request, body);
      const { answer, kernel } = await this.#kernels.fetch(
        module,
        {
          method: request.method ?? 'GET',
          path: path + query,
          headers,
          body,
          signal: leaving(request),
        },
        key,
      );
      if (!isWhole(answer[2])) release ??= this.#hold(principal, request, answer[2]);
      await writeAnswer(response, answer, servedBy(kernel));
    } catch (error) {
      const module = 'module' in target ? target.module : '';
      // A kernel may answer anything.
      writeError(response, error instanceof MeshError ? error : new PluginFailed({ module, why: describe(error) }));
    } finally {
      release?.();
    }
  }

  #bodyOf(request: IncomingMessage, principal: Principal): ReturnType<typeof bodyOf> {
    placeBody(request, principal, this.#bodies);
    return bodyOf(request);
  }

  /** Ends the connection with the token, until the result is called. Throws Unauthorised where that has ended already. */
  #hold(principal: Principal, { socket }: Asked, stream: AsyncIterable<unknown>): () => void {
    try {
      return this.#tokens.hold(principal, () => socket.destroy());
    } catch (error) {
      void (stream as AsyncGenerator).return?.(undefined);
      throw error;
    }
  }
}
