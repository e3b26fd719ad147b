/** Bodies of a guest's `fetch` as they are on the wire, and while nobody takes them: over a session, and servers on loopback. */
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import { BadInput, Overloaded, TooLarge } from '@hauki/protocol';
import { piecesOf } from '../src/effects/bytes.ts';
import type { Outside } from '../src/guest/guest.ts';
import { fetchFor } from '../src/guest/outward.ts';
import { Request as VmRequest } from '../src/guest/platform/http.ts';
import { nodePlatform } from '../src/guest/respond-node.ts';
import { guest, http, refuses, tcp, until } from './outward-support.ts';

/** What `piecesOf` wants beside what a test is about. */
function reading() {
  let bytes = 0;
  return {
    failure: (error: unknown) => error as Error,
    took: (more: number) => {
      bytes += more;
    },
    fetched: () => bytes,
  };
}

describe('the body of a request', () => {
  it('says where it ends, whatever the method and however it is given', async () => {
    let raw = '';
    const port = await tcp((socket) =>
      socket.on('data', (chunk) => {
        raw += chunk.toString('latin1');
        if (/THE END/.test(raw)) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi');
      }),
    );
    const { fetch, vmFetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    const url = `http://127.0.0.1:${port}/`;
    const body = 'POST /admin HTTP/1.1\r\nHost: inner\r\n\r\nTHE END';
    const forms: [RegExp, () => unknown][] = [
      [/^content-length: 44$/im, () => body],
      [/^content-length: 44$/im, () => Buffer.from(body)],
      [
        /^transfer-encoding: chunked\r\n(.*\r\n)*\r\n2c\r\nPOST/im,
        async function* () {
          yield body;
        },
      ],
    ];
    for (const method of ['DELETE', 'OPTIONS', 'POST', 'PUT', 'PATCH', 'PROPFIND', 'ANYTHING'])
      for (const [framed, form] of forms) {
        raw = '';
        assert.equal(await (await fetch(url, { method, body: form() })).text(), 'hi');
        assert.match(raw, framed, raw);
        assert.equal(raw.match(/^(content-length|transfer-encoding):/gim)?.length, 1, raw);
      }
    // Of a quickjs vault's Request too, which is used by it.
    for (const [framed, form] of forms) {
      raw = '';
      const request = new VmRequest(url, { method: 'POST', body: form() });
      assert.equal(await (await vmFetch(request)).text(), 'hi');
      assert.match(raw, framed, raw);
      assert.equal(request.bodyUsed, true);
      await assert.rejects(vmFetch(request), TypeError);
    }
    // And of Node's, which has only a stream of it; one that is slow is not there at once.
    const slow = async function* () {
      yield Buffer.from(body.slice(0, 9));
      await sleep(20);
      yield Buffer.from(body.slice(9));
    };
    for (const [framed, given] of [
      [/^content-length: 44$/im, body],
      [/^content-length: 44$/im, Buffer.from(body)],
      [/^transfer-encoding: chunked\r\n(.*\r\n)*\r\n9\r\nPOST \/adm\r\n23\r\nin/im, slow()],
    ] as const) {
      raw = '';
      const init = { method: 'POST', body: given, duplex: 'half' } as unknown as RequestInit;
      const request = new Request(url, init);
      assert.equal(await (await fetch(request)).text(), 'hi');
      assert.match(raw, framed, raw);
      assert.equal(request.bodyUsed, true);
    }
    for (const method of ['GET', 'HEAD'])
      for (const [, form] of forms) await refuses(fetch(url, { method, body: form() }), BadInput, /has no body/);
  });
});

describe('what a fetch sends', () => {
  const sending = (platform = nodePlatform) => {
    const sent: unknown[] = [];
    const outside = {
      async effect(_name: string, [, { body }]: any[]) {
        // Others have their turn first.
        await sleep(1);
        if (typeof body === 'string' || body instanceof Uint8Array || !body) sent.push(body);
        else for await (const piece of body) sent.push(piece);
        return { status: 200, status_text: '', url: '', headers: [], text: '' };
      },
    };
    return { sent, fetch: fetchFor(outside as unknown as Outside, platform) };
  };

  it('are the bytes as they were when it was called', async () => {
    const { sent, fetch } = sending();
    const bytes = new Uint8Array([65, 65]);
    const all = [bytes, bytes.buffer, new DataView(bytes.buffer)].map((body) => fetch('http://a/', { body }));
    bytes.fill(66);
    await Promise.all(all);
    assert.deepEqual(sent, Array(3).fill(new Uint8Array([65, 65])));
  });

  it('is the body of a Request once: another time it is refused, also while it is sent', async () => {
    const { sent, fetch } = sending();
    const make = () => new Request('http://a/', { method: 'POST', body: 'once' });
    const [twice, read, held] = [make(), make(), make()];
    const first = fetch(twice);
    await assert.rejects(fetch(twice), TypeError);
    await first;
    await assert.rejects(fetch(twice), TypeError);
    await read.text();
    await assert.rejects(fetch(read), TypeError);
    held.body!.getReader();
    await assert.rejects(fetch(held), TypeError);
    assert.equal(Buffer.concat(sent as Uint8Array[]).toString(), 'once');
    await fetch(read, { body: 'another' });
    assert.equal(sent.at(-1), 'another');
  });
});

describe('the body of an answer', () => {
  it('that nobody reads holds no other fetch up, and can be left', async () => {
    const gone: string[] = [];
    const port = await http((request, response) => {
      response.on('close', () => gone.push(request.url!));
      response.write(Buffer.alloc(1024 * 1024));
    });
    const { fetch, vmFetch, session, host } = guest({ fetch: [`127.0.0.1:${port}`] });
    const url = `http://127.0.0.1:${port}`;
    const all = await Promise.all(Array.from({ length: 20 }, (_, i) => fetch(`${url}/${i}`)));
    assert.deepEqual(new Set(all.map(({ status }) => status)), new Set([200]));
    for (const one of all) await one.body!.cancel();
    await until('the server sees all go', () => gone.length === 20);
    const ways: ((body: NonNullable<Awaited<ReturnType<typeof vmFetch>>['body']>) => Promise<unknown>)[] = [
      (body) => body.cancel(),
      (body) => body.getReader().cancel(),
      async (body) => body[Symbol.asyncIterator]().return?.(),
      async (body) => {
        for await (const piece of body) return piece;
      },
    ];
    for (const [i, way] of ways.entries()) {
      await way((await vmFetch(`${url}/in-the-vm-${i}`)).body!);
      await until('the server sees it go', () => gone.includes(`/in-the-vm-${i}`));
    }
    await until('no stream is left', () => session.stats().streams === 0 && host.stats().streams === 0);
  });

  it('that nobody reads gives way to others, however many there are', async () => {
    const port = await http((_request, response) => response.write(Buffer.alloc(1024 * 1024)));
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    const url = `http://127.0.0.1:${port}/`;
    const all: Response[] = [];
    for (let i = 0; i < 40; i++) all.push(await fetch(url));
    await refuses(all[0]!.text(), Overloaded, /not read/);
    const reader = all.at(-1)!.body!.getReader();
    assert.equal((await reader.read()).done, false);
    await reader.cancel();
    for (const one of all.slice(1, -1)) await one.body!.cancel().catch(() => {});
  });

  it('ends when nothing moves for long; a vault that is paused has not left it', async () => {
    const { fetched, ...read } = reading();
    let paused = true;
    let over = false;
    const source = new Readable({ read() {} });
    const pieces = piecesOf(source, {
      idle: { ms: 50, error: () => new Error('late'), paused: () => paused },
      ...read,
      over: () => {
        over = true;
      },
    });
    source.push('first');
    assert.equal((await pieces.next()).value?.length, 5);
    await sleep(150);
    assert.equal(over, false);
    paused = false;
    await until('it ends', () => over);
    await assert.rejects(pieces.next(), /late/);
    assert.equal(fetched(), 5);
  });

  it('is unpacked as browsers do it: nothing where none comes, deflate with its wrapping and without', async () => {
    const port = await http((request, response) => {
      const [, coding, form] = request.url!.split('/');
      response.writeHead(200, { 'content-encoding': coding });
      if (form === 'empty') response.end();
      else if (form === 'slow')
        for (const at of [0, 1, 2])
          setTimeout(
            () =>
              response[at < 2 ? 'write' : 'end'](
                [packed.subarray(0, 1), packed.subarray(1, 5), packed.subarray(5)][at],
              ),
            20 * at,
          );
      else
        response.end(
          form === 'raw'
            ? deflateRawSync(text)
            : form === 'twice'
              ? gzipSync(deflateSync(text))
              : form === 'cut'
                ? gzipSync(text).subarray(0, 30)
                : packed,
        );
    });
    const text = 'packed '.repeat(10_000);
    const packed = deflateSync(text);
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    const get = async (path: string) => (await fetch(`http://127.0.0.1:${port}/${path}`)).text();
    for (const coding of ['gzip', 'x-gzip', 'deflate', 'br', 'zstd', 'br,gzip'])
      assert.equal(await get(`${coding}/empty`), '');
    assert.equal(await get('deflate/wrapped'), text);
    assert.equal(await get('deflate/slow'), text);
    assert.equal(await get('deflate/raw'), text);
    assert.equal(await get('deflate,gzip/twice'), text);
    await assert.rejects(get('gzip/cut'), /fetch failed.*Z_BUF_ERROR/);
  });

  it('may have any status that a server can send', async () => {
    let status = '';
    const port = await tcp((socket) =>
      socket.once('data', () => socket.end(`HTTP/1.1 ${status} Own\r\nContent-Length: 4\r\n\r\nbody`)),
    );
    const { fetch, vmFetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    for (status of ['000', '200', '599', '600', '999'])
      for (const get of [fetch, vmFetch]) {
        const answer = await get(`http://127.0.0.1:${port}/`);
        assert.deepEqual([answer.status, answer.ok, answer.statusText], [Number(status), status === '200', 'Own']);
        assert.equal(await answer.text(), 'body');
      }
  });
});

describe('the headers of a request', () => {
  it('are sent or refused, and never dropped', async () => {
    const port = await http((request, response) => response.end(String(request.headers['x-99'])));
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`] });
    const many = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`x-${i}`, `${i}`]));
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/`, { headers: many(100) })).text(), '99');
    await refuses(fetch(`http://127.0.0.1:${port}/`, { headers: many(101) }), BadInput, /at most 100 headers/);
    const long = (chars: number) => ({ 'x-99': 'x'.repeat(chars) });
    await refuses(fetch(`http://127.0.0.1:${port}/`, { headers: long(64 * 1024) }), TooLarge, /headers of a fetch/);
  });
});
