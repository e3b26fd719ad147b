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
type Heard = (event: { type: string } & Told) => void;
type Listener = Heard | { handleEvent: Heard };

/**
 * What waits for all clients of a vault, which would else die of one that does not read: where it is so much, the one for
 * whom most waits is closed. What a handler sends in one turn must go: it is half of a default vault.
 */
const ALL_BYTES = 16 * 1024 * 1024;
/** A client for whom less waits is not closed for that: a large message goes to many at once. */
const ONE_BYTES = 1024 * 1024;
/** What a message takes beside its content. */
const MESSAGE_BYTES = 64;
/** Close codes (RFC 6455, 7.4.1): none was given; it broke off; somebody cannot keep up (IANA's registry). */
const [NONE, BROKEN, TOO_MUCH] = [1005, 1006, 1013];

/** Messages in their order: of an array with thousands each shift would move the rest. */
class Waiting {
  #coming: Message[] = [];
  /** The next one last. */
  #going: Message[] = [];
  /** Bytes, and characters of texts. */
  size = 0;

  /** What it takes in memory, about. */
  get bytes(): number {
    return this.size + (this.#coming.length + this.#going.length) * MESSAGE_BYTES;
  }

  push(message: Message): void {
    this.#coming.push(message);
    this.size += message.length;
  }

  shift(): Message | undefined {
    if (this.#going.length === 0) [this.#going, this.#coming] = [this.#coming.reverse(), []];
    const message = this.#going.pop();
    this.size -= message?.length ?? 0;
    return message;
  }

  clear(): void {
    this.#coming = [];
    this.#going = [];
    this.size = 0;
  }
}

/** The clients' ends that are joined to a client. */
const joined = new Set<PairSocket>();

/** Where too much waits: for whom most does. */
function tooFull(socket: PairSocket): PairSocket | undefined {
  let all = 0;
  let fullest = socket;
  for (const one of new Set([socket, ...joined])) {
    all += one.waiting.bytes;
    if (one.waiting.bytes > fullest.waiting.bytes) fullest = one;
  }
  return all < ALL_BYTES ? undefined : fullest;
}

/** One end of a pair. */
export class PairSocket {
  peer: PairSocket | undefined;
  /** Whether each is to be told once. */
  readonly #listeners = new Map<string, Map<Listener, boolean>>();
  /** What was sent to this end: before `accept`, or, when it is the client's, until it has left. */
  readonly waiting = new Waiting();
  #accepted = false;
  /** How, once it is. */
  #closed: SocketClose | undefined;
  /** Whether the other end has ended too, and `close` was told. */
  #over = false;
  /** Wakes who takes what is sent to this end, when it is the client's and its Response was made. */
  #wake: (() => void) | undefined;
  onmessage: Heard | null = null;
  onclose: Heard | null = null;

  /** `wake` is called when there is a message for this end, and when it was closed. */
  drainInto(wake: () => void): void {
    this.#wake = wake;
  }

  /** How this end was closed. */
  get closed(): SocketClose | undefined {
    return this.#closed;
  }

  accept(): void {
    this.#accepted = true;
    for (let message = this.waiting.shift(); message !== undefined; message = this.waiting.shift())
      this.#tell('message', { data: message });
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

  /** Of what was sent, so much has not left: bytes, and characters of texts. */
  get bufferedAmount(): number {
    return this.peer?.waiting.size ?? 0;
  }

  /** Throws TypeError for a code that may not be sent, and for a reason of more than 123 bytes. */
  close(code = 1000, reason = ''): void {
    if (!this.#closed) {
      const close = [code, String(reason)];
      if (!isSocketClose(close))
        throw new TypeError(
          `a WebSocket is closed with a code such as 1000 or 4000, and at most 123 bytes; not ${code}`,
        );
      this.#closed = close;
    }
    this.peer?.ended(...this.#closed);
  }

  get readyState(): number {
    return this.#over ? 3 : this.#closed ? 2 : 1;
  }

  addEventListener(
    type: string,
    listener: Listener | null,
    options?: boolean | { once?: boolean; signal?: AbortSignal },
  ): void {
    const { once = false, signal } = typeof options === 'object' ? (options ?? {}) : {};
    const all = this.#listeners.get(type) ?? new Map<Listener, boolean>();
    if (!listener || signal?.aborted || all.has(listener)) return;
    this.#listeners.set(type, all.set(listener, Boolean(once)));
    signal?.addEventListener('abort', () => this.removeEventListener(type, listener), { once: true });
  }

  removeEventListener(type: string, listener: Listener): void {
    this.#listeners.get(type)?.delete(listener);
  }

  /** From the other end. */
  receive(message: Message): void {
    if (this.#closed) return;
    if (this.#accepted) this.#tell('message', { data: message });
    else {
      const fullest = this.waiting.bytes < ONE_BYTES ? undefined : tooFull(this);
      fullest?.overflow();
      if (fullest === this) return;
      this.waiting.push(message);
      this.#wake?.();
    }
  }

  /** The other end was closed, or broke off. What closed this end first is told, once. */
  ended(code: number, reason = ''): void {
    if (this.#over) return;
    this.#over = true;
    this.#closed ??= [code, reason];
    this.#wake?.();
    const [how, why] = this.#closed;
    this.#tell('close', { code: how, reason: why, wasClean: how !== BROKEN });
  }

  /** Nobody takes what is sent: both ends are closed, and what waits is let go of. */
  overflow(): void {
    this.waiting.clear();
    for (const end of [this, this.peer]) end?.ended(TOO_MUCH, 'too much waits to be read');
  }

  #tell(type: 'message' | 'close', event: Told): void {
    const whole = { type, target: this, ...event };
    const all = this.#listeners.get(type) ?? new Map<Listener, boolean>();
    const own = this[`on${type}`];
    for (const listener of [own, ...all.keys()])
      try {
        // One that another has removed meanwhile hears nothing.
        if (listener !== own && !all.has(listener!)) continue;
        if (all.get(listener!)) all.delete(listener!);
        if (typeof listener === 'function') listener.call(this as never, whole);
        else listener?.handleEvent(whole);
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
  let wake: (() => void) | undefined;
  let over = false;
  const notify = () => {
    wake?.();
    wake = undefined;
  };
  client.drainInto(notify);
  joined.add(client);
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
    let left = true;
    try {
      for (;;) {
        const message = client.waiting.shift();
        if (message !== undefined) yield message as Uint8Array;
        else if (over || client.closed) break;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
      left = false;
      // How the module closed it comes last.
      if (isSocketClose(client.closed)) yield client.closed as never;
    } finally {
      joined.delete(client);
      // Else what comes from the client says how it ended.
      if (left) client.peer?.ended(BROKEN);
    }
  })();
}
