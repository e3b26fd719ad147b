/**
 * The caller's end of a lasting link to the core: who has cloned clones again, and then without the time that HTTP takes.
 * In Node alone. Made behind the first clone, which goes over HTTP, as do all while there is no link.
 *
 * What always holds: a request goes one way alone; over HTTP after all only where it is certain that it never left.
 */
import { isError, NoSuchMethod, Unauthorised } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { Session, unref } from '@hauki/rpc/client';
import { dialUpgrade, streamTransport } from '@hauki/rpc/node';
import type { CoreClient } from './http.ts';
import type { Spawned } from './worker.ts';

/** Whoever cloned has much to do until its first result is there. */
const DIAL_AFTER_MS = 50;
/** A link over which nothing was asked for so long is let go of: what lies between may have forgotten it, unheard. */
const IDLE_MS = 30_000;

/** Whoever was refused a link asks for none for so long. */
const AGAIN_MS = 60_000;

/** Larger sources, and more requests at a time, go each by a connection of its own, past all others. */
const SOURCE_CHARS = 64 * 1024;
const AT_ONCE = 64;

const PATH = '/api/v2/swarm_spawn_ephemeral';
const LINK_PATH = '/api/v2/swarm_link';

export class CloneLink {
  readonly #core: CoreClient;
  readonly #parts = new Map<number, (part: object) => void>();
  #session: Session | undefined;
  #dialling = false;
  /** Until when none is asked for, by the steady clock: the core had none for this token. */
  #refused_until = 0;
  #next = 1;
  #idle: ReturnType<typeof setTimeout> | undefined;

  constructor(core: CoreClient) {
    this.#core = core;
  }

  /**
   * Asks for a clone. Resolves with the answer, or with its first part and a promise of the whole as `more`; rejects as a
   * request over HTTP does.
   */
  async ask(wanted: { source?: string }, timeout_ms: number): Promise<Spawned> {
    const session = this.#session;
    const fits = (wanted.source ?? '').length <= SOURCE_CHARS && this.#parts.size < AT_ONCE;
    if (session?.open && fits) {
      try {
        return await this.#over(session, wanted, timeout_ms);
      } catch (error) {
        // What the core itself says comes over a link that is open.
        if (session.open || (error as Error).name !== 'ConnectionLost') throw error;
      }
    }
    unref(setTimeout(() => void this.#dial(), DIAL_AFTER_MS));
    return this.#core.request<Spawned>('POST', PATH, wanted, timeout_ms);
  }

  #over(session: Session, wanted: object, timeout_ms: number): Promise<Spawned> {
    const number = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<Spawned>();
    const whole = session.call('spawn', [number, wanted], { timeout_ms }) as Promise<Spawned>;
    this.#parts.set(number, (part) => resolve({ ...part, more: whole } as never));
    const over = () => {
      this.#parts.delete(number);
      this.#rest(session);
    };
    whole.then(resolve, reject).then(over);
    return promise;
  }

  async #dial(): Promise<void> {
    const { base, token } = this.#core;
    if (this.#dialling || performance.now() < this.#refused_until || this.#session?.open) return;
    this.#dialling = true;
    try {
      const stream = await dialUpgrade(base, LINK_PATH, token, LIMITS.handshake_ms);
      this.#session = new Session({
        transport: streamTransport(stream),
        dispatch: (method, params) => {
          if (method !== 'part' || !Array.isArray(params)) throw new NoSuchMethod({ method });
          const [number, part] = params;
          if (typeof part === 'object' && part !== null) this.#parts.get(number)?.(part);
        },
        literal: JSON.stringify,
        bounds: { kept: 0, references: 0 },
        idle_lets_exit: true,
      });
      this.#rest(this.#session);
    } catch (error) {
      // A core that is older, or will not have it now: that is no reason to fail, and none to ask again each time.
      if (!isError(error, Unauthorised)) this.#refused_until = performance.now() + AGAIN_MS;
    } finally {
      this.#dialling = false;
    }
  }

  #rest(session: Session): void {
    clearTimeout(this.#idle);
    this.#idle = unref(setTimeout(() => this.#parts.size === 0 && session.close('idle'), IDLE_MS));
  }
}
