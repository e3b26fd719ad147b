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
  Cancelled,
  ConnectionLost,
  DeadlineExceeded,
  describe,
  fromWire,
  LIMITS,
  type MeshError,
  NoSuchMethod,
  OutcomeUnknown,
  Overloaded,
  ProtocolViolation,
  RefGone,
  toWire,
  Unserialisable,
  type WireError,
} from '@hauki/protocol';
import { Call, type CallHome } from './call.ts';
import { decodeValue, type Encoded, encodeValue } from './codec.ts';
import { checkedPath, invoke, read } from './invoke.ts';
import { Deferred, RemotePromise } from './promise.ts';
import { RefTable } from './refs.ts';
import { Served } from './served.ts';
import { Streams } from './streams.ts';
import { bytesLength, type Transport } from './transport.ts';
import { checkSize, encode } from './values.ts';

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
  /** False for a peer that has not said `rpc.open`: values are literal JSON, and nothing goes by reference. */
  tagged?: boolean;
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

/** A steady clock where there is one: setting the wall clock passes no deadline. */
const now_ms = globalThis.performance ? () => globalThis.performance.now() : () => Date.now();
/** How long a call that was cancelled is remembered, so that what its answer refers to is let go of. */
const FORGET_MS = 60_000;

const nobody: Dispatch = (method) => {
  throw new NoSuchMethod({ method, has: [] });
};

interface Target {
  on?: number;
  of?: number;
  path?: string[];
}

interface Message {
  id?: unknown;
  method?: unknown;
  params?: any;
  rpc?: any;
  result?: unknown;
  error?: any;
}

