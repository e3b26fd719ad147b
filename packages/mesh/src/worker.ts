/**
 * A worker from its caller's side: the session to it, the lease that keeps it alive, and its end.
 *
 * What always holds: an owner's heartbeat runs from redemption to the end of the session, and never keeps the script
 * alive by itself; when the session ends, waiting calls learn from the core what became of the worker.
 */
import {
  type Beat,
  ConnectionLost,
  isError,
  type MeshError,
  type Ticket,
  type TicketBody,
  WorkerDied,
  WorkerUnknown,
} from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import {
  type CallerKey,
  type CallOptions,
  destructText,
  heartbeatText,
  leaseKey,
  mac,
  readTicketBody,
  Session,
} from '@hauki/rpc';
import { type CoreClient, pause } from './http.ts';
import type { Powers } from './powers.ts';
import { type Route, type Routing, WorkerRoute } from './route.ts';

/** How long a lost session waits for news of the worker. */
const FATE_TRIES = 20;
const FATE_EVERY_MS = 50;
/** Beats that wait for their answers: before a worker that is paused they would pile up. */
const BEATS = 6;
const BEAT_MS = 600_000;
const LEFT = 'this side has left the worker';

export interface OpenPowers {
  core: CoreClient;
  key: CallerKey;
  powers: Powers;
  timeout_ms?: number | undefined;
}

export class RemoteWorker {
  readonly body: TicketBody;
  readonly methods: string[];
  readonly session: Session;
  readonly #way: WorkerRoute;
  readonly #core: CoreClient;
  readonly #secret: string;
  #heart: ReturnType<typeof setInterval> | undefined;

  private constructor(
    body: TicketBody,
    secret: string,
    session: Session,
    methods: string[],
    way: WorkerRoute,
    core: CoreClient,
  ) {
    this.body = body;
    this.#secret = secret;
    this.session = session;
    this.methods = methods;
    this.#way = way;
    this.#core = core;
  }

  /** Opens a session by the ticket, over the route wanted, and begins the heartbeat where the ticket is an owner's. */
  static async open(ticket: Ticket, routing: Routing, given: OpenPowers): Promise<RemoteWorker> {
    const { core, key, powers, timeout_ms } = given;
    const body = readTicketBody<TicketBody>(ticket.signed);
    const fate = () => fateNow(body.worker, core).catch(() => undefined);
    const way = new WorkerRoute(ticket, body, { core, powers, routing, fate });
    const methods = await way.open(key);
    const session = new Session({
      transport: way.channel,
      idle_lets_exit: true,
      // Who leaves a living worker asks nobody what became of it.
      explain: async (reason) => (reason === LEFT ? undefined : fateOf(body.worker, core)),
      kill: () => void worker.destruct().catch(() => {}),
      ...(timeout_ms === undefined ? {} : { timeout_ms }),
    });
    const worker = new RemoteWorker(body, ticket.secret, session, methods, way, core);
    if (body.role === 'owner') worker.#beat();
    return worker;
  }

  /** The route that was taken last. */
  get route(): Route {
    return this.#way.taken;
  }

  /** Connections that the session has had. */
  get connections(): number {
    return this.#way.channel.connections;
  }

  /** Bytes carried over a route, both ways. */
  carried_bytes(route: Route): number {
    return this.#way.carried_bytes(route);
  }

  call(method: string, args: unknown[], options?: CallOptions): Promise<unknown> {
    return this.session.call(method, args, options);
  }

  /** Kills the worker at once: by the core, which needs nothing of the worker, or without it through the session. */
  async destruct(): Promise<void> {
    const { worker, epoch, jti } = this.body;
    clearInterval(this.#heart);
    try {
      await this.#core.request('DELETE', `/api/v2/ephemeral/${worker}`, undefined, LIMITS.handshake_ms);
    } catch (error) {
      const node_lost = isError(error, WorkerDied) && error.fields.cause === 'node_lost';
      if (isError(error, WorkerUnknown) || (isError(error, WorkerDied) && !node_lost)) return;
      // The core is away, or does not reach the node: the session may still reach the worker.
      if (!(node_lost || isError(error, ConnectionLost)) || !this.session.open) throw error;
      const proof = await mac(await leaseKey(this.#secret, jti), destructText(worker, epoch));
      await this.session.call('rpc.destruct', [proof], { timeout_ms: LIMITS.handshake_ms }).catch((failed) => {
        // Its death is the answer.
        if (this.session.open) throw failed;
      });
    } finally {
      this.session.close('destructed');
    }
  }

  /** Ends this side's session and leaves the worker as it is. */
  leave(): void {
    clearInterval(this.#heart);
    this.session.close(LEFT);
  }

  #beat(): void {
    const { worker, epoch, jti, lease } = this.body;
    const key = leaseKey(this.#secret, jti);
    let challenge = jti;
    let unanswered = 0;
    const beat = async (again = true): Promise<void> => {
      const proof = await mac(await key, heartbeatText(worker, epoch, challenge));
      const options = { timeout_ms: Math.max(lease.lease_ms, BEAT_MS), background: true };
      unanswered++;
      const answer = (await this.session.call('rpc.heartbeat', [challenge, proof], options).finally(() => {
        unanswered--;
      })) as Beat;
      const stale = challenge !== answer.next && !answer.renewed;
      if (typeof answer.next === 'string') challenge = answer.next;
      // The answer to the beat before was lost: once more, with what is now known.
      if (stale && again) await beat(false);
    };
    // A beat that fails is followed by the next; when all fail the lease runs out, which is its meaning.
    this.#heart = setInterval(() => {
      if (unanswered < BEATS) void beat().catch(() => {});
    }, lease.heartbeat_ms);
    (this.#heart as { unref?: () => void }).unref?.();
    void beat().catch(() => {});
    void this.session.closed.then(() => clearInterval(this.#heart));
  }
}

/** Why a worker is gone, where the core knows that it is; undefined while it is alive. */
async function fateNow(worker: string, core: CoreClient): Promise<MeshError | undefined> {
  interface State {
    state: 'alive' | 'dead' | 'node_lost';
    node?: string;
    fate?: { cause: string; reason: string };
  }
  const { state, fate, node } = await core.request<State>('GET', `/api/v2/ephemeral/${worker}`, undefined, 2_000);
  if (fate) return new WorkerDied({ worker, cause: fate.cause, reason: fate.reason }) as MeshError;
  if (state !== 'node_lost') return undefined;
  return new WorkerDied({ worker, cause: 'node_lost', reason: `its node ${node} is gone` }) as MeshError;
}

/** The same, with a little patience: the node's word on a death may be behind the connection's end. */
async function fateOf(worker: string, core: CoreClient): Promise<MeshError | undefined> {
  for (let i = 0; i < FATE_TRIES; i++) {
    const fate = await fateNow(worker, core);
    if (fate) return fate;
    await pause(FATE_EVERY_MS);
  }
  return undefined;
}
