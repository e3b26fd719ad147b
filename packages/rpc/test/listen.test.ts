/** Mesh-RPC by itself: an object is offered and called over TCP and WebSocket, with a secret and without. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { BadInput, ConnectionLost, NoSuchMethod, ProtocolViolation, Unauthorised } from '@hauki/protocol';
import { dial, type ListenOptions, listen, sessionOf } from '../src/listen.ts';
import { listening, until } from './support.ts';

class Counter {
  count = 0;
  ended = false;
  add(n = 1) {
    this.count += n;
    return this.count;
  }
  echo(value: unknown) {
    return value;
  }
  each(numbers: number[], told: (n: number) => void) {
    for (const n of numbers) told(n);
  }
  child() {
    return new Counter();
  }
  async *down(from: number) {
    for (let n = from; n > 0; n--) yield n;
  }
  _hidden() {
    return 'never seen';
  }
  [Symbol.dispose]() {
    this.ended = true;
  }
}

const SECRET = 'a secret of twenty-seven chars';

for (const [name, options] of Object.entries<ListenOptions>({
  TCP: {},
  WebSocket: { websocket: true },
  'TCP with a secret': { secret: SECRET },
  'WebSocket with a secret': { websocket: true, secret: SECRET },
})) {
  const known = options.secret === undefined ? {} : { secret: SECRET };
  describe(`an object offered over ${name}`, () => {
    it('is called, streams, calls back, and is called on before its results are there', async () => {
      await using listener = await listen(new Counter(), options);
      await using counter = await dial<Counter>(listener.url, known);
      assert.equal(await counter.add(2), 2);
      assert.deepEqual(
        await counter.echo(new Map([[1, new Uint8Array([1, 2])]])),
        new Map([[1, new Uint8Array([1, 2])]]),
      );
      const told: number[] = [];
      await counter.each([1, 2, 3], (n) => void told.push(n));
      assert.deepEqual(told, [1, 2, 3]);
      assert.equal(await counter.child().child().add(5), 5);
      const items: number[] = [];
      for await (const n of await counter.down(3)) items.push(n);
      assert.deepEqual(items, [3, 2, 1]);
      const big = new Uint8Array(2 * 1024 * 1024).fill(7);
      assert.deepEqual(await counter.echo(big), big);
    });

    it('offers its own methods and nothing else', async () => {
      await using listener = await listen(new Counter(), options);
      await using counter = await dial<any>(listener.url, known);
      for (const method of ['_hidden', 'hasOwnProperty', 'constructor_', 'count', 'rpc.hello', 'rpc.prove'])
        await assert.rejects(counter[method]!(), (error) => error instanceof NoSuchMethod, method);
    });

    it('is shared by all who dial; what they keep to themselves ends with their session', async () => {
      await using listener = await listen(new Counter(), options);
      await using a = await dial<Counter>(listener.url, known);
      {
        await using b = await dial<Counter>(listener.url, known);
        assert.deepEqual([await a.add(), await b.add(), await a.add()], [1, 2, 3]);
        assert.equal(listener.sessions.size, 2);
      }
      await until(() => listener.sessions.size === 1, 'one session to be left');
      assert.equal(await a.add(), 4);
    });

    it('is made anew for each session by a function, and disposed of at its end', async () => {
      const made: Counter[] = [];
      const make = () => {
        const counter = new Counter();
        made.push(counter);
        return counter;
      };
      await using listener = await listen(make, options);
      await using a = await dial<Counter>(listener.url, known);
      const b = await dial<Counter>(listener.url, known);
      assert.deepEqual([await a.add(), await b.add()], [1, 1]);
      await b[Symbol.asyncDispose]();
      await until(() => made[1]!.ended, 'the second to be disposed of');
      assert.equal(made[0]!.ended, false);
      assert.equal(await a.add(), 2);
    });

    it('tells callers when the listener closes, and lets nobody else in', async () => {
      const listener = await listen(new Counter(), options);
      const counter = await dial<Counter>(listener.url, known);
      assert.ok(sessionOf(counter)!.open);
      await listener.close();
      await sessionOf(counter)!.closed;
      await assert.rejects(async () => counter.add(), ConnectionLost);
      await assert.rejects(dial(listener.url, known), ConnectionLost);
    });
  });
}

for (const websocket of [false, true])
  describe(`the secret of a listener over ${websocket ? 'WebSocket' : 'TCP'}`, () => {
    it('must be known, and the same', async () => {
      await using listener = await listen(new Counter(), { websocket, secret: SECRET });
      await assert.rejects(dial(listener.url), Unauthorised);
      await assert.rejects(dial(listener.url, { secret: `${SECRET}!` }), Unauthorised);
      await using counter = await dial<Counter>(listener.url, { secret: SECRET });
      assert.equal(await counter.add(), 1);
      assert.equal(listener.sessions.size, 1);
    });

    it('is asked of the listener too', async () => {
      await using listener = await listen(new Counter(), { websocket });
      await assert.rejects(dial(listener.url, { secret: SECRET }), Unauthorised);
    });
  });

describe('a listener', () => {
  it('does nothing for who does not begin as agreed: no call, no proof after a wrong one, no large message', async () => {
    let calls = 0;
    await using listener = await listen({ touch: () => void calls++ }, { secret: SECRET });
    const { port } = new URL(listener.url);
    const frame = (text: string) => {
      const bytes = Buffer.from(`....\u0001${text}`);
      bytes.writeUInt32BE(bytes.length - 4);
      return bytes;
    };
    const call = (id: number, method: string, params: unknown[] = []) =>
      frame(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
    const wrong = call(2, 'rpc.prove', [{ nonce: 'x', proof: 'y' }]);
    for (const said of [
      [call(1, 'touch')],
      [call(1, 'rpc.hello'), call(2, 'touch')],
      [call(1, 'rpc.hello'), wrong, wrong, call(3, 'touch')],
      [call(1, 'rpc.hello'), call(2, 'rpc.hello'), call(3, 'touch')],
      [call(1, 'rpc.hello'), call(2, 'touch', ['x'.repeat(100_000)])],
      [Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n')],
    ]) {
      const socket = connect(Number(port), '127.0.0.1');
      socket.on('error', () => {});
      socket.resume();
      for (const bytes of said) socket.write(bytes);
      await new Promise((resolve) => socket.on('close', resolve));
    }
    assert.equal(calls, 0);
    assert.equal(listener.sessions.size, 0);
  });

  it('is not believed when it repeats what it heard', async () => {
    // Answers rpc.hello with a nonce, and rpc.prove with the caller's own proof.
    const parrot = await listening((socket) => {
      socket.on('data', (chunk: Buffer) => {
        const { id, params } = JSON.parse(chunk.subarray(5).toString()) as { id: number; params: any[] };
        const text = JSON.stringify({ jsonrpc: '2.0', id, result: params[0] ?? { nonce: 'n' } });
        const frame = Buffer.from(`....\u0001${text}`);
        frame.writeUInt32BE(frame.length - 4);
        socket.write(frame);
      });
    });
    try {
      await assert.rejects(dial(`tcp://127.0.0.1:${parrot.port}`, { secret: SECRET }), ProtocolViolation);
    } finally {
      await parrot.end();
    }
  });

  it('has the system ask either end, when it is silent for long, whether it is there', async () => {
    await using listener = await listen(new Counter());
    await using counter = await dial<Counter>(listener.url);
    assert.equal(await counter.add(), 1);
    const port = Number(new URL(listener.url).port).toString(16).toUpperCase().padStart(4, '0');
    // Of established connections, those whose timer is that of keep-alive.
    const asked = new RegExp(`^.*:${port} .*\\b01 \\w+:\\w+ 02:`, 'gm');
    await until(() => readFileSync('/proc/net/tcp', 'utf8').match(asked)?.length === 2, 'both are');
  });

  it('takes nothing but an object, or what makes one, and a port that can be', async () => {
    for (const offer of [undefined, null, 5, 'text', Counter])
      await assert.rejects(listen(offer as object), BadInput, String(offer));
    for (const port of [-1, 65_536, 0.5, Number.NaN, 'worker.sock', '8080'])
      await assert.rejects(listen({}, { port: port as number }), BadInput, `port ${port}`);
  });

  it('stays on loopback unless told otherwise, and goes further only with a secret', async () => {
    const refused = (error: unknown) => error instanceof BadInput;
    await assert.rejects(listen({}, { host: '0.0.0.0' }), refused);
    await assert.rejects(listen({}, { host: '0.0.0.0', allow_remote: true }), refused);
    await assert.rejects(listen({}, { secret: 'short' }), refused);
    await assert.rejects(dial('tcp://192.0.2.1:7'), refused);
    await assert.rejects(dial('ws://example.org:7'), refused);
    for (const url of ['tcp://127.0.0.1', 'http://127.0.0.1:7', 'nothing']) await assert.rejects(dial(url), refused);
    await using listener = await listen(new Counter(), { host: '0.0.0.0', allow_remote: true, secret: SECRET });
    await using counter = await dial<Counter>(listener.url.replace('0.0.0.0', '127.0.0.1'), { secret: SECRET });
    assert.equal(await counter.add(), 1);
  });
});
