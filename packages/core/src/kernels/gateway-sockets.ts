/**
 * WebSockets through the gateway: an upgrade below /api/plugins/ goes to a kernel as a request does, and its messages pass
 * over the kernel's link as streams with credit, so that a slow reader on either side holds the other up.
 *
 * What always holds: who may send a request may open a socket, for as long as the token lasts, and a page of a browser,
 * which can send no header, by a token in its first message; another kernel is tried
 * only until one has answered; a kernel that is lost closes its sockets with 1014, and the core's end with 1001.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type Answer, BadInput, type Body, isError, LIMITS, Overloaded, readTarget } from '@hauki/protocol';
import {
  answerUpgrade,
  callWebSocket,
  leaving,
  offerFirst,
  type Strangers,
  type WebSocketCall,
  writeAnswer,
} from '@hauki/rpc/node';
import type { Auth } from '../auth.ts';
import { CALL, demand, type Principal } from '../rights.ts';
import { forwarded, servedBy } from './gateway.ts';
import { type Kernels, mayGoElsewhere, type RegisteredKernel, TRIES } from './kernels.ts';

/** "Bad gateway" (IANA's registry of close codes); and the module's own failure. */
const [BAD_GATEWAY, FAILED] = [1014, 1011];
/** How long the core's end waits for clients' answers to their close. */
const CLOSE_MS = 2_000;

/** A page can give its WebSocket no header: the key by which its kernel is chosen stands in the query. */
const KEY = 'x-hauki-key';
/** A name of a user, a room, a session. */
const KEY_CHARS = 128;

/** The key in a query, and the query without it, which is all that a module sees. Throws BadInput. */
export function withoutKey(query: string): { query: string; key: string | undefined } {
  if (!query.includes(KEY)) return { query, key: undefined };
  const all = query.slice(1).split('&');
  const keys = all.filter((one) => one.split('=', 1)[0] === KEY);
  if (keys.length === 0) return { query, key: undefined };
  const rest = all.filter((one) => !keys.includes(one));
  let key = '';
  try {
    if (keys.length === 1) key = decodeURIComponent(keys[0]!.slice(KEY.length + 1).replaceAll('+', ' '));
  } catch {
    // As one that is empty.
  }
  if (key === '' || key.length > KEY_CHARS)
    throw new BadInput({ what: `${KEY} in the query`, why: `it stands there once, with 1 to ${KEY_CHARS} characters` });
  return { query: rest.length > 0 ? `?${rest.join('&')}` : '', key };
}

export interface GatewaySocketPowers {
  kernels: Kernels;
  auth: Auth;
  strangers: Strangers;
  /** Ends the connection with the token. */
  hold(principal: Principal, socket: Duplex): void;
}

export class GatewaySockets {
  readonly #powers: GatewaySocketPowers;
  readonly #open = new WeakMap<RegisteredKernel, number>();
  readonly #ending = new AbortController();
  readonly #served = new Set<Promise<void>>();

  constructor(powers: GatewaySocketPowers) {
    this.#powers = powers;
  }

  /**
   * Serves an upgrade to its end; false: it is for the core itself. Rejects when it is to be refused in HTTP: as a request
   * is, with BadInput for a bad handshake, or with Overloaded. The origin has been checked.
   */
  async take(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<boolean> {
    const target = readTarget(request.url ?? '');
    if (target.kind === 'own') return false;
    const { auth, strangers, hold } = this.#powers;
    const admit = (principal: Principal) => {
      demand(principal, { scope: [...CALL, 'evolve'] });
      hold(principal, socket);
    };
    const by_header = request.headers.authorization !== undefined;
    if (by_header) admit(auth.authenticate(request));
    if (target.kind === 'refused') throw new BadInput({ what: 'the request target', why: target.why });
    const by_message: WebSocketCall['admit'] = async (client, first) =>
      admit(auth.bearer(await strangers.token(client, () => first)));
    const served = this.#serve(request, socket, head, target, by_header ? undefined : by_message);
    const settled = served.catch(() => {});
    this.#served.add(settled);
    void settled.then(() => this.#served.delete(settled));
    await served;
    return true;
  }

  async #serve(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    { module, path, query }: { module: string; path: string; query: string },
    admit: WebSocketCall['admit'],
  ): Promise<void> {
    const { headers: all, key: by_header } = forwarded(request, module);
    const asked = withoutKey(query);
    const key = by_header ?? asked.key;
    const headers = [...(admit ? offerFirst(all) : all), 'upgrade', 'websocket'];
    const signal = leaving(request);
    let taken: RegisteredKernel | undefined;
    const call = async (messages: () => Body): Promise<Answer> => {
      let last: unknown = new Overloaded({ what: 'WebSockets through the gateway', limit: LIMITS.gateway_sockets });
      await this.#powers.kernels.held(module);
      const order = this.#powers.kernels.order(module, key);
      for (const kernel of order.filter((one) => this.#has(one) < LIMITS.gateway_sockets).slice(0, TRIES)) {
        taken = kernel;
        this.#open.set(kernel, this.#has(kernel) + 1);
        try {
          const args = [module, 'GET', path + asked.query, headers, messages()];
          const answer = (await kernel.session.call('fetch', args, { signal, timeout_ms: LIMITS.call_ms })) as Answer;
          return [answer[0], [...answer[1], ...servedBy(kernel.info.kernel)], answer[2]];
        } catch (error) {
          this.#over(kernel);
          taken = undefined;
          last = error;
          // One that has no room has not begun.
          if (signal.aborted || !(mayGoElsewhere(error, 'GET') || isError(error, Overloaded))) throw error;
        }
      }
      throw last;
    };
    const failed = (): [number, string] =>
      taken?.session.open ? [FAILED, ''] : [BAD_GATEWAY, `${taken?.info.kernel} went away`];
    try {
      const refused = await callWebSocket(request, socket, head, call, {
        ending: this.#ending.signal,
        failed,
        ...(admit ? { admit } : {}),
      });
      if (refused) await writeAnswer(answerUpgrade(request, socket), refused);
    } finally {
      if (taken) this.#over(taken);
    }
  }

  /** How many a kernel has. */
  #has(kernel: RegisteredKernel): number {
    return this.#open.get(kernel) ?? 0;
  }

  #over(kernel: RegisteredKernel): void {
    this.#open.set(kernel, this.#has(kernel) - 1);
  }

  /** Tells all that the core goes away. Resolves when they have heard it, or did not answer. */
  async close(): Promise<void> {
    this.#ending.abort();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, CLOSE_MS);
    });
    await Promise.race([Promise.all(this.#served), late]);
    clearTimeout(timer);
  }
}
