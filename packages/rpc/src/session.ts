/**
 * One end of a Mesh-RPC session: JSON-RPC 2.0 in both directions over one transport. It knows no socket.
 *
 * What always holds:
 * - every call settles: by its answer, its deadline, its signal, or the end of the session;
 * - a call that never left says so (retryable), a call whose answer was lost says that its outcome is unknown;
 * - messages leave in the order in which they were given; calls begin in the order in which they came, for each target;
 * - what waits is bounded: calls out, calls in, bytes unsent, references, streams. At a bound a call is refused;
 * - a message that breaks the protocol ends this session and touches no other.
 *
 * It stands apart from `plain.ts`, which answers clients that speak literal JSON-RPC and nothing of ours. What the peer
 * asks, references and streams are joined in `session-rest.ts`; values are in `codec.ts`, what a peer may reach in
 * `invoke.ts`.
 */
import { ConnectionLost, describe, fromWire, type MeshError } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { readMessage } from '#plain-text';
import { EXITS } from '#platform';
import { restOf } from '#rest';
import { Caller } from './caller.ts';
import type { Served } from './served.ts';
import type { IncomingMessage, Rest, RestStats } from './session-rest.ts';
import type { Transport } from './transport.ts';
import { Wire } from './wire.ts';

/**
 * Answers calls to this side's root. `params` is an array for positional parameters, an object for named ones; `call`
 * tells of the call itself: its signal, its deadline, its trace.
 */
export type Dispatch = (method: string, params: unknown, session: Session, call: Served) => unknown;

/** What a call asks of its signal: an AbortSignal, or whatever tells the same. */
export interface CallSignal {
  readonly aborted: boolean;
  readonly reason: unknown;
  addEventListener(type: 'abort', listener: () => void, options?: { once?: boolean }): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

export interface CallOptions {
  /** How long to wait for the answer; the other side is told. */
  timeout_ms?: number;
  /** Cancels the call: it rejects at once, and the other side's signal is aborted. */
  signal?: CallSignal;
  /** After its deadline or cancellation the call has so long to end by itself; then the worker is killed. */
  kill_after_ms?: number;
  /** W3C trace context, carried along. */
  traceparent?: string;
  /** Waiting for this answer does not keep the process alive. */
  background?: boolean;
  /** For sessions: the answer is only passed on, and so held no longer than by whoever gets it. */
  passing?: boolean;
}

export interface SessionOptions {
  transport: Transport;
  /** What this side offers; nothing when left out. */
  dispatch?: Dispatch;
  /** For the deadline of calls that name none. */
  timeout_ms?: number | undefined;
  /** Asked once when the session ends, so that waiting callers learn why; undefined: nobody knows. */
  explain?: (reason: string) => Promise<MeshError | undefined>;
  /** Whatever is called waits for `begin`: the other side is not there yet. */
  waits?: boolean;
  /** Keep the process alive only while a call waits for its answer. */
  idle_lets_exit?: boolean;
  /** Writes values for a peer that has not said `rpc.open`: as literal JSON (`values.ts`), nothing goes by reference. */
  literal?: (value: unknown) => string;
  /** For peers that are trusted with less than others: results kept for them, references of theirs held. */
  bounds?: { kept: number; references: number };
  /** Called when a call with `kill_after_ms` did not end in time. */
  kill?: (why: string) => void;
}

export interface SessionStats extends RestStats {
  calls_sent: number;
  in_flight: number;
  carried_bytes: number;
  buffered_bytes: number;
}

export class Session {
  readonly #transport: Transport;
  readonly #wire: Wire;
  readonly #caller: Caller;
  readonly #rest: Rest;
  readonly #explain: SessionOptions['explain'];
  #end: { reason: string; error?: MeshError } | undefined;
  #explained: Promise<void> = Promise.resolve();
  #tell_closed!: (reason: string) => void;
  /** Resolves with the reason, as `explain` knows it, when the session has ended; never rejects. */
  readonly closed: Promise<string>;

