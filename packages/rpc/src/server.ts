/**
 * The serving half of a session: calls that come in, on the root, on what was given out by reference, or on results
 * that are not there yet.
 *
 * What always holds: calls on one target begin in the order in which they came, also where one waits for a result that
 * it names; each call with an id is answered once; a result is kept exactly as long as its caller asked; how many calls
 * run, how much they brought, and how many results are kept is bounded. While more is unsent than may be, calls and
 * answers wait for the peer to read; one that takes nothing is cut off.
 */
import {
  Cancelled,
  DeadlineExceeded,
  MeshError,
  Overloaded,
  ProtocolViolation,
  RefGone,
  toWire,
  type WireError,
} from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { Patience } from '#patience';
import type { Encoded } from './codec.ts';
import { sourceOf } from './ghost.ts';
import { checkedPath, invoke, read } from './invoke.ts';
import { Kept, type Outcome } from './kept.ts';
import type { RefTable } from './refs.ts';
import { Served } from './served.ts';
import type { Wire } from './wire.ts';

/** A call as it came in. */
export interface IncomingCall {
  id?: unknown;
  params?: any;
  rpc?: any;
}

export interface ServerPowers {
  wire: Wire;
  refs: RefTable;
  /** Results that are kept at most. */
  keeps: number;
  /** Calls on the root. */
  dispatch(method: string, params: unknown, call: Served): unknown;
  /** The peer does not read what it asks for, or breaks the protocol: the session ends. */
  end(why: string): void;
}

/** What stands before the error in its message, with an id of any length that we give. */
const HEAD_BYTES = 64;

const LATE = /^(?:The call|\S+) gave no answer within (\d+) ms\./;

export class Server {
  readonly #powers: ServerPowers;
  readonly #patience: Patience;
  /** By their ids; those without one by themselves. */
  readonly #served = new Map<unknown, Served>();
  /** Results that the peer calls on, from the arrival of their calls until they are forgotten. */
  readonly #kept = new Map<unknown, Kept>();
  /** Calls that wait for a result which they name; the next ones to the same target wait behind them. */
  readonly #delayed = new Map<unknown, Promise<void>>();
  /** While a call is decoded that waited: the results that it names, forgotten since or not. */
  #named_now: Map<unknown, Kept> | undefined;
  /** Characters and bytes that calls under way brought. */
  #brought = 0;
  /** Calls served so far. */
  served = 0;
  /** Calls under way; those without an id too, which nobody can name. */
  serving = 0;

  constructor(powers: ServerPowers) {
    this.#powers = powers;
    this.#patience = new Patience(powers);
  }

  get kept(): number {
    return this.#kept.size;
  }

  /** The caller needs these results no longer. */
  forget(ids: unknown[]): void {
    for (const id of ids) this.#kept.delete(id);
  }

  /** The caller gave a call up. */
  cancel(id: unknown, why: unknown): void {
    // Where its time was over, it says so in the words of its own error.
    const said = typeof why === 'string' ? why : 'it did not say why';
    const [, ms] = LATE.exec(said) ?? [];
    const may_have_run = true;
    const reason = ms
      ? new DeadlineExceeded({ what: 'The call', timeout_ms: Number(ms), may_have_run })
      : new Cancelled({ method: '', why: said, may_have_run }, `The caller gave up: ${said}`);
    this.#served.get(id)?.abort(reason);
  }

  /** A call has come. `text` is its message. */
  serve(message: IncomingCall, method: string, text: string, bytes: Uint8Array | undefined): void {
    const { id, rpc } = message;
    this.served++;
    const key = queueOf(method, rpc);
    // What the session itself asks, a heartbeat first of all, waits for nobody.
    const urgent = key === method;
    if (this.serving >= LIMITS.calls_in_flight)
      return this.#refuse(message, bytes, 'calls being served', LIMITS.calls_in_flight);
    if (this.#brought > LIMITS.served_bytes && !urgent)
      return this.#refuse(message, bytes, 'bytes of calls being served', LIMITS.served_bytes);
    const { keeps, wire } = this.#powers;
    const keep = wire.tagged && rpc?.keep === true && id !== undefined;
    if (keep && this.#kept.size >= keeps) return this.#refuse(message, bytes, 'results kept for this session', keeps);
    const call = new Served(rpc);
    call.urgent = urgent;
    call.size = text.length + (bytes?.length ?? 0);
    // Only a tagged text of a peer that has something kept can name results.
    const names = bytes && this.#kept.size > 0 && text.includes('["result",') ? this.#named(message.params) : undefined;
    const full = !urgent && this.#patience.full;
    const before = this.#delayed.get(key);
    // From now on, so that whatever comes next finds it, or forgets it.
    const result = keep ? new Kept() : undefined;
    if (result) this.#kept.set(id, result);
    if (!names && !before && !full) return this.#run(message, method, bytes, call, result);
    // What comes for its streams and signals may come before its turn: they are taken now.
    try {
      if (bytes && names) this.#powers.refs.expect(message.params);
      else if (bytes) message.params = this.#decoded(message, bytes);
    } catch (error) {
      return this.#failed(id, error, call, result);
    }
    const kept = names && bytes?.slice();
    const named = names?.kept;
    this.#begun(id, call);
    const turn = Promise.all([before, names?.there]).then(
      () =>
        this.#patience.whenRead(urgent, () => {
          this.#named_now = named;
          this.#run(message, method, kept, call, result);
          this.#named_now = undefined;
        }),
      (error) => {
        if (kept) this.#powers.refs.discard(message.params);
        this.#failed(id, error, call, result);
      },
    );
    const mine = turn.finally(() => {
      if (this.#delayed.get(key) === mine) this.#delayed.delete(key);
    });
    this.#delayed.set(key, mine);
  }

  /** A call that does not begin: what it brought is let go of. */
  #refuse(message: IncomingCall, bytes: Uint8Array | undefined, what: string, limit: number): void {
    if (bytes) this.#powers.refs.discard(message.params);
    this.#fail(message.id, new Overloaded({ what, limit }));
  }

