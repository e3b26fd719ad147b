/** The lines between the agent and the threads of its vault host: who may come in, and what they carry. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { LIMITS } from '@hauki/protocol';
import { streamTransport } from '@hauki/rpc/node';
import fc from 'fast-check';
import { type AgentLine, Lines, openLine, Unsent } from '../src/drivers/quickjs/line.ts';
import type { Address, Down, Up } from '../src/drivers/quickjs/messages.ts';

describe('the line of a thread', () => {
  const heard: Up[] = [];
  const coming = new Set<() => void>();
  let agents: AgentLine | undefined;
  const lines = new Lines((message, line) => {
    agents = line;
    heard.push(message);
    for (const look of coming) look();
  });
  let address: Address;

  const until = (count: number) =>
    new Promise<void>((resolve) => {
      const look = () => {
        if (heard.length < count) return;
        coming.delete(look);
        resolve();
      };
      coming.add(look);
      look();
    });

  before(async () => {
    address = await lines.open();
  });
  after(() => lines.close());

  it('carries messages both ways in their order, texts and bytes as they are', async () => {
    const { promise: told, resolve } = Promise.withResolvers<Down>();
    const line = await openLine(address, resolve, () => {});
    const text = '{"a":"zwölf\\n\u{1f600}"}\nand a second line';
    line.send({ op: 'started', id: 'v1', port: 7 });
    line.send({ op: 'text', id: 'v1', text });
    line.send({ op: 'text', id: 'v1', text: '', bytes: new Uint8Array([0, 10, 255]) });
    line.send({ op: 'gone', id: 'v1', cause: 'killed', reason: 'enough' });
    await until(4);
    const [started, words, bytes, gone] = heard.splice(0);
    assert.deepEqual(started, { op: 'started', id: 'v1', port: 7 });
    assert.deepEqual(words, { op: 'text', id: 'v1', text });
    assert.deepEqual({ ...bytes, bytes: [...bytes!.bytes!] }, { op: 'text', id: 'v1', text: '', bytes: [0, 10, 255] });
    assert.deepEqual(gone, { op: 'gone', id: 'v1', cause: 'killed', reason: 'enough' });
    agents!.send({ op: 'assign', id: 'v2', memory_mib: 4, cpu: 1, turn_ms: 10, text: '{}' });
    assert.deepEqual(await told, { op: 'assign', id: 'v2', memory_mib: 4, cpu: 1, turn_ms: 10, text: '{}' });
    line.close();
    await agents!.over;
  });

  it('is for whoever knows the secret: a stranger is not heard, and not kept', async () => {
    const { secret, ...where } = address;
    const strangers: [string, (socket: Socket) => void][] = [
      ['another secret', (socket) => streamTransport(socket).send('x'.repeat(secret.length))],
      ['a shorter one', (socket) => streamTransport(socket).send('')],
      ['no frames', (socket) => socket.write('{"op":"gone","id":"v1"}\n')],
    ];
    for (const [what, say] of strangers) {
      const socket = connect(where as { path: string });
      socket.on('error', () => {});
      await once(socket, 'connect');
      say(socket);
      streamTransport(socket).send(JSON.stringify({ op: 'gone', id: 'v1' }));
      socket.resume();
      if (!socket.destroyed) await once(socket, 'close');
      assert.deepEqual(heard, [], what);
    }
  });

  it('waits for few who do not say the secret, and for none of them long', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { secret: _, ...where } = address;
    const strangers: Socket[] = [];
    for (let i = 0; i < 80; i++) {
      const socket = connect(where as { path: string }).resume();
      socket.on('error', () => {});
      await once(socket, 'connect');
      strangers.push(socket);
    }
    const gone = (socket: Socket) => socket.closed || once(socket, 'close');
    await gone(strangers[0]!);
    assert.equal(strangers.at(-1)!.closed, false);
    t.mock.timers.tick(LIMITS.handshake_ms);
    for (const socket of strangers) await gone(socket);
  });

  it('is refused to those that come with the secret once the host is gone', async () => {
    lines.close();
    await assert.rejects(
      openLine(
        address,
        () => {},
        () => {},
      ),
    );
  });
});

describe('what waits on a line', () => {
  it('is counted for each vault until it has left, the oldest first', () => {
    const unsent = new Unsent();
    assert.equal(unsent.add('a', 100, 0), 100);
    assert.equal(unsent.add('b', 50, 110), 50);
    assert.equal(unsent.add('a', 10, 160), 110);
    assert.equal(unsent.add('a', 1, 60), 11);
    assert.equal(unsent.add('b', 1, 62), 51);
    assert.equal(unsent.add('b', 1, 0), 1);
    assert.equal(unsent.add('a', 1, 1), 1);
  });

  it('is never less than what is there, and nothing once all has left', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.integer({ min: 1, max: 1_000 }), fc.nat(2_000))),
        (said) => {
          const unsent = new Unsent();
          const line: { id: string; left: number }[] = [];
          const there = (id?: string) =>
            line.reduce((sum, one) => sum + (id === undefined || one.id === id ? one.left : 0), 0);
          for (const [id, size, leaves] of said) {
            for (let more = leaves; more > 0 && line.length > 0; ) {
              const gone = Math.min(more, line[0]!.left);
              line[0]!.left -= gone;
              more -= gone;
              if (line[0]!.left === 0) line.shift();
            }
            const before = there();
            const sum = unsent.add(id, size, before);
            line.push({ id, left: size });
            assert.ok(sum >= there(id));
            if (before === 0) assert.equal(sum, size);
          }
        },
      ),
    );
  });
});
