/** Bodies of a guest's `fetch` as they are on the wire, and while nobody takes them: over a session, and servers on loopback. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BadInput } from '@hauki/protocol';
import { guest, refuses, tcp } from './outward-support.ts';

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
