/**
 * Brings a worker's session back: makes its connection again when it was cut or fell silent, and goes back to the direct
 * route when that is possible again.
 *
 * What always holds: a cut session is dialled for as long as its worker may still be there, and not longer; one attempt is
 * under way at a time, because two would take the session from each other.
 */
import { isError, SessionLost } from '@hauki/protocol';
import { unref } from '@hauki/rpc/client';
import { resumeKey, resumeSession } from '@hauki/rpc/resume';
import { pause } from './pause.ts';
import type { Route, Routing } from './powers.ts';
import type { WorkerRoute } from './route.ts';

export { fateOf } from './fate.ts';

/** How long a node may be away from the core before its worker is given up. */
const NODE_BACK_MS = 3_000;
/** First wait before dialling again, doubled up to the second. */
const AGAIN_MS = { first: 20, most: 1_000 };
/** How soon a relayed session tries the direct route, doubled up to the second. */
const BACK_MS = { first: 2_000, most: 60_000 };

/** Steady: setting the wall clock gives nobody up. */
const now_ms = () => performance.now();

export class Comeback {
  readonly #way: WorkerRoute;
  #back: ReturnType<typeof setTimeout> | undefined;
  #back_ms = BACK_MS.first;
  /** The attempt to go on over another connection beside the one there is, while it is under way; never rejects. */
  #changing: Promise<void> | undefined;

  constructor(way: WorkerRoute) {
    this.#way = way;
  }

  stop(): void {
    clearTimeout(this.#back);
  }

  /** The session goes on over this route, and prefers the direct one. */
  took(route: Route): void {
    clearTimeout(this.#back);
    if (route === 'direct') this.#back_ms = BACK_MS.first;
    else if (!this.#way.stopped) {
      this.#back = unref(
        setTimeout(() => {
          if (this.#changing) this.took(route);
          else this.#change(() => this.#goBack());
        }, this.#back_ms),
      );
      this.#back_ms = Math.min(this.#back_ms * 2, BACK_MS.most);
    }
  }

  /** The connection is silent: goes on over a fresh one where that can be had; until then the old one may still speak. */
  doubt(): void {
    if (!this.#changing) this.#change(() => this.#freshen());
  }

  #change(run: () => Promise<void>): void {
    this.#changing = run()
      .then(() => this.#sayBye())
      .finally(() => {
        this.#changing = undefined;
      });
  }

  async #freshen(): Promise<void> {
    const { channel, given } = this.#way;
    const routings: Routing[] = [given.routing];
    // A direct route that opens and then says nothing: perhaps the relay does.
    if (given.routing === 'p2p_preferred') routings.push('relay_only');
    for (const routing of routings) {
      if (!channel.attached) return;
      try {
        return await this.#resume(routing);
      } catch (error) {
        if (isError(error, SessionLost)) return channel.fail(error.message);
      }
    }
  }

  /** From the relay to the direct route, with both open until the worker has agreed. */
  async #goBack(): Promise<void> {
    const { channel } = this.#way;
    if (!channel.attached) return;
    try {
      await this.#resume('p2p_only');
    } catch (error) {
      if (isError(error, SessionLost)) return channel.fail(error.message);
      this.took('relay');
    }
  }

  async #resume(routing: Routing): Promise<void> {
    const { channel, ticket, body } = this.#way;
    const { link, route } = await this.#way.dial(routing);
    await resumeSession(link, channel, body.jti, await resumeKey(ticket.secret, body.jti));
    this.#way.took(route, link);
  }

  /** The connection was cut: dials until the session goes on, or nothing is left to go on with. */
  async again(reason: string, until: number): Promise<void> {
    // A change takes the old connection away before the answer comes; or it fails, and leaves nothing behind.
    await this.#changing;
    await this.#dialAgain(reason, until);
    await this.#sayBye();
  }

  /** Where the session was left meanwhile, the worker hears of it, if it can be reached once more. */
  async #sayBye(): Promise<void> {
    const { channel, given } = this.#way;
    if (channel.owes_bye) await this.#resume(given.routing).catch(() => {});
  }

  async #dialAgain(reason: string, until: number): Promise<void> {
    const { channel, given } = this.#way;
    const began = now_ms();
    let { routing } = given;
    let wait_ms = AGAIN_MS.first;
    while (!this.#way.stopped && !channel.attached) {
      try {
        return await this.#resume(routing);
      } catch (error) {
        if (isError(error, SessionLost)) return channel.fail(error.message);
        // A direct route that opens and then says nothing: perhaps the relay does.
        const both = given.routing === 'p2p_preferred';
        routing = both && routing === 'p2p_preferred' ? 'relay_only' : given.routing;
      }
      if (this.#way.stopped) return;
      // A worker that is gone is not waited for; a node that is away may come back in a moment.
      const fate = await given.fate();
      if (fate && (fate.fields.cause !== 'node_lost' || now_ms() > began + NODE_BACK_MS)) return channel.fail(reason);
      if (now_ms() + wait_ms > until) return channel.fail(`${reason}; it could not be made again`);
      await pause(wait_ms);
      wait_ms = Math.min(wait_ms * 2, AGAIN_MS.most);
    }
  }
}
