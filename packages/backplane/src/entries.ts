/** Reading a whole namespace, page by page, as if it were one list. */
import type { Entry, KeyValue } from './types.ts';

/** All entries whose key begins with `prefix`, in the keys' order; never more than a page of them in memory. */
export async function* entriesOf(kv: KeyValue, prefix = ''): AsyncGenerator<Entry, void> {
  for (let after = ''; ; ) {
    const page = await kv.list(prefix, { after });
    yield* page.entries;
    if (page.next === undefined) return;
    after = page.next;
  }
}
