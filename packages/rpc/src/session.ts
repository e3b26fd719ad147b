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
 * It stands apart from `plain.ts`, which answers clients that speak literal JSON-RPC and nothing of ours. References are
 * in `refs.ts`, streams in `streams.ts`, values in `codec.ts`, what a peer may reach in `invoke.ts`.
 */
import {
  ConnectionLost,
  describe,
  fromWire,
  type MeshError,
  NoSuchMethod,
  ProtocolViolation,
  toWire,
} from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { Caller, errorFrom } from './caller.ts';
import { RefTable } from './refs.ts';
import type { Served } from './served.ts';
import { briefly, type IncomingCall, Server, withThrown } from './server.ts';
import { Streams } from './streams.ts';
import type { Transport } from './transport.ts';
import { Wire } from './wire.ts';

/**
 * Answers calls to this side's root. `params` is an array for positional parameters, an object for named ones; `call`
 * tells of the call itself: its signal, its deadline, its trace.
 */
export type Dispatch = (method: string, params: unknown, session: Session, call: Served) => unknown;

export interface CallOptions {
  /** How long to wait for the answer; the other side is told. */
  timeout_ms?: number;
  /** Cancels the call: it rejects at once, and the other side's signal is aborted. */
  signal?: AbortSignal;
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
  timeout_ms?: number;
  /** Asked once when the session ends, so that waiting callers learn why; undefined: nobody knows. */
  explain?: (reason: string) => Promise<MeshError | undefined>;
  /** Keep the process alive only while a call waits for its answer. */
  idle_lets_exit?: boolean;
  /** Writes values for a peer that has not said `rpc.open`: as literal JSON (`values.ts`), nothing goes by reference. */
  literal?: (value: unknown) => string;
  /** For peers that are trusted with less than others: results kept for them, references of theirs held. */
  bounds?: { kept: number; references: number };
  /** Called when a call with `kill_after_ms` did not end in time. */
  kill?: (why: string) => void;
}

export interface SessionStats {
  calls_sent: number;
  calls_served: number;
  in_flight: number;
  serving: number;
  exported: number;
  imported: number;
  kept: number;
  streams: number;
  carried_bytes: number;
  buffered_bytes: number;
}

const nobody: Dispatch = (method) => {
  throw new NoSuchMethod({ method, has: [] });
};

/** Notifications that sessions send each other. */
const OURS = new Set(
  ['item', 'end', 'fail', 'credit', 'stop', 'release', 'abort', 'forget', 'cancel'].map((name) => `rpc.${name}`),
);

interface Message extends IncomingCall {
  method?: unknown;
  result?: unknown;
  error?: any;
}

export class Session {
  readonly #transport: Transport;
  readonly #wire: Wire;
  readonly #streams: Streams;
  readonly #refs: RefTable;
  readonly #caller: Caller;
  readonly #server: Server;
  readonly #explain: SessionOptions['explain'];
  #end: { reason: string; error?: MeshError } | undefined;
  #explained: Promise<void> = Promise.resolve();
  #tell_closed!: (reason: string) => void;
  /** Resolves with the reason when the session has ended; never rejects. */
  readonly closed: Promise<string>;

