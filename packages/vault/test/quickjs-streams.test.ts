/** Streams, compression and events of quickjs vaults beside Node's own, which are the model; and what is hostile, in a vault. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { deflateRawSync, deflateSync, gunzipSync, gzipSync, inflateRawSync, inflateSync } from 'node:zlib';
import fc from 'fast-check';
import { ZIP } from '../src/guest/platform/limits.ts';
import { type Lab, openLab, type Worker } from './quickjs-support.ts';

/** Which TypeScript does not know yet. */
const from = (items: Iterable<unknown>): ReadableStream => (ReadableStream as any).from(items);

/** What is run in a vault and here, and has to come to the same. */
const PROGRAMS = {
  async pipes() {
    const said: unknown[] = [];
    const source = from([1, 2, 3]);
    const sink = new WritableStream({ write: (chunk) => void said.push(chunk), close: () => void said.push('closed') });
    const doubled = new TransformStream({ transform: (n, to) => to.enqueue(n * 2), flush: (to) => to.enqueue('end') });
    await source.pipeThrough(doubled).pipeTo(sink, { preventClose: true });
    said.push(source.locked, sink.locked);
    await sink.close();
    return said;
  },
  async 'what a transformer throws'() {
    class Broken {
      says = 'broken';
      transform() {
        throw new RangeError(this.says);
      }
    }
    let cancelled: unknown;
    const source = new ReadableStream({
      pull: (to) => to.enqueue('x'),
      cancel: (why) => {
        cancelled = `${why}`;
      },
    });
    const reader = source.pipeThrough(new TransformStream(new Broken())).getReader();
    const failed = await reader.read().catch((error: Error) => `${error}`);
    return [failed, await reader.closed.catch((error: Error) => `${error}`), cancelled];
  },
  async 'room for more'() {
    const said: unknown[] = [];
    let wrote: (() => void) | undefined;
    const sink = new WritableStream(
      {
        write: () =>
          new Promise<void>((resolve) => {
            wrote = resolve;
          }),
      },
      new CountQueuingStrategy({ highWaterMark: 2 }),
    );
    const writer = sink.getWriter();
    said.push(writer.desiredSize);
    const writes = [writer.write('a'), writer.write('b')];
    said.push(writer.desiredSize);
    const ready = writer.ready.then(() => said.push('ready'));
    await new Promise((resolve) => setTimeout(resolve, 1));
    said.push('waits');
    for (let i = 0; i < 2; i++) {
      wrote!();
      await writes[i];
    }
    await ready;
    said.push(writer.desiredSize);
    await writer.abort('enough');
    return [...said, await writer.closed.catch((why: unknown) => why)];
  },
  async 'two of one'() {
    const [one, other] = from(['a', 'b', 'c']).tee();
    const first: unknown[] = [];
    for await (const item of one.values({ preventCancel: true })) {
      first.push(item);
      if (first.length === 2) break;
    }
    const second: unknown[] = [];
    for await (const item of other) second.push(item);
    return [first, second, one.locked, await one.getReader().read()];
  },
  async 'bytes into a buffer'() {
    let n = 0;
    const source = new ReadableStream({
      type: 'bytes',
      pull(to) {
        if (n === 3) to.close();
        else to.enqueue(Uint8Array.of(n++, n));
        to.byobRequest?.respond(0);
      },
    });
    const reader = source.getReader({ mode: 'byob' });
    const read: unknown[] = [];
    const { value, done } = await reader.read(new Uint8Array(8));
    read.push([...value!], done);
    return read;
  },
  async 'a pipe that is cut'() {
    const controller = new AbortController();
    let cancelled: unknown;
    const source = new ReadableStream({
      cancel: (why) => {
        cancelled = why.name;
      },
    });
    const piped = source.pipeTo(new WritableStream(), { signal: controller.signal });
    controller.abort();
    return [await piped.catch((error: Error) => error.name), cancelled];
  },
  async 'text in pieces'() {
    const text = 'grün 😀 \ud83d!';
    const bytes = new TextEncoder().encode(text);
    const pieces = Array.from(bytes, (_, i) => bytes.slice(i, i + 1));
    const decoded: string[] = [];
    for await (const part of from(pieces).pipeThrough(new TextDecoderStream())) decoded.push(part);
    const encoded: number[] = [];
    const halves = from([...Array.from({ length: text.length }, (_, i) => text[i]), '\ud83d']);
    for await (const part of halves.pipeThrough(new TextEncoderStream())) encoded.push(...(part as Uint8Array));
    const wrong = from([Uint8Array.of(0xff)]).pipeThrough(new TextDecoderStream('utf-8', { fatal: true }));
    const { encoding, fatal, ignoreBOM } = new TextDecoderStream('UTF8', { ignoreBOM: true });
    return [
      decoded.join(''),
      encoded,
      [encoding, fatal, ignoreBOM],
      await wrong
        .getReader()
        .read()
        .catch((error: Error) => error.name),
    ];
  },
  async bodies() {
    const said: unknown[] = [];
    const read = async (stream: any) => {
      let all = '';
      for await (const part of stream.pipeThrough(new TextDecoderStream())) all += part;
      return all;
    };
    said.push(await read(new Response('whole').body));
    const parts = () => from([new TextEncoder().encode('in '), new TextEncoder().encode('parts')]);
    const response = new Response(parts() as never);
    said.push(response.body instanceof ReadableStream, response.body!.locked);
    const copy = response.clone();
    said.push(await copy.text(), await read(response.body), response.bodyUsed);
    said.push(await response.text().catch((error: Error) => error.name));
    const locked = new Response(parts() as never);
    locked.body!.getReader();
    said.push(await locked.text().catch((error: Error) => error.name));
    const upper = new TransformStream({ transform: (text, to) => to.enqueue(text.toUpperCase()) });
    const through = new Response('loud').body!.pipeThrough(new TextDecoderStream()).pipeThrough(upper);
    said.push(await new Response(through.pipeThrough(new TextEncoderStream()) as never).text());
    const request = new Request('http://a/', { method: 'POST', body: 'asked' });
    const [one, other] = request.body!.tee();
    said.push(await new Response(one).text(), await new Response(other).text());
    return said;
  },
  async 'packed and unpacked'() {
    const said: unknown[] = [];
    for (const format of ['gzip', 'deflate', 'deflate-raw'] as const) {
      const packed = new Response('so '.repeat(50_000)).body!.pipeThrough(new CompressionStream(format));
      const text = await new Response(packed.pipeThrough(new DecompressionStream(format))).text();
      said.push(text.length);
    }
    const wrong = new Response('no gzip').body!.pipeThrough(new DecompressionStream('gzip'));
    said.push(await new Response(wrong).text().catch((error: Error) => error.name));
    try {
      new CompressionStream('zip' as never);
    } catch (error) {
      said.push((error as Error).name);
    }
    return said;
  },
};
type Name = keyof typeof PROGRAMS;

