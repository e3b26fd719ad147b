/** MeshFS over plain HTTP, as curl or a browser would use it: raw content, ranges, conditions, pieces, events. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { describe, it } from 'node:test';
import { until, useMesh } from './support/mesh.ts';

const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest();
const reprDigest = (bytes: Uint8Array | string) => `sha-256=:${sha256(bytes).toString('base64')}:`;

describe('MeshFS over HTTP', () => {
  const used = useMesh({ nodes: [] });
  let count = 0;
  const fresh = (space = 'data') => `gem-pointer://${space}/http/${++count}`;
  const raw = (pointer: string, more = '') => `/api/v2/meshfs/raw?pointer=${encodeURIComponent(pointer)}${more}`;
  const ask = (path: string, init: RequestInit = {}) =>
    fetch(new URL(path, used.local.url), {
      ...init,
      headers: { ...(init.headers as object), authorization: `Bearer ${used.local.token}` },
    });
  const put = (pointer: string, body: Uint8Array | string, headers: Record<string, string> = {}, more = '') =>
    ask(raw(pointer, more), { method: 'PUT', body: body as BodyInit, headers });
  const failed = async (answer: Response): Promise<[number, string]> => [
    answer.status,
    ((await answer.json()) as any).error.data.name,
  ];

  it('keeps bytes and gives them back with their digest, kind and tag', async () => {
    const bytes = randomBytes(200_000);
    const pointer = fresh('wiki');
    const created = await put(pointer, bytes, { 'content-type': 'image/png', 'repr-digest': reprDigest(bytes) });
    assert.equal(created.status, 201);
    assert.equal(((await created.json()) as any).digest, sha256(bytes).toString('hex'));
    assert.equal((await put(pointer, bytes)).status, 200);
    const got = await ask(raw(pointer));
    assert.deepEqual(Buffer.from(await got.arrayBuffer()), bytes);
    const head = await ask(raw(pointer), { method: 'HEAD' });
    for (const answer of [got, head]) {
      assert.equal(answer.status, 200);
      const header = (name: string) => answer.headers.get(name);
      assert.equal(header('content-type'), 'image/png');
      assert.equal(header('content-length'), '200000');
      assert.equal(header('etag'), `"${sha256(bytes).toString('hex')}"`);
      assert.equal(header('repr-digest'), reprDigest(bytes));
      assert.equal(header('hauki-version'), '2');
      assert.equal(header('accept-ranges'), 'bytes');
      assert.equal(header('x-content-type-options'), 'nosniff');
    }
    assert.equal((await ask(raw(pointer), { headers: { 'if-none-match': head.headers.get('etag')! } })).status, 304);
    assert.equal((await ask(raw(pointer, '&version=1'))).headers.get('hauki-version'), '1');
    const file = `${used.local.data_dir}/core/wiki/http/${count}.bin`;
    assert.deepEqual(readFileSync(file), bytes, 'the readable file of a wiki pointer');
  });

  it('refuses a body that has not the announced digest, and changes nothing', async () => {
    const pointer = fresh();
    await put(pointer, 'old');
    const headers = { 'repr-digest': reprDigest('other') };
    assert.deepEqual(await failed(await put(pointer, 'new', headers)), [400, 'DigestMismatch']);
    assert.deepEqual(await failed(await put(pointer, randomBytes(100_000), headers)), [400, 'DigestMismatch']);
    assert.deepEqual(await failed(await put(pointer, 'new', { 'repr-digest': 'sha-256=x' })), [400, 'BadInput']);
    assert.deepEqual(await failed(await put(pointer, 'new', { 'content-encoding': 'gzip' })), [400, 'BadInput']);
    assert.equal(await (await ask(raw(pointer))).text(), 'old');
  });

  it('answers ranges as RFC 9110 says', async () => {
    const bytes = randomBytes(150_000);
    const pointer = fresh();
    await put(pointer, bytes);
    const range = (range: string, more = {}) => ask(raw(pointer), { headers: { range, ...more } });
    for (const [asked, start, end] of [
      ['bytes=0-0', 0, 1],
      ['bytes=10-19', 10, 20],
      ['bytes=140000-', 140_000, 150_000],
      ['bytes=140000-999999', 140_000, 150_000],
      ['bytes=-5', 149_995, 150_000],
      ['bytes=-999999', 0, 150_000],
    ] as const) {
      const answer = await range(asked);
      assert.equal(answer.status, 206, asked);
      assert.equal(answer.headers.get('content-range'), `bytes ${start}-${end - 1}/150000`);
      assert.equal(answer.headers.get('repr-digest'), reprDigest(bytes));
      assert.deepEqual(Buffer.from(await answer.arrayBuffer()), bytes.subarray(start, end), asked);
    }
    for (const asked of ['bytes=150000-', 'bytes=-0', 'bytes=999999-1000000']) {
      const answer = await range(asked);
      assert.equal(answer.headers.get('content-range'), 'bytes */150000');
      assert.deepEqual(await failed(answer), [416, 'RangeUnsatisfiable'], asked);
    }
    for (const asked of ['bytes=5-4', 'bytes=0-1,5-6', 'lines=1-2', 'bytes=a-b', 'bytes=-'])
      assert.equal((await range(asked)).status, 200, `${asked} may be ignored`);
    const etag = `"${sha256(bytes).toString('hex')}"`;
    assert.equal((await range('bytes=0-0', { 'if-range': etag })).status, 206);
    assert.equal((await range('bytes=0-0', { 'if-range': '"other"' })).status, 200);
  });

  it('reads under conditions only: If-Match first, then If-None-Match, then the range', async () => {
    const pointer = fresh();
    const tag = (text: string) => `"${sha256(text).toString('hex')}"`;
    await put(pointer, 'one');
    await put(pointer, 'two');
    const get = (headers: Record<string, string>, more = '', method = 'GET') =>
      ask(raw(pointer, more), { method, headers });
    for (const match of [tag('two'), `"x", ${tag('two')}`, '*', '"2"'])
      for (const method of ['GET', 'HEAD']) assert.equal((await get({ 'if-match': match }, '', method)).status, 200);
    assert.equal((await get({ 'if-match': tag('one') }, '&version=1')).status, 200);
    const part = await get({ 'if-match': tag('two'), range: 'bytes=1-' });
    assert.deepEqual([part.status, await part.text()], [206, 'wo']);
    for (const match of [tag('one'), `W/${tag('two')}`, '"1"', '"x"', 'nonsense', '']) {
      const refused = await get({ 'if-match': match, 'if-none-match': tag('two'), range: 'bytes=9-' });
      assert.deepEqual(await failed(refused), [412, 'PreconditionFailed'], match);
      assert.equal((await get({ 'if-match': match }, '', 'HEAD')).status, 412, match);
    }
    const { error } = (await (await get({ 'if-match': '"1"' })).json()) as any;
    assert.deepEqual(error.data.fields.found, { version: 2, digest: sha256('two').toString('hex') });
    assert.deepEqual(await failed(await get({ 'if-match': '"1"' }, '&version=9')), [404, 'VersionUnknown']);
    for (const method of ['GET', 'HEAD'])
      assert.equal((await get({ 'if-none-match': tag('two'), range: 'bytes=9-' }, '', method)).status, 304, method);
  });

  it('writes under conditions only, and says what is there instead', async () => {
    const pointer = fresh();
    const tag = (text: string) => `"${sha256(text).toString('hex')}"`;
    assert.equal((await put(pointer, '1', { 'if-none-match': '*' })).status, 201);
    const refused = await put(pointer, '2', { 'if-none-match': '*' });
    assert.equal(refused.status, 412);
    const { error } = (await refused.json()) as any;
    assert.deepEqual(error.data.fields.found, { version: 1, digest: sha256('1').toString('hex') });
    assert.equal((await put(pointer, '2', { 'if-match': tag('1') })).status, 200);
    assert.equal((await put(pointer, '3', { 'if-match': `"9", "2"` })).status, 200);
    assert.equal((await put(pointer, '4', { 'if-match': '*' })).status, 200);
    for (const header of [tag('1'), `W/${tag('4')}`, '"3"'])
      assert.deepEqual(await failed(await put(pointer, 'x', { 'if-match': header })), [412, 'PreconditionFailed']);
    for (const headers of [
      { 'if-match': 'nonsense' },
      { 'if-none-match': '"x"' },
      { 'if-match': '*', 'if-none-match': '*' },
    ])
      assert.deepEqual(await failed(await put(pointer, 'x', headers as never)), [400, 'BadInput']);
    const write = (headers: object) =>
      ask('/api/v2/meshfs/write', {
        method: 'POST',
        body: JSON.stringify({ pointer, content: '5' }),
        headers: { 'content-type': 'application/json', ...headers },
      });
    assert.deepEqual(await failed(await write({ 'if-match': '"3"' })), [412, 'PreconditionFailed']);
    const written = await write({ 'if-match': '"4"' });
    assert.equal(written.headers.get('etag'), tag('5'));
    assert.deepEqual(await failed(await ask(raw(pointer), { method: 'DELETE', headers: { 'if-match': '"4"' } })), [
      412,
      'PreconditionFailed',
    ]);
    assert.equal((await ask(raw(pointer), { method: 'DELETE', headers: { 'if-match': '"5"' } })).status, 200);
    assert.deepEqual(await failed(await ask(raw(pointer))), [410, 'PointerDeleted']);
    assert.deepEqual(await failed(await put(pointer, 'x', { 'if-match': '*' })), [412, 'PreconditionFailed']);
    assert.equal(await (await ask(raw(pointer, '&version=3'))).text(), '3');
    const history = (await (await ask(`/api/v2/meshfs/history?pointer=${encodeURIComponent(pointer)}`)).json()) as any;
    assert.deepEqual(
      history.versions.map((one: any) => [one.version, one.deleted === true]),
      [[6, true], [5, false], [4, false], [3, false], [2, false], [1, false]],
    ); // biome-ignore format: a table
  });

  it('takes an upload in pieces and tells how far it is', async () => {
    const bytes = randomBytes(90_000);
    const pointer = fresh();
    const upload = '&upload=my-upload-1';
    const piece = (start: number, end: number, more = {}) =>
      put(pointer, bytes.subarray(start, end), { 'content-range': `bytes ${start}-${end - 1}/90000`, ...more }, upload);
    const first = await piece(0, 50_000);
    assert.equal(first.status, 202);
    assert.equal(first.headers.get('upload-offset'), '50000');
    const head = await ask(raw(pointer, upload), { method: 'HEAD' });
    assert.deepEqual(
      [head.status, head.headers.get('upload-offset'), head.headers.get('upload-complete')],
      [204, '50000', '?0'],
    );
    assert.deepEqual(await failed(await piece(40_000, 60_000)), [409, 'UploadOffset']);
    assert.deepEqual(await failed(await ask(raw(pointer))), [404, 'PointerUnknown']);
    const last = await piece(50_000, 90_000, { 'repr-digest': reprDigest(bytes) });
    assert.equal(last.status, 201);
    assert.deepEqual(Buffer.from(await (await ask(raw(pointer))).arrayBuffer()), bytes);
    const after = await ask(raw(pointer, upload), { method: 'HEAD' });
    assert.equal(after.headers.get('upload-complete'), '?1');
    assert.equal(((await (await piece(50_000, 90_000)).json()) as any).version, 1, 'the lost answer is given again');
    assert.deepEqual(await failed(await put(pointer, 'x', {}, upload)), [400, 'BadInput']);
    for (const range of ['bytes 0-1/x', 'bytes 5-4/9', 'bytes 0-9/9', 'lines 0-1/2', 'bytes */*'])
      assert.deepEqual(
        await failed(await put(pointer, 'x', { 'content-range': range }, upload)),
        [400, 'BadInput'],
        range,
      );
    const other = '&upload=my-upload-2';
    await put(pointer, 'ab', { 'content-range': 'bytes 0-1/*' }, other);
    assert.equal((await ask(raw(pointer, other), { method: 'DELETE' })).status, 200);
    assert.equal((await ask(raw(pointer, other), { method: 'HEAD' })).status, 404);
  });

  it('keeps what came of a piece whose connection was cut', async () => {
    const pointer = fresh();
    const upload = '&upload=cut-upload';
    const headers = {
      authorization: `Bearer ${used.local.token}`,
      'content-range': 'bytes 0-99999/100000',
      'content-length': '100000',
    };
    const sending = httpRequest(new URL(raw(pointer, upload), used.local.url), { method: 'PUT', headers });
    sending.on('error', () => {});
    sending.write(Buffer.alloc(60_000, 1));
    // Asking takes the upload over from the connection that hangs; so not before its bytes have come.
    const part = `${used.local.data_dir}/core/store/objects/parts/cut-upload.part`;
    await until('the first bytes have come', () => existsSync(part) && statSync(part).size === 60_000);
    const state = await ask(raw(pointer, upload), { method: 'HEAD' });
    const at = Number(state.headers.get('upload-offset'));
    sending.destroy();
    assert.equal(at, 60_000);
    const rest = { 'content-range': `bytes ${at}-99999/100000`, 'repr-digest': reprDigest(Buffer.alloc(100_000, 1)) };
    assert.equal((await put(pointer, Buffer.alloc(40_000, 1), rest, upload)).status, 201);
  });

  it('lets a refused sender read why, while it is still sending', async () => {
    const pointer = fresh();
    await put(pointer, 'there');
    const large = Buffer.alloc(20_000_000);
    assert.deepEqual(await failed(await put(pointer, large, { 'if-none-match': '*' })), [412, 'PreconditionFailed']);
    assert.deepEqual(await failed(await put('gem-pointer://wiki/../x', large)), [400, 'PointerInvalid']);
    assert.equal(await (await ask(raw(pointer))).text(), 'there');
  });

  it('refuses hostile and over-long names on every route', async () => {
    const names = [
      'gem-pointer://wiki/../../etc/passwd',
      'gem-pointer://wiki/p/%2e%2e/x',
      'gem-pointer://wiki/p/\u202egnp.exe',
      'gem-pointer://wiki/p/con',
      `gem-pointer://wiki/p/${'x'.repeat(201)}`,
      `gem-pointer://wiki/${'p/'.repeat(40)}x`,
      'file:///etc/passwd',
      '/etc/passwd',
    ];
    for (const name of names) {
      const pointer = encodeURIComponent(name);
      const answers = [
        await put(name, 'x'),
        await put(name, 'x', { 'content-range': 'bytes 0-0/1' }, '&upload=upload-12'),
        await ask(raw(name)),
        await ask(raw(name), { method: 'DELETE' }),
        await ask(`/api/v2/meshfs/history?pointer=${pointer}`),
        await ask(`/api/v2/meshfs/resolve?pointer=${pointer}`),
      ];
      for (const answer of answers) assert.deepEqual(await failed(answer), [400, 'PointerInvalid'], name);
    }
    for (const path of ['raw', 'history', 'resolve'])
      assert.deepEqual(await failed(await ask(`/api/v2/meshfs/${path}`)), [400, 'PointerMissing']);
    for (const upload of ['..%2f..%2fetc', 'x', 'a%00bcdefgh'])
      assert.equal((await ask(raw(fresh(), `&upload=${upload}`), { method: 'HEAD' })).status, 400);
  });

  it('takes names that differ in case or composition alone for one, in the wiki', async () => {
    const composed = 'gem-pointer://wiki/http/Caf\u00e9.png';
    assert.equal((await put(composed, Buffer.from('1'))).status, 201);
    assert.equal((await put('gem-pointer://wiki/http/Cafe\u0301.png', Buffer.from('2'))).status, 200);
    assert.deepEqual(await failed(await put('gem-pointer://wiki/http/CAF\u00c9.png', Buffer.from('3'))), [
      400,
      'PointerInvalid',
    ]);
    const got = await ask(raw(composed));
    assert.equal(decodeURI(got.headers.get('hauki-pointer')!), composed);
    assert.equal(await got.text(), '2');
    assert.equal((await put('gem-pointer://data/Case', '1')).status, 201);
    assert.equal((await put('gem-pointer://data/case', '1')).status, 201, 'elsewhere they are two');
  });

  it('tells of changes as server-sent events, from where a reader was', async () => {
    const gone = new AbortController();
    const read = async (path: string, headers: Record<string, string>, events: number) => {
      const answer = await ask(path, { headers, signal: gone.signal });
      assert.equal(answer.headers.get('content-type'), 'text/event-stream');
      let text = '';
      for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        if (text.split('\n\n').length > events) break;
      }
      return text.split('\n\n').slice(0, events).map((event) => event.split('\n')); // biome-ignore format: one thought
    };
    const prefix = `gem-pointer://data/events-${randomBytes(4).toString('hex')}`;
    const watch = `/api/v2/meshfs/watch?prefix=${encodeURIComponent(prefix)}`;
    const [open] = await read(watch, {}, 1);
    const revision = Number(/^id: (\d+)$/.exec(open![0]!)![1]);
    await put(`${prefix}/x`, '1');
    await ask(raw(`${prefix}/x`), { method: 'DELETE' });
    for (const [path, headers] of [
      [`${watch}&after=${revision}`, {}],
      [watch, { 'last-event-id': String(revision) }],
    ] as const) {
      const [, wrote, deleted] = await read(path, headers, 3);
      assert.equal(wrote![0], `id: ${revision + 1}`);
      assert.equal(wrote![1], 'event: change');
      const change = JSON.parse(wrote![2]!.slice('data: '.length));
      assert.deepEqual([change.pointer, change.version], [`${prefix}/x`, 1]);
      assert.equal(JSON.parse(deleted![2]!.slice('data: '.length)).deleted, true);
    }
    gone.abort();
    assert.deepEqual(await failed(await ask(`${watch}&after=999999`)), [410, 'ChangesMissed']);
  });

  it('lists all where no prefix is named', async () => {
    const pointer = fresh();
    await put(pointer, 'x');
    const { entries, revision } = (await (await ask('/api/v2/meshfs/list')).json()) as any;
    assert.ok(entries.some((one: any) => one.pointer === pointer));
    assert.ok(revision > 0);
  });

  it('collects on demand', async () => {
    const answer = await ask('/api/v2/meshfs/gc', { method: 'POST' });
    const { status, kept, removed } = (await answer.json()) as any;
    assert.equal(status, 'success');
    assert.ok(kept > 0);
    assert.equal(typeof removed, 'number');
  });

  it('takes nothing without a token', async () => {
    for (const [method, path] of [
      ['PUT', raw(fresh())],
      ['GET', raw(fresh())],
      ['HEAD', raw(fresh())],
      ['DELETE', raw(fresh())],
      ['GET', '/api/v2/meshfs/watch'],
      ['GET', '/api/v2/meshfs/history'],
      ['POST', '/api/v2/meshfs/gc'],
    ] as const)
      assert.equal((await fetch(new URL(path, used.local.url), { method })).status, 401, `${method} ${path}`);
  });

  it('lets a narrower token go no further than it reaches, on every route', async () => {
    const mine = 'gem-pointer://wiki/mine/';
    const other = 'gem-pointer://wiki/mine-not/page';
    await put(`${mine}page`, 'mine');
    await put(other, 'not mine');
    await ask(raw(other, '&upload=others-upload'), {
      method: 'PUT',
      body: 'ab',
      headers: { 'content-range': 'bytes 0-1/9' },
    });
    const { mesh } = used;
    const make = async (scopes: ('meshfs.read' | 'meshfs.write')[]) =>
      (await mesh.tokens.create({ name: 'narrow', scopes, targets: { pointers: [mine] } })).token;
    const [reader, writer] = [await make(['meshfs.read']), await make(['meshfs.write'])];
    const status = async (token: string, method: string, path: string, body?: string) => {
      const headers = { authorization: `Bearer ${token}` };
      const answer = await fetch(new URL(path, used.local.url), { method, headers, ...(body && { body }) });
      await answer.body?.cancel();
      return answer.status;
    };
    const page = encodeURIComponent(`${mine}page`);
    for (const [token, method, path, expected] of [
      [reader, 'GET', raw(`${mine}page`), 200],
      [reader, 'HEAD', raw(`${mine}page`), 200],
      [reader, 'GET', `/api/v2/meshfs/history?pointer=${page}`, 200],
      [reader, 'GET', `/api/v2/meshfs/watch?prefix=${encodeURIComponent(mine)}`, 200],
      [reader, 'GET', raw(other), 403],
      [reader, 'HEAD', raw(other), 403],
      [reader, 'GET', `/api/v2/meshfs/history?pointer=${encodeURIComponent(other)}`, 403],
      [reader, 'GET', '/api/v2/meshfs/watch', 403],
      [reader, 'PUT', raw(`${mine}page`), 403],
      [reader, 'DELETE', raw(`${mine}page`), 403],
      [reader, 'HEAD', raw(other, '&upload=others-upload'), 403],
      [writer, 'GET', raw(`${mine}page`), 403],
      [writer, 'PUT', raw(other), 403],
      [writer, 'DELETE', raw(other), 403],
      [writer, 'HEAD', raw(other, '&upload=others-upload'), 403],
      [writer, 'DELETE', raw(other, '&upload=others-upload'), 403],
      [writer, 'POST', '/api/v2/meshfs/gc', 403],
      [writer, 'PUT', raw(`${mine}page`), 200],
      [writer, 'DELETE', raw(`${mine}page`), 200],
    ] as const)
      assert.equal(
        await status(token, method, path, method === 'PUT' ? 'x' : undefined),
        expected,
        `${method} ${path}`,
      );
    const headers = { authorization: `Bearer ${writer}`, 'content-range': 'bytes 0-0/1' };
    const taken = new URL(raw(`${mine}page`, '&upload=others-upload'), used.local.url);
    const told = await (await fetch(taken, { method: 'PUT', headers, body: 'x' })).text();
    assert.match(told, /"Forbidden"/);
    assert.doesNotMatch(told, /mine-not/, 'nor does it learn whose the name is');
    const state = await ask(raw(other, '&upload=others-upload'), { method: 'HEAD' });
    assert.equal(state.headers.get('upload-offset'), '2', 'strangers changed nothing');
  });
});
