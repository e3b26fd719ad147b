/**
 * One end of a Mesh-RPC session: JSON-RPC 2.0 in both directions over one transport. It knows no socket.
 *
 * What always holds:
 * - every call settles: by its answer, its deadline, or the end of the session;
 * - a call that never left says so (retryable), a call whose answer was lost says that its outcome is unknown;
 * - what waits is bounded: calls out, calls in, bytes unsent. At a bound a call is refused, never queued;
 * - a message that is not JSON-RPC ends this session and touches no other.
 *
 * It stands apart from `plain.ts`, which answers clients that speak literal JSON-RPC and nothing of ours.
 */
import {
  ConnectionLost,
  DeadlineExceeded,
  fromWire,
  LIMITS,
  type MeshError,
  NoSuchMethod,
  OutcomeUnknown,
  Overloaded,
  toWire,
} from '@hauki/protocol';
import type { Transport } from './transport.ts';
import { checkSize, encode } from './values.ts';

/** Answers calls that come in. `params` is an array for positional parameters, an object for named ones. */
export type Dispatch = (method: string, params: unknown, session: Session) => unknown;

export interface CallOptions {
  /** How long to wait for the answer. */
  timeout_ms?: number;
  /** Waiting for this answer does not keep the process alive. */
  background?: boolean;
}

export interface SessionOptions {
  transport: Transport;
  /** What this side offers; nothing when left out. */
  dispatch?: Dispatch;
  /** For the deadline of calls that name none. */
  timeout_ms?: number;
  /** Asked once when the session ends, so that waiting callers learn why; undefined: nobody knows. */
  explain?: (reason: string) => Promise<MeshError | undefined>;
  /** Keep the process alive only while a call waits for its answer. */
  idle_lets_exit?: boolean;
}

interface Pending {
  background: boolean;
  method: string;
  timeout_ms: number;
  deadline: number;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** A steady clock where there is one: setting the wall clock passes no deadline. */
const now_ms = globalThis.performance ? () => globalThis.performance.now() : () => Date.now();

const nobody: Dispatch = (method) => {
  throw new NoSuchMethod({ method, has: [] });
};

export class Session {
  readonly #transport: Transport;
  readonly #dispatch: Dispatch;
  readonly #timeout_ms: number;
  readonly #explain: SessionOptions['explain'];
  readonly #idle_lets_exit: boolean;
  readonly #pending = new Map<number, Pending>();
  #next_id = 1;
  #serving = 0;
  #holding = 0;
  #end: { reason: string; error?: MeshError } | undefined;
  #explained: Promise<void> = Promise.resolve();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timer_at = Number.POSITIVE_INFINITY;
  #tell_closed!: (reason: string) => void;
  /** Resolves with the reason when the session has ended; never rejects. */
  readonly closed: Promise<string>;

  constructor(options: SessionOptions) {
    this.#transport = options.transport;
    this.#dispatch = options.dispatch ?? nobody;
    this.#timeout_ms = options.timeout_ms ?? LIMITS.call_ms;
    this.#explain = options.explain;
    this.#idle_lets_exit = options.idle_lets_exit ?? false;
    this.closed = new Promise((resolve) => {
      this.#tell_closed = resolve;
    });
    this.#transport.start({
      message: (text) => this.#receive(text),
      close: (reason) => this.#ended(reason),
    });
    if (this.#idle_lets_exit) this.#transport.hold?.(false);
  }

  get open(): boolean {
    return this.#end === undefined;
  }

  /** Bytes carried both ways since the transport began. */
  get carried_bytes(): number {
    return this.#transport.carried_bytes;
  }

