/** The platform of quickjs vaults beside Node's own, which is the model. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { useText } from '../src/guest/platform/body.ts';
import { structuredClone as ours } from '../src/guest/platform/clone.ts';
import { Headers as OurHeaders } from '../src/guest/platform/headers.ts';
import * as http from '../src/guest/platform/http.ts';
import { textCoders } from '../src/guest/platform/text.ts';
import { URLSearchParams as OurParams, URL as OurURL } from '../src/guest/platform/url.ts';
import { VmAbortController, VmAbortSignal } from '../src/guest/vm-globals.ts';

const powers = {
  encode: (text: string) => new TextEncoder().encode(text).slice().buffer as ArrayBuffer,
  decode: (bytes: ArrayBuffer, encoding: string, fatal: number, keep_bom: number) =>
    new TextDecoder(encoding, { fatal: fatal === 1, ignoreBOM: keep_bom === 1 }).decode(bytes),
};
useText({
  ...powers,
  forms: () => assert.fail('forms have tests of their own'),
  streams: () => assert.fail('streams have tests of their own'),
});
const { TextEncoder: OurEncoder, TextDecoder: OurDecoder } = textCoders(powers);

const PARTS = [
  'href',
  'origin',
  'protocol',
  'username',
  'password',
  'host',
  'hostname',
  'port',
  'pathname',
  'search',
  'hash',
] as const;

/** All that a URL says of itself, or that it is none. */
const said = (Kind: typeof URL | typeof OurURL, text: string, base?: string): object | string => {
  try {
    const url = new Kind(text, base) as URL;
    return Object.fromEntries(PARTS.map((part) => [part, url[part]]));
  } catch (error) {
    return (error as Error).name;
  }
};

const BASES = [undefined, 'http://a.example/b/c?d#e', 'file:///C:/x/y', 'non-special://h/p/q', 'data:text/plain,x'];
const URLS = [
  'http://user:pass@example.org:8080/p/a/t/h?query=string#hash',
  'HTTPS://EXAMPLE.org:443/',
  'http://example.org:80',
  '//host/path',
  '/abs/../x/./y',
  '../../..',
  '?only',
  '#frag',
  '',
  '.',
  'a/b;c=d/%2e%2E/f',
  'http://[::1]:3000/',
  'http://[2001:db8:0:0:1:0:0:1]/',
  'http://[::ffff:1.2.3.4]',
  'http://[1:2:3:4:5:6:7]',
  'http://[::1',
  'http://0x7f.1/',
  'http://192.168.257',
  'http://256.256.256.256',
  'http://1.2.3.4.5',
  'http://4294967296',
  'http://0300.0250.1',
  'http://a.1',
  'http://ex ample.org',
  'http://ex%41mple.org',
  'http://ex%00ample.org',
  'http://bücher.example/straße?ü=ß#é',
  'http://ＧＯ.com',
  'http://日本語。jp',
  'http://xn--bcher-kva.example',
  'http://xn--a',
  'http://a\\b/c',
  'http:\\\\x\\y',
  'http:foo',
  'http:/foo',
  'https:///x',
  'http://',
  'http://:80',
  'http://a:b@',
  'http://@/x',
  'http://a:99999/',
  'http://a:8x/',
  'file:///etc/passwd',
  'file://localhost/x',
  'file:c|/a',
  'file:///c:/../..',
  'file:x',
  'FILE:\\\\server\\share',
  'mailto:a@b.example?subject=x y',
  'data:text/html,<p> x </p>  #z',
  'javascript:alert(1)',
  'blob:https://a.example/uuid',
  'blob:x',
  'non-special:/..//p',
  'non-special://[::1]/x y?"\'#<>`',
  'web+x:///p',
  'ws://a.example:80/?\'"<>`{}|^',
  'http://a/?\ud800',
  'http://a/\t\n b',
  'http://a.b./',
  'http://a..b/',
  'http://a_b/',
  'http://a"b`{}/',
  'http://user@:pass@h/@x',
  '\0http://a/\x1f',
  '1http://x',
];

