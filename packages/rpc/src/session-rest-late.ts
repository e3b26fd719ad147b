/**
 * The rest of a session as pages have it: fetched when the other side asks something, or when something goes by
 * reference.
 *
 * What always holds: whatever comes in is dealt with in its order, so while the rest is being fetched all that comes is
 * held back, up to what a connection may hold; what is given out meanwhile has its number at once and is handed over.
 */
import { describe, type MeshError, Overloaded } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import type { Call, Outcome } from './call.ts';
import type { Answer } from './caller.ts';
import { sourceOf } from './ghost.ts';
import { late } from './late.ts';
import { type Given, isStream, kindOf } from './references.ts';
import type { IncomingCall } from './server.ts';
import type { Reach, Rest, RestPowers, RestStats, SessionRest } from './session-rest.ts';
import type { SessionRefs } from './wire.ts';

/** How the answer of a method that returns nothing ends: of what is tagged, all that can be read without the rest. */
const NOTHING = '"result":{"$":["undefined"]}}';

const load = late(() => import('./session-rest.ts'));

export const reaching = async (run: (reach: Reach) => unknown): Promise<unknown> => (await load()).reaching(run);

export const restOf = (powers: RestPowers): Rest => new LateRest(powers);

class LateRest implements Rest, SessionRefs {
  readonly #powers: RestPowers;
  #real: SessionRest | undefined;
  loading: Promise<void> | undefined;
  readonly #held: [string, Uint8Array | undefined][] = [];
  #held_bytes = 0;
  #next = 1;
  #given: Given[] = [];
  /** Of these, how many have been sent. */
  #sent = 0;
  /** What is to be done with what was given. */
  #then: ((refs: SessionRefs) => void)[] = [];

  constructor(powers: RestPowers) {
    this.#powers = powers;
    powers.wire.refs = this;
  }

  // ---- What comes in

  receive(message: IncomingCall, method: string, text: string, bytes: Uint8Array | undefined): void {
    if (this.#real) this.#real.receive(message, method, text, bytes);
    else this.#hold(text, bytes);
  }

  holds(text: string, bytes: Uint8Array | undefined): boolean {
    const held = !this.#real && (this.loading || (bytes && !text.endsWith(NOTHING)));
    if (held) this.#hold(text, bytes);
    return Boolean(held);
  }

  #hold(text: string, bytes: Uint8Array | undefined): void {
    this.#held.push([text, bytes?.slice()]);
    this.#held_bytes += text.length + (bytes?.length ?? 0);
    this.#load();
    if (this.#held_bytes > LIMITS.unsent_bytes) this.#powers.end('the peer sent more than is kept for a listener');
  }

  #load(): void {
    const { wire, receive, end } = this.#powers;
    this.loading ??= load().then(
      ({ SessionRest }) => {
        const { over } = wire;
        const real = new SessionRest(this.#powers);
        this.#real = real;
        real.refs.adopt(this.#next, this.#given);
        for (const go of this.#then) go(real.refs);
        // What came before the other side's end is heard; nothing after this side's.
        for (const [text, bytes] of this.#held.splice(0)) if (wire.over === over) receive(text, bytes);
      },
      (error) => end(describe(error)),
    );
  }

  outcome(...answer: [Call, Answer, Uint8Array]): Outcome {
    return this.#real?.outcome(...answer) ?? { open: () => undefined };
  }

  stats(): RestStats {
    const none = { calls_served: 0, serving: 0, exported: this.#given.length, imported: 0, kept: 0, streams: 0 };
    return this.#real?.stats() ?? none;
  }

  close(error: MeshError): void {
    this.#real?.close(error);
  }

  // ---- What goes out by reference (see `refs.ts`)

  claims(value: object): boolean {
    return sourceOf(value) !== undefined || this.#powers.caller.resultOf(value) !== undefined;
  }

  give(value: object): unknown[] {
    const result = this.#powers.caller.resultOf(value);
    if (result) return result;
    const type = sourceOf(value) ? 'object' : (kindOf(value) ?? 'object');
    const alike = this.#given.filter((given) => isStream(given.type) === isStream(type));
    const limit = isStream(type) ? LIMITS.streams : LIMITS.exports;
    if (alike.length >= limit) throw new Overloaded({ what: 'references given out by this session', limit });
    const known = isStream(type) ? undefined : alike.find((given) => given.value === value);
    const id = known?.id ?? this.#next++;
    this.#given.push({ id, value, type });
    this.#load();
    return ['mine', id, type];
  }

  sent(): number[] {
    const ids = this.#given.slice(this.#sent).map(({ id }) => id);
    this.#sent = this.#given.length;
    return ids;
  }

  undo(): void {
    this.#given.length = this.#sent;
  }

  takeBack(given: number[]): void {
    this.#then.push((refs) => refs.takeBack(given));
  }

  callEnded(given: number[]): void {
    this.#then.push((refs) => refs.callEnded(given));
  }

  discard(): boolean {
    return false;
  }
}
