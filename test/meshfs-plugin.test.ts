/** MeshFS as the first plugin of an empty kernel, posted with the command line as its file says. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { useKernel } from './support/kernel.ts';
import { DRIVERS, missing } from './support/mesh.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const run = promisify(execFile);

for (const driver of DRIVERS)
  describe(`the MeshFS plugin, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const kernel = useKernel({ drivers: [driver] });
    const PREFIX = '/api/plugins/meshfs_controller';
    const ALIAS = '/api/v2/meshfs';

    /** `hauki evolve`, as a person would. */
    const evolve = (...flags: string[]) =>
      run(
        process.execPath,
        [join(ROOT, 'apps/cli/bin/hauki.js'), 'evolve', join(ROOT, 'plugins/meshfs_controller.ts'), ...flags],
        { env: { ...process.env, HAUKI_KERNEL: kernel.process.url, HAUKI_KERNEL_TOKEN: kernel.process.token } },
      );
    const write = async (at: string, body: unknown) => {
      const answer = await kernel.get(`${at}/write`, { method: 'POST', body: JSON.stringify(body) });
      return { status: answer.status, ...((await answer.json()) as any) };
    };
    const resolve = async (at: string, pointer?: string) => {
      const query = pointer === undefined ? '' : `?pointer=${encodeURIComponent(pointer)}`;
      const answer = await kernel.get(`${at}/resolve${query}`);
      return { http: answer.status, ...((await answer.json()) as any) };
    };
    const wrong = ({ http, error }: any) => [http, error?.data.name, error?.code];

    before(async () => {
      const granted = ['--read', 'gem-pointer://wiki/', '--write', 'gem-pointer://wiki/', '--read', 'gem-pointer://x/'];
      const { stdout } = await evolve(...granted, '--alias', '/api/v2/meshfs/');
      assert.match(stdout, /meshfs_controller serves as version 1/);
      assert.match(stdout, /POST \/write, POST \/api\/v2\/meshfs\/write, GET \/resolve/);
    });

    it('writes and resolves below its prefix and at the alias that it was granted', async () => {
      const pointer = 'gem-pointer://wiki/notes/first';
      const written = await write(PREFIX, { pointer, content: '# One' });
      assert.deepEqual([written.status, written.pointer], ['success', 'gem-pointer://wiki/notes/first.md']);
      for (const at of [PREFIX, ALIAS]) {
        const { status, content, version } = await resolve(at, pointer);
        assert.deepEqual([status, content, version], ['success', '# One', 1]);
      }
      assert.equal((await write(ALIAS, { pointer, content: '# Two' })).version, 2);
      assert.equal((await resolve(PREFIX, pointer)).content, '# Two');
      assert.equal(readFileSync(join(kernel.data_dir, 'wiki', 'notes', 'first.md'), 'utf8'), '# Two');
    });

    it('loses no write of many at once', async () => {
      const pointers = Array.from({ length: 40 }, (_, i) => `gem-pointer://wiki/many/${i % 10}`);
      await Promise.all(pointers.map((pointer, i) => write(ALIAS, { pointer, content: String(i) })));
      for (let i = 0; i < 10; i++) {
        const { version, content } = await resolve(ALIAS, `gem-pointer://wiki/many/${i}`);
        assert.deepEqual([version, Number(content) % 10], [4, i]);
      }
    });

    it('tells a missing, an unknown, a wrong and an ungranted pointer apart', async () => {
      assert.deepEqual(wrong(await resolve(ALIAS)), [400, 'PointerMissing', -32040]);
      assert.deepEqual(wrong(await resolve(ALIAS, 'gem-pointer://wiki/nothing')), [404, 'PointerUnknown', -32042]);
      assert.deepEqual(wrong(await resolve(ALIAS, 'gem-pointer://wiki/../x')), [400, 'PointerInvalid', -32041]);
      assert.deepEqual(wrong(await resolve(ALIAS, 'gem-pointer://plugins/meshfs_controller/1')).slice(0, 2), [
        403,
        'GrantMissing',
      ]);
      const refused = await write(ALIAS, { pointer: 'gem-pointer://x/only-read', content: 'x' });
      assert.equal(refused.error.data.name, 'GrantMissing');
      assert.equal((await write(ALIAS, { content: 'x' })).error.data.name, 'PointerMissing');
      assert.equal((await write(ALIAS, { pointer: 'gem-pointer://wiki/x' })).error.data.name, 'BadInput');
      assert.equal((await write(ALIAS, 'text')).error.data.name, 'BadInput');
      assert.equal((await kernel.get(`${ALIAS}/elsewhere`)).status, 404);
    });

    it('is in the description of the kernel, under its tag, in both places', async () => {
      const { paths, tags } = await kernel.json('/docs/json');
      assert.ok(tags.some(({ name }: { name: string }) => name === 'meshfs_controller'));
      for (const at of [PREFIX, ALIAS]) {
        assert.deepEqual(paths[`${at}/write`].post.tags, ['meshfs_controller']);
        assert.deepEqual(paths[`${at}/resolve`].get.tags, ['meshfs_controller']);
      }
    });

    it('keeps what was written when it is evolved again and when the kernel is killed', async () => {
      await write(ALIAS, { pointer: 'gem-pointer://wiki/lasts', content: 'still here' });
      await evolve();
      assert.equal((await resolve(ALIAS, 'gem-pointer://wiki/lasts')).content, 'still here');
      await kernel.restart();
      assert.equal((await resolve(ALIAS, 'gem-pointer://wiki/lasts')).content, 'still here');
    });
  });
