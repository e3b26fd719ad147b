/**
 * The routes to a worker, and the first connection over one of them. `comeback.ts` makes it again when it was cut.
 *
 * What always holds: what is dialled is what the caller's routing allows, the direct route first where both are.
 */

import type { MeshError, Ticket, TicketBody } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { type CallerKey, Channel, type FrameTransport, openSession, readTicketBody } from '@hauki/rpc/client';
import { comebackOf } from '#parts';
import type { Comeback } from './comeback.ts';
import type { CoreClient } from './http.ts';
import { pause } from './pause.ts';
import type { Link, Powers, Route, Routing } from './powers.ts';

/** Between tries to load what brings a session back. */
const LOAD_AGAIN_MS = 1_000;

/** Where the core tells of a worker, relays to it and ends it. */
export const workerPath = (worker: string) => `/api/v2/ephemeral/${encodeURIComponent(worker)}`;

export interface RoutePowers {
  core: CoreClient;
  powers: Pick<Powers, 'direct' | 'dial'>;
  routing: Routing;
  /** What became of the worker, where the core knows that it is dead. */
  fate(): Promise<MeshError | undefined>;
}

export class WorkerRoute {
  readonly channel: Channel;
  /** The route that was taken last. */
  taken: Route = 'direct';
  readonly given: RoutePowers;
  // Both from `open` on.
  ticket!: Ticket;
  body!: TicketBody;
  stopped = false;
  #comeback: Promise<Comeback> | undefined;
  #pending: Promise<unknown> | undefined;
  #link: FrameTransport | undefined;
  /** Bytes of connections that were left. */
  readonly #carried: Record<Route, number> = { direct: 0, relay: 0 };

  constructor(given: RoutePowers) {
    this.given = given;
    this.channel = new Channel((reason) => void this.#cut(reason));
    this.channel.onEnd(() => this.stop());
  }

  /** Redeems the ticket over the first route that opens. Gives the worker's methods. */
  async open(ticket: Ticket, key: CallerKey): Promise<string[]> {
    this.ticket = ticket;
    this.body = readTicketBody(ticket.signed);
    const { link, route } = await this.dial(this.given.routing);
    const methods = await openSession(link, this.channel, ticket, key);
    this.took(route, link);
    return methods;
  }

  stop(): void {
    this.stopped = true;
    this.#comeback?.then((comeback) => comeback.stop());
  }

  /** Bytes carried over a route so far, both ways. */
  carried_bytes(route: Route): number {
    return this.#carried[route] + (this.taken === route ? (this.#link?.carried_bytes ?? 0) : 0);
  }

  /** The session goes on over `link`. */
  took(route: Route, link: FrameTransport): void {
    this.#carried[this.taken] += this.#link?.carried_bytes ?? 0;
    this.#link = link;
    this.taken = route;
    const { powers, routing } = this.given;
    if (routing === 'p2p_preferred' && powers.direct)
      this.#back().then(
        (comeback) => comeback.took(route),
        () => {},
      );
  }

  /** Dials what a routing allows. Rejects with ConnectionLost, or as the platform's powers do. */
  dial(routing: Routing): Promise<Link> {
    const { core, powers } = this.given;
    return powers.dial(core, this.ticket, this.body, routing);
  }

  /** Until this resolves, a cut session is not brought back: perhaps it is not to be. */
  waitFor(pending: Promise<unknown>): void {
    this.#pending = pending;
  }

  /** Nothing was heard over the connection, though it did not end: tries to go on over a fresh one. */
  doubt(): void {
    this.#back().then(
      (comeback) => comeback.doubt(),
      () => {},
    );
  }

  /** How long a cut session may be dialled. */
  get lasts_ms(): number {
    const { lease, role } = this.body;
    return role === 'owner' ? lease.lease_ms : LIMITS.resume_ms;
  }

  /** The connection was cut. What brings the session back may have to be loaded first, over a network that is away. */
  async #cut(reason: string): Promise<void> {
    const until = performance.now() + this.lasts_ms;
    await this.#pending;
    while (!this.stopped)
      try {
        return (await this.#back()).again(reason, until);
      } catch {
        if (performance.now() > until) return this.channel.fail(reason);
        await pause(LOAD_AGAIN_MS);
      }
  }

  #back(): Promise<Comeback> {
    this.#comeback ??= comebackOf(this).catch((error) => {
      this.#comeback = undefined;
      throw error;
    });
    return this.#comeback;
  }
}
