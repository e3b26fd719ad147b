/**
 * The routes to a worker: making the first connection, making it again when it was cut, and going back to the direct
 * route when that is possible again.
 *
 * What always holds: what is dialled is what the caller's routing allows, the direct route first where both are; a cut
 * session is dialled for as long as its worker may still be there, and not longer; one attempt is under way at a time,
 * because two would take the session from each other.
 */
import { isError, type MeshError, SessionLost, type Ticket, type TicketBody } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import {
  type CallerKey,
  Channel,
  type FrameTransport,
  openSession,
  resumeKey,
  resumeSession,
  sessionKey,
} from '@hauki/rpc/client';
import type { CoreClient } from './http.ts';
import { pause } from './pause.ts';
import type { Powers } from './powers.ts';

/** `p2p_preferred`: direct, else relayed. */
export type Routing = 'p2p_preferred' | 'p2p_only' | 'relay_only';
export type Route = 'direct' | 'relay';

/** A direct connection that has not opened by then is left for the relay. */
const DIRECT_MS = 3_000;
/** How long a node may be away from the core before its worker is given up. */
const NODE_BACK_MS = 3_000;
/** First wait before dialling again, doubled up to the second. */
const AGAIN_MS = { first: 20, most: 1_000 };
/** How soon a relayed session tries the direct route, doubled up to the second. */
const BACK_MS = { first: 2_000, most: 60_000 };

/** Steady: setting the wall clock gives nobody up. */
const now_ms = () => performance.now();

export interface RoutePowers {
  core: CoreClient;
  powers: Powers;
  routing: Routing;
  /** What became of the worker, where the core knows that it is dead. */
  fate(): Promise<MeshError | undefined>;
}

export class WorkerRoute {
  readonly channel: Channel;
  /** The route that was taken last. */
  taken: Route = 'direct';
  readonly #given: RoutePowers;
  readonly #ticket: Ticket;
  readonly #body: TicketBody;
  #stopped = false;
  #back: ReturnType<typeof setTimeout> | undefined;
  #back_ms = BACK_MS.first;
  /** The attempt to go back to the direct route, while it is under way; never rejects. */
  #going_back: Promise<void> | undefined;
  #link: FrameTransport | undefined;
  /** Bytes of connections that were left. */
  readonly #carried: Record<Route, number> = { direct: 0, relay: 0 };

  constructor(ticket: Ticket, body: TicketBody, given: RoutePowers) {
    this.#ticket = ticket;
    this.#body = body;
    this.#given = given;
    this.channel = new Channel((reason) => void this.#again(reason));
    this.channel.onEnd(() => this.stop());
  }

  /** Redeems the ticket over the first route that opens. Gives the worker's methods. */
  async open(key: CallerKey): Promise<string[]> {
    const { link, route } = await this.#dial(this.#given.routing);
    const methods = await openSession(link, this.channel, this.#ticket, key);
    this.#took(route, link);
    return methods;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#back);
  }

  /** Bytes carried over a route so far, both ways. */
  carried_bytes(route: Route): number {
    return this.#carried[route] + (this.taken === route ? (this.#link?.carried_bytes ?? 0) : 0);
  }

  #took(route: Route, link: FrameTransport): void {
    this.#carried[this.taken] += this.#link?.carried_bytes ?? 0;
    this.#link = link;
    this.taken = route;
    this.#wait(route);
  }

  #wait(route: Route): void {
    clearTimeout(this.#back);
    if (route === 'direct') this.#back_ms = BACK_MS.first;
    else if (this.#given.routing === 'p2p_preferred' && !this.#stopped) {
      this.#back = setTimeout(() => {
        this.#going_back = this.#goBack().finally(() => {
          this.#going_back = undefined;
        });
      }, this.#back_ms);
      (this.#back as { unref?: () => void }).unref?.();
      this.#back_ms = Math.min(this.#back_ms * 2, BACK_MS.most);
    }
  }

  /** From the relay to the direct route, with both open until the worker has agreed. */
  async #goBack(): Promise<void> {
    if (!this.channel.attached) return;
    try {
      await this.#resume('p2p_only');
    } catch (error) {
      if (isError(error, SessionLost)) return this.channel.fail(error.message);
      this.#wait('relay');
    }
  }

  async #resume(routing: Routing): Promise<void> {
    const { link, route } = await this.#dial(routing);
    const { secret } = this.#ticket;
    const { jti } = this.#body;
    await resumeSession(link, this.channel, jti, await resumeKey(secret, jti));
    this.#took(route, link);
  }

  /** The connection was cut: dials until the session goes on, or nothing is left to go on with. */
  async #again(reason: string): Promise<void> {
    // Going back takes the old connection away before the answer comes; or it fails, and leaves nothing behind.
    await this.#going_back;
    await this.#dialAgain(reason);
    // It was left meanwhile: the worker hears of it, if it can be reached once more.
    if (this.channel.owes_bye) await this.#resume(this.#given.routing).catch(() => {});
  }

  async #dialAgain(reason: string): Promise<void> {
    const { lease, role } = this.#body;
    const lasts_ms = role === 'owner' ? lease.lease_ms : LIMITS.resume_ms;
    const began = now_ms();
    const until = began + lasts_ms;
    let { routing } = this.#given;
    let wait_ms = AGAIN_MS.first;
    while (!this.#stopped && !this.channel.attached) {
      try {
        return await this.#resume(routing);
      } catch (error) {
        if (isError(error, SessionLost)) return this.channel.fail(error.message);
        // A direct route that opens and then says nothing: perhaps the relay does.
        const both = this.#given.routing === 'p2p_preferred';
        routing = both && routing === 'p2p_preferred' ? 'relay_only' : this.#given.routing;
      }
      if (this.#stopped) return;
      // A worker that is gone is not waited for; a node that is away may come back in a moment.
      const fate = await this.#given.fate();
      if (fate && (fate.fields.cause !== 'node_lost' || now_ms() > began + NODE_BACK_MS))
        return this.channel.fail(reason);
      if (now_ms() + wait_ms > until) return this.channel.fail(`${reason}; it could not be made again`);
      await pause(wait_ms);
      wait_ms = Math.min(wait_ms * 2, AGAIN_MS.most);
    }
  }

  async #dial(routing: Routing): Promise<{ link: FrameTransport; route: Route }> {
    const { core, powers } = this.#given;
    const { jti, routes } = this.#body;
    const { direct, relay } = routes;
    const tls = direct.tls ? { tls: { jti, key: await sessionKey(this.#ticket.secret, jti) } } : {};
    if (routing !== 'relay_only') {
      try {
        const { host, port } = direct;
        return { link: await powers.dialDirect({ host, port, ...tls }, DIRECT_MS), route: 'direct' };
      } catch (error) {
        if (routing === 'p2p_only') throw error;
      }
    }
    const link = await powers.dialRelay(core.base, relay.path, core.token, tls.tls, LIMITS.handshake_ms);
    return { link, route: 'relay' };
  }
}
