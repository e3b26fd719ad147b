/** The Python guest by itself: its effects, how it is looked into, and how it ends. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrantMissing, LIMITS } from '@hauki/protocol';
import { no_python } from './gated-guest.ts';
import { usePythonGuests } from './python-guest-support.ts';

describe('the Python guest in its vault', { skip: no_python }, () => {
  const start = usePythonGuests('python-life');

  it('has its effects in methods and coroutines; what is printed is logged', async () => {
    const { open, effects, until } = await start(`
import sys
def ask(url):
    r = hauki.fetch(url, headers={"a": "b"}, json={"x": 1})
    return [r.status, r.ok, r.headers["x-a"], r.json()]
async def aask(url): return (await hauki.fetch(url)).text
def read(pointer): return hauki.meshfs.resolve(pointer)["content"]
def say():
    import hauki as other
    print("one", 1)
    sys.stderr.write("two\\nthr")
    sys.stderr.flush()
    other.log("four", 4)
    return other is hauki
def caught():
    try: hauki.fetch("http://secret/")
    except hauki.GrantMissing as error: return error.name
`);
    const session = await open();
    assert.deepEqual(await session.call('ask', ['http://x/']), [200, true, 'b', { fetched: true }]);
    assert.deepEqual(effects[0], [
      'fetch',
      'http://x/',
      {
        method: 'GET',
        headers: [
          ['a', 'b'],
          ['content-type', 'application/json'],
        ],
        body: '{"x":1}',
      },
    ]);
    assert.equal(await session.call('aask', ['http://x/']), '{"fetched":true}');
    assert.equal(await session.call('read', ['gem-pointer://a/b']), 'a document');
    assert.equal(await session.call('caught'), 'GrantMissing');
    await assert.rejects(session.call('ask', ['http://secret/']), GrantMissing);
    assert.equal(await session.call('say'), true);
    const logged = () => effects.filter(([effect]) => effect === 'log').map(([, ...line]) => line);
    await until('all is logged', () => logged().length === 4);
    assert.deepEqual(logged(), [
      ['info', 'one 1'],
      ['error', 'two'],
      ['error', 'thr'],
      ['info', 'four 4'],
    ]);
  });

  it('says how many lines it dropped, also when no line comes after them', async () => {
    const { open, effects, until } = await start(`
def flood():
    for i in range(5000): print(i)
`);
    await (await open()).call('flood');
    const logged = () => effects.filter(([effect]) => effect === 'log');
    const dropped = () => logged().flatMap(([, , , count]) => (count === undefined ? [] : [count as number]));
    const sum = () => dropped().reduce((total, count) => total + count, 0);
    await until('all are logged or counted', () => logged().length - dropped().length + sum() === 5_000);
    assert.ok(sum() > 0);
  });

  it('gives each header of an answer that comes more than once', async () => {
    const { open } = await start(`
def ask():
    answer = hauki.fetch("http://cookies/")
    return [answer.headers, [value for name, value in answer.header_list if name == "set-cookie"]]
`);
    assert.deepEqual(await (await open()).call('ask'), [{ 'x-a': 'b', 'set-cookie': 'a=1, b=2' }, ['a=1', 'b=2']]);
  });

  it('answers literal sessions with literal JSON, or says why not', async () => {
    const { openLiteral } = await start(`
import datetime
def add(a, b): return a + b
def day(): return [datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), {"a": (1, None)}]
def odd(): return {1, 2}
`);
    const session = await openLiteral();
    assert.equal(await session.call('add', [1, 2]), 3);
    assert.deepEqual(await session.call('day'), ['2026-01-02T00:00:00.000Z', { a: [1, null] }]);
    await assert.rejects(session.call('odd'), /cannot be sent: it is of type set/);
    assert.equal(await session.call('add', ['ä', '😀']), 'ä😀');
  });

  it('leaves streams that its methods leave before their end, or never read', async () => {
    const { open, until } = await start(`
def take(items):
    for item in items: break
async def atake(items):
    async for item in items: break
def ignore(items): pass
async def beside(items, heard):
    import asyncio
    async def first():
        async for item in items: return await heard(item)
    asyncio.create_task(first())
def collect():
    import gc
    gc.collect()
`);
    const session = await open();
    let producing = 0;
    async function* texts() {
      producing++;
      try {
        for (;;) yield 'x'.repeat(100_000);
      } finally {
        producing--;
      }
    }
    for (const method of ['take', 'atake', 'ignore'])
      for (let i = 0; i < LIMITS.streams + 2; i++) await session.call(method, [texts()]);
    await until('all to be closed', () => producing === 0);
    // Not one that a task waits for, which nobody but the stream knows of.
    const { promise, resolve } = Promise.withResolvers<unknown>();
    const { promise: gate, resolve: go } = Promise.withResolvers<number>();
    async function* late() {
      yield await gate;
    }
    await session.call('beside', [late(), resolve]);
    await session.call('collect');
    go(7);
    assert.equal(await promise, 7);
  });

  it('is looked into with the worker and hauki in scope, and tells what calls it has had', async () => {
    const { shell, open } = await start(`
import time
class Worker:
    def __init__(self): self.n = 40
    def up(self): self.n += 1; return self.n
    def block(self): time.sleep(0.6)
`);
    const session = await open();
    await session.call('up');
    await session.call('rpc.heartbeat', ['c', 'm']);
    const blocking = session.call('block');
    // It goes another way than the call.
    let busy = await shell.activity();
    while (busy.calls < 2) busy = await shell.activity();
    assert.deepEqual([busy.calls, busy.under_way, busy.idle_ms], [2, 1, 0]);
    await blocking;
    while ((await shell.activity()).under_way > 0);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const idle = await shell.activity();
    assert.deepEqual([idle.calls, idle.under_way, idle.idle_ms > 0], [2, 0, true]);
    assert.equal(await shell.inspect('worker.n + 1', 5_000), '42');
    assert.equal(
      await shell.inspect('(await hauki.meshfs.resolve("gem-pointer://a/b"))["content"]', 5_000),
      'a document',
    );
    await assert.rejects(shell.inspect('worker.none', 5_000), /AttributeError/);
    await assert.rejects(shell.inspect('1 +', 5_000), /SyntaxError/);
    await assert.rejects(shell.inspect('__import__("asyncio").sleep(20)', 200), /no answer within|TimeoutError/);
  });

  it('clones workers of its own by calls to the host', async () => {
    const { open, effects } = await start(`
async def go():
    child = await hauki.clone(source="def add(a, b): return a + b", language="python", memory_mib=64)
    result = await child.add(1, 2)
    await child.destruct()
    return result
def again():
    with hauki.clone("gem-pointer://a/b") as child: return child.add(2, 3)
`);
    const session = await open();
    assert.equal(await session.call('go'), 42);
    assert.equal(await session.call('again'), 42);
    assert.deepEqual(effects, [
      ['clone', { source: 'def add(a, b): return a + b', language: 'python', memory_mib: 64 }],
      ['clone.call', 'w-child', 'add', [1, 2], 60_000],
      ['clone.destruct', 'w-child'],
      ['clone', { pointer: 'gem-pointer://a/b' }],
      ['clone.call', 'w-child', 'add', [2, 3], 60_000],
      ['clone.destruct', 'w-child'],
    ]);
  });

  it('has its volume by calls to the host', async () => {
    const { open, effects } = await start(`
def go():
    hauki.volume.write("a/b", "text")
    hauki.volume.write("c", bytes([255]))
    return hauki.volume.read("a/b")
`);
    assert.equal(await (await open()).call('go'), 'kept');
    assert.deepEqual(effects, [
      ['volume.write', 'a/b', { text: 'text' }],
      ['volume.write', 'c', { base64: '/w==' }],
      ['volume.read', 'a/b'],
    ]);
  });

  it('runs its end hook, also an asynchronous one, and tells what its sessions did', async () => {
    for (const kind of ['def', 'async def']) {
      const { shell, open, effects } = await start(
        `def a(): return 1\n${kind} on_end(reason): print("ended:", reason)\n`,
      );
      await (await open()).call('a');
      const [info] = await shell.sessions();
      assert.equal(info!.stats!.calls_served, 1);
      await shell.end('time is up');
      assert.deepEqual(effects.at(-1), ['log', 'info', 'ended: time is up']);
    }
  });

  it('ends when its gate does, also in the middle of an endless loop', async () => {
    const { open, gate, exited } = await start('def spin():\n  while True: pass\n');
    const session = await open();
    session.call('spin').catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 100));
    gate.close('enough');
    assert.deepEqual(await exited, [0, null]);
  });
});
