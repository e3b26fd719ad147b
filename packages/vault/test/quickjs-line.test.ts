/** The lines between the agent and the threads of its vault host: who may come in, and what they carry. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { streamTransport } from '@hauki/rpc/node';
import { type AgentLine, Lines, openLine } from '../src/drivers/quickjs/line.ts';
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
