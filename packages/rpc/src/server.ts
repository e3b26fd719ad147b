/**
 * The serving half of a session: calls that come in, on the root, on what was given out by reference, or on results
 * that are not there yet.
 *
 * What always holds: calls on one target begin in the order in which they came, also where one waits for a result that
 * it names; each call with an id is answered once; a result is kept exactly as long as its caller asked; how many calls
 * run and how many results are kept is bounded.
 */
import { Cancelled, type MeshError, Overloaded, RefGone, toWire, type WireError } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { decodeValue, type Encoded } from './codec.ts';
import { checkedPath, invoke, read } from './invoke.ts';
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
  /** Calls on the root. */
  dispatch(method: string, params: unknown, call: Served): unknown;
  /** The peer does not read what it asks for. */
  flooded(why: string): void;
}

/** What stands before the error in its message, with an id of any length that we give. */
const HEAD_BYTES = 64;

export class Server {
  readonly #powers: ServerPowers;
  readonly #served = new Map<unknown, Served>();
  /** Results that the peer calls on; a promise until they are there. */
  readonly #kept = new Map<unknown, Promise<unknown> | { value: unknown }>();
  /** Calls that wait for a result which they name; the next ones to the same target wait behind them. */
  readonly #delayed = new Map<unknown, Promise<void>>();
  /** Calls that still run or wait, and whose results nobody needs any more. */
  readonly #forgotten = new Set<unknown>();
  /** Calls served so far. */
  served = 0;

  constructor(powers: ServerPowers) {
    this.#powers = powers;
  }

  get serving(): number {
    return this.#served.size;
  }

  get kept(): number {
    return this.#kept.size;
  }

  /** The caller needs these results no longer. */
  forget(ids: unknown[]): void {
    for (const id of ids) {
      this.#kept.delete(id);
      if (this.#served.has(id)) this.#forgotten.add(id);
    }
  }

  /** The caller gave a call up. */
  cancel(id: unknown, why: unknown): void {
    this.#served
      .get(id)
      ?.abort(new Cancelled({ method: '', why: String(why), may_have_run: true }, `The caller gave up: ${why}`));
  }

  /** A call has come. `text` is its message. */
  serve(message: IncomingCall, method: string, text: string, bytes: Uint8Array | undefined): void {
    const { id, rpc } = message;
    this.served++;
    if (this.#served.size >= LIMITS.calls_in_flight)
      return this.#fail(id, new Overloaded({ what: 'calls being served', limit: LIMITS.calls_in_flight }));
    const call = new Served(rpc);
    // Only a tagged text of a peer that has something kept can name results.
    const names = bytes && this.#kept.size > 0 && text.includes('["result",') ? this.#named(message.params) : undefined;
    const key = rpc?.on ?? (rpc?.of === undefined ? 'root' : `of ${rpc.of}`);
    const before = this.#delayed.size > 0 ? this.#delayed.get(key) : undefined;
    if (!names && !before) return this.#run(message, method, bytes, call);
    // What comes for its streams and signals may come before its turn: they are taken now.
    try {
      if (bytes && !names) message.params = decodeValue(message.params, bytes, this.#powers.refs);
    } catch (error) {
      return this.#fail(id, error);
    }
    const kept = names && bytes?.slice();
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

  #run(message: IncomingCall, method: string, bytes: Uint8Array | undefined, call: Served): void {
    const { id, rpc } = message;
    if (this.#powers.wire.over) return call.end();
    const keep = this.#powers.wire.tagged && rpc?.keep === true && id !== undefined && !this.#forgotten.has(id);
    let outcome: any;
    try {
      if (keep && this.#kept.size >= LIMITS.exports)
        throw new Overloaded({ what: 'results kept for this session', limit: LIMITS.exports });
      const params = bytes ? decodeValue(message.params, bytes, this.#powers.refs) : message.params;
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

  /** The result that a tag names. */
  resultFor(id: unknown, path: unknown): unknown {
    const kept = this.#kept.get(id);
    if (!kept || kept instanceof Promise) throw new RefGone({ what: `result of call ${String(id)}` });
    return read(kept.value, checkedPath(path));
  }

  #over(id: unknown, call: Served, tell: () => void): void {
    this.#served.delete(id);
    this.#forgotten.delete(id);
    call.end();
    tell();
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
    const told: WireError & { data?: { thrown?: unknown } } = toWire(error);
    try {
      const more = error instanceof Error && (error.cause !== undefined || Object.keys(error).length > 0);
      const encoded: Encoded =
        wire.tagged && more && told.data?.name === 'RemoteError'
          ? wire.encode({ ...told, data: { ...told.data, thrown: error } }, 'error')
          : { text: JSON.stringify(told), bytes: undefined };
      wire.check('An error', encoded.text, encoded.bytes, HEAD_BYTES);
      refs.sent();
      return encoded;
    } catch {
      const { code, message, data } = told;
      return { text: JSON.stringify({ code, message, data: { name: data?.name } }), bytes: undefined };
    }
  }

  #reply(text: string, bytes: Uint8Array[] | undefined): void {
    const { wire, flooded } = this.#powers;
    if (wire.refusal()) flooded('the peer reads more slowly than it asks, and its answers no longer fit in memory');
    else wire.post(text, bytes);
  }

  /** The session is over. */
  close(error: MeshError): void {
    for (const served of this.#served.values()) served.abort(error);
    this.#served.clear();
    this.#forgotten.clear();
    this.#kept.clear();
  }
}

const isThenable = (value: { then?: unknown }): boolean => typeof value.then === 'function';
