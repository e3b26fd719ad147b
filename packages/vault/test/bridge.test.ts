/** The bridge's frames: whatever is sent arrives as it was, however the stream is cut; what is no frame ends it. */
import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { describe, it } from 'node:test';
import { LIMITS } from '@hauki/protocol';
import fc from 'fast-check';
import { BRIDGE, Bridge } from '../src/guest/bridge.ts';

type Frame = [kind: number, channel: number, text: string, bytes?: number[]];

/** A bridge that hears what is written to `wire`. */
function listening() {
  const frames: Frame[] = [];
  const ends: [string, boolean][] = [];
  const [stream, wire] = duplexPair();
  wire.resume();
  new Bridge(stream, {
    frame: (kind, channel, text, bytes) => frames.push([kind, channel, text, ...(bytes ? [[...bytes]] : [])] as Frame),
    ended: (reason, violated) => ends.push([reason, violated]),
  });
  return { wire, frames, ends };
}

/** The bytes of frames, as a bridge sends them. */
async function sent(frames: Frame[]): Promise<Buffer> {
  const [stream, out] = duplexPair();
  const bridge = new Bridge(stream, {
    frame: () => {},
    ended: () => {},
  });
  const left = frames.map(
    ([kind, channel, text, bytes]) =>
      new Promise<void>((resolve) =>
        bridge.send(kind, channel, text, bytes && [Uint8Array.from(bytes)], () => resolve()),
      ),
  );
  const chunks: Buffer[] = [];
  out.on('data', (chunk: Buffer) => chunks.push(chunk));
  await Promise.all(left);
  await new Promise((resolve) => setImmediate(resolve));
  return Buffer.concat(chunks);
}

const channels = fc.nat({ max: 0xffffffff });
const frame = fc.oneof(
  fc.tuple(
    fc.constantFrom(BRIDGE.literal, BRIDGE.open, BRIDGE.close, BRIDGE.pressure),
    channels,
    fc.string({ unit: 'grapheme' }),
  ),
  fc.tuple(fc.constant(BRIDGE.tagged), channels, fc.string({ unit: 'grapheme' }), fc.array(fc.nat({ max: 255 }))),
) as fc.Arbitrary<Frame>;

describe('the bridge', () => {
  it('delivers frames whole and in order, however the stream is cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(frame, { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1 }),
        async (frames, cuts) => {
          const bytes = await sent(frames);
          const heard = listening();
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const size = cuts[i % cuts.length]!;
            heard.wire.write(bytes.subarray(at, at + size));
            at += size;
          }
          heard.wire.end();
          await new Promise((resolve) => heard.wire.once('close', resolve));
          await new Promise((resolve) => setImmediate(resolve));
          assert.deepEqual(heard.frames, frames);
          assert.equal(heard.ends[0]?.[1] ?? false, false);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('never throws, and ends at what is no frame', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (bytes) => {
        const heard = listening();
        heard.wire.end(bytes);
        await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
        for (const [kind] of heard.frames) assert.ok(kind >= 0 && kind <= 255);
        assert.ok(heard.ends.length <= 1);
      }),
      { numRuns: 100 },
    );
  });

  it('takes a message of the greatest length, and not one byte more', async () => {
    const header = (length: number) => {
      const bytes = Buffer.alloc(9);
      bytes.writeUInt32BE(length);
      bytes[4] = BRIDGE.literal;
      return bytes;
    };
    for (const [over, ended] of [
      [0, false],
      [1, true],
    ] as const) {
      const heard = listening();
      heard.wire.write(header(LIMITS.message_bytes + 5 + over));
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(heard.ends.length > 0, ended);
    }
  });
});
