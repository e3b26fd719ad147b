/**
 * The calling half of a session: calls from being made until their answer, deadline, cancellation, or the end.
 *
 * What always holds: every call settles once; one timer serves all deadlines; what comes for a call that was given up is
 * let go of; a call whose deadline or signal has passed is cancelled on the other side too, where it may have arrived.
 */
import {
  Cancelled,
  ConnectionLost,
  DeadlineExceeded,
  describe,
  fromWire,
  isError,
  type MeshError,
  OutcomeUnknown,
  Overloaded,
  Unserialisable,
} from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { EXITS, now_ms, unref } from '#platform';
import { Call, type CallHome, failure, type Outcome } from './call.ts';
import type { Encoded } from './codec.ts';
import { afterwards, lookAt, pipelined, RemotePromise } from './promise.ts';
import type { CallOptions } from './session.ts';
import type { Wire } from './wire.ts';

const NEVER = Number.POSITIVE_INFINITY;

/** What stands around the members of `rpc`, with the one that asks for a result to be kept: that may come later. */
const MEMBER_BYTES = ',"rpc":{,"keep":true}}'.length;

/** What a call is made on: the other side's root, one of its exports, or the result of an earlier call. */
export interface Target {
  on?: number;
  of?: number;
  path?: string[];
}

/** An answer as it came. */
export interface Answer {
  result?: unknown;
  error?: unknown;
}

export interface CallerPowers {
  wire: Wire;
  timeout_ms: number;
  /** Whether idle connections let the process exit. */
  idle_lets_exit: boolean;
  /** Why nothing can be called any more, once that is known; undefined while the session is open. */
  over(): Promise<Error> | undefined;
  /** What an answer with tagged values comes to. */
  outcome(call: Call, message: Answer, bytes: Uint8Array): Outcome;
  kill: ((why: string) => void) | undefined;
}

export class Caller implements CallHome {
  readonly #powers: CallerPowers;
  /** Calls that may still be answered: those that were given up, too, until they are killed for. */
  readonly #pending = new Map<number, Call>();
  /** While the parameters of a call are laid: the calls whose results they name. */
  #named: Call[] | undefined;
  #next_id = 1;
  #holding = 0;
  /** One thing more, or less, that somebody here waits for: while there is any, the process does not exit. */
  readonly hold = EXITS
    ? (more: 1 | -1): void => {
        const before = this.#holding;
        this.#holding += more;
        const { wire, idle_lets_exit } = this.#powers;
        if (idle_lets_exit && (before === 0 || this.#holding === 0)) wire.transport.hold?.(this.#holding > 0);
      }
    : undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timer_at = NEVER;

  constructor(powers: CallerPowers) {
    this.#powers = powers;
  }

  get in_flight(): number {
    return this.#pending.size;
  }

  /** Calls made so far. */
  get made(): number {
    return this.#next_id - 1;
  }

  call(target: Target | undefined, method: string, params: unknown[], options: CallOptions): Promise<unknown> {
    // A session that is over answers with the reason, as soon as that is known.
    const over = this.#powers.over();
    if (over)
      return this.#refused(
        over.then((error) => Promise.reject(error)),
        params,
      );
    try {
      return this.#begin(target, method, params, options).promise;
    } catch (error) {
      return this.#refused(Promise.reject(error), params);
    }
  }

  /** The promise of a call that does not take place. Those of the calls that it names are looked at by that. */
  #refused(why: Promise<never>, params: unknown[]): Promise<unknown> {
    lookAt(params);
    return pipelined(why);
  }