  /**
   * Calls the other side. Rejects with what it threw (RemoteError or a typed error), or with ConnectionLost (not sent),
   * OutcomeUnknown, WorkerDied, DeadlineExceeded, Overloaded, Unserialisable, TooLarge.
   */
  call(method: string, params: unknown[] = [], options: CallOptions = {}): Promise<unknown> {
    // A session that is over answers with the reason, as soon as that is known.
    if (this.#end) return this.#explained.then(() => Promise.reject(this.#refusal()));
    return new Promise((resolve, reject) => {
      const refusal = this.#refusal();
      if (refusal) throw refusal;
      if (this.#pending.size >= LIMITS.calls_in_flight)
        throw new Overloaded({ what: 'calls in flight on this session', limit: LIMITS.calls_in_flight });
      const id = this.#next_id++;
      const text = `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(method)},"params":${encode(params)}}`;
      checkSize('A message', text);
      const timeout_ms = options.timeout_ms ?? this.#timeout_ms;
      const deadline = now_ms() + timeout_ms;
      const background = options.background ?? false;
      if (!background && this.#idle_lets_exit && this.#holding++ === 0) this.#transport.hold?.(true);
      this.#pending.set(id, { background, method, timeout_ms, deadline, resolve, reject });
      this.#watch(deadline);
      this.#transport.send(text);
    });
  }

  /** Sends a call that nobody answers. Throws what `call` would reject with before sending. */
  notify(method: string, params: unknown[] = []): void {
    const refusal = this.#refusal();
    if (refusal) throw refusal;
    const text = `{"jsonrpc":"2.0","method":${JSON.stringify(method)},"params":${encode(params)}}`;
    checkSize('A message', text);
    this.#transport.send(text);
  }

  /** Ends the session; calls that wait are told. Safe to call twice. */
  close(reason = 'closed by this side'): void {
    this.#transport.close(reason);
  }

  #refusal(): Error | undefined {
    if (this.#end) return this.#end.error ?? new ConnectionLost({ why: this.#end.reason });
    if (this.#transport.buffered_bytes > LIMITS.unsent_bytes)
      return new Overloaded({ what: 'unsent bytes of this session', limit: LIMITS.unsent_bytes });
    return undefined;
  }

  #receive(text: string): void {
    let message: any;
    try {
      message = JSON.parse(text);
    } catch {
      return this.close('the peer sent something that is not JSON');
    }
    if (typeof message !== 'object' || message === null) return this.close('the peer sent a message that is no object');
    if (typeof message.method === 'string') void this.#serve(message);
    else if (typeof message.id === 'number') this.#settle(message);
    else if (message.error !== undefined) this.close(`the peer reported: ${fromWire(message.error).message}`);
    else this.close('the peer sent neither a call nor an answer');
  }

  #settle(message: { id: number; result?: unknown; error?: unknown }): void {
    const pending = this.#pending.get(message.id);
    if (!pending) return; // Its deadline has passed: the answer comes too late for anyone.
    this.#drop(message.id);
    if (message.error === undefined) pending.resolve(message.result);
    else pending.reject(fromWire(message.error));
  }

  #drop(id: number): void {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (pending && !pending.background && this.#idle_lets_exit && --this.#holding === 0) this.#transport.hold?.(false);
  }

  async #serve(message: { id?: unknown; method: string; params?: unknown }): Promise<void> {
    const { id, method } = message;
    const answerable = typeof id === 'number' || typeof id === 'string';
    if (this.#serving >= LIMITS.calls_in_flight) {
      if (answerable)
        this.#answer(
          id,
          'error',
          toWire(new Overloaded({ what: 'calls being served', limit: LIMITS.calls_in_flight })),
        );
      return;
    }
    this.#serving++;
    try {
      const result = await this.#dispatch(method, message.params ?? [], this);
      if (answerable) this.#answer(id, 'result', result);
    } catch (error) {
      if (answerable) this.#answer(id, 'error', toWire(error));
    } finally {
      this.#serving--;
    }
  }

  #answer(id: unknown, member: 'result' | 'error', value: unknown): void {
    if (this.#end) return;
    if (this.#transport.buffered_bytes > LIMITS.unsent_bytes)
      return this.close('the peer reads more slowly than it asks, and its answers no longer fit in memory');
    let text: string;
    try {
      text = `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"${member}":${encode(value)}}`;
      checkSize('An answer', text);
    } catch (error) {
      text = `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"error":${JSON.stringify(toWire(error))}}`;
    }
    this.#transport.send(text);
  }

  // One timer for all deadlines: set for the earliest, moved only when an earlier one comes.
  #watch(deadline: number): void {
    if (deadline >= this.#timer_at) return;
    clearTimeout(this.#timer);
    this.#timer_at = deadline;
    this.#timer = setTimeout(() => this.#expire(), Math.max(0, Math.min(deadline - now_ms(), 0x7fffffff)));
    (this.#timer as { unref?: () => void }).unref?.();
  }

  #expire(): void {
    this.#timer_at = Number.POSITIVE_INFINITY;
    const now = now_ms();
    let next = Number.POSITIVE_INFINITY;
    for (const [id, pending] of this.#pending) {
      if (pending.deadline > now) {
        next = Math.min(next, pending.deadline);
        continue;
      }
      this.#drop(id);
      const { method, timeout_ms } = pending;
      pending.reject(new DeadlineExceeded({ what: `${method}()`, timeout_ms, may_have_run: true }));
    }
    if (next !== Number.POSITIVE_INFINITY) this.#watch(next);
  }

  #ended(reason: string): void {
    if (this.#end) return;
    this.#end = { reason };
    this.#explained = this.#finish(reason);
  }

  async #finish(reason: string): Promise<void> {
    let error: MeshError | undefined;
    try {
      error = await this.#explain?.(reason);
    } catch {
      // Nobody could say why; the outcome stays unknown.
    }
    if (error) this.#end = { reason, error };
    clearTimeout(this.#timer);
    for (const pending of this.#pending.values())
      pending.reject(error ?? new OutcomeUnknown({ method: pending.method, why: reason }));
    this.#pending.clear();
    this.#tell_closed(reason);
  }
}

/**
 * A dispatch that calls the named methods of an object and nothing else. Positional parameters are spread, named ones
 * come as one object.
 */
export function serve<T extends object>(target: T, methods: readonly (keyof T & string)[]): Dispatch {
  const allowed = new Set<string>(methods);
  return (method, params) => {
    if (!allowed.has(method)) throw new NoSuchMethod({ method, has: [...allowed] });
    return (target as any)[method](...(Array.isArray(params) ? params : [params]));
  };
}

/** The other side of a session as an object of the given interface. Internal use: users get ghosts. */
export function remote<T extends object>(session: Session, options?: CallOptions): T {
  return new Proxy({} as T, {
    get: (_, method) =>
      typeof method === 'string' && method !== 'then'
        ? (...params: unknown[]) => session.call(method, params, options)
        : undefined,
  });
}