  #begun(id: unknown, call: Served): void {
    if (call.counted) return;
    call.counted = true;
    this.serving++;
    this.#brought += call.size;
    this.#served.set(id ?? call, call);
  }

  #run(
    message: IncomingCall,
    method: string,
    bytes: Uint8Array | undefined,
    call: Served,
    result: Kept | undefined,
  ): void {
    const { id, rpc } = message;
    if (this.#powers.wire.over) return this.#failed(id, forgotten(id), call, result);
    let outcome: any;
    let params: any;
    try {
      params = bytes ? this.#decoded(message, bytes) : message.params;
    } catch (error) {
      return this.#failed(id, error, call, result);
    }
    try {
      outcome = this.#perform(method, params ?? [], rpc, call);
      if (outcome !== null && (typeof outcome === 'object' || typeof outcome === 'function') && isThenable(outcome)) {
        this.#begun(id, call);
        const promise = Promise.resolve(outcome);
        promise.then(
          (value) => this.#ended(id, { value }, call, result),
          (error) => this.#failed(id, error, call, result),
        );
        return;
      }
    } catch (error) {
      return this.#failed(id, error, call, result);
    }
    this.#ended(id, { value: outcome }, call, result);
  }

  #decoded({ params, rpc }: IncomingCall, bytes: Uint8Array): unknown {
    try {
      return this.#powers.refs.decode(params, bytes, this.#passes(rpc));
    } catch (error) {
      if (error instanceof ProtocolViolation) this.#powers.end(`the peer broke the protocol: ${error.message}`);
      throw error;
    }
  }

  /** Whether a call is only passed on, to another side's object. */
  #passes(rpc: IncomingCall['rpc']): boolean {
    if (rpc?.on !== undefined) return this.#powers.refs.isPassedOn(rpc.on);
    const kept = rpc?.of === undefined ? undefined : this.#kept.get(rpc.of);
    return kept?.there !== undefined && sourceOf(kept.there.value) !== undefined;
  }

  #failed(id: unknown, error: unknown, call: Served, result: Kept | undefined): void {
    this.#ended(id, { error }, call, result);
  }

  #ended(id: unknown, outcome: Outcome, call: Served, result: Kept | undefined): void {
    // Until it is written an answer is the value that there is anyway.
    if (!call.urgent && this.#patience.full) this.#begun(id, call);
    void this.#patience.whenRead(call.urgent, () => {
      result?.settle(outcome);
      if (call.counted) {
        this.serving--;
        this.#brought -= call.size;
        const key = id ?? call;
        if (this.#served.get(key) === call) this.#served.delete(key);
      }
      call.end();
      if ('error' in outcome) this.#fail(id, outcome.error);
      else this.#answer(id, outcome.value, result !== undefined);
    });
  }

  #perform(method: string, params: unknown, rpc: IncomingCall['rpc'], call: Served): unknown {
    if (rpc === undefined || !this.#powers.wire.tagged || (rpc.on === undefined && rpc.of === undefined))
      return this.#powers.dispatch(method, params, call);
    const path = checkedPath(rpc.path);
    const args = Array.isArray(params) ? params : [params];
    const go = (value: unknown) =>
      method === 'rpc.get'
        ? read(value, path)
        : invoke(value, path, method === 'rpc.apply' ? undefined : method, args, call);
    if (rpc.on !== undefined) return go(this.#powers.refs.exportOf(rpc.on));
    const kept = this.#kept.get(rpc.of);
    if (!kept) throw forgotten(rpc.of);
    return kept.when(go);
  }

  /** The results that parameters name, when some are still awaited. */
  #named(params: unknown): { kept: Map<unknown, Kept>; there: Promise<unknown> } | undefined {
    const waiting: unknown[] = [];
    const named = new Map<unknown, Kept>();
    const look = (value: unknown): void => {
      if (typeof value !== 'object' || value === null) return;
      const tag = (value as { $?: unknown }).$;
      const kept = Array.isArray(tag) && tag[0] === 'result' ? this.#kept.get(tag[1]) : undefined;
      if (kept && Array.isArray(tag)) named.set(tag[1], kept);
      if (kept?.pending) waiting.push(kept.when(() => {}));
      else for (const member of Object.values(value)) look(member);
    };
    look(params);
    return waiting.length > 0 ? { kept: named, there: Promise.all(waiting) } : undefined;
  }

  /** The result that a tag names. */
  resultFor(id: unknown, path: unknown): unknown {
    const kept = this.#named_now?.get(id) ?? this.#kept.get(id);
    if (!kept || kept.pending) throw forgotten(id);
    return kept.when((value) => read(value, checkedPath(path)));
  }

  #answer(id: unknown, value: unknown, kept: boolean): void {
    const { wire, refs } = this.#powers;
    if (id === undefined || wire.over) return;
    let text: string;
    let bytes: Uint8Array[] | undefined;
    try {
      // Streams of a kept result begin when they are read: a call on the result may be their reader.
      refs.lazy = kept;
      const encoded = wire.encode(value, 'result');
      bytes = encoded.bytes;
      text = `{"jsonrpc":"2.0","id":${typeof id === 'number' ? id : JSON.stringify(id)},"result":${encoded.text}}`;
      wire.check('An answer', text, bytes);
    } catch (error) {
      return this.#fail(id, error);
    } finally {
      refs.lazy = false;
    }
    refs.sent();
    this.#reply(text, bytes);
  }

  #fail(id: unknown, error: unknown): void {
    if (id === undefined || this.#powers.wire.over) return;
    const { text, bytes } = this.#wireError(error);
    this.#reply(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"error":${text}}`, bytes);
  }

  /** The error member; with the thrown error itself where that says more: its cause, its own properties. */
  #wireError(error: unknown): Encoded {
    const { wire, refs } = this.#powers;
    for (const form of wire.tagged ? [withThrown, toWire] : [toWire])
      try {
        const encoded = wire.encode(form(error, refs.frameless), 'error');
        wire.check('An error', encoded.text, encoded.bytes, HEAD_BYTES);
        refs.sent();
        return encoded;
      } catch {
        // In fewer words, then.
      }
    return { text: JSON.stringify(briefly(error)), bytes: undefined };
  }

  #reply(text: string, bytes: Uint8Array[] | undefined): void {
    const { wire, end } = this.#powers;
    if (this.#patience.lets(text.length)) wire.post(text, bytes);
    else end('the peer reads more slowly than it asks');
  }

  /** The session is over. */
  close(error: MeshError): void {
    for (const served of this.#served.values()) served.abort(error);
    this.#served.clear();
    for (const kept of this.#kept.values()) kept.settle({ error });
    this.#kept.clear();
  }
}

/** Whose calls begin in their order: those on one target. What the session itself asks waits for no call. */
const queueOf = (method: string, rpc: IncomingCall['rpc']): unknown =>
  rpc?.on ?? (rpc?.of === undefined ? (method.startsWith('rpc.') ? method : 0) : `of ${rpc.of}`);

const isThenable = (value: { then?: unknown }): boolean => typeof value.then === 'function';

const forgotten = (id: unknown) => new RefGone({ what: `result of call ${String(id)}` });

/** An error as it travels, with what was thrown itself where that says more: its cause, its own properties. */
export function withThrown(error: unknown, frameless = false): WireError {
  const told = toWire(error, frameless);
  // Errors of the table are told by their fields; one that was passed on brings what it was thrown for as its cause.
  try {
    const thrown = error instanceof MeshError ? error.cause : error;
    if (!(thrown instanceof Error)) return told;
    const more = thrown !== error || thrown.cause !== undefined || 'errors' in thrown || Object.keys(thrown).length > 0;
    return more ? ({ ...told, data: { ...told.data, thrown } } as WireError) : told;
  } catch {
    return told; // A hostile getter threw.
  }
}

/** The same in so few words that they can always be sent. */
export function briefly(error: unknown): WireError {
  const { code, message, data } = toWire(error);
  const { name, fields } = data!;
  const error_name = String(fields?.error_name ?? '').slice(0, 256) || undefined;
  return { code, message: message.slice(0, 4096), data: { name, fields: { error_name } } };
}