/** What the DOM standard says of targets; Node's also tells those that are added meanwhile. */
async function events(): Promise<unknown[]> {
  const said: unknown[] = [];
  const target = new EventTarget();
  const told = (name: string) => (event: Event) => void said.push([name, event.type, event.currentTarget === target]);
  const gone = told('gone');
  const left = new AbortController();
  target.addEventListener('a', (event) => {
    event.preventDefault();
    target.removeEventListener('a', gone);
    target.addEventListener('a', told('too late'), { once: true });
  });
  target.addEventListener('a', gone);
  target.addEventListener('a', told('once'), { once: true });
  const twice = told('twice');
  target.addEventListener('a', twice);
  target.addEventListener('a', twice, { passive: true });
  target.addEventListener('a', { handleEvent: told('object') });
  target.addEventListener('a', told('left'), { signal: left.signal });
  target.addEventListener('a', told('never'), { signal: AbortSignal.abort() });
  const event = new Event('a', { cancelable: true });
  said.push(target.dispatchEvent(event), event.defaultPrevented, event.target === target, event.currentTarget);
  left.abort();
  said.push(target.dispatchEvent(new Event('a')));
  target.addEventListener('b', (event) => event.stopImmediatePropagation());
  target.addEventListener('b', told('stopped'));
  target.addEventListener('b', null);
  said.push(target.dispatchEvent(new CustomEvent('b', { detail: { n: 1 } })));
  const { type, detail, bubbles } = new CustomEvent('c', { detail: [1], bubbles: true });
  said.push(type, detail, bubbles, new CustomEvent('d').detail, new CustomEvent('d') instanceof Event);
  class Clock extends EventTarget {
    tick() {
      return this.dispatchEvent(new Event('tick'));
    }
  }
  const clock = new Clock();
  clock.addEventListener('tick', () => void said.push('tick'));
  const told_all = clock.tick();
  return [...said, told_all, `${clock}`, `${event}`];
}

