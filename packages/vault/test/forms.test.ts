/** Forms of quickjs vaults beside Node's own, which are the model; what is hostile is refused, and nothing else happens. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { useText } from '../src/guest/platform/body.ts';
import * as http from '../src/guest/platform/http.ts';
import { FORM } from '../src/guest/platform/limits.ts';
import { URLSearchParams } from '../src/guest/platform/url.ts';
import { makeForms } from '../src/guest/vm-forms.ts';
import type { PlatformPowers } from '../src/guest/vm-platform.ts';
import type { Streams } from '../src/guest/vm-streams.ts';

const none = () => assert.fail('nothing here packs anything');
const powers: PlatformPowers = {
  encode: (text) => new TextEncoder().encode(text).slice().buffer as ArrayBuffer,
  decode: (bytes, encoding, fatal, keep_bom) =>
    new TextDecoder(encoding, { fatal: fatal === 1, ignoreBOM: keep_bom === 1 }).decode(bytes),
  find(bytes, what, most) {
    const [where, needle] = [Buffer.from(bytes), Buffer.from(what)];
    const all: number[] = [];
    for (let at = where.indexOf(needle); at >= 0 && all.length < most; at = where.indexOf(needle, at + needle.length))
      all.push(at);
    return Uint32Array.from(all).buffer;
  },
  deflate: none,
  inflate: none,
  checksum: none,
  forms: () => powers.made_forms!,
  streams: () => ({ ReadableStream }) as unknown as Streams,
};
powers.made_forms = makeForms(powers, { URLSearchParams });
useText(powers);
const { Blob: OurBlob, File: OurFile, FormData: OurForm } = powers.made_forms;

const BOUNDARY = '----WebKitFormBoundary0123456789abcdef';
const TYPE = `multipart/form-data; boundary=${BOUNDARY}`;

/** All that a form says of itself. */
async function said(form: Iterable<[string, unknown]>): Promise<unknown[]> {
  const all: unknown[] = [];
  for (const [name, value] of form)
    if (typeof value === 'string') all.push([name, value]);
    else {
      const file = value as File;
      all.push([name, file.name, file.type, file.size, Buffer.from(await file.arrayBuffer()).toString('hex')]);
    }
  return all;
}
const ours = async (bytes: Uint8Array | string, type = TYPE) =>
  said(
    await new http.Request('http://x/', { method: 'POST', body: bytes, headers: { 'content-type': type } }).formData(),
  );
const nodes = async (bytes: Uint8Array | string, type = TYPE) =>
  said(await new Response(bytes as BodyInit, { headers: { 'content-type': type } }).formData());
const part = (head: string, body: string) =>
  `--${BOUNDARY}\r\nContent-Disposition: form-data; ${head}\r\n\r\n${body}\r\n`;
const END = `--${BOUNDARY}--\r\n`;

