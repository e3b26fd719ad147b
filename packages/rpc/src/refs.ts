/**
 * What goes by reference: this side's exports, by number, and the stand-ins for the other side's.
 *
 * What always holds: an export stays in the table for as long as it was given out more often than released, and not a
 * moment longer; the same object goes out under the same number, and the same number comes in as the same stand-in; a
 * reference that comes home is the object itself. Letting go is explicit (`using`, `await using`): a registry of what
 * was collected only warns, because when that happens is nobody's to know.
 */
import { describe, Overloaded, ProtocolViolation, RefGone } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { Takes } from './codec.ts';
import { decodeValue } from './codec-decode.ts';
import { functionSource, ghost, sourceOf, standsFor } from './ghost.ts';
import { eachGiven, warnOfCollected } from './given.ts';
import { disposeOf } from './methods.ts';
import { pipelined } from './promise.ts';
import { heardReason, toldReason } from './reasons.ts';
import { type Given, isStream, kindOf, type RefKind } from './references.ts';
import type { CallOptions } from './session.ts';
import type { Streams } from './streams.ts';
import type { SessionRefs } from './wire.ts';

/** What the table needs of its session. */
export interface RefPowers {
  streams: Streams;
  frameless: boolean;
  /** References of the peer's that are held at most. */
  takes: number;
  call(on: number, method: string, args: unknown[], options?: CallOptions): Promise<unknown>;
  /** False where the parameters cannot be sent. */
  notify(method: string, params: unknown[]): boolean;
  /** The number and path of a pipelined call of this session, marked to be kept; undefined where it is none. */
  resultOf(value: object): unknown[] | undefined;
  /** The result of the peer's call of that number, which must be settled by now. */
  result(id: unknown, path: unknown): unknown;
}

interface Export {
  value: object;
  count: number;
  type: RefKind;
  forget?: () => void; // Undoes what waits on the value, for a signal.
}

interface Import {
  readonly id: number;
  value: WeakRef<object>;
  count: number;
  passing: number; // Of these, how many came only to be passed on.
}

/** How to let go of what only came to be passed on, when nobody has it any more. */
const passers = new WeakMap<object, () => unknown>();

/** In how many sessions' tables an object stands: it is disposed of when it is given up in the last. */
const holders = new WeakMap<object, number>();

/** One warning for each place would flood; one for each session says it. */
const collected =
  typeof FinalizationRegistry === 'undefined'
    ? undefined
    : new FinalizationRegistry<{ table: RefTable; label: string }>(({ table, label }) => table.warn(label));

const NOTHING: never[] = [];

export class RefTable implements SessionRefs, Takes {
  readonly #powers: RefPowers;
  readonly #exports = new Map<number, Export>();
  readonly #numbers = new Map<object, number>();
  readonly #imports = new Map<number, Import>();
  /** Stand-ins of this session, so that they can be told when they go home. */
  readonly #own = new WeakMap<object, Import>();
  readonly #signals = new Map<number, AbortController>();
  /** While set, streams that are given begin when they are read, not before: others may read the same. */
  lazy = false;
  #next = 1;
  #given: number[] = [];
  #begun: (() => void)[] = [];
  /** Streams and signals of messages that wait for their turn. */
  readonly #expected = new Map<number, { value: object; leave: () => void }>();
  /** While a value is taken: how to let go again of what it refers to, and what cannot be had. */
  #taken: (() => void)[] = [];
  #refused: { error: unknown } | undefined;
  #passing = false;
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

  get frameless(): boolean {
    return this.#powers.frameless;
  }

  /** Whether a value that looks like nothing plain is a stand-in or a promise of a remote call. */
  claims(value: object): boolean {
    return sourceOf(value) !== undefined || this.#own.has(value) || this.#powers.resultOf(value) !== undefined;
  }

