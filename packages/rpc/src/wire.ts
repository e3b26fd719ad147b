/**
 * A session's way out: values become messages, and messages leave in the order in which they were given.
 *
 * What always holds: a call is laid into its message at the end of the turn that made it, so that calls on its result
 * can still ask for that to be kept; whatever is sent meanwhile waits behind it; what cannot be sent gives out no
 * references.
 */
import { Overloaded } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { plainText } from '#plain-text';
import type { Call } from './call.ts';
import type { Encoded, Gives } from './codec.ts';
import { encodeValue } from './codec-encode.ts';
import { bytesLength, type Transport } from './transport.ts';
import { checkSize } from './values.ts';

/** The table of references, as calls need it (`refs.ts`). */
export interface SessionRefs extends Gives {
  /** What was given since the last call of this or of `undo` is on its way: its numbers. */
  sent(): number[];
  undo(): void;
  takeBack(given: number[]): void;
  callEnded(given: number[]): void;
  discard(value: unknown): boolean;
}

export class Wire {
  readonly transport: Transport;
  readonly #literal: ((value: unknown) => string) | undefined;
  /** Set before anything is sent. */
  refs!: SessionRefs;
  /** Messages sent so far. */
  sent = 0;
  /** While set, nothing leaves: the other side is not there yet. */
  waits = false;
  /** Set when nothing more can be sent. */
  over = false;
  #outbox: (Call | [string, Uint8Array[] | undefined])[] = [];
  /** Characters in it, about. */
  #outbox_chars = 0;

  /** `literal` writes values for a peer that knows nothing but JSON. */
  constructor(transport: Transport, literal?: (value: unknown) => string) {
    this.transport = transport;
    this.#literal = literal;
  }

  /** Whether values may be tagged. */
  get tagged(): boolean {
    return this.#literal === undefined;
  }

  /** What stands against another call. */
  refusal(): Error | undefined {
    if (this.transport.buffered_bytes + this.#outbox_chars > LIMITS.unsent_bytes)
      return new Overloaded({ what: 'unsent bytes of this session', limit: LIMITS.unsent_bytes });
    return undefined;
  }

  /** The text and attachments of a value; literal JSON for a peer that knows nothing else. */
  encode(value: unknown, what = 'params'): Encoded {
    const text = this.#literal ? this.#literal(value) : plainText(value);
    return text === undefined ? encodeValue(value, this.refs, what) : { text, bytes: undefined };
  }

  /** Sends a call at the end of this turn. */
  begin(call: Call): void {
    const { head, bytes } = call.unlaid!;
    this.#outbox_chars += head.length + (bytes ? bytesLength(bytes) : 0);
    if (this.#outbox.push(call) === 1) queueMicrotask(this.flush);
  }

  /** Sends a message, behind the calls of this turn. */
  post(text: string, bytes: Uint8Array[] | undefined): void {
    if (this.waits || this.#outbox.length > 0) {
      this.#outbox.push([text, bytes]);
      return;
    }
    this.#send(text, bytes);
  }

  #send(text: string, bytes: Uint8Array[] | undefined): number {
    this.transport.send(text, bytes);
    return ++this.sent;
  }

  /** Sends a notification. Throws what its parameters cannot be sent for. Gives its cost in characters and bytes. */
  notify(method: string, params: unknown[]): number {
    const { text, bytes } = this.encode(params);
    const message = `{"jsonrpc":"2.0","method":${JSON.stringify(method)},"params":${text}}`;
    this.check('A message', message, bytes);
    this.refs.sent();
    this.post(message, bytes);
    return message.length + (bytes ? bytesLength(bytes) : 0);
  }

  /** A notification of our own making; nothing where the session is over. False where it cannot be sent. */
  tell(method: string, params: unknown[]): boolean {
    if (this.over) return true;
    try {
      this.notify(method, params);
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Throws TooLarge for what a message cannot hold; then nothing of it was given out. `around_bytes`: what will be laid
   * around the text. A message that left and that the other side does not take would end the session.
   */
  check(what: string, text: string, bytes: Uint8Array[] | undefined, around_bytes = 0): void {
    try {
      // A tagged frame also holds the length of its text.
      checkSize(what, text, around_bytes + (bytes ? bytesLength(bytes) + 4 : 0));
    } catch (error) {
      this.refs.undo();
      throw error;
    }
  }

  /** Takes a call back. False when it may have reached the other side. */
  retract(call: Call): boolean {
    if (call.unlaid === undefined) return this.transport.retract?.(this.sent - call.ordinal) ?? false;
    call.unlaid = undefined;
    return true;
  }

  /** Lays what was begun in this turn into messages, in order. */
  readonly flush = (): void => {
    if (this.waits) return;
    const outbox = this.#outbox;
    this.#outbox = [];
    this.#outbox_chars = 0;
    for (const entry of outbox) {
      if (Array.isArray(entry)) {
        this.#send(...entry);
        continue;
      }
      const { unlaid } = entry;
      if (!unlaid) continue; // It was given up before it left.
      entry.unlaid = undefined;
      const { head, rpc, bytes } = unlaid;
      const members = entry.keep ? `${rpc && `${rpc},`}"keep":true` : rpc;
      entry.ordinal = this.#send(members ? `${head},"rpc":{${members}}}` : `${head}}`, bytes);
    }
  };
}
