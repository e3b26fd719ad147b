/**
 * A call that this side has made: from being begun until its answer, and behind its promise as long as somebody may call
 * on its result.
 */
import { now_ms } from '#platform';
import { type PipelineSource, RemotePromise } from './promise.ts';
import type { CallOptions } from './session.ts';

/** What a call needs of its session. */
export interface CallHome {
  callOn(on: Call, path: string[], args: unknown[] | undefined, options?: CallOptions): Promise<unknown>;
  /** The kept result of a call is needed no longer: it is settled, and so are the calls on it. */
  forget(call: Call): void;
}

/** What came of it: gives the result or throws. Run at most once. */
export interface Outcome {
  open(): unknown;
  /**
   * Lets go of what the result refers to, without anyone having seen it, and gives what there is to see from then on.
   * Undefined where it refers to nothing.
   */
  discard?: () => Outcome | undefined;
}

/** The outcome of a call that failed. */
export const failure = (error: () => Error): Outcome => ({
  open() {
    throw error();
  },
});

export class Call implements PipelineSource {
  readonly id: number;
  readonly method: string;
  readonly options: CallOptions;
  readonly timeout_ms: number;
  deadline: number;
  /** References that went out with it. */
  readonly given: number[];
  readonly promise: RemotePromise<unknown>;
  /** What is not laid into a message yet; undefined once it has left: then it is too late to have its result kept. */
  unlaid: { head: string; rpc: string; bytes: Uint8Array[] | undefined } | undefined;
  /** Its place among all messages sent. */
  ordinal = 0;
  keep = false;
  /** This side waits no longer, and its worker is killed at its deadline if it has not ended by then. */
  given_up = false;
  /** Calls whose results this one is made on, or names as arguments. */
  #parents: Call[] | undefined;
  /** Stops listening to its signal. */
  unlisten: (() => void) | undefined;
  readonly #home: CallHome;
  #dependents = 0;
  #is_settled = false;
  #is_observed = false;
  #held: Outcome | undefined;
  #resolve!: (value: unknown) => void;
  #reject!: (error: unknown) => void;

  constructor(home: CallHome, id: number, method: string, options: CallOptions, timeout_ms: number, given: number[]) {
    this.#home = home;
    this.id = id;
    this.method = method;
    this.options = options;
    this.timeout_ms = timeout_ms;
    this.deadline = now_ms() + timeout_ms;
    this.given = given;
    this.promise = new RemotePromise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    }, this);
  }

  belongsTo(home: CallHome): boolean {
    return this.#home === home;
  }

  /** Another call goes on this one's result, or names it. */
  adopt(child: Call): void {
    child.#parents ??= [];
    child.#parents.push(this);
    this.#dependents++;
  }

  /** Whether it is made on the result of another call, or names it. */
  goesOn(call: Call): boolean {
    return this.#parents?.includes(call) ?? false;
  }

  /**
   * Settles the promise. Where it was only called on and nobody looks, what came is held until somebody does, and let
   * go of when the calls on it are over: a result that nobody looks at must not fill the other side's table.
   */
  settle(outcome: Outcome): void {
    if (!this.keep || this.#is_observed) this.#open(outcome);
    else this.#held = outcome;
    this.#settled();
  }

  /** The same for a result that refers to nothing. */
  settleWith(value: unknown): void {
    if (!this.keep || this.#is_observed) this.#resolve(value);
    else this.#held = { open: () => value };
    this.#settled();
  }

  #settled(): void {
    this.#is_settled = true;
    const parents = this.#parents;
    this.#parents = undefined;
    if (parents) for (const parent of parents) parent.#childSettled();
    if (this.keep) this.#rest();
  }

  #childSettled(): void {
    this.#dependents--;
    this.#rest();
  }

  /** Once it and all that goes on it are settled, neither side needs the result any longer. */
  #rest(): void {
    if (this.#dependents > 0 || !this.#is_settled) return;
    this.#home.forget(this);
    if (!this.#held?.discard) return;
    // A turn later: whoever waited for the last of them may look at this one next.
    setTimeout(() => {
      this.#held = this.#held?.discard?.() ?? this.#held;
    }, 0);
  }

  observed(): void {
    if (this.#is_observed) return;
    this.#is_observed = true;
    const held = this.#held;
    this.#held = undefined;
    if (held) this.#open(held);
  }

  reach(path: string[], args?: unknown[], options?: CallOptions): Promise<unknown> {
    return this.#home.callOn(this, path, args, options);
  }

  #open(outcome: Outcome): void {
    try {
      this.#resolve(outcome.open());
    } catch (error) {
      this.#reject(error);
    }
  }
}
