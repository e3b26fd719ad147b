/**
 * irc-framework's transport over a byte stream that the vault was granted: lines out, lines in.
 *
 * What always holds: no line that is written holds a line break, so that nobody's text becomes a command; what waits to
 * be written, and a line that never ends, are bounded: past that the connection is over.
 */

export interface ByteStream {
  readonly readable: AsyncIterable<Uint8Array>;
  write(chunk: string): Promise<void>;
  end(): void;
  close(): void;
}

/** Lines written and not yet on their way. */
const WAITING = 64;
/** RFC 2812 allows 512 bytes; IRCv3 tags, 8191 more. */
const LINE_BYTES = 16 * 1024;
const NEWLINE = 10;

/** Cuts bytes into lines, whatever pieces they come in. Throws where a line does not end. */
export class LineCutter {
  #rest = new Uint8Array(0);
  readonly #decoder = new TextDecoder();

  *cut(piece: Uint8Array): Generator<string> {
    const all = new Uint8Array(this.#rest.length + piece.length);
    all.set(this.#rest);
    all.set(piece, this.#rest.length);
    let from = 0;
    for (let at = all.indexOf(NEWLINE); at >= 0; at = all.indexOf(NEWLINE, from)) {
      const line = this.#decoder.decode(all.subarray(from, at)).replace(/\r+$/, '');
      from = at + 1;
      if (line !== '') yield line;
    }
    this.#rest = all.slice(from);
    if (this.#rest.length > LINE_BYTES) throw new Error(`a line of the server is longer than ${LINE_BYTES} bytes`);
  }
}

type Listener = (...args: any[]) => void;

/** The class that irc-framework makes a connection with. */
export function transportOver(dial: () => Promise<ByteStream>) {
  return class Transport {
    readonly #listeners = new Map<string, Listener[]>();
    #stream: ByteStream | undefined;
    #over = false;
    #waiting = 0;

    on(event: string, run: Listener): void {
      this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), run]);
    }

    removeAllListeners(): void {
      this.#listeners.clear();
    }

    #emit(event: string, ...args: unknown[]): void {
      for (const run of this.#listeners.get(event) ?? []) run(...args);
    }

    isConnected(): boolean {
      return this.#stream !== undefined && !this.#over;
    }

    connect(): void {
      void this.#run();
    }

    async #run(): Promise<void> {
      try {
        const stream = await dial();
        if (this.#over) return stream.close();
        this.#stream = stream;
        this.#emit('open');
        const cutter = new LineCutter();
        for await (const piece of stream.readable) for (const line of cutter.cut(piece)) this.#emit('line', line);
        this.#end(false);
      } catch (error) {
        this.#end(error instanceof Error ? error : new Error(String(error)));
      }
    }

    writeLine(line: string, done: () => void = () => {}): void {
      const stream = this.#stream;
      if (!stream || this.#over) return;
      if (++this.#waiting > WAITING) return this.#end(new Error('the server takes nothing in'));
      stream.write(`${line.replace(/[\r\n\0]+/g, ' ')}\r\n`).then(
        () => {
          this.#waiting--;
          done();
        },
        (error) => this.#end(error),
      );
    }

    #end(error: Error | false): void {
      if (this.#over) return;
      this.#over = true;
      this.#stream?.close();
      this.#emit('close', error);
    }

    /** Nothing more is written; what was written still goes out. */
    close(): void {
      const stream = this.#stream;
      stream?.end();
      this.#stream = undefined;
      if (this.#over) return;
      this.#over = true;
      // A server that was told QUIT ends the connection; one that is gone is not waited for.
      setTimeout(() => stream?.close(), 1_000);
      this.#emit('close', false);
    }

    disposeSocket(): void {
      this.#over = true;
      this.#stream?.close();
    }

    setEncoding(encoding: string): boolean {
      return /^utf-?8$/i.test(encoding);
    }
  };
}
