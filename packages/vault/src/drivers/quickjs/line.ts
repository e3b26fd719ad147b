/**
 * The line of a thread of the vault host: straight to the agent, past the host's own loop, which would have to be woken for
 * each message. What agent and vaults say to each other goes over it; what starts and kills them goes by the host.
 *
 * What always holds: an agent hears a thread of its own host and nobody else, by a secret that the host was given; in each
 * direction messages come in the order in which they were sent, a vault's end behind its last words.
 */
import { timingSafeEqual } from 'node:crypto';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { LIMITS } from '@hauki/protocol';
import { type FrameTransport, randomText } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import type { Address, Down, Up } from './messages.ts';

/** A message of a session, and what stands before it. */
const MOST_BYTES = LIMITS.message_bytes + 4_096;
/** Connections that have not told the secret: as many as there can be threads that start at once, and some. */
const STRANGERS = 64;

/** One end of a line: it says `Out` and hears `In`. */
export class Line<In extends object, Out extends { text?: string; bytes?: Uint8Array | undefined }> {
  readonly #link: FrameTransport;
  /** Resolves when nothing more will be heard; never rejects. */
  readonly over: Promise<void>;

  constructor(link: FrameTransport, heard: (message: In) => void) {
    this.#link = link;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.over = promise;
    link.start({
      message(whole, bytes) {
        const end = whole.indexOf('\n');
        const message = JSON.parse(end < 0 ? whole : whole.slice(0, end));
        if (end >= 0) message.text = whole.slice(end + 1);
        // They are valid until this returns, and a message may wait.
        if (bytes) message.bytes = bytes.slice();
        heard(message);
      },
      close: () => resolve(),
    });
  }

  send({ text, bytes, ...message }: Out): void {
    const head = JSON.stringify(message);
    this.#link.send(text === undefined ? head : `${head}\n${text}`, bytes && [bytes]);
  }

  /** What has not left yet, in bytes. */
  get unsent(): number {
    return this.#link.buffered_bytes;
  }

  close(): void {
    this.#link.close();
  }
}

export type AgentLine = Line<Up, Down>;
export type ThreadLine = Line<Down, Up>;

/** The thread's end. `over` is called when the agent is gone. */
export function openLine(
  { secret, ...where }: Address,
  heard: (message: Down) => void,
  over: () => void,
): Promise<ThreadLine> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...where, noDelay: true } as never);
    socket.once('error', reject);
    socket.once('connect', () => {
      const link = streamTransport(socket, () => MOST_BYTES);
      link.send(secret);
      const line: ThreadLine = new Line(link, heard);
      void line.over.then(over);
      resolve(line);
    });
  });
}

/** What of each vault waits on a line: one that says more than the agent takes is told from its neighbours. */
export class Unsent {
  readonly #waiting: { id: string; size: number }[] = [];
  readonly #sums = new Map<string, number>();
  #sum = 0;

  /** A vault says so much more, behind `unsent` bytes of all of them. Gives what of it waits then. */
  add(id: string, size: number, unsent: number): number {
    // The oldest have left that what is unsent has no room for. A character has a byte at least: so none is let off early.
    for (let [first] = this.#waiting; first && this.#sum - first.size >= unsent; [first] = this.#waiting) {
      this.#waiting.shift();
      this.#sum -= first.size;
      const left = this.#sums.get(first.id)! - first.size;
      if (left > 0) this.#sums.set(first.id, left);
      else this.#sums.delete(first.id);
    }
    const sum = (this.#sums.get(id) ?? 0) + size;
    this.#sums.set(id, sum);
    this.#waiting.push({ id, size });
    this.#sum += size;
    return sum;
  }
}

/** Where the threads of one host come in. */
export class Lines {
  readonly #server: Server;
  readonly #secret = randomText(32);
  readonly #strangers = new Set<Socket>();

  /** `heard`: what a thread says, over which line. */
  constructor(heard: (message: Up, line: AgentLine) => void) {
    this.#server = createServer({ noDelay: true }, (socket) => this.#admit(socket, heard));
    this.#server.unref();
  }

  /** Rejects where it cannot listen. */
  async open(): Promise<Address> {
    const server = this.#server;
    // A name of the kernel's own leaves no file behind, however this process ends.
    const where = process.platform === 'linux' ? { path: `\0hauki-${randomText(16)}` } : { host: '127.0.0.1', port: 0 };
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(where, resolve);
    });
    const address = server.address();
    const to = typeof address === 'object' && address ? { host: '127.0.0.1', port: address.port } : where;
    return { ...(to as { path: string }), secret: this.#secret };
  }

  /** No thread comes any more; those that have come are the host's to end. */
  close(): void {
    this.#server.close();
    for (const socket of this.#strangers) socket.destroy();
  }

  #admit(socket: Socket, heard: (message: Up, line: AgentLine) => void): void {
    const strangers = this.#strangers;
    const timer = setTimeout(() => socket.destroy(), LIMITS.handshake_ms);
    const known = () => {
      clearTimeout(timer);
      strangers.delete(socket);
    };
    socket.once('close', known);
    strangers.add(socket);
    if (strangers.size > STRANGERS) strangers.values().next().value!.destroy();
    let let_in = false;
    const link = streamTransport(socket, () => (let_in ? MOST_BYTES : LIMITS.handshake_bytes));
    link.start({
      message: (text) => {
        if (!same(text, this.#secret)) return link.close('a stranger');
        let_in = true;
        known();
        const line: AgentLine = new Line(link, (message) => heard(message, line));
      },
      close: () => {},
    });
  }
}

function same(told: string, secret: string): boolean {
  const [a, b] = [Buffer.from(told), Buffer.from(secret)];
  return a.length === b.length && timingSafeEqual(a, b);
}
