/**
 * Route B. For each connection the node dials out to the core and the two are spliced: the core copies bytes and reads
 * none. Only for a plain HTTP POST, whose client can do no handshake, the core is itself a visitor of the worker.
 */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import {
  ConnectionLost,
  DeadlineExceeded,
  describe,
  isError,
  LIMITS,
  OutcomeUnknown,
  type Ticket,
  type TicketBody,
  WorkerDied,
} from '@hauki/protocol';
import {
  type CallerKey,
  type CallOptions,
  encode,
  makeCallerKey,
  randomText,
  readTicketBody,
  redeemTicket,
  Session,
  sessionKey,
} from '@hauki/rpc';
import { joinStreams, secureStream, streamTransport } from '@hauki/rpc/node';
import type { Registry } from './registry.ts';
import { Shares } from './shares.ts';

export interface RelayPowers {
  registry: Registry;
  /** A visitor's ticket for the worker, signed for the given audience. */
  visitorTicket(worker: string, audience: string): Promise<Ticket>;
}

/** Sessions that the core keeps for HTTP clients, one a worker; the longest unused goes first, none with a call under way. */
const KEPT_SESSIONS = 256;

interface Kept {
  session: Promise<Session>;
  /** Under way. */
  calls: number;
  /** What callers share of it. */
  places: Shares;
}

export class Relay {
  readonly #powers: RelayPowers;
  readonly #waiting = new Map<string, (stream: Socket) => void>();
  readonly #sessions = new Map<string, Kept>();
  readonly #key: Promise<CallerKey> = makeCallerKey();
  /** Connections to workers, each with its worker. */
  readonly #streams = new Map<Socket, string>();
  #carried_before = 0;