const SOURCE = `
  const from = ${from};
  ${events}
  export { events };
  const programs = {${Object.values(PROGRAMS).map(String).join(',\n')}};
  export const run = (name) => programs[name]();
  const through = async (chunks, stream) => {
    const all = [];
    for await (const chunk of ReadableStream.from(chunks).pipeThrough(stream)) all.push(chunk);
    return all;
  };
  export const pack = (format, chunks) => through(chunks, new CompressionStream(format));
  export const unpack = async (format, chunks) =>
    new Response(ReadableStream.from(chunks).pipeThrough(new DecompressionStream(format))).bytes();
  export const later = () => {
    const { readable, writable } = new CompressionStream('gzip');
    const writer = writable.getWriter();
    writer.write(new TextEncoder().encode('first'));
    return readable.getReader().read();
  };
`;

const ZIPS = {
  gzip: [gzipSync, gunzipSync],
  deflate: [deflateSync, inflateSync],
  'deflate-raw': [deflateRawSync, inflateRawSync],
} as const;
type Format = keyof typeof ZIPS;
const FORMATS = Object.keys(ZIPS) as Format[];

describe('streams of quickjs vaults', () => {
  let lab: Lab;
  let worker: Worker;
  before(async () => {
    lab = await openLab('streams');
    worker = await lab.worker(SOURCE, { memory_mib: 64 });
  });
  after(() => lab[Symbol.asyncDispose]());

  for (const name of Object.keys(PROGRAMS) as Name[])
    it(`has the same of ${name} as Node`, async () => {
      assert.deepEqual(await worker.call('run', name), await PROGRAMS[name]());
    });

  it('tells listeners of an event in their order, those that were there and still are, and each as it asked for', async () => {
    const a = (name: string) => [name, 'a', true];
    assert.deepEqual(await worker.call('events'), [
      ...['once', 'twice', 'object', 'left'].map(a),
      ...[false, true, true, null],
      ...['twice', 'object', 'too late'].map(a),
      ...[true, true],
      ...['c', [1], true, null, true],
      ...['tick', true, '[object EventTarget]', '[object Event]'],
    ]);
  });

  it('packs what Node unpacks, in whatever chunks it comes, and unpacks what Node packs', async () => {
    const chunks = fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 2_000 }),
        fc.string().map((text) => Buffer.from(text.repeat(99))),
      ),
    );
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...FORMATS), chunks, async (format, all) => {
        const whole = Buffer.concat(all);
        const [zip, unzip] = ZIPS[format];
        const given = all.map((chunk) => Uint8Array.from(chunk));
        const packed = Buffer.concat(await worker.call('pack', format, given));
        assert.deepEqual(unzip(packed), whole);
        const unpacked = await worker.call('unpack', format, [Uint8Array.from(zip(whole))]);
        assert.deepEqual(Buffer.from(unpacked), whole);
      }),
      { numRuns: 60 },
    );
  });

  it('refers back over the bounds of chunks and pieces', async () => {
    const noise = crypto.getRandomValues(new Uint8Array(20_000));
    const packed = Buffer.concat(await worker.call('pack', 'gzip', [noise, noise, noise]));
    assert.ok(packed.length < 21_000, `${packed.length} bytes`);
    assert.deepEqual(gunzipSync(packed), Buffer.concat([noise, noise, noise]));
    const large = Buffer.alloc(3 * ZIP.piece_bytes + 7, 'all of a piece ');
    const [made] = [Buffer.concat(await worker.call('pack', 'deflate', [Uint8Array.from(large)]))];
    assert.deepEqual(inflateSync(made), large);
    assert.ok(made.length < 5_000, `${made.length} bytes`);
  });

  it('gives each chunk at once, as whoever waits for events needs it', async () => {
    const { value, done } = await worker.call('later');
    assert.deepEqual([done, [...value.slice(0, 3)]], [false, [0x1f, 0x8b, 8]]);
  });

  it('refuses what is cut off, goes on behind its end, or is another format', async () => {
    const whole = gzipSync('something');
    const refused = async (format: Format, bytes: Uint8Array) =>
      assert.rejects(worker.call('unpack', format, [Uint8Array.from(bytes)]), /the compressed data was not valid/);
    for (const format of FORMATS) await refused(format, ZIPS[format][0]('something').subarray(0, -1));
    await refused('gzip', Buffer.concat([whole, Buffer.from('more')]));
    await refused('deflate', whole);
    await refused('gzip', new Uint8Array(0));
  });

  it('unpacks no more than a bound, and goes on serving', async () => {
    const bomb = gzipSync(Buffer.alloc(ZIP.bytes + 1));
    await assert.rejects(
      worker.call('unpack', 'gzip', [Uint8Array.from(bomb)]),
      new RegExp(`at most ${ZIP.bytes} bytes are unpacked here`),
    );
    const most = await worker.call('run', 'packed and unpacked');
    assert.equal(most[0], 150_000);
  });
});
