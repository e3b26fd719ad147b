/** Lists for tokens that do not reach all: what they do not reach is neither told nor hinted at. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Forbidden, isError, PointerInvalid } from '@hauki/protocol';
import { listFor } from '../src/listing.ts';
import { ADMIN, type Principal } from '../src/rights.ts';

const names = ['a/1', 'ab/secret', 'a/2', 'A/other', 'ab/more', 'A/more', 'a/3'].map(
  (name) => `gem-pointer://wiki/${name}`,
);
/** Pages of two, as the store has them: of all that begin so, letter case folded. */
const store = {
  async list(_prefix: string, { after }: { after?: string }) {
    const from = after === undefined ? 0 : names.indexOf(after) + 1;
    const entries = names.slice(from, from + 2).map((pointer) => ({ pointer }));
    return from + 2 < names.length ? { entries, next: entries.at(-1)!.pointer } : { entries };
  },
};
const holder: Principal = { ...ADMIN, targets: { ...ADMIN.targets, pointers: ['gem-pointer://wiki/a/'] } };

it('a list has only what its token reaches, and ends no page at anything else', async () => {
  const seen: string[] = [];
  let after: string | undefined;
  do {
    const page = await listFor(holder, store, 'gem-pointer://wiki/a', after === undefined ? {} : { after });
    seen.push(...page.entries.map(({ pointer }) => pointer));
    after = page.next;
    if (after !== undefined) assert.equal(after, seen.at(-1));
  } while (after !== undefined);
  assert.deepEqual(
    seen,
    [1, 2, 3].map((n) => `gem-pointer://wiki/a/${n}`),
  );
});

it('a list is refused where its token does not reach all of it', async () => {
  for (const prefix of ['gem-pointer://', 'gem-pointer://wiki/', 'gem-pointer://wiki/ab', 'gem-pointer://wiki/A/'])
    await assert.rejects(listFor(holder, store, prefix, {}), (error) => isError(error, Forbidden));
  await assert.rejects(listFor(holder, store, 'wiki/a', {}), (error) => isError(error, PointerInvalid));
});