export class Session {
  readonly #transport: Transport;
  readonly #dispatch: Dispatch;
  readonly #timeout_ms: number;
  readonly #explain: SessionOptions['explain'];
  readonly #idle_lets_exit: boolean;
  readonly #tagged: boolean;
  readonly #kill: SessionOptions['kill'];
  readonly #streams: Streams;
  readonly #refs: RefTable;
  readonly #pending = new Map<number, Call>();
  /** Calls that this side gave up: until when to kill for them, or else to forget them. */
  readonly #given_up = new Map<number, { at: number; method: string | undefined }>();
  readonly #served = new Map<unknown, Served>();
  /** Results that the peer calls on; a promise until they are there. */
  readonly #kept = new Map<unknown, Promise<unknown> | { value: unknown }>();
  /** Calls of the peer that wait for a result which they name; the next ones to the same target wait behind them. */
  readonly #delayed = new Map<unknown, Promise<void>>();
  readonly #home: CallHome = {
    steady_ms: now_ms,
    callOn: (on, path, args, options) => this.#callOn(on, path, args, options),
  };
  #outbox: (Call | [string, Uint8Array[] | undefined])[] = [];
  #next_id = 1;
  #sent = 0;
  #calls_served = 0;
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
    this.#tagged = options.tagged ?? true;
    this.#kill = options.kill;
    this.closed = new Promise((resolve) => {
      this.#tell_closed = resolve;
    });
    this.#streams = new Streams({
      item: (id, value) => this.#item('rpc.item', id, value),
      fail: (id, error) => this.#tell('rpc.fail', [id, toWire(error)]),
      notify: (method, params) => this.#tell(method, params),
    });
    this.#refs = new RefTable({
      streams: this.#streams,
      call: (on, method, args, call_options) => this.#call({ on }, method, args, call_options ?? {}),
      notify: (method, params) => this.#tell(method, params),
      resultOf: (value) => this.#resultOf(value),
      result: (id, path) => this.#resultFor(id, path),
    });
    this.#transport.start({
      message: (text, bytes) => this.#receive(text, bytes),
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

  stats(): SessionStats {
    return {
      calls_sent: this.#next_id - 1,
      calls_served: this.#calls_served,
      in_flight: this.#pending.size,
      serving: this.#served.size,
      exported: this.#refs.exported,
      imported: this.#refs.imported,
      kept: this.#kept.size,
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
    return this.#call(undefined, method, params, options);
  }

  /** Sends a call that nobody answers. Throws what `call` would reject with before sending. */
  notify(method: string, params: unknown[] = []): void {
    const refusal = this.#refusal();
    if (refusal) throw refusal;
    const { text, bytes } = this.#encode(params);
    const message = `{"jsonrpc":"2.0","method":${JSON.stringify(method)},"params":${text}}`;
    checkMessage('A message', message, bytes);
    this.#refs.sent();
    this.#post(message, bytes);
  }

  /** Ends the session; calls that wait are told. Safe to call twice. */
  close(reason = 'closed by this side'): void {
    this.#flush();
    this.#transport.close(reason);
  }

  // ---- Calling

  #call(target: Target | undefined, method: string, params: unknown[], options: CallOptions): Promise<unknown> {
    // A session that is over answers with the reason, as soon as that is known.
    if (this.#end) return this.#explained.then(() => Promise.reject(this.#refusal()));
    try {
      return this.#begin(target, method, params, options).promise;
    } catch (error) {
      this.#refs.undo();
      return Promise.reject(error);
    }
  }

  #begin(target: Target | undefined, method: string, params: unknown[], options: CallOptions): Call {
    const { signal, timeout_ms = this.#timeout_ms, traceparent, background } = options;
    const refusal = this.#refusal();
    if (refusal) throw refusal;
    if (signal?.aborted) throw new Cancelled({ method, why: describe(signal.reason) }, `${method}() was never sent`);
    if (this.#pending.size >= LIMITS.calls_in_flight)
      throw new Overloaded({ what: 'calls in flight on this session', limit: LIMITS.calls_in_flight });
    const encoded = this.#encode(params);
    const id = this.#next_id;
    const head = `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(method)},"params":${encoded.text}`;
    checkMessage('A message', head, encoded.bytes);
    this.#next_id++;
    const call = new Call(this.#home, id, method, options, timeout_ms, this.#refs.sent());
    const rpc: Record<string, unknown> = { ...target };
    if (options.timeout_ms !== undefined) rpc.timeout_ms = timeout_ms;
    if (traceparent !== undefined) rpc.traceparent = traceparent;
    call.unlaid = { head, rpc, params: encoded };
    if (!background && this.#idle_lets_exit && this.#holding++ === 0) this.#transport.hold?.(true);
    if (signal) {
      const abort = () => this.#giveUp(call, () => new Cancelled({ method, why: describe(signal.reason) }));
      signal.addEventListener('abort', abort, { once: true });
      call.unlisten = () => signal.removeEventListener('abort', abort);
    }
    this.#pending.set(id, call);
    this.#watch(call.deadline);
    if (this.#outbox.push(call) === 1) queueMicrotask(this.#flush);
    return call;
  }

  /** A call on the result of another: it leaves with it where that has not left yet, else when the result is there. */
  #callOn(on: Call, path: string[], args: unknown[] | undefined, options: CallOptions = {}): Promise<unknown> {
    const method = args && path.length > 0 ? path.at(-1) : undefined;
    const before = method === undefined ? path : path.slice(0, -1);
    if (!on.unlaid || !this.#tagged)
      return on.promise.then((value) => (args ? invoke(value, before, method, args, options) : read(value, path)));
    on.keep = true;
    const target: Target = before.length > 0 ? { of: on.id, path: before } : { of: on.id };
    const made = this.#call(target, args ? (method ?? 'rpc.apply') : 'rpc.get', args ?? [], options);
    const call = RemotePromise.begunBy(made)?.source;
    if (call instanceof Call) on.adopt(call);
    return made;
  }

  /** The tag for a promise of this session that is given as an argument, before it is there. */
  #resultOf(value: object): unknown[] | undefined {
    const begun = RemotePromise.begunBy(value);
    if (!begun) return undefined;
    const call = begun.source instanceof Deferred ? begun.source.call_behind : begun.source;
    if (!(call instanceof Call) || !call.belongsTo(this.#home) || !call.unlaid)
      throw new Unserialisable({
        why: 'it is the promise of a call that does not leave together with this one: await it',
      });
    call.keep = true;
    return ['result', call.id, begun.path];
  }

  /** Lays what was begun in this turn into messages, in order. */
  readonly #flush = (): void => {
    const outbox = this.#outbox;
    this.#outbox = [];
    for (const entry of outbox) {
      if (!(entry instanceof Call)) {
        this.#sent++;
        this.#transport.send(entry[0], entry[1]);
        continue;
      }
      const { unlaid } = entry;
      if (!unlaid) continue; // It was given up before it left.
      entry.unlaid = undefined;
      if (entry.keep) unlaid.rpc.keep = true;
      let plain = true;
      for (const _ in unlaid.rpc) plain = false;
      const { head, rpc, params } = unlaid;
      entry.ordinal = ++this.#sent;
      this.#transport.send(plain ? `${head}}` : `${head},"rpc":${JSON.stringify(rpc)}}`, params.bytes);
    }
  };

  #post(text: string, bytes: Uint8Array[] | undefined): void {
    if (this.#outbox.length > 0) {
      this.#outbox.push([text, bytes]);
      return;
    }
    this.#sent++;
    this.#transport.send(text, bytes);
  }

  /** A notification of our own making; nothing where the session is over. */
  #tell(method: string, params: unknown[]): void {
    if (this.#end) return;
    try {
      this.notify(method, params);
    } catch {
      // There is no room, or the reason cannot be sent: the other side learns of it at the session's end.
    }
  }

  #item(method: string, id: number, value: unknown): number {
    if (this.#end) return 0;
    const { text, bytes } = this.#encode([id, value]);
    const message = `{"jsonrpc":"2.0","method":"${method}","params":${text}}`;
    try {
      checkMessage('An item', message, bytes);
    } catch (error) {
      this.#refs.undo();
      throw error;
    }
    this.#refs.sent();
    this.#post(message, bytes);
    return message.length + (bytes ? bytesLength(bytes) : 0);
  }

  #encode(value: unknown): Encoded {
    if (!this.#tagged) return { text: encode(value), bytes: undefined };
    try {
      return encodeValue(value, this.#refs);
    } catch (error) {
      this.#refs.undo();
      throw error;
    }
  }

  #refusal(): Error | undefined {
    if (this.#end) return this.#end.error ?? new ConnectionLost({ why: this.#end.reason });
    if (this.#transport.buffered_bytes > LIMITS.unsent_bytes)
      return new Overloaded({ what: 'unsent bytes of this session', limit: LIMITS.unsent_bytes });
    return undefined;
  }

  // ---- Hearing

  #receive(text: string, bytes: Uint8Array | undefined): void {
    if (bytes && !this.#tagged) return this.close('the peer sent tagged values without rpc.open');
    let message: Message;
    try {
      message = JSON.parse(text);
    } catch {
      return this.close('the peer sent something that is not JSON');
    }
    if (typeof message !== 'object' || message === null) return this.close('the peer sent a message that is no object');
    try {
      if (typeof message.method === 'string') this.#heard(message, message.method, text, bytes);
      else if (typeof message.id === 'number') this.#settle(message.id, message, bytes);
      else if (message.error !== undefined) this.close(`the peer reported: ${fromWire(message.error).message}`);
      else this.close('the peer sent neither a call nor an answer');
    } catch (error) {
      this.close(`the peer broke the protocol: ${describe(error)}`);
    }
  }

  #heard(message: Message, method: string, text: string, bytes: Uint8Array | undefined): void {
    if (message.id !== undefined || !this.#tagged || !method.startsWith('rpc.'))
      return this.#serve(message, method, text, bytes);
    const list = (): unknown[] => {
      const params = bytes ? decodeValue(message.params, bytes, this.#refs) : message.params;
      if (!Array.isArray(params)) throw new ProtocolViolation({ why: `${method} has a list of parameters` });
      return params;
    };
    if (method === 'rpc.item') {
      const [id, value] = list();
      if (!this.#streams.item(id, value, text.length + (bytes?.length ?? 0)) && bytes)
        this.#refs.discard(message.params);
    } else if (method === 'rpc.end') this.#streams.end(list()[0]);
    else if (method === 'rpc.fail') this.#streams.end(list()[0], errorFrom(list()[1]));
    else if (method === 'rpc.credit') this.#streams.credit(list()[0], list()[1]);
    else if (method === 'rpc.stop') this.#streams.stop(list()[0]);
    else if (method === 'rpc.release') this.#refs.released(list()[0]);
    else if (method === 'rpc.abort') this.#refs.aborted(list());
    else if (method === 'rpc.forget') for (const id of list()) this.#kept.delete(id);
    else if (method === 'rpc.cancel') {
      const [id, why] = list();
      this.#served.get(id)?.abort(new Cancelled({ method: '', why: String(why) }, `The caller gave up: ${why}`));
    } else this.#serve(message, method, text, bytes);
  }

  #settle(id: number, message: Message, bytes: Uint8Array | undefined): void {
    const call = this.#pending.get(id);
    if (!call) {
      // It was given up: the answer comes too late for anyone.
      if (this.#given_up.delete(id) && bytes) this.#refs.discard(message.result);
      return;
    }
    this.#drop(call);
    if (call.keep) this.#tell('rpc.forget', [id]);
    // What nobody looks at yet outlives the frame that it came in.
    const kept = bytes && call.keep ? bytes.slice() : bytes;
    call.settle({
      open: () => {
        const read = (value: unknown) => (kept ? decodeValue(value, kept, this.#refs) : value);
        if (message.error !== undefined) throw errorFrom(read(message.error));
        return this.#decoded(() => read(message.result));
      },
      discard: kept && (() => this.#refs.discard(message.result)),
    });
  }

  /** A result that breaks the protocol ends the session, and its caller hears why. */
  #decoded(decode: () => unknown): unknown {
    try {
      return decode();
    } catch (error) {
      if (error instanceof ProtocolViolation) this.close(describe(error));
      throw error;
    }
  }

  #drop(call: Call): void {
    this.#pending.delete(call.id);
    call.unlisten?.();
    if (call.given.length > 0) this.#refs.callEnded(call.given);
    if (!call.options.background && this.#idle_lets_exit && --this.#holding === 0) this.#transport.hold?.(false);
  }

  // ---- Serving

  #serve(message: Message, method: string, text: string, bytes: Uint8Array | undefined): void {
    const { id, rpc } = message;
    this.#calls_served++;
    if (this.#served.size >= LIMITS.calls_in_flight)
      return this.#fail(id, new Overloaded({ what: 'calls being served', limit: LIMITS.calls_in_flight }));
    const call = new Served(rpc);
    // Only a tagged text of a peer that has something kept can name results.
    const names = bytes && this.#kept.size > 0 && text.includes('["result",') ? this.#named(message.params) : undefined;
    const key = rpc?.on ?? (rpc?.of === undefined ? 'root' : `of ${rpc.of}`);
    const before = this.#delayed.size > 0 ? this.#delayed.get(key) : undefined;
    if (!names && !before) return this.#run(message, method, bytes, call);
    const kept = bytes?.slice();
    this.#served.set(id, call);
    const turn = Promise.all([before, names]).then(
      () => this.#run(message, method, kept, call),
      (error) => this.#over(id, call, () => this.#fail(id, error)),
    );
    const mine = turn.finally(() => {
      if (this.#delayed.get(key) === mine) this.#delayed.delete(key);
    });
    this.#delayed.set(key, mine);
  }

  #run(message: Message, method: string, bytes: Uint8Array | undefined, call: Served): void {
    const { id, rpc } = message;
    const keep = this.#tagged && rpc?.keep === true && id !== undefined;
    let outcome: any;
    try {
      if (keep && this.#kept.size >= LIMITS.exports)
        throw new Overloaded({ what: 'results kept for this session', limit: LIMITS.exports });
      const params = bytes ? decodeValue(message.params, bytes, this.#refs) : message.params;
      outcome = this.#perform(method, params ?? [], rpc, call);
      if (outcome !== null && (typeof outcome === 'object' || typeof outcome === 'function') && isThenable(outcome)) {
        this.#served.set(id, call);
        const promise = Promise.resolve(outcome);
        if (keep) this.#keep(id, promise);
        promise.then(
          (value) => this.#over(id, call, () => this.#answer(id, value, keep)),
          (error) => this.#over(id, call, () => this.#fail(id, error)),
        );
        return;
      }
    } catch (error) {
      if (keep) {
        const failed = Promise.reject(error);
        failed.catch(() => {});
        this.#kept.set(id, failed);
      }
      return this.#over(id, call, () => this.#fail(id, error));
    }
    if (keep) this.#kept.set(id, { value: outcome });
    this.#over(id, call, () => this.#answer(id, outcome, keep));
  }

  #keep(id: unknown, promise: Promise<unknown>): void {
    this.#kept.set(id, promise);
    promise.then(
      (value) => {
        if (this.#kept.get(id) === promise) this.#kept.set(id, { value });
      },
      () => {},
    );
  }

  #perform(method: string, params: unknown, rpc: Message['rpc'], call: Served): unknown {
    if (rpc === undefined || !this.#tagged || (rpc.on === undefined && rpc.of === undefined))
      return this.#dispatch(method, params, this, call);
    const path = checkedPath(rpc.path);
    const args = Array.isArray(params) ? params : [params];
    const go = (value: unknown) =>
      method === 'rpc.get'
        ? read(value, path)
        : invoke(value, path, method === 'rpc.apply' ? undefined : method, args, call);
    if (rpc.on !== undefined) return go(this.#refs.exportOf(rpc.on));
    const kept = this.#kept.get(rpc.of);
    if (!kept) throw new RefGone({ what: `result of call ${String(rpc.of)}` });
    return kept instanceof Promise ? kept.then(go) : go(kept.value);
  }

  /** The results that parameters name, when some are still awaited. */
  #named(params: unknown): Promise<unknown> | undefined {
    const waiting: Promise<unknown>[] = [];
    const look = (value: unknown): void => {
      if (typeof value !== 'object' || value === null) return;
      const tag = (value as { $?: unknown }).$;
      const kept = Array.isArray(tag) && tag[0] === 'result' ? this.#kept.get(tag[1]) : undefined;
      if (kept instanceof Promise) waiting.push(kept);
      else for (const member of Object.values(value)) look(member);
    };
    look(params);
    return waiting.length > 0 ? Promise.all(waiting) : undefined;
  }

  #resultFor(id: unknown, path: unknown): unknown {
    const kept = this.#kept.get(id);
    if (!kept || kept instanceof Promise) throw new RefGone({ what: `result of call ${String(id)}` });
    return read(kept.value, checkedPath(path));
  }

  #over(id: unknown, call: Served, tell: () => void): void {
    this.#served.delete(id);
    call.end();
    tell();
  }

  #answer(id: unknown, value: unknown, kept: boolean): void {
    if (id === undefined || this.#end) return;
    this.#refs.lazy = kept;
    let text: string;
    let bytes: Uint8Array[] | undefined;
    try {
      const encoded = this.#encode(this.#tagged ? value : (value ?? null));
      bytes = encoded.bytes;
      text = `{"jsonrpc":"2.0","id":${typeof id === 'number' ? id : JSON.stringify(id)},"result":${encoded.text}}`;
      checkMessage('An answer', text, bytes);
    } catch (error) {
      this.#refs.undo();
      return this.#fail(id, error);
    } finally {
      this.#refs.lazy = false;
    }
    this.#refs.sent();
    this.#reply(text, bytes);
  }

  #fail(id: unknown, error: unknown): void {
    if (id === undefined || this.#end) return;
    const { text, bytes } = this.#wireError(error);
    this.#reply(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"error":${text}}`, bytes);
  }

  /** The error member; with the thrown error itself where that says more: its cause, its own properties. */
  #wireError(error: unknown): Encoded {
    const wire: WireError & { data?: { thrown?: unknown } } = toWire(error);
    try {
      if (this.#tagged && wire.data?.name === 'RemoteError' && error instanceof Error) {
        if (error.cause !== undefined || Object.keys(error).length > 0) {
          const encoded = this.#encode({ ...wire, data: { ...wire.data, thrown: error } });
          checkMessage('An error', encoded.text, encoded.bytes);
          this.#refs.sent();
          return encoded;
        }
      }
      return { text: encode(wire), bytes: undefined };
    } catch {
      this.#refs.undo();
      return {
        text: JSON.stringify({ code: wire.code, message: wire.message, data: { name: wire.data?.name } }),
        bytes: undefined,
      };
    }
  }

  #reply(text: string, bytes: Uint8Array[] | undefined): void {
    if (this.#transport.buffered_bytes > LIMITS.unsent_bytes)
      return this.close('the peer reads more slowly than it asks, and its answers no longer fit in memory');
    this.#post(text, bytes);
  }

  // ---- Time

  /** Stops waiting for a call: it rejects now, and the other side is told where it may have heard of it. */
  #giveUp(call: Call, why: (may_have_run: boolean) => Error): void {
    if (!this.#pending.has(call.id)) return;
    this.#drop(call);
    const left = call.unlaid === undefined && !this.#transport.retract?.(this.#sent - call.ordinal);
    call.unlaid = undefined;
    const error = why(left);
    if (left) {
      this.#tell('rpc.cancel', [call.id, describe(error)]);
      if (call.keep) this.#tell('rpc.forget', [call.id]);
      const { kill_after_ms } = call.options;
      const at = now_ms() + (kill_after_ms ?? FORGET_MS);
      this.#given_up.set(call.id, { at, method: kill_after_ms === undefined ? undefined : call.method });
      if (this.#given_up.size > LIMITS.calls_in_flight)
        for (const oldest of this.#given_up.keys()) if (this.#given_up.delete(oldest)) break;
      this.#watch(at);
    }
    call.settle({
      open: () => {
        throw error;
      },
    });
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
    for (const call of this.#pending.values()) {
      const { method, timeout_ms, deadline } = call;
      if (deadline > now) next = Math.min(next, deadline);
      else
        this.#giveUp(call, (may_have_run) => new DeadlineExceeded({ what: `${method}()`, timeout_ms, may_have_run }));
    }
    for (const [id, { at, method }] of this.#given_up) {
      if (at > now) {
        next = Math.min(next, at);
        continue;
      }
      this.#given_up.delete(id);
      if (method !== undefined) this.#kill?.(`${method}() was given up and did not end`);
    }
    if (next !== Number.POSITIVE_INFINITY) this.#watch(next);
  }

  // ---- The end

  #ended(reason: string): void {
    if (this.#end) return;
    this.#end = { reason };
    this.#explained = this.#finish(reason);
  }

  async #finish(reason: string): Promise<void> {
    const left = this.#sent - (this.#transport.unsent ?? 0);
    let error: MeshError | undefined;
    try {
      error = await this.#explain?.(reason);
    } catch {
      // Nobody could say why; the outcome stays unknown.
    }
    if (error) this.#end = { reason, error };
    clearTimeout(this.#timer);
    for (const call of this.#pending.values()) {
      const sent = call.unlaid === undefined && call.ordinal <= left;
      const told =
        error ??
        (sent ? new OutcomeUnknown({ method: call.method, why: reason }) : new ConnectionLost({ why: reason }));
      call.unlisten?.();
      call.settle({
        open: () => {
          throw told;
        },
      });
    }
    this.#pending.clear();
    this.#given_up.clear();
    const lost = error ?? (new ConnectionLost({ why: reason }) as MeshError);
    this.#streams.close(lost);
    this.#refs.close(lost);
    for (const served of this.#served.values()) served.abort(lost);
    this.#served.clear();
    this.#kept.clear();
    this.#tell_closed(reason);
  }
}

const isThenable = (value: { then?: unknown }): boolean => typeof value.then === 'function';

/** The error in an `error` member, with what was thrown as its cause where that came along. */
function errorFrom(wire: any): MeshError {
  const error = fromWire(wire);
  const thrown = wire?.data?.thrown;
  if (thrown instanceof Error) error.cause = thrown;
  return error;
}

/** Throws TooLarge for what a message cannot hold. */
function checkMessage(what: string, text: string, bytes: Uint8Array[] | undefined): void {
  checkSize(what, text, bytes ? bytesLength(bytes) : 0);
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
