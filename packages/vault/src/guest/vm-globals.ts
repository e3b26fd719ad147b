/** What a worker expects of any JavaScript platform and QuickJS lacks: timers, a console, signals. Kept small on purpose. */
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
      timer.run();
    },
  };
}

type Listener = (event: { type: 'abort'; target: VmAbortSignal }) => void;

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
    const late = Object.assign(new Error('the time is over'), { name: 'TimeoutError' });
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

  addEventListener(type: string, listener: Listener): void {
    if (type === 'abort') this.#listeners.add(listener);
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
    signal.reason = reason ?? Object.assign(new Error('it was aborted'), { name: 'AbortError' });
    const listeners = [...signal.#listeners];
    signal.#listeners.clear();
    if (signal.onabort) listeners.unshift(signal.onabort);
    for (const listener of listeners) {
      try {
        listener.call(signal, { type: 'abort', target: signal });
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