describe('URLs inside a quickjs vault', () => {
  it('read like Node’s', () => {
    for (const text of URLS)
      for (const base of BASES)
        assert.deepEqual(said(OurURL, text, base), said(URL, text, base), `${JSON.stringify(text)} on ${base}`);
  });

  it('read like Node’s whatever they are made of', () => {
    const piece = fc.constantFrom(
      ...[
        'http:',
        'https:',
        'file:',
        'x:',
        '/',
        '//',
        '\\',
        '?',
        '#',
        '@',
        ':',
        '80',
        '.',
        '..',
        '%2e',
        '%zz',
        'a',
        'B',
      ],
      ...[
        ' ',
        '[',
        ']',
        '|',
        'c:',
        'é',
        '\t',
        '&',
        '=',
        '+',
        '1',
        '0x1',
        '256',
        "'",
        '"',
        '<',
        '^',
        '`',
        '{',
        ';',
        '~',
      ],
    );
    const text = fc.array(piece, { maxLength: 9 }).map((pieces) => pieces.join(''));
    fc.assert(
      fc.property(text, fc.constantFrom(...BASES), (made, base) => {
        assert.deepEqual(said(OurURL, made, base), said(URL, made, base));
      }),
      { numRuns: 3000 },
    );
  });

  it('change like Node’s', () => {
    const values = [
      '',
      'x',
      '/a/../b',
      'https:',
      'ftp',
      'file',
      'h.example:81',
      'h',
      '8080',
      '80',
      '?q=1',
      '#f',
      'ü',
      'a b',
      '70000',
      '9x',
    ];
    const starts = ['http://u:p@h.example:81/p?q#f', 'file:///p', 'x://h/p', 'mailto:a', 'https://h', 'x:/p'];
    for (const start of starts)
      for (const part of PARTS.filter((name) => name !== 'origin' && name !== 'href'))
        for (const value of values) {
          const [mine, theirs] = [new OurURL(start) as unknown as URL, new URL(start)];
          mine[part] = value;
          theirs[part] = value;
          assert.equal(mine.href, theirs.href, `${start}: ${part} = ${value}`);
        }
  });

  it('keep their searchParams and themselves in step', () => {
    for (const Kind of [OurURL, URL]) {
      const url = new Kind('http://a/?x=1&y=2&x=3#h');
      url.searchParams.append('z z', 'ä&=+');
      url.searchParams.delete('y');
      url.searchParams.set('x', '9');
      assert.equal(url.href, 'http://a/?x=9&z+z=%C3%A4%26%3D%2B#h');
      url.search = '?n=m';
      assert.deepEqual([...url.searchParams], [['n', 'm']]);
      assert.equal(url.searchParams.get('none'), null);
    }
  });

  it('have queries that read and write like Node’s', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.string(), fc.string()), { maxLength: 5 }), fc.string(), (pairs, text) => {
        assert.equal(new OurParams(pairs).toString(), new URLSearchParams(pairs).toString());
        assert.deepEqual([...new OurParams(text)], [...new URLSearchParams(text)]);
      }),
    );
  });
});