  #begin(target: Target | undefined, method: string, params: unknown[], options: CallOptions): Call {
    const { signal, timeout_ms = this.#powers.timeout_ms, traceparent, background } = options;
    const { wire } = this.#powers;
    const refusal = wire.refusal();
    if (refusal) throw refusal;
    if (signal?.aborted) throw new Cancelled({ method, why: describe(signal.reason), may_have_run: false });
    if (this.#pending.size >= LIMITS.calls_in_flight)
      throw new Overloaded({ what: 'calls in flight on this session', limit: LIMITS.calls_in_flight });
    const named: Call[] = [];
    let encoded: Encoded;
    try {
      this.#named = named;
      encoded = wire.encode(params);
    } finally {
      this.#named = undefined;
    }
    const id = this.#next_id;
    const head = `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(method)},"params":${encoded.text}`;
    let rpc = '';
    if (target !== undefined || options.timeout_ms !== undefined || traceparent !== undefined)
      rpc = JSON.stringify({ ...target, timeout_ms: options.timeout_ms, traceparent }).slice(1, -1);
    wire.check('A message', head + rpc, encoded.bytes, MEMBER_BYTES);
    this.#next_id++;
    const call = new Call(this, id, method, options, timeout_ms, wire.refs.sent());
    call.unlaid = { head, rpc, bytes: encoded.bytes };
    for (const each of named) each.adopt(call);
    if (EXITS && !background) this.hold!(1);
    if (signal) {
      const abort = () => {
        const { reason } = signal;
        // A call that is passed on ends with the deadline of the one that it serves.
        const late = isError(reason, DeadlineExceeded) ? reason : undefined;
        const why = describe(reason);
        this.#giveUp(call, (may_have_run) => late ?? new Cancelled({ method, why, may_have_run }));
      };
      signal.addEventListener('abort', abort, { once: true });
      call.unlisten = () => signal.removeEventListener('abort', abort);
    }
    this.#pending.set(id, call);
    // Who sets no time of its own does not mean the time until the other side is there.
    if (wire.waits && options.timeout_ms === undefined) call.deadline = NEVER;
    this.#watch(call.deadline);
    wire.begin(call);
    return call;
  }

  /** The other side is there: the time of calls that waited for it begins. */
  begin(): void {
    for (const call of this.#pending.values())
      if (call.options.timeout_ms === undefined) {
        call.deadline = now_ms() + call.timeout_ms;
        this.#watch(call.deadline);
      }
  }

  /** A call on the result of another: it leaves with it where that has not left yet, else when the result is there. */
  callOn(on: Call, path: string[], args: unknown[] | undefined, options = on.options): Promise<unknown> {
    if (!on.unlaid || !this.#powers.wire.tagged) return afterwards(on.promise, path, args, options);
    on.keep = true;
    const method = args && path.at(-1);
    const before = args ? path.slice(0, -1) : path;
    const target: Target = before.length > 0 ? { of: on.id, path: before } : { of: on.id };
    const made = this.call(target, args ? (method ?? 'rpc.apply') : 'rpc.get', args ?? [], options);
    const call = RemotePromise.begunBy(made)?.source;
    if (call instanceof Call) on.adopt(call);
    return made;
  }

  /** The tag for a promise of this session that is given as an argument, before it is there. */
  resultOf(value: object): unknown[] | undefined {
    const begun = RemotePromise.begunBy(value);
    if (!begun) return undefined;
    const call = begun.source;
    const named = this.#named;
    if (!named || !(call instanceof Call) || !call.belongsTo(this) || !call.unlaid)
      throw new Unserialisable({
        why: 'it is the promise of a call that does not leave together with this one: await it',
      });
    call.keep = true;
    if (!named.includes(call)) named.push(call);
    return ['result', call.id, begun.path];
  }

  /** An answer has come. */
  settle(id: number, message: Answer, bytes: Uint8Array | undefined): void {
    const call = this.#pending.get(id);
    this.#pending.delete(id);
    if (!call || call.given_up) {
      // The answer comes too late for anyone.
      if (bytes) this.#powers.wire.refs.discard(message);
      return;
    }
    this.#drop(call);
    const { result, error } = message;
    if (bytes) call.settle(this.#powers.outcome(call, message, bytes));
    else if (error === undefined) call.settleWith(result);
    else call.settle(failure(() => fromWire(error)));
  }

  forget(call: Call): void {
    this.#powers.wire.tell('rpc.forget', [call.id]);
  }

  /** Nobody waits for it any more. */
  #drop(call: Call): void {
    call.unlisten?.();
    if (call.given.length > 0) this.#powers.wire.refs.callEnded(call.given);
    if (EXITS && !call.options.background) this.hold!(-1);
  }

  /** Stops waiting for a call: it rejects now, and the other side is told where it may have heard of it. */
  #giveUp(call: Call, why: (may_have_run: boolean) => Error): void {
    this.#pending.delete(call.id);
    this.#drop(call);
    const { wire } = this.#powers;
    // What others go on leaves with them, to hear over there what became of it; before anything leaves, they stay too.
    const left = (call.keep && !wire.waits) || !wire.retract(call);
    const error = why(left);
    if (left) {
      wire.tell('rpc.cancel', [call.id, describe(error)]);
      const { kill_after_ms } = call.options;
      if (kill_after_ms !== undefined) {
        call.given_up = true;
        call.deadline = now_ms() + kill_after_ms;
        this.#pending.set(call.id, call);
        this.#watch(call.deadline);
      }
    } else {
      wire.refs.takeBack(call.given);
      if (call.keep) for (const other of this.#pending.values()) if (other.goesOn(call)) this.#giveUp(other, why);
    }
    call.settle(failure(() => error));
  }

  // One timer for all deadlines: set for the earliest, moved only when an earlier one comes.
  #watch(deadline: number): void {
    if (deadline >= this.#timer_at) return;
    clearTimeout(this.#timer);
    this.#timer_at = deadline;
    this.#timer = unref(setTimeout(() => this.#expire(), Math.max(0, Math.min(deadline - now_ms(), 0x7fffffff))));
  }

  #expire(): void {
    this.#timer_at = NEVER;
    const now = now_ms();
    let next = NEVER;
    for (const call of this.#pending.values()) {
      const { id, method, timeout_ms, deadline } = call;
      if (deadline > now) next = Math.min(next, deadline);
      else if (call.given_up) {
        this.#pending.delete(id);
        this.#powers.kill?.(`${method}() was given up and did not end`);
      } else
        this.#giveUp(call, (may_have_run) => new DeadlineExceeded({ what: `${method}()`, timeout_ms, may_have_run }));
    }
    this.#watch(next);
  }

  /** Nothing is under way, and nothing will be: the timer would keep all that it knows until it rings. */
  rest(): void {
    clearTimeout(this.#timer);
  }

  /** The session is over; `left` messages had left for the other side. `error`: why, where somebody knows. */
  close(reason: string, left: number, error: MeshError | undefined): void {
    clearTimeout(this.#timer);
    for (const call of this.#pending.values()) {
      const sent = call.unlaid === undefined && call.ordinal <= left;
      const unknown = () => new OutcomeUnknown({ method: call.method, why: reason });
      const told = error ?? (sent ? unknown() : new ConnectionLost({ why: reason }));
      call.unlisten?.();
      // What is called on it now goes on its promise.
      call.unlaid = undefined;
      call.settle(failure(() => told));
    }
    this.#pending.clear();
  }
}
