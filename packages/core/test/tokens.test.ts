/** The table of tokens: durable, without secrets, and whatever ends takes what stands below it along. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { openEmbedded } from '@hauki/backplane';
import {
  BadInput,
  type ErrorClass,
  Forbidden,
  isError,
  LIMITS,
  Overloaded,
  StorageFailed,
  type TokenRequest,
  TokenUnknown,
  Unauthorised,
} from '@hauki/protocol';
import { ADMIN, NODE, type Principal } from '../src/rights.ts';
import { hashOf, TokenStore } from '../src/tokens.ts';

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

async function setUp() {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-tokens-'));
  folders.push(folder);
  const clock = { now: 1_000_000, ahead: 0 };
  const told: [string, any][] = [];
  const ended: string[] = [];
  const open = async () => {
    const backplane = await openEmbedded(folder);
    const kv = backplane.kv('tokens');
    const store = await TokenStore.open({
      kv,
      emit: (name, fields) => told.push([name, fields]),
      ended: (token) => ended.push(token),
      now: () => clock.now + clock.ahead,
      elapsed: () => clock.now,
    });
    return {
      store,
      kv,
      close: async () => {
        store.close();
        await backplane.close();
      },
    };
  };
  return { folder, clock, told, ended, open };
}

const wants = (name: string, more: Partial<TokenRequest> = {}): TokenRequest => ({
  name,
  scopes: ['tokens', 'spawn'],
  ...more,
});
const refused = (promise: Promise<unknown>, kind: ErrorClass<any>, pattern: RegExp) =>
  assert.rejects(promise, (error: Error) => {
    assert.ok(isError(error, kind), `${error.name}: ${error.message}`);
    assert.match(error.message, pattern);
    return true;
  });

describe('the table of tokens', () => {
  it('gives a secret once, keeps its hash, and knows it after a restart', async () => {
    const { folder, open, told } = await setUp();
    const first = await open();
    const { token, ...info } = await first.store.create(
      ADMIN,
      wants('ci', { targets: { pointers: ['gem-pointer://wiki/ci/'] } }),
    );
    assert.match(token, /^hauki_[\w-]{43}$/);
    assert.match(info.id, /^ci-[0-9a-f]{12}$/);
    assert.equal(info.owner, info.id);
    assert.deepEqual(first.store.list(ADMIN), [info]);
    await first.close();
    for (const file of ['kv.sqlite', 'kv.sqlite-wal'])
      try {
        const kept = readFileSync(join(folder, file), 'latin1');
        assert.ok(!kept.includes(token.slice(6)), `the secret is in ${file}`);
        assert.ok(file !== 'kv.sqlite' || kept.includes(hashOf(token)), 'its hash is kept (positive control)');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      }
    const second = await open();
    const { id, owner: name, scopes, targets } = info;
    assert.deepEqual(second.store.find(token), { id, name, scopes, targets });
    assert.equal(second.store.find(`${token}x`), undefined);
    assert.deepEqual(second.store.list(ADMIN), [info]);
    await second.close();
    assert.deepEqual(
      told.map(([name, { token: id }]) => [name, id]),
      [['TOKEN_CREATED', info.id]],
    );
    assert.ok(!JSON.stringify(told).includes(token.slice(6)));
  });

  it('revokes a token with all below it, for good, and nobody else’s', async () => {
    const { open, told } = await setUp();
    const first = await open();
    const { store } = first;
    const make = async (maker: Principal, name: string) => store.find((await store.create(maker, wants(name))).token)!;
    const a = await make(ADMIN, 'a');
    const a_b = await make(a, 'b');
    const a_b_c = await make(a_b, 'c');
    const other = await make(ADMIN, 'a');
    assert.equal(a_b_c.name, `${a.id}/${a_b.id}/${a_b_c.id}`);
    assert.deepEqual(
      store.list(a_b).map(({ id }) => id),
      [a_b.id, a_b_c.id],
    );

    await refused(store.revoke(a_b, a.id), TokenUnknown, /no token a-/);
    await refused(store.revoke(a, other.id), TokenUnknown, /no token a-/);
    await refused(store.revoke(ADMIN, 'nobody-1'), TokenUnknown, /no token nobody-1/);
    const cut: string[] = [];
    for (const one of [a, a_b, a_b_c, other]) store.hold(one, (why) => cut.push(`${one.id}: ${why}`));
    store.hold(a_b_c, () => assert.fail('let go of'))();
    assert.deepEqual(await store.revoke(a, a_b.id), [a_b.id, a_b_c.id]);
    assert.deepEqual(
      cut,
      [a_b, a_b_c].map(({ id }) => `${id}: its token was revoked`),
    );
    assert.throws(() => store.hold(a_b, () => {}), /has just ended/);
    await refused(store.create(a_b, wants('late')), Unauthorised, /has just ended/);
    assert.deepEqual(told.at(-1), ['TOKEN_REVOKED', { token: a_b_c.id, owner: a_b_c.name, by: a.name }]);
    await first.close();
    const second = await open();
    assert.deepEqual(
      second.store
        .list(ADMIN)
        .map(({ id }) => id)
        .sort(),
      [a.id, other.id].sort(),
    );
    await second.close();
  });

  it('ends a token at its time, and lets none outlive its maker', async () => {
    const { open, clock, told } = await setUp();
    const { store, close } = await open();
    const made = await store.create(ADMIN, wants('hour', { expires_in_ms: 3_600_000 }));
    const hour = store.find(made.token)!;
    await refused(
      store.create(hour, wants('more', { expires_in_ms: 3_600_001 })),
      Forbidden,
      /cannot outlive its maker/,
    );
    const heir = await store.create(hour, wants('heir'));
    assert.equal(heir.expires_at, made.expires_at, 'it ends with its maker');
    const less = await store.create(hour, wants('less', { expires_in_ms: 60_000 }));
    clock.now += 60_000;
    assert.deepEqual([store.find(less.token), store.behind(less.owner)], [undefined, undefined]);
    assert.equal(store.behind(heir.owner)?.id, heir.id);
    assert.ok(store.find(made.token) && store.find(heir.token));
    clock.now += 3_600_000;
    for (const { token } of [made, heir]) assert.equal(store.find(token), undefined);
    assert.deepEqual(store.list(ADMIN), []);
    await close();
    const again = await open();
    assert.deepEqual((await again.kv.list('')).entries, [], 'what is over is not kept');
    assert.equal(told.filter(([name]) => name === 'TOKEN_EXPIRED').length, 3);
    await again.close();
  });

  it('cuts what is open in a token’s name when its time has come, by itself', async () => {
    const { open, clock, ended, told } = await setUp();
    const { store, close } = await open();
    const { token, id } = await store.create(ADMIN, wants('brief', { expires_in_ms: 1_000 }));
    const cut = new Promise<string>((resolve) => store.hold(store.find(token)!, resolve));
    const alive = setInterval(() => {
      clock.now += 100;
    }, 10);
    assert.equal(await cut, 'its token has expired');
    clearInterval(alive);
    while (!told.some(([name]) => name === 'TOKEN_EXPIRED')) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(ended, [id], 'what is counted for it is forgotten');
    await close();
  });

  it('cuts it a minute after the machine has slept past that time, or somebody has set the clock on', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { open, clock } = await setUp();
    const { store, close } = await open();
    const { token } = await store.create(ADMIN, wants('hour', { expires_in_ms: 3_600_000 }));
    const why: string[] = [];
    store.hold(store.find(token)!, (reason) => why.push(reason));
    clock.ahead = 3_600_000;
    t.mock.timers.tick(60_000);
    assert.deepEqual(why, ['its token has expired']);
    t.mock.timers.reset();
    await close();
  });

  it('leaves no token behind when its maker is revoked in the same moment', async () => {
    const { open } = await setUp();
    const first = await open();
    const { store } = first;
    const maker = store.find((await store.create(ADMIN, wants('maker'))).token)!;
    const outcomes = await Promise.allSettled([
      store.create(maker, wants('early')),
      store.revoke(ADMIN, maker.id),
      store.create(maker, wants('late')),
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['rejected', 'fulfilled', 'rejected'],
    );
    assert.deepEqual(store.list(ADMIN), []);
    assert.deepEqual((await first.kv.list('')).entries, []);
    await first.close();
  });

  it('leaves none behind either when its maker is revoked while it is being written', async () => {
    const { open, told } = await setUp();
    const { store, kv, close } = await open();
    const maker = await store.create(ADMIN, wants('maker'));
    const principal = store.find(maker.token)!;
    const put = kv.put.bind(kv);
    kv.put = async (...given) => {
      const revision = await put(...given);
      await store.revoke(ADMIN, maker.id);
      return revision;
    };
    await refused(store.create(principal, wants('late')), Unauthorised, /has just ended/);
    assert.deepEqual([store.list(ADMIN), (await kv.list('')).entries], [[], []]);
    assert.equal(told.filter(([name]) => name === 'TOKEN_CREATED').length, 1);
    await close();
  });

  it('refuses a token while somebody has set the clock ahead, and has it again then', async () => {
    const { open, clock } = await setUp();
    const { store, close } = await open();
    const { token } = await store.create(ADMIN, wants('hour', { expires_in_ms: 3_600_000 }));
    const hour = store.find(token)!;
    const cut = new Promise<string>((resolve) => store.hold(hour, resolve));
    clock.ahead = 2 * 3_600_000;
    assert.equal(store.find(token), undefined);
    // It looks at what has expired, and at once.
    await store.create(ADMIN, wants('other', { expires_in_ms: 1_000 }));
    assert.equal(await cut, 'its token has expired', 'nor does anything stay open in its name');
    clock.ahead = 0;
    assert.deepEqual(store.find(token), hour);
    clock.now += 3_600_000;
    assert.equal(store.find(token), undefined);
    await close();
  });

  it('drops at its start what has lost those above it', async () => {
    const { open } = await setUp();
    const first = await open();
    const maker = await first.store.create(ADMIN, wants('maker'));
    const { token } = await first.store.create(first.store.find(maker.token)!, wants('child'));
    await first.kv.delete(maker.id);
    await first.close();
    const second = await open();
    assert.equal(second.store.find(token), undefined);
    assert.deepEqual((await second.kv.list('')).entries, []);
    await second.close();
  });

  it('refuses what has lost those above it also where the disk cannot forget it, and opens', async () => {
    const { open } = await setUp();
    const { store, kv, close } = await open();
    const maker = await store.create(ADMIN, wants('maker'));
    const { token } = await store.create(store.find(maker.token)!, wants('child'));
    await kv.delete(maker.id);
    const stuck: typeof kv = Object.assign(Object.create(kv), {
      delete: () => Promise.reject(new StorageFailed({ what: 'the disk is full' })),
    });
    const again = await TokenStore.open({ kv: stuck, emit: () => {} });
    assert.equal(again.find(token), undefined);
    again.close();
    await close();
  });

  it('refuses what is not bounded, and makers that may not', async () => {
    const { open } = await setUp();
    const { store, close } = await open();
    for (const name of ['', 'A', 'a b', '../a', 'a'.repeat(33)])
      await refused(store.create(ADMIN, wants(name)), BadInput, /is not \[a-z0-9-\]/);
    for (const expires_in_ms of [0, -1, 999, LIMITS.token_ms + 1, Number.NaN])
      await refused(store.create(ADMIN, wants('a', { expires_in_ms })), BadInput, /expires_in_ms/);
    await refused(store.create(NODE, wants('a', { scopes: ['node'] })), Forbidden, /scope tokens/);
    let maker: Principal = ADMIN;
    for (let depth = 0; depth < LIMITS.token_depth; depth++)
      maker = store.find((await store.create(maker, wants('deep'))).token)!;
    await refused(store.create(maker, wants('deeper')), BadInput, /above one another at most/);
    await close();
  });

  it('lets nobody take the others’ room', async () => {
    const { open } = await setUp();
    const { store, close } = await open();
    const greedy = store.find((await store.create(ADMIN, wants('greedy'))).token)!;
    const most = LIMITS.token_changes / 2;
    for (let made = 0; made < LIMITS.tokens_below; made += most)
      await Promise.all(
        Array.from({ length: Math.min(most, LIMITS.tokens_below - made) }, () => store.create(greedy, wants('x'))),
      );
    await refused(store.create(greedy, wants('x')), Overloaded, /limit of 1000/);
    await store.create(ADMIN, wants('other'));
    const flood = Array.from({ length: most }, () => store.create(greedy, wants('x')));
    const settled = Promise.allSettled(flood);
    await refused(store.create(greedy, wants('x')), Overloaded, /wait to be made, of one token and all below it/);
    await store.create(ADMIN, wants('another'));
    await settled;
    assert.equal((await store.revoke(ADMIN, greedy.id)).length, LIMITS.tokens_below + 1);
    await close();
  });

  it('has a token again with all below it, in whatever order they were read, where the disk cannot forget it', async () => {
    const { open } = await setUp();
    const first = await open();
    const maker = await first.store.create(ADMIN, wants('z'));
    const below = await first.store.create(first.store.find(maker.token)!, wants('a'));
    await first.close();
    const { store, kv, close } = await open();
    kv.delete = () => Promise.reject(new StorageFailed({ what: 'the disk is full' }));
    await refused(store.revoke(ADMIN, maker.id), StorageFailed, /disk is full/);
    assert.deepEqual([store.find(maker.token)?.id, store.find(below.token)?.id], [maker.id, below.id]);
    await close();
  });

  it('ends a token at once, however many wait to be made, and has it again where the disk cannot forget it', async () => {
    const { open } = await setUp();
    const { store, kv, close } = await open();
    const maker = await store.create(ADMIN, wants('maker'));
    const principal = store.find(maker.token)!;
    const flood = Array.from({ length: 2 * LIMITS.token_changes }, () => store.create(principal, wants('x')));
    const settled = Promise.allSettled(flood);
    const revoked = store.revoke(ADMIN, maker.id);
    assert.equal(store.find(maker.token), undefined);
    assert.ok((await revoked).includes(maker.id));
    await settled;
    assert.deepEqual((await kv.list('')).entries, []);

    const kept = await store.create(ADMIN, wants('kept'));
    const below = await store.create(store.find(kept.token)!, wants('below'));
    kv.delete = () => Promise.reject(new StorageFailed({ what: 'the disk is full' }));
    await refused(store.revoke(ADMIN, kept.id), StorageFailed, /disk is full/);
    assert.deepEqual(
      store.list(ADMIN).map(({ id }) => id),
      [kept.id, below.id],
      'it can be revoked again',
    );
    await close();
  });

  it('that has expired is refused, and keeps no core from starting, where the disk cannot forget it', async () => {
    const { clock, open, told } = await setUp();
    const first = await open();
    const { token } = await first.store.create(ADMIN, wants('ada', { expires_in_ms: 5_000 }));
    first.store.close();
    clock.now += 5_000;
    const stuck: typeof first.kv = Object.assign(Object.create(first.kv), {
      delete: () => Promise.reject(new StorageFailed({ what: 'the disk is full' })),
    });
    const store = await TokenStore.open({ kv: stuck, emit: (name) => told.push([name, {}]), now: () => clock.now });
    assert.equal(store.find(token), undefined);
    store.close();
    await first.close();
  });
});
