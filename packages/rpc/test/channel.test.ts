/** Channels: what they promise about numbers, acknowledgements and endings, one case each; `faults.test.ts` mixes them. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KIND } from '../src/frames.ts';
import { Channel, memoryPair } from '../src/index.ts';
import type { FrameTransport, TransportEvents } from '../src/transport.ts';
import { settle, until } from './support.ts';

/** Two channels over a first connection, and what each has heard. */
function pair() {
  const heard = { left: [] as string[], right: [] as string[] };
  const ends: string[] = [];
  const cuts = { left: 0, right: 0 };
  const left = new Channel(() => void cuts.left++);
  const right = new Channel(() => void cuts.right++);
  const join = (left_told = left.received, right_told = right.received) => {
    const [a, b] = memoryPair();
    right.attach(b, left_told, right_told);
    left.attach(a, right_told, left_told);
    return [a, b] as const;
  };
  const links = join();
  left.start({ message: (text) => heard.left.push(text), close: (reason) => ends.push(`left: ${reason}`) });
  right.start({ message: (text) => heard.right.push(text), close: (reason) => ends.push(`right: ${reason}`) });
  return { left, right, heard, ends, cuts, links, join };
}

describe('a channel', () => {
  it('carries on over another connection what one did not carry', async () => {
    const { left, right, heard, cuts, links, join } = pair();
    left.send('1');
    await settle();
    links[0].close('cut');
    left.send('2');
    right.send('a');
    await settle();
    assert.deepEqual([heard.right, heard.left, cuts], [['1'], [], { left: 1, right: 1 }]);
    join();
    left.send('3');
    await settle();
    assert.deepEqual([heard.right, heard.left], [['1', '2', '3'], ['a']]);
    left.close();
  });

  it('skips what the older connection still carried after its count was told, and says soon that it has it', async () => {
    const { left, right, heard, join } = pair();
    left.send('1');
    await settle();
    const told = right.received;
    left.send('2');
    left.send('3');
    await settle();
    assert.equal(left.buffered_bytes, 3);
    join(left.received, told);
    await settle();
    assert.deepEqual(heard.right, ['1', '2', '3']);
    // Nothing more is sent, and yet the sender learns that it need not keep them.
    await until(() => left.buffered_bytes === 0, 'all is acknowledged');
    left.close();
  });

  it('tells at once that it has what is much, counted from when it told last, and of less a moment later', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const channel = new Channel();
    const told: number[] = [];
    let come: TransportEvents['message'] = () => {};
    channel.attach({
      start: ({ message }) => {
        come = message;
      },
      control: (kind, payload) => {
        assert.equal(kind, KIND.ack);
        told.push(Number(new DataView(payload.buffer, payload.byteOffset).getBigUint64(0)));
      },
      send: () => {},
      close: () => {},
      carried_bytes: 0,
    } as Partial<FrameTransport> as FrameTransport);
    const [half, much] = [128 * 1024, 256 * 1024];
    for (let i = 1; i < 64; i++) come('small');
    assert.deepEqual(told, []);
    come('small');
    assert.deepEqual(told, [64]);
    come('x'.repeat(much - 1));
    assert.deepEqual(told, [64]);
    come('x');
    assert.deepEqual(told, [64, 66]);
    come('', new Uint8Array(much - 1));
    assert.deepEqual(told, [64, 66]);
    come('x');
    assert.deepEqual(told, [64, 66, 68]);
    come('x'.repeat(half), new Uint8Array(half));
    assert.deepEqual(told, [64, 66, 68, 69]);
    come('small');
    t.mock.timers.tick(49);
    come('small');
    assert.deepEqual(told, [64, 66, 68, 69]);
    t.mock.timers.tick(1);
    assert.deepEqual(told, [64, 66, 68, 69, 71]);
    t.mock.timers.tick(1_000);
    assert.deepEqual(told, [64, 66, 68, 69, 71], 'what was told is not told again');
    channel.fail('enough');
  });

  it('ends by an acknowledgement that is no number', async () => {
    for (const length of [0, 7, 9]) {
      const { links, ends } = pair();
      links[1].control(KIND.ack, new Uint8Array(length));
      await settle();
      assert.match(ends.join(), /left: .*an acknowledgement that is no number/);
    }
  });

  it('lets go of its older connection too, when it ends before another has come', async () => {
    const { left, right, cuts } = pair();
    left.detach();
    await settle();
    assert.deepEqual([right.attached, cuts.right], [true, 0]);
    left.fail('it was given up');
    await settle();
    assert.deepEqual([right.attached, cuts.right], [false, 1]);
    right.close();
  });

  it('acknowledges nothing between its promise and the connection that it was made for', async () => {
    const { left, right } = pair();
    const promised = right.promise();
    for (let i = 0; i < 200; i++) left.send('x');
    await settle();
    assert.equal(right.received, 200);
    assert.ok(left.canResume(promised), 'what was promised still holds');
    right.forgo();
    await settle();
    assert.equal(left.buffered_bytes, 0);
    assert.ok(!left.canResume(promised) && left.isOvertaken(promised));
    left.close();
  });

  it('takes back what has never left, and only that', async () => {
    const { left, right, heard, links, join } = pair();
    left.send('1');
    assert.equal(left.retract(0), false, 'it is on its way');
    links[1].close('cut');
    await settle();
    left.send('2');
    left.send('3');
    assert.equal(left.unsent, 2);
    assert.equal(left.retract(1), true);
    assert.equal(left.retract(2), false);
    assert.equal(left.retract(7), false);
    const told = right.received;
    join(0, told);
    await settle();
    assert.deepEqual(
      heard.right.filter((text) => !text.startsWith('{')),
      ['1', '3'],
    );
    assert.equal(right.received, 3, 'its number stays');
    left.close();
  });

  it('counts what was taken back, so that nobody sends and takes back without end while no connection is there', async () => {
    const { left, links } = pair();
    links[1].close('cut');
    await settle();
    for (let i = 0; i < 1_000; i++) {
      left.send('x'.repeat(1_000));
      assert.ok(left.retract(0));
    }
    assert.ok(left.buffered_bytes >= 50_000 && left.buffered_bytes < 500_000, `${left.buffered_bytes}`);
    left.close();
  });

  it('refuses counts that cannot be, and tells those that were overtaken', async () => {
    const { left, right } = pair();
    left.send('1');
    await settle();
    for (const count of [2, -1, 0.5, Number.NaN, '1', undefined]) assert.equal(left.canResume(count), false);
    assert.equal(left.canResume(1), true);
    assert.equal(left.isOvertaken(0), false);
    await until(() => left.buffered_bytes === 0, 'it is acknowledged');
    assert.equal(left.isOvertaken(0), true);
    assert.equal(left.isOvertaken(-1), false);
    assert.throws(() => left.attach(memoryPair()[0], 9));
    assert.equal(left.attached, true, 'the connection that there is stays');
    right.close();
  });

  it('ends both sides by a bye, and one side alone by giving up', async () => {
    const one = pair();
    one.left.send('last words');
    one.left.close('enough');
    await settle();
    assert.deepEqual(one.heard.right, ['last words']);
    assert.deepEqual(one.ends, ['left: enough', 'right: the other side ended the session']);
    const other = pair();
    other.left.fail('nobody came');
    await settle();
    assert.deepEqual(other.ends, ['left: nobody came']);
    assert.equal(other.cuts.right, 1);
    other.right.fail('over');
  });

  it('says goodbye over the next connection, where it was ended without one', async () => {
    const { left, right, links, ends, join } = pair();
    links[0].close('cut');
    await settle();
    left.close('left while it was cut');
    assert.equal(left.owes_bye, true);
    join();
    await settle();
    assert.deepEqual(ends, ['left: left while it was cut', 'right: the other side ended the session']);
    assert.equal(left.owes_bye, false);
    assert.equal(right.ended, true);
  });

  it('says goodbye over the connection that is on its way, where the other side has let go of the one there is', async () => {
    const { left, right, ends } = pair();
    const told = left.promise();
    right.detach();
    left.close('left while it was changing');
    await settle();
    assert.deepEqual(ends, ['left: left while it was changing'], 'nobody listens to the older one');
    const [a, b] = memoryPair();
    right.attach(b, told, 0);
    left.attach(a, 0, told);
    left.forgo();
    await settle();
    assert.deepEqual(ends.slice(1), ['right: the other side ended the session']);
  });

  it('keeps the older connection open until the other one has taken its place', async () => {
    const { left, right, heard, cuts, links } = pair();
    right.detach();
    left.send('1');
    await settle();
    assert.deepEqual([right.received, cuts], [0, { left: 0, right: 0 }]);
    const [a, b] = memoryPair();
    right.attach(b, 0, 0);
    left.attach(a, 0, 0);
    await settle();
    assert.deepEqual(heard.right, ['1']);
    assert.deepEqual(cuts, { left: 0, right: 0 });
    const ends: string[] = [];
    links[1].start({ message: () => {}, close: (reason) => ends.push(reason) });
    assert.deepEqual(ends, ['another connection took over']);
    left.close();
  });

  it('delivers nothing more to a listener that closed while it heard what came early', () => {
    const channel = new Channel();
    const [a, b] = memoryPair();
    channel.attach(a);
    b.start({ message: () => {}, close: () => {}, control: () => {} });
    b.send('1');
    b.send('2');
    return settle().then(() => {
      const heard: string[] = [];
      const ends: string[] = [];
      channel.start({
        message: (text) => {
          heard.push(text);
          channel.close('that is enough');
        },
        close: (reason) => ends.push(reason),
      });
      assert.deepEqual([heard, ends], [['1'], ['that is enough']]);
    });
  });
});
