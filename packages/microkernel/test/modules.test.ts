import { it } from 'node:test';
import { KERNEL_LIMITS } from '../src/limits.ts';
import { Modules } from '../src/modules.ts';
import { emptyRecord } from '../src/store.ts';

it('modules that were removed, however many, keep no kernel from starting', async () => {
  const removed = Array.from({ length: KERNEL_LIMITS.modules + 1 }, (_, i) => emptyRecord(`gone${i}`));
  const store = { records: () => removed, record: () => undefined };
  await new Modules({ store } as unknown as ConstructorParameters<typeof Modules>[0]).restore();
});