  constructor(options: SessionOptions) {
    const { transport, dispatch = nobody, timeout_ms = LIMITS.call_ms, literal, kill } = options;
    const idle_lets_exit = options.idle_lets_exit ?? false;
    const { kept: keeps, references: takes } = options.bounds ?? { kept: LIMITS.exports, references: LIMITS.exports };
    this.#transport = transport;
    this.#explain = options.explain;
    this.closed = new Promise((resolve) => {
      this.#tell_closed = resolve;
    });
    const wire = new Wire(transport, literal);
    this.#wire = wire;
    this.#streams = new Streams({
      item: (id, value) => (wire.over ? 0 : wire.notify('rpc.item', [id, value])),
      fail: (id, error) => {
        for (const form of [withThrown, toWire, briefly]) if (wire.tell('rpc.fail', [id, form(error)])) return;
      },
      notify: (method, params) => void wire.tell(method, params),
    });
    this.#refs = new RefTable({
      takes,
      streams: this.#streams,
      call: (on, method, args, call_options) => this.#caller.call({ on }, method, args, call_options ?? {}),
      notify: (method, params) => wire.tell(method, params),
      resultOf: (value) => this.#caller.resultOf(value),
      result: (id, path) => this.#server.resultFor(id, path),
    });
    wire.refs = this.#refs;
    this.#caller = new Caller({
      wire,
      refs: this.#refs,
      timeout_ms,
      idle_lets_exit,
      kill,
      over: () => (this.#end ? this.#explained.then(() => this.#refusal()!) : undefined),
      violated: (why) => this.close(why),
    });
    this.#server = new Server({
      wire,
      keeps,
      refs: this.#refs,
      dispatch: (method, params, call) => dispatch(method, params, this, call),
      end: (why) => this.close(why),
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
      calls_served: this.#server.served,
      in_flight: this.#caller.in_flight,
      serving: this.#server.serving,
      exported: this.#refs.exported,
      imported: this.#refs.imported,
      kept: this.#server.kept,
      streams: this.#streams.size,
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

  #refusal(): Error | undefined {
    return this.#end && (this.#end.error ?? new ConnectionLost({ why: this.#end.reason }));
  }

  #receive(text: string, bytes: Uint8Array | undefined): void {
    if (bytes && !this.#wire.tagged) return this.close('the peer sent tagged values without rpc.open');
    let message: Message;
    try {
      message = readAnswer(text) ?? JSON.parse(text);
    } catch {
      return this.close('the peer sent something that is not JSON');
    }
    if (typeof message !== 'object' || message === null) return this.close('the peer sent a message that is no object');
    const { id, method } = message;
    try {
      if (typeof method === 'string') {
        const ours = id === undefined && this.#wire.tagged && method.startsWith('rpc.');
        if (!ours || !this.#notified(message, method, text, bytes)) this.#server.serve(message, method, text, bytes);
      } else if (typeof id === 'number') this.#caller.settle(id, message, bytes);
      else if (message.error !== undefined) this.close(`the peer reported: ${fromWire(message.error).message}`);
      else this.close('the peer sent neither a call nor an answer');
    } catch (error) {
      this.close(`the peer broke the protocol: ${describe(error)}`);
    }
  }

  /** Our own notifications; false for what is none of them. */
  #notified(message: Message, method: string, text: string, bytes: Uint8Array | undefined): boolean {
    if (!OURS.has(method)) return false;
    let { params } = message;
    if (!Array.isArray(params)) throw new ProtocolViolation({ why: `${method} has a list of parameters` });
    const of_nobody = method === 'rpc.item' && !this.#streams.reads(params[0]);
    if (of_nobody && bytes) this.#refs.discard(params);
    if (of_nobody) return true;
    let refused = false;
    try {
      if (bytes) params = this.#refs.decode(params, bytes);
    } catch (error) {
      if (error instanceof ProtocolViolation) throw error;
      refused = true;
      params = [params[0], error];
    }
    const [id, more] = params;
    switch (method) {
      case 'rpc.item':
        if (refused) this.#streams.refuse(id, more);
        else this.#streams.item(id, more, text.length + (bytes?.length ?? 0), bytes ? this.#refs.taken() : []);
        break;
      case 'rpc.end':
        this.#streams.end(id);
        break;
      case 'rpc.fail':
        this.#streams.end(id, refused ? more : errorFrom(more));
        break;
      case 'rpc.credit':
        this.#streams.credit(id, more);
        break;
      case 'rpc.stop':
        this.#streams.stop(id);
        break;
      case 'rpc.release':
        this.#refs.released(id);
        break;
      case 'rpc.abort':
        this.#refs.aborted(params);
        break;
      case 'rpc.forget':
        this.#server.forget(params);
        break;
      case 'rpc.cancel':
        this.#server.cancel(id, more);
    }
    return true;
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
      error = await this.#explain?.(reason);
    } catch {
      // Nobody could say why; the outcome stays unknown.
    }
    if (error) this.#end = { reason, error };
    const lost = error ?? (new ConnectionLost({ why: reason }) as MeshError);
    this.#caller.close(reason, left, error);
    this.#streams.close(lost);
    this.#refs.close(lost);
    this.#server.close(lost);
    this.#tell_closed(reason);
  }
}

const ANSWER = '{"jsonrpc":"2.0","id":';
const RESULT = ',"result":';

/**
 * An answer in the form in which we write it, read without its head; undefined for anything else. What stands between
 * head and brace must be one JSON value: then the text is that answer, whatever it holds.
 */
function readAnswer(text: string): Message | undefined {
  if (!text.startsWith(ANSWER) || text.charCodeAt(text.length - 1) !== 0x7d) return undefined;
  let at = ANSWER.length;
  let id = 0;
  for (let digit = text.charCodeAt(at) - 48; digit >= 0 && digit <= 9; digit = text.charCodeAt(++at) - 48) {
    if (digit === 0 && id === 0) return undefined;
    id = id * 10 + digit;
  }
  if (id === 0 || !text.startsWith(RESULT, at)) return undefined;
  try {
    return { id, result: JSON.parse(text.slice(at + RESULT.length, -1)) };
  } catch {
    return undefined;
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
