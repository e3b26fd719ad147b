/** Small things of requests and answers that a module, its log and its callers must agree about. */
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { before, describe, it } from 'node:test';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing, until } from './support/mesh.ts';

const CONTENT = `
  const said = { '/long': '3', '/short': '10', '/right': '5' };
  export default { fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === '/cookies') return Response.json([request.headers.get('cookie'), [...request.headers].find(([name]) => name === 'cookie')[1]]);
    const body = new ReadableStream({ start(all) { all.enqueue(new TextEncoder().encode('hello')); all.close(); } });
    return new Response(body, { headers: { 'content-length': said[pathname] } });
  } };`;

for (const driver of DRIVERS)
  describe(`answers of a module, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const kernel = useKernel({ drivers: [driver], open: true });
    before(async () => {
      await kernel.door.evolve({ target_module: 'm', driver, content: CONTENT });
    });

    it('that stream are held to their content-length: what breaks it counts, and is in the log', async () => {
      assert.equal(await (await kernel.get('m/right')).text(), 'hello');
      for (const path of ['long', 'short']) await assert.rejects(async () => (await kernel.get(`m/${path}`)).text());
      await until('both have counted', async () => (await kernel.door.status()).modules[0]!.errors === 2);
      const log = JSON.stringify(await kernel.json('/api/modules/m/log'));
      assert.match(log, /its content-length is 3, but 5 bytes/);
      assert.match(log, /its content-length is 10, but 5 bytes/);
    });

    it('see all of a request’s cookies, also from several lines', async () => {
      const { url } = kernel.process;
      const text = await new Promise<string>((resolve, reject) => {
        const sent = request(`${url}/api/plugins/m/cookies`, {
          headers: ['Host', new URL(url).host, 'Cookie', 'a=1', 'Cookie', 'b=2'] as never,
        });
        sent
          .on('error', reject)
          .on('response', async (answer) => resolve((await answer.setEncoding('utf8').toArray()).join('')));
        sent.end();
      });
      assert.deepEqual(JSON.parse(text), ['a=1; b=2', 'a=1; b=2']);
    });
  });
