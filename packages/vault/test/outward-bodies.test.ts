/** Bodies of a guest's `fetch` as they are on the wire, and while nobody takes them: over a session, and servers on loopback. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BadInput } from '@hauki/protocol';
import { guest, http, refuses, tcp, until } from './outward-support.ts';

describe('the body of a request', () => {
  it('says where it ends, whatever the method and however it is given', async () => {
    let raw = '';
    const port = await tcp((socket) =>
      socket.on('data', (chunk) => {
        raw += chunk.toString('latin1');
        if (/THE END/.test(raw)) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi');
      }),
    );
    const { fetch } = guest({ fetch: [`127.0.0.1:${port}`] });
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
    for (const method of ['GET', 'HEAD'])
      for (const [, form] of forms) await refuses(fetch(url, { method, body: form() }), BadInput, /has no body/);
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
});
