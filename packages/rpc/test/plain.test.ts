/** Plain JSON-RPC 2.0 by the letter of its specification, directly and as JSON lines over TCP. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { LIMITS, RemoteError } from '@hauki/protocol';
import fc from 'fast-check';
import { answerPlain } from '../src/plain.ts';
import { serveLines } from '../src/transports/lines.ts';
import { assertAnswer, EXAMPLES, exampleDispatch } from './jsonrpc-examples.ts';
import { listening, until } from './support.ts';

const oneLine = (text: string) => text.replace(/\n/g, ' ');

async function lineClient(port: number) {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  await once(socket, 'connect');
  const lines: string[] = [];
  const reader = createInterface({ input: socket });
  reader.on('line', (line) => lines.push(line));
  reader.on('error', () => {});
  return { socket, lines };
}

describe('the examples of the JSON-RPC 2.0 specification, answered directly', () => {
  for (const { name, request, expect } of EXAMPLES)
    it(name, async () => {
      const text = await answerPlain(request, exampleDispatch);
      if (expect === undefined) assert.equal(text, undefined);
      else assertAnswer(JSON.parse(text!), expect);
    });

  it('would notice a wrong answer (positive control)', () => {
    const { expect } = EXAMPLES[0]!;
    assert.throws(() => assertAnswer({ jsonrpc: '2.0', result: 18, id: 1 }, expect));
    assert.throws(() => assertAnswer({ jsonrpc: '2.0', result: 19, id: '1' }, expect));
    assert.throws(() =>
      assertAnswer({ jsonrpc: '2.0', error: { code: -32600, message: 'Invalid Request' }, id: 1 }, expect),
    );
    assert.throws(() => assertAnswer([], [expect]));
  });
});

describe('the examples as JSON lines over TCP', () => {
  for (const { name, request, expect } of EXAMPLES)
    it(name, async () => {
      const server = await listening((socket) => serveLines(socket, exampleDispatch));
      const { socket, lines } = await lineClient(server.port);
      // The marker's answer shows that whatever the example had to say has been said.
      const marker = '{"jsonrpc":"2.0","method":"sum","params":[1],"id":"marker"}';
      socket.write(`${oneLine(request)}\n`);
      if (expect === undefined) {
        socket.write(`${marker}\n`);
        await until(() => lines.length > 0, 'the marker');
        assert.deepEqual(
          lines.map((line) => JSON.parse(line).id),
          ['marker'],
        );
      } else {
        await until(() => lines.length > 0, 'an answer');
        assertAnswer(JSON.parse(lines[0]!), expect);
      }
      socket.destroy();
      await server.end();
    });
});

describe('plain answers', () => {
  it('answers requests with the id null, and takes it for no notification', async () => {
    const answer = JSON.parse(
      (await answerPlain('{"jsonrpc":"2.0","method":"sum","params":[1,2],"id":null}', exampleDispatch))!,
    );
    assert.deepEqual(answer, { jsonrpc: '2.0', result: 3, id: null });
  });

  it('refuses ids that are neither text nor number, other versions, and parameters that are no structure', async () => {
    for (const bad of [
      '{"jsonrpc":"2.0","method":"sum","id":{}}',
      '{"jsonrpc":"2.0","method":"sum","id":[1]}',
      '{"jsonrpc":"2.0","method":"sum","id":true}',
      '{"jsonrpc":"1.0","method":"sum","id":1}',
      '{"method":"sum","id":1}',
      '{"jsonrpc":"2.0","id":1}',
      '{"jsonrpc":"2.0","method":"sum","params":"x","id":1}',
      '{"jsonrpc":"2.0","method":"sum","params":null,"id":1}',
      '"text"',
      '1',
      'null',
      'true',
    ])
      assert.equal(JSON.parse((await answerPlain(bad, exampleDispatch))!).error.code, -32600, bad);
  });

  it('bounds a batch', async () => {
    const call = '{"jsonrpc":"2.0","method":"sum","params":[1],"id":1}';
    const batch = (n: number) => answerPlain(`[${Array(n).fill(call).join(',')}]`, exampleDispatch);
    assert.equal(JSON.parse((await batch(LIMITS.batch))!).length, LIMITS.batch);
    assert.equal(JSON.parse((await batch(LIMITS.batch + 1))!).error.code, -32600);
  });

  it('bounds what the answers of a batch have together, and says of those beyond it that they are too large', async () => {
    const calls = (n: number) =>
      JSON.stringify(Array.from({ length: n }, (_, id) => ({ jsonrpc: '2.0', method: 'x', id })));
    const text = 'x'.repeat(LIMITS.message_bytes / 4);
    const answer = (await answerPlain(calls(9), () => text))!;
    assert.ok(answer.length < LIMITS.message_bytes + 10_000, `${answer.length}`);
    const answers = JSON.parse(answer) as { id: number; result?: string; error?: { data: { name: string } } }[];
    assert.deepEqual(
      answers.map(({ id, result, error }) => [id, result?.length ?? error!.data.name]),
      [...Array(9).keys()].map((id) => [id, id < 3 ? text.length : 'TooLarge']),
    );
    const fails = await answerPlain(calls(9), () => {
      throw new RemoteError({ error_name: text });
    });
    assert.ok(fails!.length < LIMITS.message_bytes + 10_000, `${fails!.length}`);
  });

  it('answers what cannot be sent with an error', async () => {
    const answer = await answerPlain('{"jsonrpc":"2.0","method":"x","id":1}', () => 1n);
    assert.equal(JSON.parse(answer!).error.data.name, 'Unserialisable');
  });

  it('never rejects and never answers with anything but JSON-RPC, whatever comes in', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.string({ unit: 'binary' }), fc.json()), async (text) => {
        const answer = await answerPlain(text, exampleDispatch);
        if (answer === undefined) return;
        for (const one of [JSON.parse(answer)].flat()) assert.equal(one.jsonrpc, '2.0');
      }),
      { numRuns: 300 },
    );
  });

  it('never rejects, even when an error of ours carries fields that JSON cannot hold', async () => {
    const thrown = new RemoteError({ error_name: 'Odd', big: 1n } as never);
    const answer = await answerPlain('{"jsonrpc":"2.0","method":"x","id":7}', () => {
      throw thrown;
    });
    const { id, error } = JSON.parse(answer!);
    assert.equal(id, 7);
    assert.equal(typeof error.code, 'number');
  });
});

describe('JSON lines over TCP', () => {
  it('answers requests that arrive torn apart, many in one chunk, with blank lines between', async () => {
    const server = await listening((socket) => serveLines(socket, exampleDispatch));
    const { socket, lines } = await lineClient(server.port);
    const call = (id: number) => `{"jsonrpc":"2.0","method":"sum","params":[${id},1],"id":${id}}`;
    const all = `${call(1)}\n\n   \n${call(2)}\r\n${call(3)}\n`;
    for (const character of all) {
      socket.write(character);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until(() => lines.length === 3, 'three answers');
    const many = Array.from({ length: 5000 }, (_, i) => call(i + 10)).join('\n');
    socket.write(`${many}\n`);
    await until(() => lines.length === 5003, 'five thousand answers');
    const answers = lines.map((line) => JSON.parse(line));
    assert.ok(answers.every(({ id, result }) => result === id + 1));
    socket.destroy();
    await server.end();
  });

  it('answers what was asked before the client closed its side', async () => {
    const server = await listening((socket) =>
      serveLines(socket, async (method, params) => {
        await new Promise((resolve) => setTimeout(resolve, 20));
        return exampleDispatch(method, params);
      }),
    );
    server.server.on('connection', (socket) => {
      socket.allowHalfOpen = true;
    });
    const { socket, lines } = await lineClient(server.port);
    socket.end('{"jsonrpc":"2.0","method":"sum","params":[4,5],"id":1}\n');
    await once(socket, 'close');
    assert.deepEqual(
      lines.map((line) => JSON.parse(line).result),
      [9],
    );
    await server.end();
  });

  it('cuts a client who asks for much at once and reads none of it', async () => {
    const { promise: cut, resolve } = Promise.withResolvers<void>();
    let most = 0;
    const server = await listening((socket) => {
      socket.once('close', () => resolve());
      serveLines(socket, () => {
        most = Math.max(most, socket.writableLength);
        return 'x'.repeat(LIMITS.message_bytes / 2);
      });
    });
    // Nobody listens for what comes.
    const socket = connect(server.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write('{"jsonrpc":"2.0","method":"big","params":[],"id":1}\n'.repeat(60));
    await cut;
    assert.ok(most <= LIMITS.unsent_bytes + LIMITS.message_bytes, `${most}`);
    socket.destroy();
    await server.end();
  });

  it('cuts a line that never ends, and serves others on', async () => {
    const server = await listening((socket) => serveLines(socket, exampleDispatch));
    const hostile = await lineClient(server.port);
    const good = await lineClient(server.port);
    const closed = new Promise((resolve) => hostile.socket.on('close', resolve));
    const chunk = Buffer.alloc(1 << 20, 'x');
    for (let sent = 0; sent <= LIMITS.message_bytes + chunk.length && !hostile.socket.destroyed; sent += chunk.length)
      if (!hostile.socket.write(chunk))
        await Promise.race([new Promise((resolve) => hostile.socket.once('drain', resolve)), closed]);
    await closed;
    good.socket.write('{"jsonrpc":"2.0","method":"sum","params":[1],"id":1}\n');
    await until(() => good.lines.length === 1, 'the answer to the other client');
    good.socket.destroy();
    await server.end();
  });
});
