/**
 * The load of a VM's worker, as its keeper waits for it. The guest answers past its session: a load is asked for once in a
 * VM's life, and a session's first call would cost as much again as the load itself. What answers is a stranger's.
 */
import { DeadlineExceeded, fromWire, OutcomeUnknown, ProtocolViolation } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';

const isMethods = (methods: unknown): methods is string[] =>
  Array.isArray(methods) && methods.length <= LIMITS.methods && methods.every((name) => typeof name === 'string');

export class Loading {
  /** The worker's methods. Rejects with what the guest says, DeadlineExceeded, OutcomeUnknown, ProtocolViolation. */
  readonly methods: Promise<string[]>;
  under_way = true;
  #settle!: { resolve(methods: string[]): void; reject(error: Error): void };

  constructor(timeout_ms: number) {
    this.methods = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    const late = () => this.fail(new DeadlineExceeded({ what: 'load()', timeout_ms, may_have_run: true }));
    const timer = setTimeout(late, timeout_ms);
    const over = () => {
      this.under_way = false;
      clearTimeout(timer);
    };
    this.methods.then(over, over);
  }

  /** The guest has answered; `behind`: what it has said before is heard first. */
  answered(text: string, behind = false): void {
    if (behind) return void setImmediate(() => this.answered(text));
    try {
      const { methods, error } = JSON.parse(text) as Partial<Record<'methods' | 'error', unknown>>;
      if (error) return this.fail(fromWire(error));
      if (isMethods(methods)) return this.#settle.resolve(methods);
    } catch {
      // As one that says nothing.
    }
    this.fail(new ProtocolViolation({ why: 'the guest does not say which methods its worker has' }));
  }

  /** The VM is over. */
  ended(why: string): void {
    this.fail(new OutcomeUnknown({ method: 'load', why }));
  }

  fail(error: Error): void {
    this.#settle.reject(error);
  }
}
