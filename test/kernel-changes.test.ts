/** Changes of a module while requests of it hang, stream or are given up: they come about, and cut nothing that need not be. */
import assert from 'node:assert/strict';
import { createServer, request as httpRequest, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { BadInput, isError } from '@hauki/mesh';
import { useKernel } from './support/kernel.ts';
import { until } from './support/mesh.ts';
import { ECHO, openSocket } from './support/sockets.ts';

/** Counts; `/never` has no answer, `/late` one when its URL is answered, `/body` one when the whole body is there. */
const COUNTER = (version: string, more = '', late_url = '') => `
  export const state = { n: 0 };
  export default { async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === '/never') await new Promise(() => {});
    if (pathname === '/late') await fetch('${late_url}');
    if (pathname === '/body') await request.text();
    ${more}
    return Response.json({ version: '${version}', n: ++state.n });
  } };`;
const FAILS = 'return new Response(null, { status: 500 });';
const plain = (answer: string) => `export default { fetch: async () => ${answer} };`;
/** Forty pieces, in two seconds. */
const PIECES = (word: string) =>
  plain(`{
    let left = 40;
    return new Response(new ReadableStream({
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        if (left-- > 0) controller.enqueue(new TextEncoder().encode('${word} '));
        else controller.close();
      },
    }));
  }`);

describe('changes of a module', { concurrency: true }, () => {
  const kernel = useKernel({ drivers: ['quickjs'] });
  const evolve = (target_module: string, content: string, more = {}) =>
    kernel.door.evolve({ target_module, content, ...more });
  const view = async (name: string) => (await kernel.door.status()).modules.find(({ module }) => module === name)!;
  const underWay = (name: string, count: number) =>
    until(`${count} are under way`, async () => (await view(name)).live[0]!.in_flight >= count);
  /** Asks for what has no answer. Gives how to leave it. */
  const hang = async (name: string, count = 1) => {
    const leave = new AbortController();
    for (let i = 0; i < count; i++)
      kernel.get(`${name}/never`, { signal: leave.signal }).then(
        () => {},
        () => {},
      );
    await underWay(name, count);
    return () => leave.abort();
  };
  const lastDeed = async (name: string) => (await kernel.door.history(name)).at(-1)!;

  it('take a version back that has a state and requests that never end', async () => {
    await evolve('hangs', COUNTER('a'));
    for (let i = 0; i < 3; i++) await kernel.json('hangs/');
    await evolve('hangs', COUNTER('b', FAILS), { bounds: { max_error_rate: 0.1 } });
    const leave = await hang('hangs', 2);
    for (let i = 0; i < 20; i++) assert.ok((await kernel.get('hangs/')).status < 501);
    await until('it is taken back', async () => (await view('hangs')).version === 1);
    assert.equal((await lastDeed('hangs')).deed, 'abort');
    assert.equal((await kernel.json('hangs/')).version, 'a');
    leave();
  });

  it('go back by hand while a request hangs, to the state from before', async () => {
    await evolve('hand', COUNTER('a'));
    await kernel.json('hand/');
    await evolve('hand', COUNTER('b'));
    for (let i = 0; i < 3; i++) await kernel.json('hand/');
    const leave = await hang('hand');
    await kernel.door.rollback('hand');
    assert.deepEqual(await kernel.json('hand/'), { version: 'a', n: 2 });
    // What the one that was left had is kept too.
    await kernel.door.rollback('hand', 2);
    assert.deepEqual(await kernel.json('hand/'), { version: 'b', n: 5 });
    leave();
  });

  const waiting: ServerResponse[] = [];
  const server = createServer((_, response) => waiting.push(response));
  before(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
  after(() => {
    server.closeAllConnections();
    server.close();
  });

  it('do not wait for ever for an answer: the version that it was asked of gives it', async () => {
    const place = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    await evolve('late', COUNTER('a', '', `http://${place}/`), { grants: { fetch: [place] } });
    for (let i = 0; i < 3; i++) await kernel.json('late/');
    const [leave, late] = [await hang('late'), kernel.json('late/late')];
    await underWay('late', 2);
    await evolve('late', COUNTER('b'));
    assert.deepEqual(await kernel.json('late/'), { version: 'b', n: 4 });
    for (const response of waiting) response.end();
    assert.deepEqual(await late, { version: 'a', n: 4 });
    leave();
  });

  it('do not wait for a body that is still being sent', async () => {
    await evolve('upload', COUNTER('a'));
    const upload = httpRequest(`${kernel.process.url}/api/plugins/upload/body`, {
      method: 'POST',
      headers: { authorization: `Bearer ${kernel.process.token}` },
    });
    const answered = new Promise<number>((resolve, reject) => {
      upload.on('response', (answer) => resolve(answer.resume().statusCode!)).on('error', reject);
    });
    upload.write('first');
    await underWay('upload', 1);
    await evolve('upload', COUNTER('b'));
    assert.equal((await kernel.json('upload/')).version, 'b');
    upload.end('last');
    assert.equal(await answered, 200);
  });

  it('come to nothing where hooks take too long, and those who wait are served all the same', async () => {
    const SLOW = (version: string) => `
      let n = 0;
      const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
      export const dehydrate = async () => { await sleep(4_800); return n; };
      export const hydrate = async (given) => { await sleep(4_800); n = given; };
      export default { async fetch(request) {
        if (request.url.endsWith('/slow')) await sleep(3_000);
        return Response.json({ version: '${version}', n: ++n });
      } };`;
    await evolve('hooks', SLOW('a'));
    const slow = kernel.json('hooks/slow');
    await underWay('hooks', 1);
    const evolved = assert.rejects(evolve('hooks', SLOW('b')), /hydrate failed: .*a handover has 9000 ms/);
    await until('its state is asked for', async () => (await view('hooks')).state === 'handing_over');
    const held = await Promise.all(Array.from({ length: 5 }, () => kernel.get('hooks/')));
    await evolved;
    assert.deepEqual(await slow, { version: 'a', n: 1 });
    assert.deepEqual(
      held.map(({ status }) => status),
      [200, 200, 200, 200, 200],
    );
  });

  it('are refused where they would let a version without a state serve beside one with a state', async () => {
    await evolve('shares', COUNTER('a'));
    for (let i = 0; i < 3; i++) await kernel.json('shares/');
    for (const weight of [0, 10, 60])
      await assert.rejects(
        evolve('shares', plain('new Response("b")'), { weight }),
        (error) => isError(error, BadInput) && /keeps a state, which two versions cannot share/.test(error.message),
      );
    await evolve('shares', plain('new Response("b")'));
    await kernel.door.rollback('shares', 1);
    assert.deepEqual(await kernel.json('shares/'), { version: 'a', n: 4 });
  });

  it('take a version back whose state cannot be had, to one that has none', async () => {
    await evolve('stubborn', plain('new Response("a")'));
    const BAD = `export const dehydrate = () => { throw new Error('not now'); };
      export const hydrate = () => {};
      export default { fetch: () => new Response(null, { status: 500 }) };`;
    await evolve('stubborn', BAD, { bounds: { max_error_rate: 0.1 } });
    for (let i = 0; i < 20; i++) await kernel.get('stubborn/');
    await until('it is taken back', async () => (await view('stubborn')).version === 1);
  });

  it('take a version back whose clients give up before it answers', async () => {
    await evolve('silent', plain('new Response("a")'));
    await evolve('silent', plain('new Promise(() => {})'), { bounds: { max_p99_ms: 50 } });
    await until('it is taken back', async () => {
      const asked = () => kernel.get('silent/', { signal: AbortSignal.timeout(300) }).catch(() => {});
      await Promise.all(Array.from({ length: 20 }, asked));
      return (await view('silent')).version === 1;
    });
    assert.match((await lastDeed('silent')).note!, /its p99 is above 50 ms: \d+ of its last \d+ requests took longer/);
  });

  it('take a version back whose answers break off in the middle', async () => {
    const BREAKS = plain(`{
      let first = true;
      return new Response(new ReadableStream({ pull(controller) {
        if (!first) throw new Error('broken');
        first = false;
        controller.enqueue(new TextEncoder().encode('x'));
      } }));
    }`);
    await evolve('breaks', plain('new Response("a")'));
    await evolve('breaks', BREAKS, { bounds: { max_error_rate: 0.1 } });
    await until('it is taken back', async () => {
      await kernel.get('breaks/').then((answer) => answer.text().catch(() => {}));
      return (await view('breaks')).version === 1;
    });
  });

  it('see no fault in streams and sockets that their clients leave', async () => {
    await evolve('left', PIECES('a'));
    for (let i = 0; i < 5; i++) {
      const reader = (await kernel.get('left/')).body!.getReader();
      await reader.read();
      await reader.cancel();
    }
    await evolve('left_sockets', ECHO);
    for (let i = 0; i < 5; i++) (await openSocket(kernel.process, 'left_sockets/x')).terminate();
    for (const name of ['left', 'left_sockets']) {
      await until('all are left', async () => (await view(name)).live[0]!.in_flight === 0);
      const { requests, errors } = await view(name);
      assert.deepEqual([requests, errors], [5, 0], name);
    }
  });

  it('that come quickly cut no stream while versions rest that may go', async () => {
    await evolve('quick', PIECES('a'));
    const stream = await kernel.get('quick/');
    for (const word of ['b', 'c', 'd', 'e', 'f', 'g']) await evolve('quick', PIECES(word));
    assert.equal(await stream.text(), 'a '.repeat(40));
  });

  it('cut the oldest stream, and no other, where too many old versions are busy', async () => {
    const streams: Response[] = [];
    for (const word of ['a', 'b', 'c', 'd']) {
      await evolve('busy', PIECES(word).replace('= 40', '= 1e9'));
      streams.push(await kernel.get('busy/'));
    }
    await evolve('busy', plain('new Response("e")'));
    const readers = streams.map(({ body }) => body!.getReader());
    const [first, ...others] = readers;
    await assert.rejects(async () => {
      for (;;) await first!.read();
    });
    for (const reader of others) {
      assert.equal((await reader.read()).done, false);
      await reader.cancel();
    }
  });

  it('leave a version to be named by its number, as it is written and in no other way', async () => {
    await evolve('named', plain('new Response("a")'));
    await evolve('named', plain('new Response("b")'), { weight: 0 });
    const asked = (version: string) => kernel.get('named/', { headers: { 'x-hauki-version': version } });
    assert.equal(await (await asked('2')).text(), 'b');
    for (const version of ['02', '0x2', '2e0', '2.0', '+2', '-2', '2,2', '', 'latest']) {
      const answer = await asked(version);
      assert.deepEqual([answer.status, (await answer.json()).error.code], [400, BadInput.row.code], version);
    }
  });
});
