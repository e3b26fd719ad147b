/** A store for the tests of one `describe`, in a folder that goes with them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { type KeyValue, openEmbedded } from '@hauki/backplane';

/** To be called in a `describe`. Its namespaces are there within tests. */
export function useStore(): { kv(namespace: string): KeyValue } {
  let folder: string;
  let store: Awaited<ReturnType<typeof openEmbedded>>;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-core-'));
    store = await openEmbedded(join(folder, 'store'));
  });
  after(async () => {
    await store.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return { kv: (namespace) => store.kv(namespace) };
}
