/**
 * Streams (Streams standard), with those of text and of compression: loaded into a QuickJS vault when one is first touched,
 * or a body is read as one. Apart from the rest of the platform, because most plugins have none.
 */
import * as standard from 'web-streams-polyfill';
import { type CompressionPowers, compressor, decompressor } from './platform/compression.ts';
import type { Platform, PlatformPowers } from './vm-platform.ts';

type Ended = new (...given: any[]) => { readable: standard.ReadableStream; writable: standard.WritableStream };

export interface Streams extends Omit<typeof standard, 'default'> {
  CompressionStream: Ended;
  DecompressionStream: Ended;
  TextDecoderStream: Ended;
  TextEncoderStream: Ended;
}

/** `platform` is there by now. */
export function makeStreams(
  powers: CompressionPowers,
  { TextDecoder, TextEncoder, isBody }: Pick<Platform, 'TextDecoder' | 'TextEncoder' | 'isBody'>,
): Streams {
  const { ReadableStream, TransformStream } = standard;
  // A body is a stream from when it is taken for one.
  Object.defineProperty(ReadableStream, Symbol.hasInstance, {
    value: (given: unknown) => Function.prototype[Symbol.hasInstance].call(ReadableStream, given) || isBody(given),
  });

  /** Something with two ends, between which a transformer stands. */
  class Ends {
    readonly #through: InstanceType<typeof TransformStream>;
    constructor(transformer: Transformer) {
      this.#through = new TransformStream(transformer);
    }
    get readable() {
      return this.#through.readable;
    }
    get writable() {
      return this.#through.writable;
    }
  }

  class CompressionStream extends Ends {
    constructor(format: unknown) {
      super(compressor(format, powers));
    }
  }

  class DecompressionStream extends Ends {
    constructor(format: unknown) {
      super(decompressor(format, powers));
    }
  }

  class TextDecoderStream extends Ends {
    readonly #decoder: InstanceType<typeof TextDecoder>;
    constructor(label?: unknown, options?: { fatal?: unknown; ignoreBOM?: unknown }) {
      const decoder = new TextDecoder(label, options);
      const give = (text: string, to: TransformStreamDefaultController) => void (text !== '' && to.enqueue(text));
      super({
        transform: (chunk, to) => give(decoder.decode(chunk, { stream: true }), to),
        flush: (to) => give(decoder.decode(), to),
      });
      this.#decoder = decoder;
    }
    get encoding(): string {
      return this.#decoder.encoding;
    }
    get fatal(): boolean {
      return this.#decoder.fatal;
    }
    get ignoreBOM(): boolean {
      return this.#decoder.ignoreBOM;
    }
  }

  class TextEncoderStream extends Ends {
    constructor() {
      const encoder = new TextEncoder();
      /** The first half of a character whose second comes with the next chunk. */
      let half = '';
      super({
        transform(chunk, to) {
          const text = half + String(chunk);
          half = /[\ud800-\udbff]$/.test(text) ? text.slice(-1) : '';
          const whole = half === '' ? text : text.slice(0, -1);
          if (whole !== '') to.enqueue(encoder.encode(whole));
        },
        flush: (to) => void (half !== '' && to.enqueue(encoder.encode(half))),
      });
    }
    get encoding(): string {
      return 'utf-8';
    }
  }
  return { ...standard, CompressionStream, DecompressionStream, TextDecoderStream, TextEncoderStream };
}

const powers = (globalThis as unknown as { __platform?: PlatformPowers }).__platform;
if (powers?.platform) {
  powers.made_streams = makeStreams(powers, powers.platform);
  for (const [name, value] of Object.entries(powers.made_streams))
    if (!(name in globalThis)) Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
}
