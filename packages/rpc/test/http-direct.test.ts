/** Requests that are read right from their connection: what is taken, and that it means to node:http what it means here. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, createServer, request, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { type Answer, MeshError, Overloaded } from '@hauki/protocol';
import fc from 'fast-check';
import { headersOf, leaving, writeAnswer, writeError } from '../src/transports/http.ts';
import { readDirectly, readHead } from '../src/transports/http-direct.ts';

const head = (...lines: string[]) => `${lines.join('\r\n')}\r\n\r\n`;
const NONE: ReadonlySet<string> = new Set();

describe('the head of a request', () => {
  it('is read where it is a plain GET, names in lower case, values without the space around them', () => {
    const read = readHead(
      head('GET /a?b=c HTTP/1.1', 'Host: x:1', 'X-One:two \t', 'x-empty:', 'Connection: Keep-Alive'),
    );
    assert.equal(read?.url, '/a?b=c');
    assert.deepEqual(read?.block.rawHeaders, [
      ...['host', 'x:1', 'x-one', 'two', 'x-empty', '', 'connection', 'Keep-Alive'],
    ]);
    assert.equal(read?.block.headers.host, 'x:1');
  });

  it('is read once for requests of a connection that say the same behind their first lines, and only for those', () => {
    const ask = (url: string, ...lines: string[]) => head(`GET ${url} HTTP/1.1`, ...lines);
    const first = readHead(ask('/a', 'host: x', 'authorization: one'))!;
    const same = readHead(ask('/long/er?q', 'host: x', 'authorization: one'), first.block)!;
    assert.equal(same.url, '/long/er?q');
    assert.equal(same.block, first.block);
    for (const lines of [
      ['host: x', 'authorization: two'],
      ['host: x', 'authorization: one', 'x-a: b'],
      ['x-a: b', 'host: x', 'authorization: one'],
      ['Host: x', 'authorization: one'],
    ]) {
      const other = readHead(ask('/a', ...lines), first.block)!;
      assert.notEqual(other.block, first.block);
      assert.deepEqual(other, readHead(ask('/a', ...lines)));
    }
    const rest = first.block.text;
    for (const text of [`GET /a HTTP/1.0\r\n${rest}`, `GET /a${rest}`, `${rest}`, `GET /a HTTP/1.1\r\nx${rest}x`])
      assert.equal(readHead(text, first.block), undefined);
    // What stands before the same lines is no part of them.
    assert.equal(readHead(`GET /a HTTP/1.1\r\nx-${rest}`, first.block), undefined);
  });

  for (const [what, text] of Object.entries({
    'another method': head('POST /a HTTP/1.1', 'host: x'),
    'another version': head('GET /a HTTP/1.0', 'host: x'),
    'a target in absolute form': head('GET http://x/a HTTP/1.1', 'host: x'),
    'a target that is not ASCII': head('GET /\xe4 HTTP/1.1', 'host: x'),
    'no host': head('GET /a HTTP/1.1', 'x-a: b'),
    'two hosts': head('GET /a HTTP/1.1', 'host: x', 'host: y'),
    'two tokens': head('GET /a HTTP/1.1', 'host: x', 'authorization: a', 'Authorization: b'),
    'a body of a length': head('GET /a HTTP/1.1', 'host: x', 'content-length: 0'),
    'a body in chunks': head('GET /a HTTP/1.1', 'host: x', 'Transfer-Encoding: chunked'),
    'an upgrade': head('GET /a HTTP/1.1', 'host: x', 'upgrade: websocket'),
    'a wish to be closed': head('GET /a HTTP/1.1', 'host: x', 'connection: close'),
    'an expectation': head('GET /a HTTP/1.1', 'host: x', 'expect: 100-continue'),
    'a space before the colon': head('GET /a HTTP/1.1', 'host : x'),
    'a folded line': head('GET /a HTTP/1.1', 'host: x', ' y'),
    'a bare line feed': 'GET /a HTTP/1.1\r\nhost: x\ny: z\r\n\r\n',
    'a bare carriage return': 'GET /a HTTP/1.1\r\nhost: x\ry\r\n\r\n',
    'a NUL': head('GET /a HTTP/1.1', 'host: x\0'),
    'half of it': 'GET /a HTTP/1.1\r\nhost: x\r\n',
    'more than one': head('GET /a HTTP/1.1', 'host: x') + head('GET /b HTTP/1.1', 'host: x'),
    'something behind it': `${head('GET /a HTTP/1.1', 'host: x')}x`,
  }))
    it(`is left to node:http where it has ${what}`, () => assert.equal(readHead(text), undefined));
});

describe('a connection', () => {
  const seen: { direct: boolean; url: string; headers: readonly string[] }[] = [];
  let answerOf: (url: string) => Answer | Promise<Answer>;
  let server: Server;
  let port = 0;
  let end = () => {};
  const gone: string[] = [];
  before(async () => {
    server = createServer((request, response) => {
      seen.push({ direct: false, url: request.url!, headers: headersOf(request, NONE) });
      request.resume();
      response.end('slow');
    });
    end = readDirectly(server, (request, by) => {
      const url = request.url!;
      if (url.startsWith('/own')) return false;
      seen.push({ direct: true, url, headers: headersOf(request, NONE) });
      leaving(request).addEventListener('abort', () => gone.push(url));
      void Promise.try(answerOf, url)
        .then((answer) => writeAnswer(by, answer, ['x-more', 'y']))
        .catch((error) =>
          writeError(by, error instanceof MeshError ? error : (new Overloaded({ what: 'x', limit: 1 }) as MeshError)),
        );
      return true;
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  });
  after(async () => {
    end();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  /** Writes each part once what came satisfies the condition before it, and reads until the last one. */
  const talk = async (...parts: [part: string | Buffer, until: (text: string) => boolean][]): Promise<string> => {
    const socket: Socket = connect(port, '127.0.0.1');
    socket.setNoDelay(true);
    let text = '';
    let check = () => {};
    let over = false;
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      check();
    });
    socket
      .on('error', () => {})
      .on('close', () => {
        over = true;
        check();
      });
    const timer = setInterval(() => check(), 5);
    for (const [part, until] of parts) {
      socket.write(part);
      await new Promise<void>((resolve) => {
        check = () => {
          if (over || until(text)) resolve();
        };
        check();
      });
    }
    clearInterval(timer);
    socket.destroy();
    return text;
  };
  const get = (url: string) => head(`GET ${url} HTTP/1.1`, 'host: x');

  it('is answered with text, bytes, nothing, a stream, and an error, one after the other', async () => {
    answerOf = (url) => {
      if (url === '/error') throw new Overloaded({ what: 'all', limit: 1 });
      const body = {
        '/text': 'grüße',
        '/bytes': new Uint8Array([98, 99]),
        '/none': null,
        '/stream': (async function* () {
          yield new Uint8Array([97]);
          yield new Uint8Array([98]);
        })(),
      }[url]!;
      return [
        url === '/none' ? 204 : 200,
        ['content-type', 'text/plain', ...(url === '/stream' ? [] : ['content-length', '99'])],
        body,
      ];
    };
    const socket = connect(port, '127.0.0.1');
    const ask = (url: string, last: string) =>
      new Promise<string>((resolve) => {
        let text = '';
        const take = (chunk: Buffer) => {
          text += chunk.toString('utf8');
          if (!text.endsWith(last)) return;
          socket.off('data', take);
          resolve(text);
        };
        socket.on('data', take);
        socket.write(get(url));
      });
    const text = await ask('/text', 'grüße');
    assert.match(text, /^HTTP\/1\.1 200 OK\r\ncontent-type: text\/plain\r\nx-more: y\r\ndate: [^\r]+ GMT\r\n/);
    assert.match(text, /content-length: 7\r\n\r\n/, 'the length of what it has, not of what it says');
    assert.match(await ask('/bytes', 'bc'), /content-length: 2\r\n\r\nbc$/);
    assert.match(await ask('/none', '\r\n\r\n'), /^HTTP\/1\.1 204 No Content\r\n/);
    assert.match(
      await ask('/stream', '0\r\n\r\n'),
      /transfer-encoding: chunked\r\n\r\n(?:2\r\nab|1\r\na\r\n1\r\nb)\r\n0\r\n\r\n$/i,
    );
    assert.match(await ask('/error', '}}'), /^HTTP\/1\.1 (?:429|503) (?:.|\r\n)*"status":"error"/);
    assert.match(await ask('/text', 'grüße'), /^HTTP\/1\.1 200/, 'the connection is good for more after each of them');
    socket.destroy();
  });

  it('goes over to node:http with what is not plain, whatever came before and however it is cut', async () => {
    answerOf = (url) => [200, [], `<${url}>`];
    seen.length = 0;
    const post = 'POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc';
    const text = await talk(
      [get('/a'), (all) => all.includes('</a>')],
      [post.slice(0, 9), () => true],
      [post.slice(9), (all) => all.includes('slow')],
      [get('/c'), (all) => all.split('slow').length === 3],
    );
    assert.ok(text.indexOf('</a>') < text.indexOf('slow'));
    assert.deepEqual(
      seen.map(({ direct, url }) => [direct, url]),
      [
        [true, '/a'],
        [false, '/b'],
        [false, '/c'],
      ],
    );
  });

  it('goes over to node:http with a head that is longer than that takes', async () => {
    const long = head('GET /long HTTP/1.1', 'host: x', `x-long: ${'x'.repeat(17_000)}`);
    assert.match(await talk([long, (all) => all.includes('\r\n\r\n')]), /^HTTP\/1\.1 431 /);
  });

  it('has its requests answered in order when they do not wait for each other', async () => {
    const first = Promise.withResolvers<Answer>();
    answerOf = (url) => (url === '/1' ? first.promise : [200, [], `<${url}>`]);
    seen.length = 0;
    const talking = talk(
      [get('/1'), () => seen.length > 0],
      [get('/2') + get('/own'), (all) => all.split('slow').length === 3],
    );
    while (seen.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, 50));
    const early = seen.map(({ url }) => url);
    first.resolve([200, [], '</1>']);
    const text = await talking;
    assert.ok(text.indexOf('</1>') < text.indexOf('slow'), text);
    assert.deepEqual(
      seen.map(({ url }) => url),
      ['/1', '/2', '/own'],
    );
    assert.deepEqual(early, ['/1'], 'none is served before the one in front of it was answered');
  });

  it('lets no answer pass for two, and none be sent with headers that are none', async () => {
    for (const [status, name, value] of [
      [200, 'x', 'a\r\nset-cookie: b'],
      [200, 'x: y\r\nz', 'a'],
      [200, 'x', '\u0100'],
      [200, '', 'a'],
      ['200 OK\r\nx: y', 'x', 'a'],
      [1e9, 'x', 'a'],
    ] as [number, string, string][]) {
      answerOf = () => [status, [name, value], 'body'];
      const text = await talk([get('/bad'), (all) => all.includes('}}')]);
      assert.match(text, /^HTTP\/1\.1 (?:429|503) /);
      assert.doesNotMatch(text, /set-cookie|^x: y/m);
    }
  });

  it('is answered once where node:http answers it, and is node:http’s where nothing is read so any more', async (t) => {
    const own = createServer((_request, response) => response.end('slow'));
    const answers: boolean[] = [];
    const endOwn = readDirectly(own, (_request, by) => {
      by.response().end('one');
      answers.push(by.answer(200, [], [], 'two'));
      return true;
    });
    await new Promise<void>((resolve) => own.listen(0, '127.0.0.1', resolve));
    t.after(() => own.close());
    const url = `http://127.0.0.1:${(own.address() as AddressInfo).port}/`;
    const ask = async () => {
      const agent = new Agent({ keepAlive: true });
      const [response] = await once(request(url, { agent }).end(), 'response');
      const text = (await response.toArray()).join('');
      agent.destroy();
      return text;
    };
    assert.deepEqual([await ask(), answers], ['one', [false]]);
    endOwn();
    assert.equal(await ask(), 'slow');
  });

  it('tells that its client has gone', async () => {
    answerOf = () => new Promise<Answer>(() => {});
    gone.length = 0;
    const socket = connect(port, '127.0.0.1');
    socket.write(get('/gone'));
    while (!seen.some(({ url }) => url === '/gone')) await new Promise((resolve) => setTimeout(resolve, 5));
    socket.destroy();
    while (!gone.includes('/gone')) await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it('hears of a request what node:http hears, whatever its headers are', async () => {
    answerOf = () => [200, [], '<end>'];
    const token = fc.stringMatching(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,12}$/);
    const value = fc.stringMatching(/^[\t\x20-\x7e\x80-\xff]{0,20}$/);
    const OURS =
      /^(?:host|connection|content-length|transfer-encoding|upgrade|expect|te|trailer|keep-alive|proxy-.*)$/i;
    await fc.assert(
      fc.asyncProperty(
        fc.stringMatching(/^\/[\x21-\x7e]{0,20}$/).filter((url) => !url.startsWith('/own')),
        fc.array(
          fc.tuple(
            token.filter((name) => !OURS.test(name)),
            value,
          ),
          { maxLength: 6 },
        ),
        async (url, headers) => {
          const lines = headers.map(([name, text]) => `${name}:${text}`);
          const ask = async (first: string): Promise<(typeof seen)[number]> => {
            seen.length = 0;
            await talk([
              Buffer.from(head(`${first} ${url} HTTP/1.1`, 'host: x', ...lines), 'latin1'),
              (all) => /<end>|slow|400 Bad/.test(all),
            ]);
            return seen[0]!;
          };
          // The same with another method is node:http's.
          const [here, there] = [await ask('GET'), await ask('OPTIONS')];
          if (!here?.direct) return;
          assert.deepEqual(here, { ...there, direct: true });
        },
      ),
      { numRuns: 60 },
    );
  });
});