  constructor(options: SessionOptions) {
    const { transport, dispatch, timeout_ms = LIMITS.call_ms, literal, kill } = options;
    const idle_lets_exit = EXITS && (options.idle_lets_exit ?? false);
    this.#transport = transport;
    this.#explain = options.explain;
    this.closed = new Promise((resolve) => {
      this.#tell_closed = resolve;
    });
    const wire = new Wire(transport, literal);
    wire.waits = options.waits ?? false;
    this.#wire = wire;
    this.#caller = new Caller({
      wire,
      timeout_ms,
      idle_lets_exit,
      kill,
      over: () => (this.#end ? this.#explained.then(() => this.#refusal()!) : undefined),
      outcome: (call, message, bytes) => this.#rest.outcome(call, message, bytes),
    });
    this.#rest = restOf({
      wire,
      caller: this.#caller,
      dispatch: dispatch && ((method, params, call) => dispatch(method, params, this, call)),
      bounds: options.bounds,
      end: (why) => this.close(why),
      receive: (text, bytes) => this.#receive(text, bytes),
    });
    transport.start({
      message: (text, bytes) => this.#receive(text, bytes),
      close: (reason) => this.#ended(reason),
    });
    if (idle_lets_exit) transport.hold?.(false);
  }

  get open(): boolean {
    return this.#end === undefined;
  }

  /** Bytes carried both ways since the transport began. */
  get carried_bytes(): number {
    return this.#transport.carried_bytes;
  }

  stats(): SessionStats {
    return {
      calls_sent: this.#caller.made,
      in_flight: this.#caller.in_flight,
      ...this.#rest.stats(),
      carried_bytes: this.#transport.carried_bytes,
      buffered_bytes: this.#transport.buffered_bytes,
    };
  }

  /**
   * Calls the other side. The promise can be called on before it settles (`promise.ts`). Rejects with what the other
   * side threw (RemoteError or a typed error), or with ConnectionLost (not sent), OutcomeUnknown, WorkerDied,
   * DeadlineExceeded, Cancelled, Overloaded, Unserialisable, TooLarge, RefGone.
   */
  call(method: string, params: unknown[] = [], options: CallOptions = {}): Promise<unknown> {
    return this.#caller.call(undefined, method, params, options);
  }

  /**
   * The other side is there: calls that waited for it leave together, in their order. The time of those that set none of
   * their own begins now.
   */
  begin(): void {
    this.#wire.waits = false;
    this.#caller.begin();
    this.#wire.flush();
  }

  /** What was called so far goes to the transport already, though the other side is not there yet. */
  lay(): void {
    this.#wire.waits = false;
    this.#wire.flush();
    this.#wire.waits = true;
  }

  /** Sends a call that nobody answers. Throws what `call` would reject with before sending. */
  notify(method: string, params: unknown[] = []): void {
    const refusal = this.#refusal() ?? this.#wire.refusal();
    if (refusal) throw refusal;
    this.#wire.notify(method, params);
  }

  /** Ends the session; calls that wait are told. Safe to call twice. */
  close(reason = 'closed by this side'): void {
    this.#wire.flush();
    this.#transport.close(reason);
  }

  /** Its transport goes on without it. */
  leave(): void {
    this.#caller.rest();
  }

  #refusal(): Error | undefined {
    return this.#end && (this.#end.error ?? new ConnectionLost({ why: this.#end.reason }));
  }

  #receive(text: string, bytes: Uint8Array | undefined): void {
    if (this.#rest.holds?.(text, bytes)) return;
    if (bytes && !this.#wire.tagged) return this.close('the peer sent tagged values without rpc.open');
    try {
      const message: IncomingMessage = readMessage(text);
      const { id, method } = message;
      if (typeof method === 'string') this.#rest.receive(message, method, text, bytes);
      else if (typeof id === 'number') this.#caller.settle(id, message, bytes);
      else if (message.error !== undefined) this.close(`the peer reported: ${fromWire(message.error).message}`);
      else this.close('the peer sent neither a call nor an answer');
    } catch (error) {
      this.close(`the peer broke the protocol: ${describe(error)}`);
    }
  }

  #ended(reason: string): void {
    if (this.#end) return;
    this.#end = { reason };
    this.#wire.over = true;
    this.#explained = this.#finish(reason);
  }

  async #finish(reason: string): Promise<void> {
    const left = this.#wire.sent - (this.#transport.unsent ?? 0);
    let error: MeshError | undefined;
    try {
      await this.#rest.loading;
      error = await this.#explain?.(reason);
    } catch {
      // Nobody could say why; the outcome stays unknown.
    }
    if (error) this.#end = { reason, error };
    const lost = error ?? (new ConnectionLost({ why: reason }) as MeshError);
    this.#caller.close(reason, left, error);
    this.#rest.close(lost);
    this.#tell_closed((error?.fields.reason as string) ?? reason);
  }
}
