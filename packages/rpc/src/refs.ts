/**
 * What goes by reference: this side's exports, by number, and the stand-ins for the other side's.
 *
 * What always holds: an export stays in the table for as long as it was given out more often than released, and not a
 * moment longer; the same object goes out under the same number, and the same number comes in as the same stand-in; a
 * reference that comes home is the object itself. Letting go is explicit (`using`, `await using`): a registry of what
 * was collected only warns, because when that happens is nobody's to know.
 */
import { Overloaded, ProtocolViolation, RefGone, Unserialisable } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { ghost, sourceOf } from './ghost.ts';
import { kindOf, type RefKind } from './references.ts';
import type { CallOptions } from './session.ts';
import type { Streams } from './streams.ts';

/** What the table needs of its session. */
export interface RefPowers {
  streams: Streams;
  call(on: number, method: string, args: unknown[], options?: CallOptions): Promise<unknown>;
  notify(method: string, params: unknown[]): void;
  /** The number and path of a pipelined call of this session, marked to be kept; undefined where it is none. */
  resultOf(value: object): unknown[] | undefined;
  /** The result of the peer's call of that number, which must be settled by now. */
  result(id: unknown, path: unknown): unknown;
}

interface Export {
  value: object;
  count: number;
  type: RefKind;
  /** Undoes what waits on the value, for a signal. */
  forget?: () => void;
}

interface Import {
  value: WeakRef<object>;
  count: number;
}

/** One warning for each place would flood; one for each session says it. */
const collected =
  typeof FinalizationRegistry === 'undefined'
    ? undefined
    : new FinalizationRegistry<{ table: RefTable; label: string }>(({ table, label }) => table.warn(label));

export class RefTable {
  readonly #powers: RefPowers;
  readonly #exports = new Map<number, Export>();
  readonly #numbers = new Map<object, number>();
  readonly #imports = new Map<number, Import>();
  /** Stand-ins of this session, so that they can be told when they go home. */
  readonly #own = new WeakMap<object, number>();
  readonly #signals = new Map<number, AbortController>();
  /** While set, streams that are given begin when they are read, not before: others may read the same. */
  lazy = false;
  #next = 1;
  #given: number[] = [];
  #begun: (() => void)[] = [];
  #warned = false;
  #closed = false;

  constructor(powers: RefPowers) {
    this.#powers = powers;
  }

  get exported(): number {
    return this.#exports.size;
  }

  get imported(): number {
    return this.#imports.size + this.#signals.size;
  }

  // ---- Giving

  /** Whether a value that looks like nothing plain is a stand-in or a promise of a remote call. */
  claims(value: object): boolean {
    return sourceOf(value) !== undefined || this.#own.has(value) || this.#powers.resultOf(value) !== undefined;
  }

