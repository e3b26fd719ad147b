/** References, pipelining, streams and signals end to end: a script, a mesh of processes, a vaulted worker. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { withOptions } from '@hauki/mesh';
import { DRIVERS, missing, until, useMesh } from './support/mesh.ts';

const SHOP = `
  class Basket {
    items = [];
    put(item) { this.items.push(item); return this; }
    list() { return this.items; }
    each(f) { return Promise.all(this.items.map((item) => f(item))); }
    [Symbol.dispose]() { closed.push(this.items.length); }
  }
  const closed = [];
  let finished = 0;
  export const basket = () => new Basket();
  export const slow = async (value) => { for (let i = 0; i < 5; i++) await null; return value; };
  export const gate = () => new Promise((resolve) => { open = resolve; });
  let open;
  export const release = (value) => { open(value); };
  export const add = (a, b) => a + b;
  export const config = () => ({ deep: { port: 80 }, when: new Date(5), bytes: new Uint8Array([1, 2, 3]) });
  export const fail = () => { throw Object.assign(new RangeError('out of stock', { cause: new TypeError('no delivery') }), { code: 'E_STOCK' }); };
  export async function* count(to) { try { for (let i = 0; i < to; i++) yield i; } finally { finished++; } }
  export const ended = () => finished;
  export const total = async (items) => { let sum = 0; for await (const item of items) sum += item; return sum; };
  export const closings = () => closed;
  export const until = (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve(String(signal.reason))));
  export const seen = (signal) => [signal.aborted, String(signal.reason)];
  export const call = (f, ...args) => f(...args);
  export const keep = (f) => { kept = f; };
  export const ring = (n) => kept(n);
  let kept;
`;

const SIGNALS = `
  let controller = new AbortController();
  export const own = () => controller.signal;
  export const give = (f) => f(controller.signal);
  export const end = (why) => { controller.abort(new RangeError(why)); controller = new AbortController(); };
  export const through = (f, signal) => f(signal);
  export const pass = (f) => f(hauki.call.signal);
`;

for (const driver of DRIVERS)
  describe(`references into a ${driver} vault`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });
    const clone = (...given: Parameters<typeof used.mesh.clone>): any => used.mesh.clone(...given);

    it('are called, called back, and let go of', async () => {
      await using shop = await clone({ source: SHOP });
      {
        await using basket = await shop.basket();
        const same = await basket.put('pear');
        assert.equal(same, basket);
        await basket.put('plum');
        assert.deepEqual(await basket.each((item: string) => `${item}!`), ['pear!', 'plum!']);
        await assert.rejects(basket.items(), { name: 'NoSuchMethod' });
      }
      await until('the basket to be closed', async () => (await shop.closings()).length === 1);
      assert.deepEqual(await shop.closings(), [2]);
      const heard: number[] = [];
      await shop.keep((n: number) => heard.push(n));
      await shop.ring(4);
      await shop.ring(5);
      assert.deepEqual(heard, [4, 5]);
      assert.equal(
        await shop.call((a: number, b: Map<string, bigint>) => a + Number(b.get('x')), 1, new Map([['x', 2n]])),
        3,
      );
    });

    it('are pipelined, also on a worker that is still being provisioned', async () => {
      const shop = clone({ source: SHOP });
      const list = shop.basket().put('pear').put('plum').list();
      const port = shop.config().deep.port;
      const sum = shop.add(shop.slow(4), shop.add(1, 2));
      const failed = shop
        .fail()
        .more.and()
        .more()
        .catch((thrown: unknown) => thrown);
      const awaited = (async () => (await shop.basket()).list())();
      assert.deepEqual(await Promise.all([list, port, sum, awaited]), [['pear', 'plum'], 80, 7, []]);
      const error = await failed;
      assert.deepEqual(
        [error.name, error.cause.message, error.cause.code, error.cause.cause.message],
        ['RemoteError', 'out of stock', 'E_STOCK', 'no delivery'],
      );
      await until('the basket to be closed', async () => (await shop.closings()).length === 1);
      await used.mesh.destruct(shop);
    });

    it('that never come, since the worker never does, fail as the clone does', async () => {
      const none = clone({ source: SHOP }, { labels: { zone: 'nowhere' } });
      await assert.rejects(none.basket().put(1).list(), { name: 'NoNodeFits' });
      await assert.rejects(none.add(none.slow(1), [none.config().deep.port]), { name: 'NoNodeFits' });
      await assert.rejects(none, { name: 'NoNodeFits' });
      const controller = new AbortController();
      const shop = clone({ source: SHOP });
      const never = withOptions(shop, { signal: controller.signal }).basket().list();
      controller.abort(new Error('changed my mind'));
      await assert.rejects(never, { name: 'Cancelled', message: /changed my mind.*never sent/ });
      await assert.rejects(withOptions(shop, { timeout_ms: 0 }).add(1, 1), { name: 'DeadlineExceeded' });
      assert.equal(await withOptions(shop, { timeout_ms: 60_000 }).add(1, 1), 2);
      await used.mesh.destruct(shop);
    });

    it('give streams in both directions, which end on both sides', async () => {
      await using shop = await clone({ source: SHOP });
      const items: number[] = [];
      for await (const item of await shop.count(1000)) items.push(item);
      assert.deepEqual([items.length, items.at(-1)], [1000, 999]);
      for await (const item of await shop.count(1e9)) if (item === 5) break;
      await until('the far generator to end', async () => (await shop.ended()) === 2);
      let closed = false;
      async function* here() {
        try {
          for (let i = 1; i <= 100; i++) yield i;
        } finally {
          closed = true;
        }
      }
      assert.equal(await shop.total(here()), 5050);
      assert.ok(closed);
      assert.equal(await shop.total(shop.count(10)), 45);
      await until('the kept stream to end', async () => (await shop.ended()) === 3);
    });

    it('carry signals as arguments, where the platform has them', async () => {
      await using shop = await clone({ source: SHOP });
      const controller = new AbortController();
      const told = shop.until(controller.signal);
      await shop.add(1, 1);
      controller.abort(new RangeError('enough'));
      assert.match(await told, /RangeError: enough/);
      // One that was aborted before is so when the call begins.
      assert.deepEqual(await shop.seen(AbortSignal.abort(new RangeError('late'))), [true, 'RangeError: late']);
      assert.match((await shop.seen(AbortSignal.abort()))[1], /AbortError/);
    });

    it("carry signals of the worker: as results, to callbacks, its call's own, and home again", async () => {
      await using worker = await clone({ source: SIGNALS });
      const heard = (signal: AbortSignal) =>
        new Promise<string>((resolve) => {
          const tell = () => resolve(String(signal.reason));
          if (signal.aborted) tell();
          else signal.addEventListener('abort', tell);
        });
      const own = await worker.own();
      await worker.end('enough');
      assert.match(await heard(own), /RangeError: enough/);
      const to_callback = worker.give(heard);
      await worker.end('stop');
      assert.match(await to_callback, /RangeError: stop/);
      const mine = new AbortController();
      assert.equal(await worker.through((signal: AbortSignal) => signal instanceof AbortSignal, mine.signal), true);
      const cancel = new AbortController();
      const { promise, resolve } = Promise.withResolvers<string>();
      const passing = withOptions(worker, { signal: cancel.signal }).pass((signal: AbortSignal) => {
        cancel.abort(new Error('no longer'));
        void heard(signal).then(resolve);
      });
      await assert.rejects(passing, { name: 'Cancelled' });
      assert.match(await promise, /no longer/);
    });

    it('carry texts up to what a message holds, refuse longer ones, and the worker lives on', async () => {
      await using echo = await clone({
        source: `export const repeat = (text, times) => text.repeat(times); export const length = (text) => text.length;`,
      });
      assert.equal((await echo.repeat('x', 8_000_000)).length, 8_000_000);
      assert.equal((await echo.repeat('ab ü ', 1_300_000)).length, 6_500_000);
      assert.equal(await echo.length('ü'.repeat(4_000_000)), 4_000_000);
      for (const [text, times] of [
        ['x', 8_400_000],
        ['ü', 4_200_000],
      ] as const)
        await assert.rejects(echo.repeat(text, times), { name: 'TooLarge' });
      await assert.rejects(echo.length('ü'.repeat(4_200_000)), { name: 'TooLarge' });
      assert.equal(await echo.length('still there'), 11);
    });

    it('go from one worker to another through the script', async () => {
      await using shop = await clone({ source: SHOP });
      await using other = await clone({
        source: `export const fill = async (basket) => { await basket.put('from afar'); return basket.list(); };
          export const sum = async (shop) => shop.add(await shop.add(1, 2), 4);`,
      });
      using basket = await shop.basket();
      assert.deepEqual(await other.fill(basket), ['from afar']);
      assert.equal(await other.sum(shop), 7);
    });

    it('do not let calls that wait for their arguments end the lease', async () => {
      const shop = clone({ source: SHOP }, { lease_ms: 3_000, heartbeat_ms: 200 });
      await shop;
      const opened = shop.gate();
      const waiting = shop.add(opened, 1);
      // Another caller lets it go on, long after the lease would have run out.
      const visitor = used.mesh.visit((await used.mesh.details(shop)).worker) as any;
      await new Promise((resolve) => setTimeout(resolve, 5_000));
      await visitor.release(41);
      assert.equal(await waiting, 42);
      await used.mesh.destruct(shop);
    });
  });
