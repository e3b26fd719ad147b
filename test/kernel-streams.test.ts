/** Streams, compression and events: a Hono app with them works unchanged in each driver's vaults. */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { bundleWithFiles } from '@hauki/mesh/bundle';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing } from './support/mesh.ts';

const APP = fileURLToPath(new URL('./support/hono-streams.ts', import.meta.url));
const TEXT = Array.from({ length: 200 }, (_, i) => `line ${i} of a long text\n`).join('');

for (const driver of DRIVERS)
  describe(`Hono’s streams, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const kernel = useKernel({ drivers: [driver], open: true });
    const get = (path: string, headers: Record<string, string> = {}) => kernel.get(`streams/${path}`, { headers });

    before(async () => {
      const { source, language } = await bundleWithFiles(APP, { driver });
      const content = { content: source, ...(language ? { language } : {}) };
      await kernel.door.evolve({ target_module: 'streams', driver, ...content });
    });

    it('come compressed to whoever asks for that', async () => {
      for (const encoding of ['gzip', 'deflate']) {
        const answer = await get('compressed/page', { 'accept-encoding': encoding });
        assert.equal(answer.headers.get('content-encoding'), encoding);
        assert.equal(await answer.text(), TEXT);
      }
      const plain = await get('compressed/page', { 'accept-encoding': 'identity' });
      assert.deepEqual([plain.headers.get('content-encoding'), await plain.text()], [null, TEXT]);
    });

    it('come whole, as text, as bytes with a tag, and as events', async () => {
      for (const path of ['compressed/stream', 'tagged/stream']) assert.equal(await (await get(path)).text(), TEXT);
      const tag = (await get('tagged/stream')).headers.get('etag');
      assert.match(tag ?? '', /^"[0-9a-f]{40}"$/);
      assert.equal((await get('tagged/stream', { 'if-none-match': tag! })).status, 304);
      const events = await (await get('events')).text();
      assert.deepEqual(events.match(/^data: .*$/gm), ['data: number 0', 'data: number 1', 'data: number 2']);
    });

    it('are unpacked on their way in', async () => {
      const answer = await kernel.get('streams/unpacked', { method: 'POST', body: gzipSync(TEXT) });
      assert.deepEqual(await answer.json(), { lines: 200 });
    });
  });