  /** The tag for a value that goes by reference. */
  give(value: object): unknown[] {
    const home = this.#own.get(value);
    if (home !== undefined) {
      if (!this.#imports.has(home)) throw new RefGone({ what: 'the reference that was to be sent' });
      return ['yours', home];
    }
    const result = this.#powers.resultOf(value);
    if (result) return result;
    const type = sourceOf(value) ? 'object' : (kindOf(value) ?? 'object');
    if (type === 'iterable' || type === 'stream') {
      const id = this.#number();
      // Not before its message has been laid: a value that cannot be sent begins nothing.
      if (this.#powers.streams.size + this.#begun.length >= LIMITS.streams)
        throw new Overloaded({ what: 'streams of this session', limit: LIMITS.streams });
      this.#given.push(id);
      const credit = this.lazy ? 0 : LIMITS.stream_bytes;
      this.#begun.push(() => this.#powers.streams.produce(id, value as AsyncIterable<unknown>, credit));
      return this.lazy ? ['mine', id, type, 0] : ['mine', id, type];
    }
    const known = this.#numbers.get(value);
    const id = known ?? this.#number();
    const entry = known === undefined ? this.#export(id, value, type) : this.#exports.get(known)!;
    entry.count++;
    this.#given.push(id);
    return ['mine', id, type];
  }

  /** What was given since the last call of this or of `undo` is on its way. */
  sent(): number[] {
    const given = this.#given;
    this.#given = [];
    for (const begin of this.#begun.splice(0)) begin();
    return given;
  }

  /** What was given since did not leave after all. */
  undo(): void {
    this.#begun = [];
    for (const id of this.#given.splice(0)) this.#release(id, 1, false);
  }

  /** What was given with a call that never left; its signals are over with the call (`callEnded`). */
  takeBack(given: number[]): void {
    for (const id of given) {
      this.#powers.streams.stop(id);
      if (this.#exports.get(id)?.type !== 'signal') this.#release(id, 1, false);
    }
  }

  #number(): number {
    if (this.#exports.size >= LIMITS.exports)
      throw new Overloaded({ what: 'references given out by this session', limit: LIMITS.exports });
    return this.#next++;
  }

  #export(id: number, value: object, type: RefKind): Export {
    const entry: Export = { value, count: 0, type };
    this.#exports.set(id, entry);
    this.#numbers.set(value, id);
    if (type !== 'signal') return entry;
    const signal = value as AbortSignal;
    const tell = () => {
      // After the message that names it.
      queueMicrotask(() => {
        if (!this.#closed) this.#powers.notify('rpc.abort', [id, signal.reason]);
      });
      this.#release(id, Number.POSITIVE_INFINITY, false);
    };
    entry.forget = () => signal.removeEventListener('abort', tell);
    if (signal.aborted) queueMicrotask(tell);
    else signal.addEventListener('abort', tell, { once: true });
    return entry;
  }

  /** The export of that number. */
  exportOf(id: unknown): object {
    const found = this.#exports.get(id as number);
    if (!found) throw new RefGone({ what: `reference ${String(id)}` });
    return found.value;
  }

  /** The peer lets go. */
  released(list: unknown): void {
    if (!Array.isArray(list)) throw new ProtocolViolation({ why: 'rpc.release names no references' });
    for (const pair of list) if (Array.isArray(pair)) this.#release(pair[0], pair[1], true);
  }

  #release(id: number, count: number, dispose: boolean): void {
    const entry = this.#exports.get(id);
    if (!entry || !(count > 0)) return;
    entry.count -= count;
    if (entry.count <= 0) this.#drop(id, entry, dispose);
  }

  #drop(id: number, { value, forget, type }: Export, dispose: boolean): void {
    this.#exports.delete(id);
    this.#numbers.delete(value);
    forget?.();
    // Whoever gave an object away for good left it to its own end hook; a ghost still has its holder.
    if (!dispose || type !== 'object' || sourceOf(value)) return;
    void (async () => {
      const own = value as Partial<AsyncDisposable & Disposable>;
      await (own[Symbol.asyncDispose] ?? own[Symbol.dispose])?.call(value);
    })().catch(() => {});
  }

  /** Signals that went out with a call that is over. */
  callEnded(given: number[]): void {
    for (const id of given)
      if (this.#exports.get(id)?.type === 'signal') {
        this.#release(id, 1, false);
        // Another call may still have it.
        if (!this.#exports.has(id)) this.#powers.notify('rpc.abort', [id]);
      }
  }

  // ---- Taking

  /** The value for a tag that came in. */
  take(tag: unknown[]): unknown {
    const [kind, id, type] = tag;
    if (kind === 'yours') return this.exportOf(id);
    if (kind === 'result') return this.#powers.result(id, tag[2]);
    if (typeof id !== 'number') throw new ProtocolViolation({ why: 'a reference without a number' });
    if (type === 'iterable' || type === 'stream') return this.#powers.streams.read(id, type === 'stream', tag[3] === 0);
    if (type === 'signal') return this.#signal(id);
    if (type !== 'function' && type !== 'object')
      throw new ProtocolViolation({ why: `a reference of unknown type ${String(type)}` });
    const known = this.#imports.get(id);
    const there = known?.value.deref();
    if (known && there) {
      known.count++;
      return there;
    }
    if (this.#imports.size >= LIMITS.exports)
      throw new Overloaded({ what: 'references taken by this session', limit: LIMITS.exports });
    const value = type === 'function' ? this.#function(id) : this.#ghost(id);
    this.#imports.set(id, { value: new WeakRef(value), count: (known?.count ?? 0) + 1 });
    this.#own.set(value, id);
    collected?.register(value, { table: this, label: `${type} ${id}` }, value);
    return value;
  }

  #ghost(id: number): object {
    return ghost({
      label: `reference ${id}`,
      call: (method, args, options) => this.#call(id, method, args, options),
      dispose: async () => this.#letGo(id),
    });
  }

  #function(id: number): object {
    const call = (...args: unknown[]) => this.#call(id, 'rpc.apply', args);
    return Object.assign(call, {
      [Symbol.dispose]: () => this.#letGo(id),
      [Symbol.asyncDispose]: async () => this.#letGo(id),
    });
  }

  #call(id: number, method: string, args: unknown[], options?: CallOptions): Promise<unknown> {
    if (!this.#imports.has(id) && !this.#closed)
      return Promise.reject(new RefGone({ what: `reference ${id}`, why: 'it was let go of here' }));
    return this.#powers.call(id, method, args, options);
  }

  #letGo(id: number): void {
    const entry = this.#imports.get(id);
    if (!entry) return;
    this.#imports.delete(id);
    const value = entry.value.deref();
    if (value) collected?.unregister(value);
    if (!this.#closed) this.#powers.notify('rpc.release', [[[id, entry.count]]]);
  }

  /** Takes a value apart only to let go of what it refers to: nobody will have it. */
  discard(value: unknown): void {
    if (typeof value !== 'object' || value === null) return;
    const tag = (value as { $?: unknown }).$;
    if (!Array.isArray(tag) || tag[0] !== 'mine') {
      for (const member of Object.values(value)) this.discard(member);
      return;
    }
    const [, id, type] = tag;
    if (type === 'iterable' || type === 'stream') this.#powers.notify('rpc.stop', [id]);
    else if (type !== 'signal') this.#powers.notify('rpc.release', [[[id, 1]]]);
  }

  #signal(id: number): AbortSignal {
    if (typeof AbortController === 'undefined')
      throw new Unserialisable({ why: 'there are no AbortSignals on this platform' });
    const controller = this.#signals.get(id) ?? new AbortController();
    if (this.#signals.size >= LIMITS.exports)
      throw new Overloaded({ what: 'signals taken by this session', limit: LIMITS.exports });
    this.#signals.set(id, controller);
    return controller.signal;
  }

  /** The peer's signal was aborted, or is no longer of use (no reason is given then). */
  aborted(params: unknown[]): void {
    const controller = this.#signals.get(params[0] as number);
    this.#signals.delete(params[0] as number);
    if (params.length > 1) controller?.abort(params[1] ?? undefined);
  }

  /** For people: something was let go of by nobody. */
  warn(label: string): void {
    if (this.#warned || this.#closed) return;
    this.#warned = true;
    const text = `a remote ${label} was collected without being let go of; it stays in the other side's table until the session ends. Use \`using\` or \`await using\``;
    const { process } = globalThis as { process?: { emitWarning?(text: string, name: string): void } };
    if (process?.emitWarning) process.emitWarning(text, 'MeshReferenceWarning');
    else console.warn(`hauki: ${text}`);
  }

  /** The session is over. */
  close(error: Error): void {
    this.#closed = true;
    for (const [id, entry] of [...this.#exports]) this.#drop(id, entry, true);
    for (const controller of this.#signals.values()) controller.abort(error);
    this.#signals.clear();
    this.#imports.clear();
  }
}
