/** Middleware that hashes and signs: a Hono app with it works unchanged in each driver's vaults. */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { bundleWithFiles } from '@hauki/mesh/bundle';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing } from './support/mesh.ts';

const APP = fileURLToPath(new URL('./support/hono-auth.ts', import.meta.url));
/** In characters of its last digits a signature may have bits that count for nothing: not so in the middle. */
const spoiled = (text: string, at: number) => text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);

for (const driver of DRIVERS)
  describe(`Hono’s middleware, with ${driver} vaults`, { skip: missing(driver) }, () => {
    // An open kernel leaves a module the header by which it knows its own users.
    const kernel = useKernel({ drivers: [driver], open: true });
    const get = (path: string, headers: Record<string, string> = {}) => kernel.get(`auth/${path}`, { headers });
    const status = async (path: string, authorization: string) => (await get(path, { authorization })).status;

    before(async () => {
      const { source, language } = await bundleWithFiles(APP, { driver });
      const content = { content: source, ...(language ? { language } : {}) };
      const grants = { time: true, random: true };
      await kernel.door.evolve({ target_module: 'auth', driver, grants, ...content });
    });

    it('lets in whoever knows the password or the token, and nobody else', async () => {
      const basic = (text: string) => `Basic ${btoa(text)}`;
      const answer = await get('basic/page', { authorization: basic('ada:lovelace') });
      assert.deepEqual([answer.status, await answer.text()], [200, 'for Ada']);
      for (const wrong of ['ada:byron', 'ada:', 'eve:lovelace'])
        assert.equal(await status('basic/page', basic(wrong)), 401, wrong);
      assert.equal(await status('bearer/page', 'Bearer a-token'), 200);
      assert.equal(await status('bearer/page', 'Bearer a-tokem'), 401);
    });

    it('tags its answers', async () => {
      const first = await get('etag/page');
      const tag = first.headers.get('etag');
      assert.match(tag ?? '', /^"[0-9a-f]{40}"$/);
      assert.equal(await first.text(), 'what does not change');
      assert.equal((await get('etag/page', { 'if-none-match': tag! })).status, 304);
      assert.equal((await get('etag/page', { 'if-none-match': '"another"' })).status, 200);
    });

    it('signs cookies, and takes none that it did not sign', async () => {
      const set = await get('cookie/set');
      assert.equal(set.status, 200);
      const cookie = set.headers.get('set-cookie')!.split(';')[0]!;
      assert.match(cookie, /^who=ada\./);
      const read = async (text: string) => (await get('cookie/get', { cookie: text })).json();
      assert.equal(await read(cookie), 'ada');
      assert.equal(await read(spoiled(cookie, 'who=ada.'.length + 3)), false);
      assert.equal(await read(cookie.replace('ada', 'eve')), false);
    });

    it('signs tokens and takes its own, by HS256', async () => {
      const token = await (await get('jwt-new')).text();
      const answer = await get('jwt/page', { authorization: `Bearer ${token}` });
      assert.deepEqual([answer.status, await answer.json()], [200, { sub: 'ada', exp: 4_000_000_000 }]);
      assert.equal(await status('jwt/page', `Bearer ${spoiled(token, token.lastIndexOf('.') + 3)}`), 401);
    });
  });
