/** The Request and Response that handlers get, in Node vaults and in quickjs, beside Node's own, which are the model. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { FlatHeaders } from '@hauki/protocol';
import { FastRequest, useFastHttp } from '../src/guest/fast-http.ts';
import { useText } from '../src/guest/platform/body.ts';
import * as vm from '../src/guest/platform/http.ts';

const none = () => assert.fail('nothing here needs it');
useText({
  encode: (text: string) => new TextEncoder().encode(text).slice().buffer as ArrayBuffer,
  decode: (bytes, encoding, _fatal, keep_bom) => new TextDecoder(encoding, { ignoreBOM: keep_bom === 1 }).decode(bytes),
  forms: none,
  streams: none,
});

const native = { Request, Response };
useFastHttp();
const fast = { Request: globalThis.Request, Response: globalThis.Response };
Object.assign(globalThis, native);

interface Kind {
  name: string;
  Request: typeof Request;
  Response: typeof Response;
  arrived(headers: FlatHeaders, body: string | Uint8Array | null): Request;
}

const URL_ASKED = 'http://a.example/';
const KINDS: Kind[] = [
  {
    name: 'Node',
    ...native,
    arrived: (headers, body) =>
      new native.Request(URL_ASKED, {
        method: 'POST',
        headers: Object.fromEntries(headers.map((text, i) => [text, headers[i + 1]]).filter((_, i) => i % 2 === 0)),
        body: body as BodyInit,
      }),
  },
  {
    name: 'a Node vault',
    ...fast,
    arrived: (headers, body) => new FastRequest('POST', URL_ASKED, headers, body) as unknown as Request,
  },
  {
    name: 'quickjs',
    Request: vm.Request as unknown as typeof Request,
    Response: vm.Response as unknown as typeof Response,
    arrived: (headers, body) => vm.arrived('POST', URL_ASKED, headers, body) as unknown as Request,
  },
];

/** What comes of it: a value, or the name of what was thrown. */
const outcome = async (run: () => unknown): Promise<unknown> => {
  try {
    return await run();
  } catch (error) {
    return (error as Error).name;
  }
};

/** Asks the same of each kind, and compares with Node's answer. */
async function alike(ask: (kind: Kind) => unknown): Promise<unknown> {
  const [model, ...others] = await Promise.all(KINDS.map((kind) => outcome(() => ask(kind))));
  for (const [i, other] of others.entries()) assert.deepEqual(other, model, KINDS[i + 1]!.name);
  return model;
}

const READERS = ['text', 'json', 'arrayBuffer', 'bytes'] as const;

describe('a body that was read', () => {
  for (const body of ['"text"', new TextEncoder().encode('"bytes"')])
    it(`as ${typeof body} is refused to whoever asks again, and goes along with nothing`, async () => {
      const told = await alike(async ({ Request: Req, Response: Res, arrived }) => {
        const said: unknown[] = [];
        for (const made of [() => arrived([], body), () => new Res(body as BodyInit)])
          for (const first of READERS) {
            const one = made();
            said.push(one.bodyUsed);
            await one[first]();
            for (const again of READERS) said.push(await outcome(() => one[again]()));
            said.push(
              one.bodyUsed,
              await outcome(() => one.clone()),
              await outcome(() => new Res(one.body)),
              await outcome(() => new Req('http://b.example/', one as Request)),
              await outcome(() => one.body!.getReader()),
            );
          }
        const moved = arrived([], body);
        said.push(await new Req('http://b.example/', moved).text(), moved.bodyUsed, await outcome(() => moved.text()));
        return said;
      });
      assert.ok((told as unknown[]).includes('TypeError'));
    });
});

describe('a body that was cancelled', () => {
  it('is used, as one that was read', async () => {
    const told = await alike(({ Response: Res, arrived }) =>
      Promise.all(
        [new Res('x'), new Res(new Uint8Array(2)), arrived([], 'x')].map(async (one) => {
          await one.body!.cancel();
          return [one.bodyUsed, await outcome(() => one.text()), await outcome(() => one.clone())];
        }),
      ),
    );
    assert.match(JSON.stringify(told), /true.*TypeError/);
  });
});

describe('an answer', () => {
  it('keeps copies of what it is made of', async () => {
    const told = await alike(async ({ Response: Res }) => {
      const bytes = new Uint8Array([65, 65]);
      const headers: Record<string, string> = { 'x-a': '1' };
      const shared = new Headers(headers);
      const init = { status: 201, headers };
      const all = [
        new Res(bytes, init),
        new Res(Buffer.from(bytes.buffer), { headers: [['x-a', '1']] }),
        new Res('x', { headers: shared as Headers }),
      ];
      bytes.fill(66);
      Object.assign(headers, { 'x-a': '2', 'x-b': '3' });
      shared.set('x-a', '2');
      init.status = 202;
      const said = all.map(async (one) => [one.status, [...one.headers], await one.text()]);
      return Promise.all(said);
    });
    assert.match(JSON.stringify(told), /201.*x-a","1.*AA/);
  });

  it('takes headers of every kind, and refuses bad ones at once', async () => {
    await alike(async ({ Response: Res }) => {
      const made = (headers: unknown) => outcome(() => [...new Res('x', { headers } as ResponseInit).headers]);
      const symbol = { 'x-a': Symbol('x') };
      return Promise.all(
        [
          ...[{}, undefined, { 'X-A': ' trimmed ', 'x-n': 5, 'x-u': undefined, 'x-l': ['a', 'b'] }, { 'x-a': '' }],
          ...[new Map([['x-a', '1']]), new URLSearchParams('x-a=1'), [['x-a', '1']], { 'x-a': 'caf\u00e9' }],
          Object.create({ 'x-inherited': '1' }, { 'x-own': { value: '2', enumerable: true } }),
          ...[{ 'content-type': 'text/html' }, { 'Content-Type': 'a/b' }, { 'x-a': '1', 'X-A': '2' }],
          ...[
            { 'bad name': '1' },
            { '': '1' },
            { 'x-a': 'a\nb' },
            { 'x-a': '\u20ac' },
            { 'x-a': '\0' },
            symbol,
            'text',
            5,
          ],
          ...[[['x-a']], [['x-a', '1', '2']], [5]],
        ].map(made),
      );
    });
  });

  it('is JSON by its type, whatever its headers are made of', async () => {
    await alike(({ Response: Res }) =>
      [undefined, { a: 'b' }, new Map([['a', 'b']]), { 'x-a': 'caf\u00e9' }, { 'content-type': 'a/b' }].map(
        (headers) => [...Res.json({ a: 1 }, { headers } as ResponseInit).headers],
      ),
    );
  });

  it('reads text as it would be decoded from what is sent', async () => {
    await alike(({ Response: Res, arrived }) =>
      Promise.all(
        ['\ufeffhi', 'a\ud800b', 'plain', ''].flatMap((text) => [new Res(text).text(), arrived([], text).text()]),
      ),
    );
  });

  it('has the type that its headers have, also where that was taken away', async () => {
    await alike(async ({ Response: Res }) => {
      const one = new Res('x', { status: 404 });
      one.headers.delete('content-type');
      const { body } = one;
      return [body === null, [...one.headers], one.status, [...one.clone().headers]];
    });
  });
});
