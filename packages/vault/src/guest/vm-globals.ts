/**
 * What a worker expects of any JavaScript platform and QuickJS lacks or may not have: timers, abort signals, the clocks
 * and entropy it was granted. Kept small on purpose: every vault carries it. The rest is in `vm-platform.ts`.
 */
import { GrantMissing } from '@hauki/protocol';

/** Timers that a vault may have set at once. */
const TIMERS = 10_000;

export interface Timers {
  setTimeout(run: (...args: unknown[]) => void, delay_ms?: number, ...args: unknown[]): number;
  setInterval(run: (...args: unknown[]) => void, delay_ms?: number, ...args: unknown[]): number;
  clearTimeout(id?: number): void;
  /** The host says that a timer is due. */
  fire(id: number): void;
}

/** `arm` asks the host to call `fire(id)` after a delay; `disarm` takes that back. */
export function createTimers(arm: (id: number, delay_ms: number) => void, disarm: (id: number) => void): Timers {
  const waiting = new Map<number, { run: () => void; every_ms?: number }>();
  let last = 0;
  const set = (run: () => void, delay_ms: number, again: boolean) => {
    if (waiting.size >= TIMERS) throw new RangeError(`at most ${TIMERS} timers may be set at once`);
    const id = ++last;
    const delay = Math.max(0, Math.min(Number(delay_ms) || 0, 0x7fffffff));
    waiting.set(id, again ? { run, every_ms: Math.max(1, delay) } : { run });
    arm(id, delay);
    return id;
  };
  return {
    setTimeout: (run, delay_ms = 0, ...args) => set(() => run(...args), delay_ms, false),
    setInterval: (run, delay_ms = 0, ...args) => set(() => run(...args), delay_ms, true),
    clearTimeout(id) {
      if (id !== undefined && waiting.delete(id)) disarm(id);
    },
    fire(id) {
      const timer = waiting.get(id);
      if (!timer) return;
      if (timer.every_ms === undefined) waiting.delete(id);
      else arm(id, timer.every_ms);
      try {
        timer.run();
      } catch (error) {
        // As in Node's vaults: its own affair, and no reason to end whoever else calls the worker.
        console.error('uncaught exception:', error);
      }
    },
  };
}

type Aborted = { type: 'abort'; target: VmAbortSignal };
type Listener = ((event: Aborted) => void) | { handleEvent(event: Aborted): void };

/** AbortSignal (DOM standard, section 3.1), as far as it can be without events of any other kind. */
export class VmAbortSignal {
  aborted = false;
  reason: unknown = undefined;
  onabort: Listener | null = null;
  readonly #listeners = new Set<Listener>();

  static abort(reason?: unknown): VmAbortSignal {
    const controller = new VmAbortController();
    controller.abort(reason);
    return controller.signal;
  }

  static timeout(delay_ms: number): VmAbortSignal {
    const controller = new VmAbortController();
    const late = new DOMException('The operation was aborted due to timeout', 'TimeoutError');
    setTimeout(() => controller.abort(late), delay_ms);
    return controller.signal;
  }

  static any(signals: Iterable<VmAbortSignal>): VmAbortSignal {
    const controller = new VmAbortController();
    for (const signal of signals) {
      if (signal.aborted) controller.abort(signal.reason);
      else signal.addEventListener('abort', () => controller.abort(signal.reason));
    }
    return controller.signal;
  }

