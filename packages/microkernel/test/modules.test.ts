import assert from 'node:assert/strict';
import { it } from 'node:test';
import { isError, ModuleUnknown } from '@hauki/protocol';
import { KERNEL_LIMITS } from '../src/limits.ts';
import { Modules } from '../src/modules.ts';
import { emptyRecord } from '../src/store.ts';

it('modules that were removed, however many, keep no kernel from starting, and are not made again', async () => {
  const removed = Array.from({ length: KERNEL_LIMITS.modules + 1 }, (_, i) => emptyRecord(`gone${i}`));
  const store = { records: () => removed, record: () => undefined };
  const modules = new Modules({ store } as unknown as ConstructorParameters<typeof Modules>[0]);
  await modules.restore();
  for (const { module } of removed)
    assert.throws(
      () => modules.logs(module),
      (error) => isError(error, ModuleUnknown),
    );
});