describe('text inside a quickjs vault', () => {
  it('is decoded like Node does it, whole and in pieces', () => {
    const bytes = fc.uint8Array({ maxLength: 12 });
    const utf8 = fc.string({ unit: 'grapheme', maxLength: 6 }).map((text) => new TextEncoder().encode(text));
    fc.assert(
      fc.property(fc.oneof(bytes, utf8), fc.nat(12), fc.constantFrom('utf-8', 'utf-16le'), (all, cut, encoding) => {
        const pieces = [all.subarray(0, cut), all.subarray(cut)];
        const read = (Kind: typeof TextDecoder) => {
          const decoder = new Kind(encoding);
          return [
            decoder.decode(all),
            pieces.map((p) => decoder.decode(p, { stream: true })).join('') + decoder.decode(),
          ];
        };
        assert.deepEqual(read(OurDecoder as never), read(TextDecoder));
      }),
      { numRuns: 2000 },
    );
  });

  it('is encoded like Node does it, also into what is too short', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 8 }), fc.nat(12), (text, room) => {
        assert.deepEqual(new OurEncoder().encode(text), new TextEncoder().encode(text));
        const [mine, theirs] = [new Uint8Array(room), new Uint8Array(room)];
        assert.deepEqual(new OurEncoder().encodeInto(text, mine), new TextEncoder().encodeInto(text, theirs));
        assert.deepEqual(mine, theirs);
      }),
    );
  });

  it('that is not what it says is refused where that was asked for', () => {
    assert.throws(() => new OurDecoder('utf-8', { fatal: true }).decode(new Uint8Array([0xff])), TypeError);
    assert.throws(() => new OurDecoder('koi8-r'), RangeError);
    for (const Kind of [OurDecoder, TextDecoder])
      for (const given of ['hello', [104, 105], 5, null, {}])
        assert.throws(() => new Kind().decode(given as never), TypeError);
    assert.equal(new OurDecoder().decode(Uint8Array.of(104, 105).buffer), 'hi');
    assert.equal(new OurDecoder().decode(), '');
  });
});

describe('structuredClone inside a quickjs vault', () => {
  it('copies what the language has, with what is shared and what goes round', () => {
    const round: Record<string, unknown> = {
      n: 1n,
      date: new Date(5),
      expression: /a/gi,
      bytes: new Uint8Array([1, 2]),
    };
    round.self = round;
    round.map = new Map<unknown, unknown>([[round, new Set([1, round])]]);
    round.error = new RangeError('no', { cause: 'x' });
    round.boxed = [Object(1n), Object(2), Object('three'), Object(false)];
    round.sparse = Object.assign(new Array(2), { 1: 1 });
    const copy = ours(round);
    assert.notEqual(copy, round);
    assert.equal(copy.self, copy);
    assert.deepEqual(copy, structuredClone(round));
  });

  it('refuses functions, symbols and promises, and runs no method of what it copies', () => {
    for (const value of [() => {}, Symbol('x'), Object(Symbol('x')), { deep: [() => {}] }, Promise.resolve()])
      assert.throws(() => ours(value), { name: 'DataCloneError' });
    const hostile = Object.assign(new Map(), { entries: () => assert.fail('it was called') });
    assert.deepEqual(ours(hostile), new Map());
  });

  it('empties what is transferred', () => {
    const buffer = new ArrayBuffer(3);
    assert.equal(ours(buffer, { transfer: [buffer] }).byteLength, 3);
    assert.equal(buffer.byteLength, 0);
  });
});

