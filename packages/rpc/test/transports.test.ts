/** Every transport against the one suite, and what only frames over a stream can get wrong. */
import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FRAMES_AT_ONCE } from '../src/frames.ts';
import { memoryPair } from '../src/transports/memory.ts';
import { type PortTransport, portTransport } from '../src/transports/port.ts';
import { streamTransport } from '../src/transports/stream.ts';
import { settle, tcpPair, tornPair, until } from './support.ts';
import { transportConformance } from './transport-conformance.ts';

transportConformance(
  'memory',
  async () => {
    const [a, b] = memoryPair();
    return { a, b };
  },
  { breakable: false },
);

transportConformance('port', async () => {
  // A channel between them that posts on a later turn, as an IPC channel does.
  const join = (other: () => PortTransport) =>
    portTransport(
      (text) => setImmediate(() => other().deliver(text)),
      (reason) => setImmediate(() => other().closed(reason)),
    );
  const a: PortTransport = join(() => b);
  const b: PortTransport = join(() => a);
  return {
    a,
    b,
    cut() {
      a.closed('the channel broke');
      b.closed('the channel broke');
    },
  };
});

transportConformance('frames over TCP', async () => {
  const { a, b, end } = await tcpPair();
  return { a: streamTransport(a), b: streamTransport(b), cut: () => a.destroy(), end };
});

let seed = 1;
/** Small pieces mostly, some large ones, so that long messages still arrive. */
const piece = () => {
  seed = (seed * 1103515245 + 12345) % 0x80000000;
  const draw = seed / 0x80000000;
  return draw < 0.5 ? 1 + Math.floor(draw * 14) : Math.floor(draw * 60_000);
};

transportConformance(
  'frames over TCP, torn apart on the way',
  async () => {
    const { a, b, end } = await tornPair(piece);
    return { a: streamTransport(a), b: streamTransport(b), cut: () => a.destroy(), end };
  },
  { runs: 25 },
);

const frame = (payload: Buffer | string, kind = 1): Buffer => {
  const body = Buffer.from(payload as string);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length + 1);
  head[4] = kind;
  return Buffer.concat([head, body]);
};

/** A stream into which a test pushes bytes, and which keeps what is written. */
function loop(): Duplex & { written: Buffer[] } {
  const written: Buffer[] = [];
  const stream = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      written.push(chunk);
      done();
    },
  });
  return Object.assign(stream, { written });
}

const listen = (stream: Duplex, limit?: () => number) => {
  const transport = streamTransport(stream, limit);
  const heard: string[] = [];
  const closes: string[] = [];
  transport.start({ message: (text) => void heard.push(text), close: (reason) => void closes.push(reason) });
  return { transport, heard, closes };
};

describe('frames over a stream', () => {
  it('gives the same messages wherever the bytes are split', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ unit: 'grapheme', maxLength: 30 }), { minLength: 1, maxLength: 6 }),
        fc.array(fc.nat({ max: 400 }), { maxLength: 20 }),
        async (texts, cuts) => {
          const stream = loop();
          const { heard, closes } = listen(stream);
          const bytes = Buffer.concat(texts.map((text) => frame(text)));
          let from = 0;
          for (const cut of [...cuts.filter((c) => c < bytes.length).sort((x, y) => x - y), bytes.length]) {
            if (cut > from) stream.push(bytes.subarray(from, cut));
            from = Math.max(from, cut);
            await new Promise((resolve) => setImmediate(resolve));
          }
          await settle(3);
          assert.deepEqual(heard, texts);
          assert.deepEqual(closes, []);
          stream.destroy();
        },
      ),
      { numRuns: 100 },
    );
  });

  it('begins every frame with a zero byte, and counts kind and payload in its length', async () => {
    const stream = loop();
    const { transport } = listen(stream);
    transport.send('{"ä":1}');
    await settle();
    assert.deepEqual(Buffer.concat(stream.written), frame('{"ä":1}'));
    assert.equal(stream.written[0]![0], 0);
  });

  it('puts the messages of one turn into as few writes as pay off', async () => {
    const stream = loop();
    const { transport } = listen(stream);
    for (let i = 0; i < 500; i++) transport.send(`message ${i}`);
    assert.ok(transport.buffered_bytes > 0);
    await settle();
    const writes = Math.ceil(500 / FRAMES_AT_ONCE);
    assert.equal(stream.written.length, writes);
    transport.send('another turn');
    await settle();
    assert.equal(stream.written.length, writes + 1);
    assert.equal(transport.buffered_bytes, 0);
  });

  const bad: [string, Buffer][] = [
    ['a length of zero', Buffer.from([0, 0, 0, 0, 1])],
    ['a length beyond the limit', Buffer.from([0, 0x90, 0, 0, 1])],
    ['a length of all ones', Buffer.from([0xff, 0xff, 0xff, 0xff, 1])],
    ['an unknown kind', frame('{}', 7)],
    ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['a line of JSON', Buffer.from('{"jsonrpc":"2.0","method":"x"}\n')],
  ];
  for (const [what, bytes] of bad)
    it(`ends the connection at ${what}, after delivering what was whole before it`, async () => {
      const stream = loop();
      const { heard, closes } = listen(stream);
      stream.push(Buffer.concat([frame('good'), bytes, frame('never')]));
      await until(() => stream.destroyed, 'the stream to be destroyed');
      assert.deepEqual(heard, ['good']);
      assert.equal(closes.length, 1);
      assert.match(closes[0]!, /frame of/);
    });

  it('asks for the limit at each message, so that it can be lifted', async () => {
    const stream = loop();
    let limit = 10;
    const { heard, closes } = listen(stream, () => limit);
    stream.push(frame('x'.repeat(10)));
    await settle();
    limit = 100;
    stream.push(frame('y'.repeat(100)));
    await settle();
    assert.equal(heard.length, 2);
    stream.push(frame('z'.repeat(101)));
    await settle();
    assert.equal(heard.length, 2);
    assert.equal(closes.length, 1);
  });

  it('survives any bytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 8 }), async (chunks) => {
        const stream = loop();
        const { closes } = listen(stream);
        for (const chunk of chunks) if (!stream.destroyed) stream.push(Buffer.from(chunk));
        await settle(3);
        assert.ok(closes.length <= 1);
        stream.destroy();
      }),
      { numRuns: 300 },
    );
  });
});
