/**
 * WebSockets of plugins, in the shape of Cloudflare's: a `WebSocketPair`, one end of which goes into a Response of status
 * 101; the other is the module's. The client's messages come as the body of the request, the module's go as the answer's.
 */
import type { Body } from '@hauki/protocol';

type Message = string | Uint8Array;
type Listener = (event: { type: string; data?: unknown; code?: number }) => void;

/** Messages of a module that its client has not taken. */
const WAITING = 1_024;

/** One end of a pair. */
export class PairSocket {
  peer: PairSocket | undefined;
  readonly #listeners = new Map<string, Set<Listener>>();
  /** Messages that came before `accept`. */
  readonly #early: Message[] = [];
  #accepted = false;
  #closed = false;
  /** Where what is sent to this end goes, when it is the client's and its Response was made. */
  #sink: { push(message: Message): void; end(): void } | undefined;
  onmessage: Listener | null = null;
  onclose: Listener | null = null;

  /** From now on, and with what was sent before the Response was made. */
  drainInto(sink: { push(message: Message): void; end(): void }): void {
    this.#sink = sink;
    for (const message of this.#early.splice(0)) sink.push(message);
    if (this.#closed) sink.end();
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

  close(code = 1000): void {
    if (this.#closed) return;
    this.#closed = true;
    this.peer?.ended(code);
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
    else this.peer?.ended(1013);
  }

  ended(code: number): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#sink?.end();
    this.#tell('close', { code });
  }

  #tell(type: 'message' | 'close', event: { data?: unknown; code?: number }): void {
    const whole = { type, target: this, ...event };
    this[`on${type}`]?.(whole);
    for (const listener of this.#listeners.get(type) ?? []) listener(whole);
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
  const items: Message[] = [];
  let wake: (() => void) | undefined;
  let over = false;
  const notify = () => {
    wake?.();
    wake = undefined;
  };
  client.drainInto({
    push(message) {
      if (items.length >= WAITING) return client.peer?.ended(1013);
      items.push(message);
      notify();
    },
    end() {
      over = true;
      notify();
    },
  });
  void (async () => {
    try {
      for await (const message of incoming as AsyncIterable<Message>) client.peer?.receive(message);
    } catch {
      // The client has gone.
    }
    over = true;
    client.peer?.ended(1005);
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
      client.peer?.ended(1006);
    }
  })();
}