  /** The tag for a value that goes by reference. */
  give(value: object): unknown[] {
    const source = sourceOf(value);
    const home = this.#own.get(source ?? value);
    if (home !== undefined) {
      if (this.#imports.get(home.id) !== home) throw new RefGone({ what: 'the reference that was to be sent' });
      return ['yours', home.id];
    }
    const result = this.#powers.resultOf(value);
    if (result) return result;
    const type = source ? 'object' : (kindOf(value) ?? 'object');
    if (isStream(type)) {
      const id = this.#number();
      // Not before its message has been laid: a value that cannot be sent begins nothing.
      if (this.#powers.streams.producing + this.#begun.length >= LIMITS.streams)
        throw new Overloaded({ what: 'streams given out by this session', limit: LIMITS.streams });
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
    const aborted = type === 'signal' && (value as AbortSignal).aborted;
    return aborted ? ['mine', id, type, [toldReason((value as AbortSignal).reason)]] : ['mine', id, type];
  }

  /** What was given since the last call of this or of `undo` is on its way. */
  sent(): number[] {
    // Asked for every message; hardly any gives something.
    if (this.#begun.length > 0) for (const begin of this.#begun.splice(0)) begin();
    if (this.#given.length === 0) return NOTHING;
    const given = this.#given;
    this.#given = [];
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

  /** Goes on for whoever gave these out before it was there, up to the number `next`. */
  adopt(next: number, given: readonly Given[]): void {
    this.#next = next;
    for (const { id, value, type } of given)
      if (isStream(type)) this.#powers.streams.produce(id, value as AsyncIterable<unknown>, LIMITS.stream_bytes);
      else (this.#exports.get(id) ?? this.#export(id, value, type)).count++;
  }

  #number(): number {
    if (this.#exports.size >= LIMITS.exports)
      throw new Overloaded({
        what: 'references given out by this session, which whoever got them lets go of with `using`,',
        limit: LIMITS.exports,
      });
    return this.#next++;
  }

  #export(id: number, value: object, type: RefKind): Export {
    const entry: Export = { value, count: 0, type };
    this.#exports.set(id, entry);
    this.#numbers.set(value, id);
    holders.set(value, (holders.get(value) ?? 0) + 1);
    if (type !== 'signal') return entry;
    const signal = value as AbortSignal;
    const tell = () => {
      // After the message that names it.
      queueMicrotask(() => {
        if (this.#closed || this.#powers.notify('rpc.abort', [id, signal.reason])) return;
        // Not every reason can be sent.
        this.#powers.notify('rpc.abort', [id, new Error(describe(signal.reason))]);
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

  /** Whether an export is itself a reference to something of another side's. */
  isPassedOn(id: unknown): boolean {
    const value = this.#exports.get(id as number)?.value;
    return sourceOf(value) !== undefined || functionSource(value) !== undefined;
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
    const left = (holders.get(value) ?? 1) - 1;
    holders.set(value, left);
    if (left > 0) return;
    passers.get(sourceOf(value) ?? value)?.();
    // Whoever gave an object away for good left it to its own end hook; a ghost still has its holder.
    if (!dispose || type !== 'object' || sourceOf(value)) return;
    disposeOf(value).catch(() => {});
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

  /**
   * Decodes a value that came in. Throws ProtocolViolation, RefGone or Overloaded; whatever else the value refers to has
   * been let go of then. `passing`: this side only passes it on, and holds it no longer than whoever gets it.
   */
  decode(parsed: unknown, bytes: Uint8Array, passing = false): unknown {
    if (this.#taken.length > 0) this.#taken = [];
    this.#passing = passing;
    const value = decodeValue(parsed, bytes, this);
    if (!this.#refused) return value;
    const { error } = this.#refused;
    this.#refused = undefined;
    for (const letGo of this.taken()) letGo();
    throw error;
  }

  /** How to let go of what the value decoded last refers to. */
  taken(): readonly (() => void)[] {
    const taken = this.#taken;
    // What is given out is never added to: the next value's would go with this one.
    if (taken.length === 0) return NOTHING;
    this.#taken = [];
    return taken;
  }

  /** The value for a tag that came in. What cannot be had is noted: the rest is still to be taken, and let go of. */
  take(tag: unknown[]): unknown {
    const [kind, id, type] = tag;
    try {
      if (kind === 'yours') return this.exportOf(id);
      if (kind === 'result') return this.#powers.result(id, tag[2]);
      if (typeof id !== 'number') throw new ProtocolViolation({ why: 'a reference without a number' });
      const taken = this.#take(id, type, tag[3] === 0);
      // One that was aborted before says so itself: its `rpc.abort` comes when the call has begun.
      if (type === 'signal' && Array.isArray(tag[3])) this.#signals.get(id)?.abort(heardReason(tag[3][0]));
      return taken;
    } catch (error) {
      if (error instanceof ProtocolViolation) throw error;
      this.#refused ??= { error };
      if (kind === 'mine') this.#refuse(id as number, type);
      return {}; // Something with an identity, as a label on it wants.
    }
  }

  #take(id: number, type: unknown, lazy: boolean): unknown {
    const expected = this.#expected.get(id);
    if (expected) {
      this.#expected.delete(id);
      this.#taken.push(expected.leave);
      return expected.value;
    }
    if (isStream(type)) {
      const { value, leave } = this.#powers.streams.read(id, type === 'stream', lazy);
      this.#taken.push(leave);
      return value;
    }
    if (type === 'signal') return this.#signal(id);
    if (type !== 'function' && type !== 'object')
      throw new ProtocolViolation({ why: `a reference of unknown type ${String(type)}` });
    const known = this.#imports.get(id);
    let value = known?.value.deref();
    const { takes: limit } = this.#powers;
    if (!known && this.#imports.size >= limit)
      throw new Overloaded({ what: 'references taken by this session', limit });
    const entry: Import = known ?? { id, count: 0, passing: 0, value: undefined as never };
    entry.count++;
    if (this.#passing) entry.passing++;
    this.#taken.push(() => this.#letGo(entry, 1));
    if (value) return value;
    value = type === 'function' ? this.#function(entry) : this.#ghost(entry);
    entry.value = new WeakRef(value);
    this.#imports.set(id, entry);
    const key = sourceOf(value) ?? value;
    this.#own.set(key, entry);
    passers.set(key, () => entry.passing > 0 && this.#letGo(entry, entry.passing));
    collected?.register(value, { table: this, label: `${type} ${id}` }, value);
    return value;
  }

  #ghost(entry: Import): object {
    return ghost({
      label: `reference ${entry.id}`,
      call: (method, args, options) => this.#call(entry, method, args, options),
      dispose: async () => this.#letGo(entry),
    });
  }

  #function(entry: Import): object {
    const call = (...args: unknown[]) => this.#call(entry, 'rpc.apply', args);
    const dispose = async () => this.#letGo(entry);
    return standsFor(
      Object.assign(call, { [Symbol.dispose]: () => this.#letGo(entry), [Symbol.asyncDispose]: dispose }),
      {
        label: `function ${entry.id}`,
        call: (method, args, options) => this.#call(entry, method, args, options),
        dispose,
      },
    );
  }

  #call(entry: Import, method: string, args: unknown[], options?: CallOptions): Promise<unknown> {
    const { id } = entry;
    if (this.#imports.get(id) !== entry && !this.#closed)
      return pipelined(Promise.reject(new RefGone({ what: `reference ${id}`, why: 'it was let go of here' })));
    return this.#powers.call(id, method, args, options);
  }

  #letGo(entry: Import, count = entry.count): void {
    const { id } = entry;
    if (this.#imports.get(id) !== entry) return;
    entry.count -= count;
    // Those that came to be passed on go first.
    entry.passing = Math.max(0, entry.passing - count);
    if (entry.count <= 0) {
      this.#imports.delete(id);
      const value = entry.value.deref();
      if (value) collected?.unregister(value);
    }
    if (!this.#closed) this.#powers.notify('rpc.release', [[[id, count]]]);
  }

  /** Lets go of what a value refers to that was not decoded: nobody will have it. False where it refers to nothing. */
  discard(value: unknown): boolean {
    return eachGiven(value, (id, type) => this.#refuse(id, type));
  }

  /** What comes for a value's streams and signals may come before it is decoded. Throws Overloaded. */
  expect(value: unknown): void {
    eachGiven(value, (id, type, lazy) => {
      if (isStream(type)) this.#expected.set(id, this.#powers.streams.read(id, type === 'stream', lazy));
      else if (type === 'signal') this.#expected.set(id, { value: this.#signal(id), leave: () => {} });
    });
  }

  /** Lets go of a reference that was not taken. */
  #refuse(id: number, type: unknown): void {
    const expected = this.#expected.get(id);
    this.#expected.delete(id);
    if (expected) expected.leave();
    else if (isStream(type)) this.#powers.notify('rpc.stop', [id]);
    else this.#powers.notify('rpc.release', [[[id, 1]]]);
  }

  #signal(id: number): AbortSignal {
    let controller = this.#signals.get(id);
    const { takes: limit } = this.#powers;
    if (!controller && this.#signals.size >= limit)
      throw new Overloaded({ what: 'signals taken by this session', limit });
    controller ??= new AbortController();
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
    warnOfCollected(label);
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
