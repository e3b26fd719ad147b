/** Names that the SDK puts into paths. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { BadInput, isError } from '@hauki/protocol';
import type { CoreClient } from '../src/http.ts';
import { connectKernel } from '../src/kernel.ts';
import { services } from '../src/services.ts';

it('a name that is none, or dots, is refused before it makes the path of another route', async () => {
  const asked: string[] = [];
  const core = {
    request: async (_method: string, path: string) => {
      asked.push(path);
      return {};
    },
  } as unknown as CoreClient;
  const never = async () => assert.fail('nothing is cloned here');
  const mesh = services(core, never, never);
  const kernel = connectKernel({ url: 'http://127.0.0.1:1' });
  for (const name of ['', '.', '..', '\ud800', undefined as unknown as string])
    for (const ask of [
      () => mesh.jobs.get(name).state(),
      () => mesh.jobs.get(name).cancel(),
      () => mesh.jobs.get(name).result(),
      () => mesh.lasting.get(name),
      () => mesh.lasting.delete(name),
      () => mesh.tokens.revoke(name),
      () => mesh.volumes.delete(name),
      () => mesh.kernels.remove(name),
      () => kernel.remove(name),
      () => kernel.rollback(name),
      () => kernel.version(name, 1),
      () => kernel.versions(name),
      ...(name === undefined ? [] : [() => mesh.why(name), () => mesh.pause(name)]),
    ])
      await assert.rejects(ask(), (error) => isError(error, BadInput), `${name} ${ask}`);
  assert.deepEqual(asked, []);
  await mesh.tokens.revoke('...');
  await mesh.volumes.delete('a b');
  assert.deepEqual(asked, ['/api/v2/tokens/...', '/api/v2/volumes/a%20b?']);
});
