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
  LIMITS,
  type MeshError,
  type Ticket,
  type TicketBody,
  WorkerDied,
  WorkerUnknown,
} from '@hauki/protocol';
import {
  type CallerKey,
  type CallOptions,
  destructText,
  heartbeatText,
  leaseKey,
  mac,
  readTicketBody,
  redeemTicket,
  Session,
  sessionKey,
  type Transport,
} from '@hauki/rpc';
import type { CoreClient } from './http.ts';
import type { Powers } from './powers.ts';

/** `p2p_preferred`: direct, else relayed. */
export type Routing = 'p2p_preferred' | 'p2p_only' | 'relay_only';

/** A direct connection that has not opened by then is left for the relay. */
const DIRECT_MS = 3_000;
/** How long a lost connection waits for news of the worker. */
const FATE_TRIES = 20;
const FATE_EVERY_MS = 50;
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
  /** The route that was taken. */
  readonly route: 'direct' | 'relay';
  readonly session: Session;
  readonly #core: CoreClient;
  readonly #secret: string;
  #heart: ReturnType<typeof setInterval> | undefined;

  private constructor(
    body: TicketBody,
    secret: string,
    session: Session,
    methods: string[],
    route: 'direct' | 'relay',
    core: CoreClient,
  ) {
    this.body = body;
    this.#secret = secret;
    this.session = session;
    this.methods = methods;
    this.route = route;
    this.#core = core;
  }

  /** Opens a session by the ticket, over the route wanted, and begins the heartbeat where the ticket is an owner's. */
  static async open(ticket: Ticket, routing: Routing, given: OpenPowers): Promise<RemoteWorker> {
    const { core, key, timeout_ms } = given;
    const body = readTicketBody<TicketBody>(ticket.signed);
    const { transport, route } = await dial(body, ticket, routing, given);
    const session = new Session({
      transport,
      idle_lets_exit: true,
      // Who leaves a living worker asks nobody what became of it.
      explain: async (reason) => (reason === LEFT ? undefined : fateOf(body.worker, core)),
      ...(timeout_ms === undefined ? {} : { timeout_ms }),
    });
    try {
      const methods = await redeemTicket(session, ticket, key);
      const worker = new RemoteWorker(body, ticket.secret, session, methods, route, core);
      if (body.role === 'owner') worker.#beat();
      return worker;
    } catch (error) {
      session.close();
      throw error;
    }
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
    const beat = async (again = true): Promise<void> => {
      const proof = await mac(await key, heartbeatText(worker, epoch, challenge));
      const options = { timeout_ms: lease.lease_ms, background: true };
      const answer = (await this.session.call('rpc.heartbeat', [challenge, proof], options)) as Beat;
      const stale = challenge !== answer.next && !answer.renewed;
      if (typeof answer.next === 'string') challenge = answer.next;
      // The answer to the beat before was lost: once more, with what is now known.
      if (stale && again) await beat(false);
    };
    // A beat that fails is followed by the next; when all fail the lease runs out, which is its meaning.
    this.#heart = setInterval(() => void beat().catch(() => {}), lease.heartbeat_ms);
    (this.#heart as { unref?: () => void }).unref?.();
    void beat().catch(() => {});
    void this.session.closed.then(() => clearInterval(this.#heart));
  }
}

async function dial(
  body: TicketBody,
  ticket: Ticket,
  routing: Routing,
  { core, powers }: OpenPowers,
): Promise<{ transport: Transport; route: 'direct' | 'relay' }> {
  const { direct, relay } = body.routes;
  const tls = direct.tls ? { tls: { jti: body.jti, key: await sessionKey(ticket.secret, body.jti) } } : {};
  if (routing !== 'relay_only') {
    try {
      const { host, port } = direct;
      return { transport: await powers.dialDirect({ host, port, ...tls }, DIRECT_MS), route: 'direct' };
    } catch (error) {
      if (routing === 'p2p_only') throw error;
    }
  }
  const transport = await powers.dialRelay(core.base, relay.path, core.token, tls.tls, LIMITS.handshake_ms);
  return { transport, route: 'relay' };
}

/** What the core knows of a worker whose connection was lost; undefined while it is alive, or nobody knows. */
async function fateOf(worker: string, core: CoreClient): Promise<MeshError | undefined> {
  interface State {
    state: 'alive' | 'dead' | 'node_lost';
    node?: string;
    fate?: { cause: string; reason: string };
  }
  for (let i = 0; i < FATE_TRIES; i++) {
    const { state, fate, node } = await core.request<State>('GET', `/api/v2/ephemeral/${worker}`, undefined, 2_000);
    if (fate) return new WorkerDied({ worker, cause: fate.cause, reason: fate.reason }) as MeshError;
    if (state === 'node_lost')
      return new WorkerDied({ worker, cause: 'node_lost', reason: `its node ${node} is gone` }) as MeshError;
    await new Promise((resolve) => setTimeout(resolve, FATE_EVERY_MS));
  }
  return undefined;
}