describe('requests and responses inside a quickjs vault', () => {
  const kinds = [
    { Headers, Request, Response },
    { Headers: OurHeaders, Request: http.Request, Response: http.Response },
  ] as unknown as { Headers: typeof Headers; Request: typeof Request; Response: typeof Response }[];

  it('have headers like Node’s', () => {
    const told = kinds.map(({ Headers: Kind }) => {
      const headers = new Kind([
        ['B', ' 2 '],
        ['a', '1'],
        ['Set-Cookie', 'x=1'],
        ['set-cookie', 'y=2'],
      ]);
      headers.append('b', '3');
      return [[...headers], headers.get('B'), headers.getSetCookie(), headers.has('c')];
    });
    assert.deepEqual(told[1], told[0]);
    for (const { Headers: Kind } of kinds) {
      assert.throws(() => new Kind({ 'a b': 'x' }), TypeError);
      assert.throws(() => new Kind({ a: 'x\ny' }), TypeError);
    }
  });

  it('carry bodies like Node’s', async () => {
    const told = await Promise.all(
      kinds.map(async ({ Request: Req, Response: Res }) => {
        const request = new Req('http://a.example/x?y', {
          method: 'post',
          body: new URLSearchParams({ a: 'b' }).toString(),
        });
        const copy = new Req(request, { headers: { x: 'y' } });
        const json = Res.json({ a: 1 }, { status: 201 });
        const twin = json.clone();
        return [
          [request.method, request.url, request.headers.get('content-type'), request.bodyUsed],
          [await copy.text(), copy.headers.get('x')],
          [json.status, json.ok, json.headers.get('content-type'), await json.json(), await twin.text()],
          [...new Uint8Array(await new Res(new Uint8Array([1, 2])).arrayBuffer())],
          [await new Res(null).text(), new Res().body, Res.redirect('http://a.example/').headers.get('location')],
          await new Res('twice').text(),
        ];
      }),
    );
    assert.deepEqual(told[1], told[0]);
  });

  it('refuse what Node refuses', async () => {
    for (const { Request: Req, Response: Res } of kinds) {
      assert.throws(() => new Req('http://a', { body: 'x' }), TypeError);
      assert.throws(() => new Req('nowhere'), TypeError);
      assert.throws(() => new Req('http://u:p@a'), TypeError);
      assert.throws(() => new Req('http://a', { method: 'a b' }), TypeError);
      assert.throws(() => new Req('http://a', { redirect: 'sideways' as never }), TypeError);
      assert.throws(() => new Res('', { status: 99 }), RangeError);
      assert.throws(() => new Res('x', { status: 204 }), TypeError);
      const response = new Res('x');
      await response.text();
      await assert.rejects(response.text(), TypeError);
      assert.throws(() => response.clone(), TypeError);
    }
  });

  it('say what else they are like Node’s, and keep where they lead', () => {
    const plain = ['cache', 'credentials', 'destination', 'duplex', 'integrity', 'keepalive', 'mode', 'redirect'];
    const told = kinds.map(({ Request: Req }) => {
      const fresh = new Req('http://a.example/') as unknown as Record<string, unknown>;
      const manual = new Req('http://a.example/', { redirect: 'manual' });
      return [
        [...plain, 'referrer', 'referrerPolicy'].map((name) => [name, fresh[name], name in fresh]),
        [manual, manual.clone(), new Req(manual), new Req(manual, { redirect: 'error' })].map((one) => one.redirect),
      ];
    });
    assert.deepEqual(told[1], told[0]);
  });

  it('take a body in pieces', async () => {
    async function* pieces() {
      yield new Uint8Array([0x68, 0xc3]);
      yield new Uint8Array([0xa9]);
    }
    assert.equal(await new http.Response(pieces()).text(), 'hé');
  });
});

describe('an AbortSignal inside a quickjs vault', () => {
  const kinds = [
    { Controller: AbortController, Signal: AbortSignal },
    { Controller: VmAbortController, Signal: VmAbortSignal },
  ] as unknown as { Controller: typeof AbortController; Signal: typeof AbortSignal }[];

  it('has the reasons that Node’s has', async () => {
    const told = await Promise.all(
      kinds.map(async ({ Controller, Signal }) => {
        const late = Signal.timeout(1);
        await new Promise((resolve) => late.addEventListener('abort', resolve, { once: true }));
        const given = new Controller();
        given.abort(null);
        return [Signal.abort(), late, Signal.abort('mine'), given.signal].map(({ reason }) =>
          reason instanceof DOMException ? [reason.name, reason.message, reason.code] : reason,
        );
      }),
    );
    assert.deepEqual(told[1], told[0]);
  });

  it('tells its listeners as an EventTarget does', () => {
    const told = kinds.map(({ Controller }) => {
      const said: unknown[] = [];
      const [controller, off] = [new Controller(), new Controller()];
      const { signal } = controller;
      const twice = () => said.push('twice');
      const gone = () => said.push('gone');
      signal.addEventListener('abort', twice, { once: true });
      signal.addEventListener('abort', twice);
      signal.addEventListener('abort', { handleEvent: ({ type }: { type: string }) => said.push(type) } as never);
      signal.addEventListener('abort', null as never);
      signal.addEventListener('abort', gone, { signal: off.signal });
      signal.addEventListener('abort', gone, { signal: AbortSignal.abort() });
      off.abort();
      for (let i = 0; i < 2; i++) controller.abort();
      return said;
    });
    assert.deepEqual(told[1], told[0]);
  });
});
