/**
 * What every transport must do, whatever carries it (see `transport.ts`): whole messages, in order, at most once; the
 * end told exactly once; nothing lost that came before anyone listened.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Transport } from '../src/transport.ts';
import { settle, until } from './support.ts';

export interface TransportPair {
  a: Transport;
  b: Transport;
  /** Cuts the connection as a crash would, where the transport has such a thing. */
  cut?: () => void;
  end?(): Promise<void>;
}

class Ear {
  readonly heard: string[] = [];
  readonly closes: string[] = [];
  readonly events = {
    message: (text: string) => void this.heard.push(text),
    close: (reason: string) => void this.closes.push(reason),
  };
}

/** Any text that can stand in a message: JSON text is well-formed Unicode. */
const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 200 }),
  fc.string({ unit: 'grapheme', maxLength: 200 }),
  fc.json(),
  fc.constantFrom('', '\u0000', '\n', 'ä'.repeat(70_000), '😀'.repeat(20_000)),
);

export function transportConformance(
  name: string,
  makePair: () => Promise<TransportPair>,
  {
    runs = 40,
    breakable = true,
  }: { runs?: number /** Has a connection of its own that can break. */; breakable?: boolean } = {},
): void {
  const using = async (body: (pair: TransportPair) => Promise<void>) => {
    const pair = await makePair();
    try {
      await body(pair);
    } finally {
      pair.a.close();
      pair.b.close();
      await pair.end?.();
    }
  };

  describe(`transport conformance: ${name}`, () => {
    it('delivers any messages whole and in order, both ways at once', async () => {
      await using(async ({ a, b }) => {
        const ear_a = new Ear();
        const ear_b = new Ear();
        a.start(ear_a.events);
        b.start(ear_b.events);
        await fc.assert(
          fc.asyncProperty(
            fc.array(anyText, { maxLength: 8 }),
            fc.array(anyText, { maxLength: 8 }),
            async (to_b, to_a) => {
              ear_a.heard.length = 0;
              ear_b.heard.length = 0;
              for (const text of to_b) a.send(text);
              for (const text of to_a) b.send(text);
              await until(
                () => ear_b.heard.length >= to_b.length && ear_a.heard.length >= to_a.length,
                'all messages to arrive',
              );
              assert.deepEqual(ear_b.heard, to_b);
              assert.deepEqual(ear_a.heard, to_a);
            },
          ),
          { numRuns: runs },
        );
        assert.deepEqual([...ear_a.closes, ...ear_b.closes], []);
      });
    });

    it('keeps messages that came before anyone listened, and delivers them first', async () => {
      await using(async ({ a, b }) => {
        const ear = new Ear();
        a.start(new Ear().events);
        a.send('first');
        a.send('second');
        await settle();
        b.start(ear.events);
        a.send('third');
        await until(() => ear.heard.length === 3, 'three messages');
        assert.deepEqual(ear.heard, ['first', 'second', 'third']);
      });
    });

    it('sends what is queued before it closes, and tells the end exactly once on both sides', async () => {
      await using(async ({ a, b }) => {
        const ear_a = new Ear();
        const ear_b = new Ear();
        a.start(ear_a.events);
        b.start(ear_b.events);
        a.send('last words');
        a.close('enough');
        a.close('again');
        await until(() => ear_b.closes.length > 0, 'the end at the other side');
        b.close();
        await settle();
        assert.deepEqual(ear_b.heard, ['last words']);
        assert.deepEqual(ear_a.closes, ['enough']);
        assert.equal(ear_b.closes.length, 1);
      });
    });

    it('does nothing on send after close', async () => {
      await using(async ({ a, b }) => {
        const ear = new Ear();
        a.start(new Ear().events);
        b.start(ear.events);
        a.close();
        const carried = a.carried_bytes;
        a.send('too late');
        await until(() => ear.closes.length > 0, 'the end at the other side');
        b.send('to nobody');
        await settle();
        assert.deepEqual(ear.heard, []);
        assert.equal(a.carried_bytes, carried);
      });
    });

    it('tells a listener that comes after the end, once', async () => {
      await using(async ({ a, b }) => {
        const late = new Ear();
        b.start(new Ear().events);
        a.close('over');
        a.start(late.events);
        await settle();
        assert.deepEqual(late.closes, ['over']);
      });
    });

    it('delivers nothing more, and tells the end once, when the listener closes at an early message', async () => {
      await using(async ({ a, b }) => {
        const heard: string[] = [];
        let closes = 0;
        a.start(new Ear().events);
        for (const text of ['one', 'two', 'three']) a.send(text);
        await settle();
        b.start({
          message(text) {
            heard.push(text);
            b.close('seen enough');
          },
          close: () => void closes++,
        });
        await settle();
        assert.deepEqual(heard, ['one']);
        assert.equal(closes, 1);
      });
    });

    it('counts what it carries', async () => {
      await using(async ({ a, b }) => {
        const ear = new Ear();
        a.start(new Ear().events);
        b.start(ear.events);
        a.send('x'.repeat(1000));
        await until(() => ear.heard.length === 1, 'the message');
        assert.ok(a.carried_bytes >= 1000 && b.carried_bytes >= 1000);
        await until(() => a.buffered_bytes === 0, 'nothing left unsent');
      });
    });

    // Where there is no connection there is nothing to cut.
    if (breakable)
      it('tells the end once when the connection is cut', async () => {
        await using(async ({ a, b, cut }) => {
          assert.ok(cut, 'the suite needs a way to cut the connection');
          const ear_a = new Ear();
          const ear_b = new Ear();
          a.start(ear_a.events);
          b.start(ear_b.events);
          a.send('hello');
          await until(() => ear_b.heard.length === 1, 'the message');
          cut();
          await until(() => ear_a.closes.length > 0 && ear_b.closes.length > 0, 'both sides to hear of the end');
          await settle();
          assert.equal(ear_a.closes.length, 1);
          assert.equal(ear_b.closes.length, 1);
        });
      });
  });
}
