/**
 * The half of a session that is needed once the other side asks something, or once something goes by reference: serving,
 * references, streams. Most pages never need it and then never load it (`session-rest-late.ts`); everywhere else `#rest`
 * is this module.
 */
import { describe, fromWire, type MeshError, NoSuchMethod, ProtocolViolation, RefGone, toWire } from '@hauki/protocol';
import * as LIMITS from '@hauki/protocol/caller-limits';
import { type Call, failure, type Outcome } from './call.ts';
import type { Answer, Caller } from './caller.ts';
import { invoke, read } from './invoke.ts';
import { RefTable } from './refs.ts';
import { briefly, type IncomingCall, Server, type ServerPowers, withThrown } from './server.ts';
import type { SessionOptions } from './session.ts';
import { Streams } from './streams.ts';
import type { Wire } from './wire.ts';

/** What it needs of its session. */
export interface RestPowers {
  wire: Wire;
  caller: Caller;
  /** Calls on the root; undefined: this side offers nothing. */
  dispatch: ServerPowers['dispatch'] | undefined;
  bounds: SessionOptions['bounds'];
  /** The peer does not read what it asks for, or breaks the protocol: the session ends. */
  end(why: string): void;
  /** A message that was held back goes on. */
  receive(text: string, bytes: Uint8Array | undefined): void;
}

export interface RestStats {
  calls_served: number;
  serving: number;
  exported: number;
  imported: number;
  kept: number;
  streams: number;
}

/** The rest as its session sees it. */
export interface Rest {
  /**
   * A call, or a notification, has come. Throws what is thrown for a peer that breaks the protocol. The bytes are valid
   * until it returns.
   */
  receive(message: IncomingCall, method: string, text: string, bytes: Uint8Array | undefined): void;
  /** Whether a message was taken to be held back: asked for each, where there is such a thing. */
  holds?(text: string, bytes: Uint8Array | undefined): boolean;
  /** What an answer with tagged values comes to, once somebody looks. */
  outcome(call: Call, message: Answer, bytes: Uint8Array): Outcome;
  /** While messages are held back. Never rejects. */
  readonly loading?: Promise<void> | undefined;
  stats(): RestStats;
  /** The session is over. */
  close(error: MeshError): void;
}

/** What comes in: a call, a notification or an answer. */
export interface IncomingMessage extends IncomingCall, Answer {
  method?: unknown;
}

const nobody: ServerPowers['dispatch'] = (method) => {
  throw new NoSuchMethod({ method, has: [] });
};

/** Notifications that sessions send each other. */
const OURS = new Set(
  ['item', 'end', 'fail', 'credit', 'stop', 'release', 'abort', 'forget', 'cancel'].map((name) => `rpc.${name}`),
);

export class SessionRest implements Rest {
  readonly #wire: Wire;
  readonly #streams: Streams;
  readonly #refs: RefTable;
  readonly #server: Server;
  readonly #end: (why: string) => void;

  constructor({ wire, caller, dispatch = nobody, bounds, end }: RestPowers) {
    const { kept: keeps, references: takes } = bounds ?? { kept: LIMITS.exports, references: LIMITS.exports };
    this.#wire = wire;
    this.#end = end;
    this.#streams = new Streams({
      item: (id, value) => (wire.over ? 0 : wire.notify('rpc.item', [id, value])),
      fail: (id, error) => {
        for (const form of [withThrown, toWire, briefly])
          if (wire.tell('rpc.fail', [id, form(error, this.#refs.frameless)])) return;
      },
      notify: (method, params) => void wire.tell(method, params),
      hold: caller.hold,
    });
    this.#refs = new RefTable({
      takes,
      // Who serves nothing calls workers, and a callback's error would tell them where it lies.
      frameless: dispatch === nobody,
      streams: this.#streams,
      call: (on, method, args, call_options) => caller.call({ on }, method, args, call_options ?? {}),
      notify: (method, params) => wire.tell(method, params),
      resultOf: (value) => caller.resultOf(value),
      result: (id, path) => this.#server.resultFor(id, path),
    });
    this.#server = new Server({ wire, keeps, refs: this.#refs, dispatch, end });
    wire.refs = this.#refs;
  }

