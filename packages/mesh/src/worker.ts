/**
 * A worker from its caller's side: the session to it, the lease that keeps it alive, and its end.
 *
 * What always holds: an owner's heartbeat runs from redemption to the end of the session, and never keeps the script
 * alive by itself; when the session ends, waiting calls learn from the core what became of the worker.
 */

import { type Beat, describe, type MeshError, type Ticket, type TicketBody, WorkerDied } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { type CallerKey, destructText, heartbeatText, leaseKey, mac, Session, unref } from '@hauki/rpc/client';
import { fateOf } from '#parts';
import type { CoreClient } from './http.ts';
import type { Powers, Routing } from './powers.ts';
import { WorkerRoute, workerPath } from './route.ts';

/** How often a lost session asks for news of the worker: the node's word on a death may be behind the connection's end. */
export const FATE_TRIES = 20;
/** Beats that wait for their answers: before a worker that is paused they would pile up. */
const BEATS = 6;
const BEAT_MS = 600_000;
/** After which the first heartbeat goes out. */
const FIRST_BEAT_MS = 25;
/** Silence for two beats, and for so long, puts the connection in doubt; then for twice as long, and so on. */
const SILENCE_MS = 1_000;
const LEFT = 'left by this side';
const DESTRUCTED = 'destructed by this side';

/** What a core answers to a clone. */
export interface Spawned {
  ticket: Ticket;
}

/** Asks the core for the worker. `more` gives what else the request says, when that is about to leave. */
export type Ask = (more?: () => object) => Promise<Spawned>;

export interface OpenPowers {
  core: CoreClient;
  key: CallerKey;
  powers: Powers;
  timeout_ms?: number | undefined;
}

export class RemoteWorker {
  methods: string[] = [];
  /** Can be called at once: calls wait until the worker is there, and fail where it will not be. */
  readonly session: Session;
  readonly way: WorkerRoute;
  readonly #given: OpenPowers;
  /** Why it could not be opened. */
  #failed: MeshError | undefined;
  /** Whether this side has ended the worker, once that is known; undefined: it has not tried to. */
  #destructed: Promise<boolean> | undefined;
  #heart: ReturnType<typeof setInterval> | undefined;

  constructor(routing: Routing, given: OpenPowers) {
    this.#given = given;
    const fate = () => fateOf(given.core, this.body.worker, 1).catch(() => undefined);
    this.way = new WorkerRoute({ ...given, routing, fate });
    this.session = new Session({
      transport: this.way.channel,
      waits: true,
      idle_lets_exit: true,
      explain: async (reason) => {
        if (this.#failed) return this.#failed;
        const { worker } = this.body;
        // Who leaves a living worker asks nobody what became of it, and who has ended it knows.
        if (reason === LEFT) return undefined;
        if (await this.#destructed)
          return new WorkerDied({ worker, cause: 'destructed', reason: DESTRUCTED }) as MeshError;
        return fateOf(given.core, worker, FATE_TRIES);
      },
      kill: () => void this.destruct().catch(() => {}),
      timeout_ms: given.timeout_ms,
    });
  }

  /**
   * Opens the session by the ticket that is to be asked for, and begins the heartbeat where that is an owner's. Rejects as
   * the ticket does, or as redeeming it; so does then whatever was called.
   */
  async open(ask: Ask): Promise<this> {
    try {
      await this.enter(ask);
    } catch (error) {
      this.#failed = error as MeshError;
      this.way.channel.fail(describe(error));
      throw error;
    }
    return this;
  }

  protected async enter(ask: Ask): Promise<void> {
    await this.redeem((await ask()).ticket);
  }

  protected async redeem(ticket: Ticket): Promise<void> {
    this.methods = await this.way.open(ticket, this.#given.key);
    if (this.body.role === 'owner') this.#beat();
    this.session.begin();
  }

  /** From when it is open. */
  get body(): TicketBody {
    return this.way.body;
  }

  /** Kills the worker at once: by the core, which needs nothing of the worker, or without it through the session. */
  async destruct(): Promise<void> {
    const { worker, epoch, jti } = this.body;
    clearInterval(this.#heart);
    try {
      // A volume may take its time until the last mount of it is gone.
      const asked = this.#given.core.request('DELETE', workerPath(worker), undefined, LIMITS.clone_ms);
      this.#destructed = asked.then(
        () => true,
        () => false,
      );
      this.way.waitFor(this.#destructed);
      await asked;
    } catch (error) {
      const { name, fields } = error as MeshError;
      const node_lost = fields?.cause === 'node_lost';
      if (name === 'WorkerUnknown' || (name === 'WorkerDied' && !node_lost)) return;
      // The core is away, or does not reach the node: the session may still reach the worker.
      if (!(node_lost || name === 'ConnectionLost') || !this.session.open) throw error;
      const proof = await mac(await leaseKey(this.way.ticket.secret, jti), destructText(worker, epoch));
      await this.session.call('rpc.destruct', [proof], { timeout_ms: LIMITS.handshake_ms }).catch((failed) => {
        // Its death is the answer.
        if (this.session.open) throw failed;
      });
    } finally {
      this.session.close(DESTRUCTED);
    }
  }

  /** Ends this side's session and leaves the worker as it is. */
  leave(): void {
    clearInterval(this.#heart);
    this.session.close(LEFT);
  }

  #beat(): void {
    const { worker, epoch, jti, lease } = this.body;
    const key = leaseKey(this.way.ticket.secret, jti);
    const silence_ms = Math.max(2 * lease.heartbeat_ms, SILENCE_MS);
    let heard_at = performance.now();
    let patience_ms = silence_ms;
    let challenge = jti;
    let unanswered = 0;
    const beat = async (again = true): Promise<void> => {
      const proof = await mac(await key, heartbeatText(worker, epoch, challenge));
      const options = { timeout_ms: Math.max(lease.lease_ms, BEAT_MS), background: true };
      unanswered++;
      const answer = (await this.session.call('rpc.heartbeat', [challenge, proof], options).finally(() => {
        unanswered--;
      })) as Beat;
      heard_at = performance.now();
      patience_ms = silence_ms;
      const stale = challenge !== answer.next && !answer.renewed;
      if (typeof answer.next === 'string') challenge = answer.next;
      // The answer to the beat before was lost: once more, with what is now known.
      if (stale && again) await beat(false);
    };
    // A beat that fails is followed by the next; when all fail the lease runs out, which is its meaning. Where nothing is
    // heard the connection may lead nowhere: another one is tried.
    this.#heart = unref(
      setInterval(() => {
        if (unanswered < BEATS) void beat().catch(() => {});
        if (performance.now() - heard_at < patience_ms) return;
        patience_ms *= 2;
        this.way.doubt();
      }, lease.heartbeat_ms),
    );
    // Not at once: the first call goes before it.
    unref(setTimeout(() => void beat().catch(() => {}), Math.min(FIRST_BEAT_MS, lease.heartbeat_ms)));
    void this.session.closed.then(() => clearInterval(this.#heart));
  }
}