describe('forms in quickjs', () => {
  it('are read as Node reads them', async () => {
    const forms = [
      part('name="a"', '1') + part('name="a"', '2') + part('name="ü"', 'ö\r\nä') + END,
      part('name="f"; filename="a.txt"\r\nContent-Type: text/plain', 'x\r\n--y') + END,
      part('name="f"; filename="b.bin"\r\nContent-Type: image/PNG', '\0\r\n\r\n') + END,
      part('name="f"; filename=""\r\nContent-Type: application/octet-stream', '') + END,
      part('name="f"; filename="no type"', 'x') + END,
      part('name="a%22b%0D%0Ac"', '') + END,
      part('name="bom"', '\ufeffx') + END,
      part('name="a"\r\nX-More: y', 'z') + END.trimEnd(),
      END,
    ];
    for (const form of forms) assert.deepEqual(await ours(form), await nodes(form), form);
    const url_encoded = 'application/x-www-form-urlencoded;charset=UTF-8';
    for (const text of ['', 'a=1&a=2&b=%C3%BC+x', 'a', '=b', '&&x=%zz'])
      assert.deepEqual(await ours(text, url_encoded), await nodes(text, url_encoded), text);
  });

  it('take names of files as RFC 8187 writes them, boundaries in quotes, and pieces', async () => {
    const named = part(`name="f"; filename="x"; filename*=utf-8''%E2%82%AC%22.txt`, 'y') + END;
    assert.deepEqual(await ours(named), [['f', '€".txt', 'text/plain', 1, '79']]);
    const quoted = `--a b\r\nContent-Disposition: form-data; name=plain\r\n\r\n1\r\n--a b--`;
    assert.deepEqual(await ours(quoted, 'multipart/form-data; charset=x; boundary="a b"'), [['plain', '1']]);
    // A boundary is one only at the beginning of a line.
    assert.deepEqual(await ours(part('name="a"', `--${BOUNDARY}`) + END), [['a', `--${BOUNDARY}`]]);
    const whole = new TextEncoder().encode(part('name="a"', '1') + END);
    const pieces = async function* () {
      for (const byte of whole) yield Uint8Array.of(byte);
    };
    const headers = { 'content-type': TYPE };
    const request = new http.Request('http://x/', { method: 'POST', body: pieces(), headers });
    assert.deepEqual(await said(await request.formData()), [['a', '1']]);
    await assert.rejects(request.formData(), /already been read/);
  });

  it('that are malformed are refused, and it is said what is wrong', async () => {
    const refused: [string, RegExp][] = [
      ['', /does not begin with its boundary/],
      ['hello', /does not begin with its boundary/],
      [part('name="a"', '1'), /ends within a part/],
      [part('name="a"', '1').slice(0, -2), /ends within a part/],
      [`--${BOUNDARY}\r\n\r\nx\r\n${END}`, /no form-data|no header|no end/],
      [part('filename="x"', '1') + END, /has no name/],
      [part('name="a', '1') + END, /has no end/],
      [part('name="a"\r\nno header', '1') + END, /is no header/],
      [part('name="a"', '1').replace('form-data', 'attachment') + END, /is no form-data/],
      [part(`name="a"; filename*=utf-8''%FF`, '1') + END, /not in UTF-8/],
      [part(`name="${'x'.repeat(FORM.head_bytes)}"`, '1') + END, /no end within 16384 bytes/],
      [`--${BOUNDARY}x`, /followed by something else/],
    ];
    for (const [form, pattern] of refused)
      await assert.rejects(ours(form), { name: 'TypeError', message: pattern }, form);
    for (const type of ['multipart/form-data', `multipart/form-data; boundary=${'x'.repeat(71)}`])
      await assert.rejects(ours(END, type), /names no boundary of 1 to 70 characters/);
    await assert.rejects(ours('{}', 'application/json'), /not "application\/json"/);
    await assert.rejects(ours('a=b', ''), /A form is of type multipart/);
  });

  it('have so many parts and bytes and no more', async () => {
    const many = (count: number) => part('name="a"', '1').repeat(count) + END;
    assert.equal((await ours(many(FORM.parts))).length, FORM.parts);
    await assert.rejects(ours(many(FORM.parts + 1)), /more than 1000 parts/);
    await assert.rejects(ours(many(5_000)), /more than 1000 parts/);
    const pairs = (count: number) => Array.from({ length: count }, (_, i) => `a${i}=1`).join('&');
    const url_encoded = 'application/x-www-form-urlencoded';
    assert.equal((await ours(pairs(FORM.parts), url_encoded)).length, FORM.parts);
    await assert.rejects(ours(pairs(FORM.parts + 1), url_encoded), /more than 1000 parts/);
    const around = part('name="f"; filename="x"', '').length + END.length;
    const large = (size: number) => part('name="f"; filename="x"', 'x'.repeat(size - around)) + END;
    assert.equal((await ours(large(FORM.bytes))).length, 1);
    await assert.rejects(ours(large(FORM.bytes + 1)), /at most 8388608 bytes/);
    let taken = 0;
    const endless = async function* () {
      for (;;) {
        taken++;
        yield new Uint8Array(1024 * 1024);
      }
    };
    const request = new http.Request('http://x/', {
      method: 'POST',
      body: endless(),
      headers: { 'content-type': TYPE },
    });
    await assert.rejects(request.formData(), /at most 8388608 bytes/);
    assert.equal(taken, 9);
  });

  it('that were written are read as they were, by Node too', async () => {
    const text = fc.string({ unit: 'binary', maxLength: 20 });
    const file = fc.record({
      name: text,
      type: fc.constantFrom('', 'text/plain', 'image/png'),
      bytes: fc.uint8Array({ maxLength: 200 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(text, fc.oneof(text, file)), { maxLength: 8 }), async (entries) => {
        const form = new OurForm();
        for (const [name, value] of entries)
          if (typeof value === 'string') form.append(name, value);
          else form.append(name, new OurFile([value.bytes], value.name, { type: value.type }));
        const response = new http.Response(form);
        const type = response.headers.get('content-type')!;
        const bytes = await response.bytes();
        const line = (value: string) => value.replace(/\r\n?|\n/g, '\r\n').toWellFormed();
        const wanted = entries.map(([name, value]) =>
          typeof value === 'string'
            ? [line(name), line(value)]
            : [
                line(name),
                value.name.toWellFormed(),
                value.type || 'application/octet-stream',
                value.bytes.length,
                Buffer.from(value.bytes).toString('hex'),
              ],
        );
        assert.deepEqual(await ours(bytes, type), wanted);
        assert.deepEqual(await nodes(bytes, type), wanted);
      }),
      { numRuns: 200 },
    );
  });

  it('are whole or refused with a TypeError, whatever bytes come', async () => {
    const piece = fc.constantFrom(
      '\r\n',
      '--',
      BOUNDARY,
      ':',
      ';',
      '"',
      '=',
      'name',
      'filename',
      'form-data',
      'Content-Disposition: ',
      '\r\n\r\n',
      'x',
      '\0',
      '%22',
      "filename*=utf-8''%",
      '\ufeff',
      part('name="a"', '1'),
      END,
    );
    const form = fc.array(piece, { maxLength: 30 }).map((pieces) => pieces.join(''));
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          form,
          form.map((text) => part('name="a"', '1') + text),
        ),
        async (text) => {
          const outcome = await ours(text).catch((error) => error);
          if (Array.isArray(outcome)) {
            assert.ok(outcome.length <= FORM.parts);
            // What Node takes too it takes as the same.
            const model = await nodes(text).catch(() => undefined);
            if (model) assert.deepEqual(outcome, model);
          } else assert.ok(outcome instanceof TypeError, String(outcome));
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it('and blobs and files do what Node’s do', async () => {
    for (const [Blob, File, FormData] of [
      [OurBlob, OurFile, OurForm],
      [globalThis.Blob, globalThis.File, globalThis.FormData],
    ] as unknown as [typeof OurBlob, typeof OurFile, typeof OurForm][]) {
      const blob = new Blob(['ab', Uint8Array.of(99), new Blob(['d']), 5], { type: 'Text/Plain' });
      assert.deepEqual([blob.size, blob.type, await blob.text()], [5, 'text/plain', 'abcd5']);
      assert.deepEqual([await blob.slice(1, -1).text(), blob.slice(-2, 1).size, blob.slice().type], ['bcd', 0, '']);
      assert.equal(new Blob([], { type: 'ü' }).type, '');
      const pieces: unknown[] = [];
      for await (const piece of blob.stream() as unknown as AsyncIterable<Uint8Array>) pieces.push(...piece);
      assert.deepEqual(pieces, [...Buffer.from('abcd5')]);
      assert.throws(() => new Blob('text' as never), TypeError);
      const file = new File(['x'], 'a.txt', { lastModified: 5 });
      assert.deepEqual(
        [file.name, file.lastModified, file instanceof Blob, String(file)],
        ['a.txt', 5, true, '[object File]'],
      );
      const form = new FormData();
      form.append('a', 1);
      form.append('b', blob);
      form.append('a', file, 'other.txt');
      form.set('c', 'x');
      form.set('a', 'only');
      form.append('c', file);
      assert.deepEqual([...form.keys()], ['a', 'b', 'c', 'c']);
      assert.deepEqual(
        [form.get('a'), (form.get('b') as unknown as File).name, form.getAll('c').length],
        ['only', 'blob', 2],
      );
      form.delete('c');
      assert.deepEqual([form.has('c'), form.get('c'), [...form.values()].length], [false, null, 2]);
      assert.throws(() => form.append('a', 'text', 'name'), TypeError);
    }
    const response = new http.Response(new OurBlob(['x'], { type: 'image/png' }));
    assert.equal(response.headers.get('content-type'), 'image/png');
    const blob = await response.blob();
    assert.deepEqual([blob.type, await blob.text()], ['image/png', 'x']);
    assert.equal((await new http.Response('x').blob()).type, 'text/plain;charset=utf-8');
  });
});