  get refs(): RefTable {
    return this.#refs;
  }

  stats(): RestStats {
    return {
      calls_served: this.#server.served,
      serving: this.#server.serving,
      exported: this.#refs.exported,
      imported: this.#refs.imported,
      kept: this.#server.kept,
      streams: this.#streams.size,
    };
  }

  receive(message: IncomingCall, method: string, text: string, bytes: Uint8Array | undefined): void {
    const ours = message.id === undefined && this.#wire.tagged && OURS.has(method);
    if (ours) this.#notified(message, method, text, bytes);
    else this.#server.serve(message, method, text, bytes);
  }

  /** One of our own notifications. */
  #notified({ params }: IncomingCall, method: string, text: string, bytes: Uint8Array | undefined): void {
    if (!Array.isArray(params)) throw new ProtocolViolation({ why: `${method} has a list of parameters` });
    const of_nobody = method === 'rpc.item' && !this.#streams.reads(params[0]);
    if (of_nobody && bytes) this.#refs.discard(params);
    if (of_nobody) return;
    let list: any[] = params;
    let refused = false;
    try {
      if (bytes) list = this.#refs.decode(params, bytes) as unknown[];
    } catch (error) {
      if (error instanceof ProtocolViolation) throw error;
      refused = true;
      list = [params[0], error];
    }
    const [id, more] = list;
    switch (method) {
      case 'rpc.item':
        if (refused) this.#streams.refuse(id, more);
        else this.#streams.item(id, more, text.length + (bytes?.length ?? 0), bytes ? this.#refs.taken() : []);
        break;
      case 'rpc.end':
        this.#streams.end(id);
        break;
      case 'rpc.fail':
        this.#streams.end(id, refused ? more : errorFrom(more));
        break;
      case 'rpc.credit':
        this.#streams.credit(id, more);
        break;
      case 'rpc.stop':
        this.#streams.stop(id);
        break;
      case 'rpc.release':
        this.#refs.released(id);
        break;
      case 'rpc.abort':
        this.#refs.aborted(list);
        break;
      case 'rpc.forget':
        this.#server.forget(list);
        break;
      case 'rpc.cancel':
        this.#server.cancel(id, more);
    }
  }

  outcome(call: Call, message: Answer, bytes: Uint8Array): Outcome {
    // What nobody looks at yet outlives the frame that it came in.
    const kept = call.keep ? bytes.slice() : bytes;
    const read = (value: unknown) => {
      try {
        return this.#refs.decode(value, kept, call.options.passing);
      } catch (error) {
        // A result that breaks the protocol ends the session, and its caller hears why.
        if (error instanceof ProtocolViolation) this.#end(describe(error));
        throw error;
      }
    };
    return {
      open: () => {
        if (message.error !== undefined) throw errorFrom(read(message.error));
        return read(message.result);
      },
      discard: () => {
        const why = 'nobody looked at it while calls on it ran';
        if (!this.#refs.discard(message)) return undefined;
        return failure(() => new RefGone({ what: `result of ${call.method}()`, why }));
      },
    };
  }

  close(error: MeshError): void {
    this.#streams.close(error);
    this.#refs.close(error);
    this.#server.close(error);
  }
}

/** The error in an `error` member, with what was thrown as its cause where that came along. */
function errorFrom(wire: any): MeshError {
  const error = fromWire(wire);
  const thrown = wire?.data?.thrown;
  if (thrown instanceof Error) error.cause = thrown;
  return error;
}

/** The rest of a session. Sets the wire's references. */
export const restOf = (powers: RestPowers): Rest => new SessionRest(powers);

/** What reaches into this side's own values. */
export interface Reach {
  invoke: typeof invoke;
  read: typeof read;
}

/** Runs what needs to reach into this side's own values, at once or when that is there. */
export const reaching = (run: (reach: Reach) => unknown): unknown => run({ invoke, read });
