/** Frames and resuming as docs/vectors/frames.json and resume.json have them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { describe, it } from 'node:test';
import { isError, LIMITS, ProtocolViolation, TooLarge } from '@hauki/protocol';
import { Channel } from '../src/channel.ts';
import { FrameReader, KIND } from '../src/frames.ts';
import { mac, macHolds } from '../src/handshake.ts';
import { resumeKey, resumeTranscript } from '../src/resume.ts';
import { Session } from '../src/session.ts';
import { memoryPair } from '../src/transports/memory.ts';
import { bufferUtf8, streamTransport } from '../src/transports/stream.ts';
import { tcpPair } from './support.ts';

interface Frame {
  name: string;
  hex: string;
  text?: string;
  bytes?: string;
  ack?: number;
  bye?: string;
}
const read = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../../docs/vectors/${name}.json`, import.meta.url), 'utf8'));
const vectors: { frames: Frame[]; malformed: Frame[] } = read('frames');

type Heard = Omit<Frame, 'name' | 'hex'>;

function reader(heard: Heard[]): FrameReader {
  return new FrameReader(
    {
      message: (text, bytes) => heard.push(bytes ? { text, bytes: Buffer.from(bytes).toString('base64') } : { text }),
      control: (kind, payload) => {
        const bytes = Buffer.from(payload);
        heard.push(kind === KIND.bye ? { bye: bytes.toString() } : { ack: Number(bytes.readBigUInt64BE()) });
      },
    },
    () => LIMITS.message_bytes,
    bufferUtf8,
  );
}

const meaning = ({ name, hex, ...rest }: Frame): Heard => rest;

describe('the vectors of frames', () => {
  for (const frame of vectors.frames) {
    it(`read: ${frame.name}`, () => {
      const heard: Heard[] = [];
      reader(heard).push(Buffer.from(frame.hex, 'hex'));
      assert.deepEqual(heard, [meaning(frame)]);
    });

    it(`write: ${frame.name}`, async () => {
      const stream = new PassThrough();
      const transport = streamTransport(stream);
      if (frame.text !== undefined)
        transport.send(frame.text, frame.bytes === undefined ? undefined : [Buffer.from(frame.bytes, 'base64')]);
      else if (frame.bye !== undefined) transport.control(KIND.bye, Buffer.from(frame.bye));
      else {
        const count = Buffer.alloc(8);
        count.writeBigUInt64BE(BigInt(frame.ack!));
        transport.control(KIND.ack, count);
      }
      let written = '';
      for await (const chunk of stream) {
        written += (chunk as Buffer).toString('hex');
        if (written.length >= frame.hex.length) break;
      }
      assert.equal(written, frame.hex);
    });
  }

  it('read the same one behind the other, byte by byte', () => {
    const heard: Heard[] = [];
    const frames = reader(heard);
    for (const byte of Buffer.from(vectors.frames.map(({ hex }) => hex).join(''), 'hex')) frames.push(Buffer.of(byte));
    assert.deepEqual(heard, vectors.frames.map(meaning));
  });

  for (const { name, hex } of vectors.malformed)
    it(`refuse: ${name}`, () => {
      const frames = reader([]);
      assert.throws(
        () => frames.push(Buffer.from(`${hex}00`, 'hex')),
        (thrown) => isError(thrown, ProtocolViolation),
      );
    });
});

describe('the largest message', () => {
  it('arrives, and whatever would not is refused by its sender', async (t) => {
    const pair = await tcpPair();
    t.after(() => pair.end());
    const caller = new Session({ transport: streamTransport(pair.a) });
    const length = (_: string, params: unknown) => (params as Uint8Array[])[0]!.length;
    const worker = new Session({ transport: streamTransport(pair.b), dispatch: length });
    let arrived = 0;
    for (const less of [64 * 1024, 16 * 1024, 4096, 256, 100, 80, 4, 0]) {
      const size = LIMITS.message_bytes - less;
      const called = caller.call('length', [new Uint8Array(size)], { timeout_ms: 60_000 });
      assert.equal(await called.then(Number, (error) => (isError(error, TooLarge) ? size : error)), size);
      if (await called.catch(() => 0)) arrived++;
    }
    assert.ok(arrived > 0 && arrived < 8);
    assert.equal(worker.open, true);
    caller.close();
    worker.close();
  });
});

describe('the vector of resuming', () => {
  const vector = read('resume');
  const { secret, jti, worker_nonce, caller_nonce, caller_received, worker_received } = vector.given;

  it('has the key, the transcripts and the proofs', async () => {
    const key = await resumeKey(secret, jti);
    assert.equal(key, vector.keys.resume_key);
    const said = resumeTranscript('caller', jti, worker_nonce, caller_nonce, caller_received);
    const answered = resumeTranscript('worker', jti, worker_nonce, caller_nonce, worker_received);
    assert.deepEqual([said, answered], [vector.caller_transcript, vector.worker_transcript]);
    assert.deepEqual([await mac(key, said), await mac(key, answered)], [vector.caller_proof, vector.worker_proof]);
    assert.equal(await macHolds(key, said, vector.worker_proof), false);
    const { params } = JSON.parse(vector.messages[2].text);
    assert.deepEqual(params, [
      { session: jti, nonce: caller_nonce, received: caller_received, proof: vector.caller_proof },
    ]);
    const { result } = JSON.parse(vector.messages[3].text);
    assert.deepEqual(result, { received: worker_received, proof: vector.worker_proof });
  });

  it('sends again what the other side lacks, and nothing else', async () => {
    const channel = new Channel();
    const [first] = memoryPair();
    channel.attach(first);
    for (const text of vector.caller_sent) channel.send(text);
    first.close('cut');
    const [second, far] = memoryPair();
    const heard: string[] = [];
    far.start({ message: (text) => heard.push(text), close: () => {}, control: () => {} });
    channel.attach(second, worker_received);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(heard, vector.caller_sends_again);
    channel.close();
  });
});