  constructor(powers: RelayPowers) {
    this.#powers = powers;
    powers.registry.watch({
      // Its node may only stand still, and nothing else would end what is open to it.
      died: ({ worker, cause }) => {
        if (cause === 'node_lost') for (const [stream, to] of this.#streams) if (to === worker) stream.destroy();
      },
    });
  }

  /** Bytes that came through the core for workers, both ways. */
  get carried_bytes(): number {
    let sum = this.#carried_before;
    for (const stream of this.#streams.keys()) sum += stream.bytesRead + stream.bytesWritten;
    return sum;
  }

  /** A node has dialled in for a splice. False when nobody waits for it. */
  arrived(splice: string, stream: Socket): boolean {
    const take = this.#waiting.get(splice);
    this.#waiting.delete(splice);
    take?.(stream);
    return take !== undefined;
  }

  /** A byte stream to the worker, dialled by its node. */
  async dial(worker: string): Promise<Socket> {
    const splice = randomText(16);
    const { promise, resolve, reject } = Promise.withResolvers<Socket>();
    const timeout_ms = LIMITS.handshake_ms;
    const timer = setTimeout(
      () =>
        reject(new DeadlineExceeded({ what: `The node's connection for ${worker}`, timeout_ms, may_have_run: false })),
      timeout_ms,
    );
    this.#waiting.set(splice, resolve);
    try {
      const [stream] = await this.#powers.registry.ask(worker, ({ rpc }) =>
        Promise.all([promise, rpc.splice(worker, splice)]),
      );
      this.#count(stream, worker);
      return stream;
    } catch (error) {
      // Whichever half came, it has nobody to join.
      promise.then(
        (stream) => stream.destroy(),
        () => {},
      );
      throw error;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(splice);
    }
  }

  /** Joins a client's connection, opened by `open` once the worker is reached, to the worker until either side ends. */
  async splice(worker: string, open: () => Duplex | Promise<Duplex>): Promise<void> {
    const stream = await this.dial(worker);
    let client: Duplex;
    try {
      client = await open();
    } catch (error) {
      stream.destroy();
      throw error;
    }
    joinStreams(client, stream);
  }

  /**
   * One call on behalf of a plain client. Rejects with what the worker threw, or with what became of the worker: with
   * ConnectionLost where its node is silent and the call was not sent. One that was sent waits for its answer also while the
   * node is silent: it may be running, and the answer may come when the node is back. `by`: whose call it is.
   */
  async call(worker: string, method: string, params: unknown, options: CallOptions, by: string): Promise<unknown> {
    const { registry } = this.#powers;
    const unsent = (error: unknown) => Promise.reject(this.#unsent(worker, error));
    await registry.demandRunning(worker).catch(unsent);
    // Named parameters go as they came: one object.
    const list = Array.isArray(params) ? params : [params];
    for (;;) {
      await registry.demandHeard(worker).catch(unsent);
      const kept = this.#kept(worker);
      const leave = kept.places.take(by);
      kept.calls++;
      try {
        const session = await kept.session.catch(unsent);
        if (session.open) return await session.call(method, list, options);
      } finally {
        kept.calls--;
        leave();
        this.#trim();
      }
      if (this.#sessions.get(worker) === kept) this.#sessions.delete(worker);
    }
  }

  /** What befell the way to a worker before a call left: that has not run, whatever else was under way. */
  #unsent(worker: string, error: unknown): unknown {
    if (isError(error, OutcomeUnknown))
      return new ConnectionLost({ why: `the worker was not reached: ${error.fields.why}` });
    if (isError(error, DeadlineExceeded)) return new ConnectionLost({ why: describe(error) });
    // Its node is away, and it may live on there.
    if (isError(error, WorkerDied) && this.#powers.registry.workers.has(worker))
      return new ConnectionLost({ why: error.fields.reason });
    return error;
  }

  /** The worker's session, or one that is being opened; it is the last to go now. */
  #kept(worker: string): Kept {
    let kept = this.#sessions.get(worker);
    this.#sessions.delete(worker);
    if (!kept) {
      const places = new Shares('calls over HTTP to this worker', LIMITS.calls_in_flight);
      const made: Kept = { session: this.open(worker), calls: 0, places };
      const forget = () => {
        if (this.#sessions.get(worker) === made) this.#sessions.delete(worker);
      };
      made.session.then((session) => session.closed).then(forget, forget);
      kept = made;
    }
    this.#sessions.set(worker, kept);
    return kept;
  }

  #trim(): void {
    for (const [worker, { session, calls }] of this.#sessions) {
      if (this.#sessions.size <= KEPT_SESSIONS) return;
      if (calls > 0) continue;
      this.#sessions.delete(worker);
      void session.then((one) => one.close()).catch(() => {});
    }
  }

  /** A session of the core's own with a worker, as a visitor; whoever asks for it closes it. */
  async open(worker: string): Promise<Session> {
    const key = await this.#key;
    const ticket = await this.#powers.visitorTicket(worker, key.thumbprint);
    const body = readTicketBody<TicketBody>(ticket.signed);
    const raw = await this.dial(worker);
    const stream = body.routes.direct.tls
      ? await secureStream(raw, body.jti, await sessionKey(ticket.secret, body.jti), LIMITS.handshake_ms)
      : raw;
    const session = new Session({
      transport: streamTransport(stream),
      // Its answers go to plain JSON clients: what JSON cannot say is refused where it is.
      literal: encode,
      explain: async () => {
        // The node's word on the death may be a moment behind the connection's end.
        for (let i = 0; i < 20 && this.#powers.registry.workers.has(worker); i++)
          await new Promise((resolve) => setTimeout(resolve, 25));
        return this.#powers.registry.death(worker);
      },
    });
    try {
      await redeemTicket(session, ticket, key);
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  #count(stream: Socket, worker: string): void {
    this.#streams.set(stream, worker);
    stream.once('close', () => {
      this.#streams.delete(stream);
      this.#carried_before += stream.bytesRead + stream.bytesWritten;
    });
  }
}
