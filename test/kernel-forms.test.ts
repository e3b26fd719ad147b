/** Forms and uploads: a Hono app that takes them works unchanged in each driver's vaults; what is hostile harms nobody. */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { bundleWithFiles } from '@hauki/mesh/bundle';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing } from './support/mesh.ts';

const APP = fileURLToPath(new URL('./support/hono-forms.ts', import.meta.url));

for (const driver of DRIVERS)
  describe(`forms, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const kernel = useKernel({ drivers: [driver] });
    const post = (path: string, body: BodyInit, headers = {}) =>
      kernel.get(`forms/${path}`, { method: 'POST', body, headers });

    before(async () => {
      const { source, language } = await bundleWithFiles(APP, { driver });
      const content = { content: source, ...(language ? { language } : {}) };
      await kernel.door.evolve({ target_module: 'forms', driver, ...content });
    });

    it('are parsed by Hono, URL-encoded and in parts', async () => {
      const fields = new URLSearchParams([
        ['a', '1'],
        ['b', 'ü x'],
        ['a', '2'],
      ]);
      assert.deepEqual(await (await post('parsed', fields)).json(), { a: ['1', '2'], b: 'ü x' });
      const bytes = Uint8Array.from({ length: 1_000_000 }, (_, i) => i % 251);
      const form = new FormData();
      form.append('title', 'a "title"\r\nof two lines');
      form.append('file', new File([bytes], 'ä b.bin', { type: 'image/png' }));
      form.append('file', new File([], 'empty'));
      const sum = bytes.reduce((total, byte) => (total + byte) % 65_536, 0);
      const files = [
        { name: 'ä b.bin', type: 'image/png', size: 1_000_000, sum },
        { name: 'empty', type: 'application/octet-stream', size: 0, sum: 0 },
      ];
      const title = 'a "title"\r\nof two lines';
      assert.deepEqual(await (await post('parsed', form)).json(), { title, file: files });
      assert.deepEqual(await (await post('form', form)).json(), [
        ['title', title],
        ['file', files[0]],
        ['file', files[1]],
      ]);
    });

    it('are answered, and read as blobs', async () => {
      assert.deepEqual(await (await post('blob', 'xyz', { 'content-type': 'image/gif' })).json(), ['image/gif', 3]);
      const form = await (await kernel.get('forms/answer')).formData();
      const file = form.get('f') as File;
      assert.deepEqual([form.get('a'), file.name, await file.text()], ['1', 'f.txt', 'content']);
    });

    it('that are malformed are the handler’s own failure, and the next one is read', async () => {
      const type = { 'content-type': 'multipart/form-data; boundary=x' };
      for (const body of ['', 'nothing', '--x\r\n\r\n', '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1'])
        assert.equal((await post('form', body, type)).status, 400, body);
      assert.equal((await post('form', 'a=1', { 'content-type': 'application/json' })).status, 400);
      assert.deepEqual(await (await post('form', new URLSearchParams({ a: '1' }))).json(), [['a', '1']]);
    });

    if (driver === 'quickjs')
      it('that are too large or have too many parts are refused in words', async () => {
        const form = new FormData();
        for (let i = 0; i < 3_000; i++) form.append(`field${i}`, 'x');
        assert.match(await (await post('form', form)).text(), /more than 1000 parts/);
        const large = new FormData();
        large.append('file', new File([new Uint8Array(9 * 1024 * 1024)], 'large'));
        assert.match(await (await post('form', large)).text(), /at most 8388608 bytes/);
        // Nothing but the beginning of boundaries, as slow to look through as bytes can be.
        const hostile = new Uint8Array(4 * 1024 * 1024).fill(13);
        const type = { 'content-type': `multipart/form-data; boundary=${'\u002d'.repeat(70)}` };
        assert.equal((await post('form', hostile, type)).status, 400);
        const { live } = (await kernel.door.status()).modules[0]!;
        assert.equal(live.length, 1);
        assert.deepEqual(await (await post('form', new URLSearchParams({ a: '1' }))).json(), [['a', '1']]);
      });
  });
