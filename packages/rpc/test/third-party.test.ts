/** What one side holds of another and passes on to a third: it works from there, and is let go of everywhere. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RemoteError } from '@hauki/protocol';
import { withOptions } from '../src/ghost.ts';
import { atRest, held, join, KINDS, type Kind, rejectsWith } from './joined.ts';
import { settle, until } from './support.ts';

class Shelf {
  readonly books: string[] = [];
  heard: unknown[] = [];
  gates: (() => void)[] = [];
  inner?: Shelf;
  put(book: string) {
    this.books.push(book);
    return this;
  }
  list() {
    return this.books;
  }
  async each(f: any) {
    using call = f;
    const answers = [];
    for (const book of this.books) answers.push(await call(book));
    return answers;
  }
  async *read() {
    try {
      for (const book of this.books) yield book;
      for (;;) yield 'again';
    } finally {
      this.heard.push('closed');
    }
  }
  async total(items: AsyncIterable<number>) {
    let sum = 0;
    for await (const item of items) sum += item;
    return sum;
  }
  never() {
    return new Promise<void>((resolve) => this.gates.push(resolve));
  }
  wait(heard: AbortSignal) {
    return new Promise((resolve) =>
      heard.addEventListener('abort', () => resolve(this.heard.push(String(heard.reason)))),
    );
  }
  child() {
    return new Shelf().put('inner');
  }
  /** Always the same. */
  kept() {
    this.inner ??= new Shelf();
    return this.inner;
  }
  fail() {
    throw Object.assign(new RangeError('no shelf', { cause: 'wood' }), { code: 'E_SHELF' });
  }
}

/** C calls B, and B holds what is A's. */
async function three(kind: Kind) {
  const shelf = new Shelf();
  const ab = await join({ shelf: () => shelf, up: () => (n: number) => n + 1 }, {}, { kind });
  const ghost = await ab.on_b.shelf();
  const up = await ab.on_b.up();
  const mine = new Set<object>();
  const bc = await join(
    {
      shelf: () => ghost,
      up: () => up,
      both: () => ({ ghost, up }),
      same: (other: unknown) => other === ghost,
      keep: (thing: object) => void mine.add(thing),
    },
    {},
    { kind },
  );
  return {
    shelf,
    ab,
    bc,
    /** Another third side. */
    other: () => join({ shelf: () => ghost }, {}, { kind }),
    /** Lets go of what B itself holds. */
    rest: async () => {
      await atRest(bc.a, bc.b);
      const here = () => [held(ab.a).imported, held(ab.b).exported, held(ab.a).exported, held(ab.b).imported];
      // What was let go of there is let go of here a moment later.
      await until(() => here().join() === '2,2,0,0', 'B to hold its own alone').catch(() => {});
      assert.deepEqual(here(), [2, 2, 0, 0]);
      ghost[Symbol.dispose]();
      up[Symbol.dispose]();
      await atRest(ab.a, ab.b);
    },
    async [Symbol.asyncDispose]() {
      await bc[Symbol.asyncDispose]();
      await ab[Symbol.asyncDispose]();
    },
  };
}