  /** What `once` says holds of all. */
  addEventListener(type: string, listener: Listener | null, options?: { signal?: VmAbortSignal } | boolean): void {
    const signal = (options as { signal?: VmAbortSignal } | undefined)?.signal;
    if (type !== 'abort' || !listener || signal?.aborted) return;
    this.#listeners.add(listener);
    signal?.addEventListener('abort', () => this.#listeners.delete(listener));
  }

  removeEventListener(type: string, listener: Listener): void {
    if (type === 'abort') this.#listeners.delete(listener);
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason;
  }

  /** For its controller. Once: all listeners of an abort hear of it only once. */
  static tell(signal: VmAbortSignal, reason: unknown): void {
    if (signal.aborted) return;
    signal.aborted = true;
    signal.reason = reason === undefined ? new DOMException('This operation was aborted', 'AbortError') : reason;
    const listeners = [...signal.#listeners];
    signal.#listeners.clear();
    if (signal.onabort) listeners.unshift(signal.onabort);
    for (const listener of listeners) {
      try {
        const event: Aborted = { type: 'abort', target: signal };
        if (typeof listener === 'function') listener.call(signal, event);
        else listener.handleEvent(event);
      } catch (error) {
        console.error('a listener of an AbortSignal threw:', error);
      }
    }
  }
}

export class VmAbortController {
  readonly signal = new VmAbortSignal();

  abort(reason?: unknown): void {
    VmAbortSignal.tell(this.signal, reason);
  }
}

/**
 * Takes the clocks away: whatever would tell the time says which grant it wants. A date that is given stays one. The
 * result gives them back.
 */
export function withoutClock(scope: any): () => void {
  const missing = (wanted: string) => (): never => {
    throw new GrantMissing({ grant: 'time', wanted });
  };
  const { Date: Original, performance } = scope;
  const Guarded = function (this: unknown, ...given: unknown[]) {
    if (!new.target) missing('Date()')();
    if (given.length === 0) missing('new Date()')();
    return Reflect.construct(Original, given, new.target as never);
  };
  for (const [name, value] of Object.entries({
    name: 'Date',
    length: 7,
    prototype: Original.prototype,
    parse: Original.parse,
    UTC: Original.UTC,
    now: missing('Date.now()'),
  }))
    Object.defineProperty(Guarded, name, { value, writable: name !== 'prototype', configurable: name !== 'prototype' });
  const put = (date: unknown, clock: unknown) => {
    Object.defineProperty(Original.prototype, 'constructor', { value: date, writable: true, configurable: true });
    Object.assign(scope, { Date: date, performance: clock });
  };
  put(Guarded, { now: missing('performance.now()'), timeOrigin: 0 });
  return () => put(Original, performance);
}

/** Entropy is drawn in pieces of this size, enough for 128 numbers. */
const DRAWN_BYTES = 1024;
/** As browsers and Node have it. */
const MOST_RANDOM_BYTES = 65_536;

export interface Random {
  /** Entropy. Throws GrantMissing, for what is `wanted`, without the grant. */
  draw(wanted: string, bytes: number): Uint8Array;
  /** From now on it is drawn from the host's. */
  allow(draw: (bytes: number) => ArrayBuffer): void;
}

/** `Math.random` and `crypto`, which say which grant they want, until they are allowed to draw. */
export function giveRandom(scope: any): Random {
  let draw: ((bytes: number) => ArrayBuffer) | undefined;
  const from = (wanted: string, bytes: number): Uint8Array => {
    if (!draw) throw new GrantMissing({ grant: 'random', wanted });
    return new Uint8Array(draw(bytes));
  };
  let drawn: DataView | undefined;
  let at = 0;
  scope.Math.random = () => {
    if (!drawn || at + 8 > DRAWN_BYTES) {
      drawn = new DataView(from('Math.random()', DRAWN_BYTES).buffer as ArrayBuffer);
      at = 0;
    }
    // 53 bits, as many as a number in [0, 1) has.
    const value = (drawn.getUint32(at) >>> 5) * 2 ** 26 + (drawn.getUint32(at + 4) >>> 6);
    at += 8;
    return value / 2 ** 53;
  };
  scope.crypto = {
    getRandomValues<T extends ArrayBufferView>(into: T): T {
      if (!ArrayBuffer.isView(into) || into instanceof DataView || /^Float/.test(into.constructor.name))
        throw new DOMException('getRandomValues fills arrays of integers', 'TypeMismatchError');
      if (into.byteLength > MOST_RANDOM_BYTES)
        throw new DOMException(`at most ${MOST_RANDOM_BYTES} bytes at once`, 'QuotaExceededError');
      if (into.byteLength > 0)
        new Uint8Array(into.buffer, into.byteOffset, into.byteLength).set(
          from('crypto.getRandomValues()', into.byteLength),
        );
      return into;
    },
    randomUUID(): string {
      const bytes = from('crypto.randomUUID()', 16);
      bytes[6] = (bytes[6]! & 0x0f) | 0x40;
      bytes[8] = (bytes[8]! & 0x3f) | 0x80;
      const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
      return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
    },
  };
  return {
    draw: from,
    allow(granted) {
      draw = granted;
    },
  };
}

/** What is loaded together when one of it is first touched. */
export const PLATFORM = [
  'CustomEvent',
  'Event',
  'EventTarget',
  'Headers',
  'Request',
  'Response',
  'TextDecoder',
  'TextEncoder',
  'URL',
  'URLSearchParams',
  'structuredClone',
] as const;

/** The same of forms. */
export const FORMS = ['Blob', 'File', 'FormData'] as const;

/** The same of streams; what nobody begins with comes with them (`vm-streams.ts`). */
export const STREAMS = [
  'ByteLengthQueuingStrategy',
  'CompressionStream',
  'CountQueuingStrategy',
  'DecompressionStream',
  'ReadableStream',
  'TextDecoderStream',
  'TextEncoderStream',
  'TransformStream',
  'WritableStream',
] as const;

/** And of cryptography, with `crypto.subtle`. */
export const CRYPTO = ['CryptoKey', 'SubtleCrypto'] as const;

/** Defines globals that are loaded, all together, when one of them is first touched. */
export function lazily<Name extends string>(
  scope: any,
  names: readonly Name[],
  load: () => Record<Name, unknown>,
): void {
  for (const name of names) {
    const define = (value: unknown) =>
      Object.defineProperty(scope, name, { value, writable: true, configurable: true, enumerable: false });
    Object.defineProperty(scope, name, {
      configurable: true,
      get() {
        const value = load()[name];
        define(value);
        return value;
      },
      set: define,
    });
  }
}
