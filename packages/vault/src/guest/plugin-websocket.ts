/**
 * WebSockets of plugins, in the shape of Cloudflare's: a `WebSocketPair`, one end of which goes into a Response of status
 * 101; the other is the module's. The client's messages come as the body of the request, the module's go as the answer's;
 * last comes, and goes, how the socket was closed.
 */
import { type Body, isSocketClose, type SocketClose, type SocketMessage } from '@hauki/protocol';

type Message = string | Uint8Array;
interface Told {
  data?: unknown;
  code?: number;
  reason?: string;
  wasClean?: boolean;
}
type Listener = (event: { type: string } & Told) => void;
interface Sink {
  push(message: Message): void;
  end(close: SocketClose): void;
}

/** Messages of a module that its client has not taken. */
const WAITING = 1_024;
/** Close codes (RFC 6455, 7.4.1): none was given; it broke off; somebody cannot keep up (IANA's registry). */
const [NONE, BROKEN, TOO_MUCH] = [1005, 1006, 1013];

/** One end of a pair. */
export class PairSocket {
  peer: PairSocket | undefined;
  readonly #listeners = new Map<string, Set<Listener>>();
  /** Messages that came before `accept`. */
  readonly #early: Message[] = [];
  #accepted = false;
  /** How, once it is. */
  #closed: SocketClose | undefined;
  /** Where what is sent to this end goes, when it is the client's and its Response was made. */
  #sink: Sink | undefined;
  onmessage: Listener | null = null;
  onclose: Listener | null = null;

  /** From now on, and with what was sent before the Response was made. */
  drainInto(sink: Sink): void {
    this.#sink = sink;
    for (const message of this.#early.splice(0)) sink.push(message);
    if (this.#closed) sink.end(this.#closed);
  }

  accept(): void {
    this.#accepted = true;
    for (const message of this.#early.splice(0)) this.#tell('message', { data: message });
  }

  send(message: unknown): void {
    if (this.#closed) throw new TypeError('this WebSocket is closed');
    const data: Message =
      typeof message === 'string'
        ? message
        : message instanceof ArrayBuffer
          ? new Uint8Array(message)
          : ArrayBuffer.isView(message)
            ? new Uint8Array(message.buffer, message.byteOffset, message.byteLength).slice()
            : String(message);
    this.peer?.receive(data);
  }

  /** Throws TypeError for a code that may not be sent, and for a reason of more than 123 bytes. */
  close(code = 1000, reason = ''): void {
    if (this.#closed) return;
    const close = [code, String(reason)];
    if (!isSocketClose(close))
      throw new TypeError(`a WebSocket is closed with a code such as 1000 or 4000, and at most 123 bytes; not ${code}`);
    this.#closed = close;
    this.peer?.ended(code, reason);
  }

  get readyState(): number {
    return this.#closed ? 3 : 1;
  }

  addEventListener(type: string, listener: Listener): void {
    const all = this.#listeners.get(type) ?? new Set();
    all.add(listener);
    this.#listeners.set(type, all);
  }

  removeEventListener(type: string, listener: Listener): void {
    this.#listeners.get(type)?.delete(listener);
  }

  /** From the other end. */
  receive(message: Message): void {
    if (this.#sink) this.#sink.push(message);
    else if (this.#accepted) this.#tell('message', { data: message });
    else if (this.#early.length < WAITING) this.#early.push(message);
    else this.overflow();
  }

  /** The other end was closed, or broke off. */
  ended(code: number, reason = ''): void {
    if (this.#closed) return;
    this.#closed = [code, reason];
    this.#sink?.end(this.#closed);
    this.#tell('close', { code, reason, wasClean: code !== BROKEN });
  }

  /** Nobody takes what is sent: both ends are closed. */
  overflow(): void {
    for (const end of [this, this.peer]) end?.ended(TOO_MUCH, 'too many messages wait');
  }

  #tell(type: 'message' | 'close', event: Told): void {
    const whole = { type, target: this, ...event };
    for (const listener of [this[`on${type}`], ...(this.#listeners.get(type) ?? [])])
      try {
        listener?.(whole);
      } catch (error) {
        // As in browsers: it is told, the other listeners hear of it, and the socket lives on.
        console.error('uncaught exception:', error);
      }
  }
}

/** `const [client, server] = Object.values(new WebSocketPair())`. */
export class WebSocketPair {
  0 = new PairSocket();
  1 = new PairSocket();

  constructor() {
    this[0].peer = this[1];
    this[1].peer = this[0];
  }
}

/** Joins the client's end of a pair to the messages that come and go. Gives those that go. */
export function joinClient(client: PairSocket, incoming: Body): AsyncIterable<Uint8Array> {
  const items: SocketMessage[] = [];
  let wake: (() => void) | undefined;
  let over = false;
  const notify = () => {
    wake?.();
    wake = undefined;
  };
  client.drainInto({
    push(message) {
      if (items.length >= WAITING) return client.overflow();
      items.push(message);
      notify();
    },
    end(close) {
      over = true;
      if (isSocketClose(close)) items.push(close);
      notify();
    },
  });
  void (async () => {
    let [code, reason]: SocketClose = [BROKEN, ''];
    try {
      for await (const message of incoming as unknown as AsyncIterable<SocketMessage>) {
        if (Array.isArray(message)) [code = NONE, reason = ''] = message;
        else client.peer?.receive(message);
      }
    } catch {
      // The client has gone.
    }
    over = true;
    client.peer?.ended(code, reason);
    notify();
  })();
  return (async function* () {
    try {
      for (;;) {
        const item = items.shift();
        if (item !== undefined) yield item as Uint8Array;
        else if (over) return;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    } finally {
      client.peer?.ended(BROKEN);
    }
  })();
}