for (const kind of KINDS)
  describe(`a reference passed on over ${kind}`, () => {
    it('is called through its holder: objects and functions', async () => {
      await using t = await three(kind);
      const shelf = await t.bc.on_b.shelf();
      const up = await t.bc.on_b.up();
      assert.equal(await shelf.put('one'), shelf);
      assert.deepEqual([await shelf.list(), await up(4)], [['one'], 5]);
      shelf[Symbol.dispose]();
      up[Symbol.dispose]();
      await t.rest();
    });

    it('leaves its holder what that holds for itself, however often it is passed on and let go of', async () => {
      await using t = await three(kind);
      for (let times = 0; times < 3; times++) {
        const shelf = await t.bc.on_b.shelf();
        // Its source gives it once more each time.
        for (let more = 0; more < 2; more++) assert.equal(await shelf.put('again'), shelf);
        shelf[Symbol.dispose]();
        await atRest(t.bc.a, t.bc.b);
        await settle();
      }
      assert.deepEqual(await t.bc.on_b.shelf().list(), Array(6).fill('again'));
      await t.rest();
    });

    it('to two is let go of at its source when both have let go', async () => {
      await using t = await three(kind);
      await using bd = await t.other();
      const [c, d] = await Promise.all([t.bc, bd].map(({ on_b }) => on_b.shelf()));
      const [of_c, of_d] = [await c.kept(), await d.kept()];
      assert.equal(held(t.ab.b).exported, 3);
      of_c[Symbol.dispose]();
      await until(() => held(t.bc.b).exported === 1, 'one of them to have let go');
      await settle();
      await of_d.put('still there');
      assert.deepEqual(t.shelf.inner!.books, ['still there']);
      of_d[Symbol.dispose]();
      await until(() => held(t.ab.b).exported === 2, 'the source to let go');
      c[Symbol.dispose]();
      d[Symbol.dispose]();
      await t.rest();
    });

    it('keeps its identity on the way back', async () => {
      await using t = await three(kind);
      using shelf = await t.bc.on_b.shelf();
      const { ghost, up } = await t.bc.on_b.both();
      assert.equal(ghost, shelf);
      assert.equal(await t.bc.on_b.same(shelf), true);
      up[Symbol.dispose]();
      shelf[Symbol.dispose]();
      await t.rest();
    });

    it('can be pipelined through', async () => {
      await using t = await three(kind);
      assert.deepEqual(await t.bc.on_b.shelf().put('x').put('y').list(), ['x', 'y']);
      assert.deepEqual(await t.bc.on_b.shelf().child().put('z').list(), ['inner', 'z']);
      assert.equal(await t.bc.on_b.both().up(1), 2);
      await t.rest();
    });

    it('carries callbacks and streams in both directions, and leaves none of them behind', async () => {
      await using t = await three(kind);
      const last = await t.bc.on_b.shelf();
      await last.put('a');
      await last.put('b');
      assert.deepEqual(await last.each((book: string) => `${book}!`), ['a!', 'b!']);
      assert.equal(
        await last.total(
          (async function* () {
            yield 1;
            yield 2;
          })(),
        ),
        3,
      );
      const read = [];
      for await (const book of await last.read()) if (read.push(book) === 3) break;
      assert.deepEqual(read, ['a', 'b', 'again']);
      await until(() => t.shelf.heard.includes('closed'), 'the far generator to be closed');
      last[Symbol.dispose]();
      await t.rest();
    });

    it('gives results that are let go of at their source when the third lets go', async () => {
      await using t = await three(kind);
      using shelf = await t.bc.on_b.shelf();
      const child = await shelf.child();
      assert.deepEqual(await child.list(), ['inner']);
      assert.equal(held(t.ab.b).exported, 3);
      child[Symbol.dispose]();
      shelf[Symbol.dispose]();
      await until(() => held(t.ab.b).exported === 2, 'the source to let go');
      await t.rest();
    });

    it('carries signals, deadlines and errors through', async () => {
      await using t = await three(kind);
      const shelf = await t.bc.on_b.shelf();
      const controller = new AbortController();
      const waiting = withOptions(shelf, { signal: controller.signal }).never();
      const also = shelf.wait(controller.signal);
      await shelf.list();
      assert.equal(held(t.ab.a).in_flight, 2);
      controller.abort(new Error('lunch'));
      await assert.rejects(waiting, { name: 'Cancelled' });
      await also;
      assert.match(String(t.shelf.heard), /lunch/);
      await until(() => held(t.ab.a).in_flight === 0, 'the holder to give up too');
      await assert.rejects(withOptions(shelf, { timeout_ms: 20 }).never(), { name: 'DeadlineExceeded' });
      await until(() => held(t.ab.a).in_flight === 0, 'the holder to give up too');
      for (const open of t.shelf.gates) open();
      const error: any = await rejectsWith(shelf.fail(), RemoteError);
      assert.match(error.message, /RangeError: no shelf/);
      assert.deepEqual([error.cause.cause, error.cause.code], ['wood', 'E_SHELF']);
      shelf[Symbol.dispose]();
      await t.rest();
    });

    it('is refused with the reason when its source goes, and when its holder goes', async () => {
      await using t = await three(kind);
      const shelf = await t.bc.on_b.shelf();
      t.ab.b.close('the source is gone');
      await t.ab.a.closed;
      await assert.rejects(shelf.list(), { name: 'ConnectionLost' });
      await assert.rejects(shelf.child().put('x').list(), { name: 'ConnectionLost' });
      t.bc.b.close('the holder is gone');
      await t.bc.a.closed;
      await assert.rejects(shelf.list(), { name: 'ConnectionLost' });
      await settle();
    });

    it('whose holder goes is let go of at its source, as far as it was only passed on', async () => {
      await using t = await three(kind);
      const shelf = await t.bc.on_b.shelf();
      await shelf.child();
      assert.equal(held(t.ab.b).exported, 3);
      t.bc.a.close('the third is gone');
      await until(() => held(t.ab.b).exported === 2, 'the source to let go');
    });
  });
