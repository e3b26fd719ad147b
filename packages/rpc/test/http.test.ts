/** Answers as they stand on the wire: how long they say that they are, and what comes of those that have no content. */
import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import type { Answer, Body } from '@hauki/protocol';
import { headersOf, writeAnswer } from '../src/transports/http.ts';
import { readDirectly } from '../src/transports/http-direct.ts';

/** A stream that never ends, and whether it was left. */
function endless(): { body: Body; left: Promise<void> } {
  const { promise: left, resolve } = Promise.withResolvers<void>();
  const body: AsyncIterableIterator<Uint8Array> = {
    next: async () => ({ done: false, value: new Uint8Array(1024) }),
    async return() {
      resolve();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => body,
  };
  return { body, left };
}

async function* pieces(...texts: string[]) {
  for (const text of texts) yield new TextEncoder().encode(text);
}

describe('an answer', () => {
  let server: Server;
  let port = 0;
  let end = () => {};
  let answer: Answer;
  before(async () => {
    server = createServer((_request, response) => void writeAnswer(response, answer));
    end = readDirectly(server, (_request, by) => {
      void writeAnswer(by, answer);
      return true;
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ({ port } = server.address() as AddressInfo);
  });
  after(() => {
    end();
    server.closeAllConnections();
    server.close();
  });

  /** What comes back for a request, and for another behind it on the same connection. */
  const ask = async (method: string, given: Answer) => {
    answer = given;
    const socket = connect(port, '127.0.0.1');
    let all = '';
    const first = new Promise<void>((resolve) => {
      socket.on('data', (chunk) => {
        all += chunk.toString('latin1');
        if (all.includes('\r\n\r\n')) resolve();
      });
    });
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write(`${method} / HTTP/1.1\r\nhost: x\r\n\r\n`);
    await first;
    answer = [200, [], 'next'];
    socket.write('GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
    await closed;
    const at = all.indexOf('\r\n\r\n') + 4;
    const next = all.indexOf('HTTP/1.1 200 OK\r\n', at);
    assert.ok(next > 0 && all.endsWith('\r\n\r\nnext'), `the next answer is not whole: ${all.slice(at)}`);
    const lengths = [...all.slice(0, at).matchAll(/^content-length: (.*)\r$/gim)].map(([, length]) => length);
    return { status: Number(all.slice(9, 12)), lengths, content: all.slice(at, next), head: all.slice(0, at) };
  };

  it('to HEAD has no content, and says how long it would be: as its body is, or as it says', async () => {
    for (const [given, length] of [
      [[200, [], 'häuki'], '6'],
      [[200, ['Content-Length', '7'], 'häuki'], '6'],
      [[200, ['Content-Length', '1234'], null], '1234'],
      [[404, ['content-length', '12'], ''], '12'],
      [[200, ['content-length', '5'], pieces('a', 'b')], '5'],
      [[200, [], null], undefined],
      [[200, ['content-length', '1, 2'], null], undefined],
    ] as [Answer, string | undefined][]) {
      const { status, lengths, content } = await ask('HEAD', given);
      assert.deepEqual([status, lengths, content], [given[0], length === undefined ? [] : [length], '']);
    }
  });

  it('of 204 says no length, of 304 one that it names, and neither has content', async () => {
    for (const method of ['GET', 'POST', 'HEAD'])
      for (const [given, lengths] of [
        [[204, ['content-length', '5'], null], []],
        [[204, ['content-length', '5'], 'hello'], []],
        [[204, ['content-length', '5'], pieces('hello')], []],
        [[304, ['content-length', '5'], null], ['5']],
        [[304, [], 'hello'], ['5']],
        [[304, ['content-length', '5'], pieces('hello')], ['5']],
      ] as [Answer, string[]][]) {
        const heard = await ask(method, given);
        assert.deepEqual([heard.status, heard.lengths, heard.content], [given[0], lengths, ''], method);
        assert.doesNotMatch(heard.head, /transfer-encoding/i);
      }
  });

  it('that streams without end is left where there is no content', async () => {
    for (const [method, status] of [
      ['HEAD', 200],
      ['GET', 204],
      ['GET', 304],
    ] as const) {
      const { body, left } = endless();
      assert.equal((await ask(method, [status, [], body])).content, '');
      await left;
    }
  });

  it('has one length, and none that is no number', async () => {
    for (const [headers, lengths] of [
      [['content-length', '2', 'Content-Length', '9'], ['2']],
      [['content-length', '2, 2'], []],
      [['content-length', '-1'], []],
    ] as [string[], string[]][]) {
      const { status, lengths: said } = await ask('POST', [200, headers, pieces('a', 'b')]);
      assert.deepEqual([status, said], [200, lengths]);
    }
    const { lengths, content } = await ask('GET', [200, ['content-length', '9'], 'ab']);
    assert.deepEqual([lengths, content], [['2'], 'ab']);
  });
});

describe('the headers of a request', () => {
  it('go along but for those of one connection, those named, and those that only servers say', () => {
    const rawHeaders = ['Host', 'a', 'X-Hauki-Digest', 'forged', 'x-hauki-inside', 'forged', 'TE', 'trailers'];
    rawHeaders.push('X-Hauki-Version', '2', 'x-hauki-key', 'ada', 'Authorization', 'Bearer x');
    assert.deepEqual(headersOf({ rawHeaders }, new Set(['authorization'])), [
      ...['host', 'a', 'x-hauki-version', '2', 'x-hauki-key', 'ada'],
    ]);
  });
});
