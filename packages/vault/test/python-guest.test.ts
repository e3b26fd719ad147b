/** The Python guest by itself: what it makes of a module, and how calls, values and streams pass. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, RemoteError } from '@hauki/protocol';
import { no_python, rejected } from './gated-guest.ts';
import { usePythonGuests } from './python-guest-support.ts';

describe('the Python guest', { skip: no_python }, () => {
  const start = usePythonGuests('python');

  it('calls functions; those that begin with "_" or were imported are not there', async () => {
    const { methods, open } = await start(`
from json import dumps
def add(a, b): return a + b
def _hidden(): return 1
async def later(a): return a * 2
class Helper: pass
`);
    assert.deepEqual(methods, ['add', 'later']);
    const session = await open();
    assert.equal(await session.call('add', [2, 3]), 5);
    assert.equal(await session.call('later', [21]), 42);
    assert.deepEqual(await session.call('rpc.methods'), ['add', 'later']);
    for (const name of ['_hidden', 'dumps', 'Helper', '__init__', 'on_end'])
      await assert.rejects(session.call(name), /Method not found/, name);
  });

  it('takes the class Worker, the only class, or what is called worker; a class may take the context', async () => {
    const cases: [string, string[]][] = [
      [
        'class Worker:\n  def __init__(self, hauki): self.h = hauki\n  def name(self): return self.h.worker\nclass Other:\n  def x(self): pass',
        ['name'],
      ],
      [
        'class Base:\n  def _b(self): pass\n  def b(self): return 1\nclass Worker(Base):\n  @property\n  def p(self): return 1\n  @staticmethod\n  def s(): return 2\n  def on_end(self, reason): pass',
        ['b', 's'],
      ],
      ['class Only:\n  def one(self): return 1', ['one']],
      ['class A:\n  def __init__(self, n): self.n = n\n  def get(self): return self.n\nworker = A(7)', ['get']],
    ];
    for (const [source, expected] of cases) assert.deepEqual((await start(source)).methods, expected, source);
  });

  it('says of a source that is refused: the stage and the line', async () => {
    await assert.rejects(start('def a():\n  return (\n'), rejected('parse', /SyntaxError: .*worker\.py:2/));
    await assert.rejects(
      start('x = 1\n\nraise ValueError("no")\n'),
      rejected('load', /ValueError: no \(at worker\.py:3: raise/),
    );
    await assert.rejects(start('import fastapi_of_nobody\n'), rejected('load', /ModuleNotFoundError.*worker\.py:1/));
    await assert.rejects(start('import sys; sys.exit(3)'), rejected('load', /SystemExit: 3/));
    await assert.rejects(start('x = 1'), rejected('exports', /has only x/));
    await assert.rejects(
      start('import time\nwhile True: time.sleep(1)', 3_000),
      rejected('load', /did not finish loading within 3000 ms/),
    );
  });

  it('carries whole values both ways', async () => {
    const { open } = await start(`
import datetime
def echo(x): return x
def kinds(): return [b"ab", {1, 2}, 2**70, datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), float("nan"), None, (1, 2)]
def types(*args): return [type(a).__name__ for a in args]
`);
    const session = await open();
    const value = new Map<unknown, unknown>([
      ['a', new Uint8Array([1, 2])],
      [3n, new Set(['x', undefined])],
      ['d', new Date(5)],
    ]);
    assert.deepEqual(await session.call('echo', [value]), value);
    const [bytes, set, big, date, nan, none, list] = (await session.call('kinds')) as unknown[];
    assert.deepEqual(bytes, new Uint8Array([97, 98]));
    assert.deepEqual(set, new Set([1, 2]));
    assert.equal(big, 2n ** 70n);
    assert.deepEqual(date, new Date('2026-01-02T00:00:00Z'));
    assert.ok(Number.isNaN(nan));
    assert.equal(none, null);
    assert.deepEqual(list, [1, 2]);
    assert.deepEqual(await session.call('types', [1, 'a', new Uint8Array(1), new Date(0), true]), [
      'int',
      'str',
      'bytes',
      'datetime',
      'bool',
    ]);
  });

  it('takes values that hold themselves, in methods and coroutines', async () => {
    const { open } = await start(`
def told(value): return value["self"] is value
async def told_later(value): return value["self"] is value
`);
    const session = await open();
    const value: { self?: unknown } = {};
    value.self = value;
    for (const name of ['told', 'told_later']) assert.equal(await session.call(name, [value]), true);
  });

  it('tells errors with their name, their line, and their cause', async () => {
    const { open } = await start(`def boom():
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("no") from error
async def later():
    raise hauki.Forbidden("not you", {"why": "x"})
def fine(): return object()
`);
    const session = await open();
    await assert.rejects(session.call('boom'), (error: Error) => {
      assert.ok(isError(error, RemoteError));
      assert.equal(error.message, 'ValueError: no');
      assert.match(error.stack!, /at boom \(worker\.py:5\): raise ValueError\("no"\) from error/);
      assert.equal((error.cause as Error & { cause: Error }).cause.name, 'KeyError');
      return true;
    });
    await assert.rejects(session.call('later'), /not you/);
    await assert.rejects(session.call('fine'), /cannot be sent/);
  });

  it('tells an error that gathers others with each of them', async () => {
    const { open } = await start(`
class Gathered(Exception):  # As ExceptionGroup, which Python has since 3.11.
    exceptions = property(lambda self: (ValueError("one"), KeyError("two")))
class Group(Exception):
    exceptions = property(lambda self: 1 / 0)
async def together(): raise Gathered("two at once")
def hostile(): raise Group("none")
`);
    const session = await open();
    const { cause }: any = await session.call('together').catch((error) => error);
    assert.deepEqual(
      cause.errors.map(({ name, message }: Error) => [name, message]),
      [
        ['ValueError', 'one'],
        ['KeyError', "'two'"],
      ],
    );
    await assert.rejects(session.call('hostile'), /^RemoteError: Group: none/);
  });

  it('tells errors that cannot be shown or sent whole, as often as there are any, and goes on', async () => {
    const { open } = await start(`
class Mute(Exception):
    def __str__(self): raise ValueError("no")
    __repr__ = __str__
class Meta(type):
    @property
    def __name__(cls): raise ValueError("no")
class Nameless(Exception, metaclass=Meta): pass
class Odd:
    def __getattr__(self, name): raise SystemExit
class Holder(Exception):
    def __init__(self): self.held = object()
def mute(): raise Mute()
async def mute_later(): raise Mute()
def nameless(): raise Nameless("without a name")
def endless(): raise ValueError("x" * 20_000_000)
def table(): raise hauki.Forbidden(object(), {"why": object()})
def odd(): return Odd()
def holder(): raise Holder()
def caused():
    try:
        raise Mute()
    except Mute as error:
        raise KeyError("k") from error
def items(kind):
    yield 1
    raise Holder() if kind == "holder" else Mute()
def escape():
    for _ in range(60): hauki._guest.pool.add(mute)
def ok(): return "ok"
`);
    const session = await open();
    const mute = /Mute: \(what it says cannot be shown\)/;
    for (let i = 0; i < 50; i++) await assert.rejects(session.call('mute'), mute);
    await assert.rejects(session.call('mute_later'), mute);
    await assert.rejects(session.call('nameless'), /Nameless: without a name/);
    await assert.rejects(session.call('endless'), (error: Error) => {
      assert.match(error.message, /^ValueError: x+$/);
      return error.message.length < 100_000;
    });
    await assert.rejects(session.call('table'), /cannot be told/);
    await assert.rejects(session.call('odd'), RemoteError);
    await assert.rejects(session.call('holder'), /Holder/);
    await assert.rejects(session.call('caused'), (error: Error) => {
      assert.equal((error.cause as Error & { cause: Error }).cause.name, 'Mute');
      return true;
    });
    for (const kind of ['mute', 'holder']) {
      const stream = ((await session.call('items', [kind])) as AsyncIterable<number>)[Symbol.asyncIterator]();
      assert.equal((await stream.next()).value, 1);
      await assert.rejects(stream.next(), kind === 'mute' ? mute : /Holder/);
    }
    await session.call('escape');
    for (let i = 0; i < 50; i++) assert.equal(await session.call('ok'), 'ok');
    await assert.rejects(
      start('class E(Exception):\n  def __str__(self): raise self\nraise E'),
      rejected('load', /E: \(what/),
    );
  });

  it('gives generators as streams that stand still when their reader does, and reads streams', async () => {
    const { open } = await start(`
made = 0
closed = []
def count(n):
    global made
    try:
        for i in range(n):
            made += 1
            yield b"x" * 1000
    finally:
        closed.append("sync")
async def acount(n):
    import asyncio
    try:
        for i in range(n):
            await asyncio.sleep(0)
            yield i
    finally:
        closed.append("async")
def state(): return [made, closed]
def total(items): return sum(items)
async def atotal(items):
    sum = 0
    async for item in items: sum += item
    return sum
def fails():
    yield 1
    raise ValueError("broken")
`);
    const session = await open();
    let bytes = 0;
    for await (const chunk of (await session.call('count', [1000])) as AsyncIterable<Uint8Array>) bytes += chunk.length;
    assert.equal(bytes, 1_000_000);
    const slow = ((await session.call('count', [10_000])) as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]();
    await slow.next();
    await new Promise((resolve) => setTimeout(resolve, 200));
    const [made] = (await session.call('state')) as [number];
    assert.ok(made < 2000, `${made} items were made for a reader who stands still`);
    await slow.return!();
    const seen: number[] = [];
    for await (const item of (await session.call('acount', [2000])) as AsyncIterable<number>)
      if (seen.push(item) === 1500) break;
    assert.equal(seen.at(-1), 1499);
    async function* numbers() {
      for (let i = 1; i <= 1000; i++) yield i;
    }
    assert.equal(await session.call('total', [numbers()]), 500_500);
    assert.equal(await session.call('atotal', [numbers()]), 500_500);
    await assert.rejects(Array.fromAsync((await session.call('fails')) as AsyncIterable<number>), /ValueError: broken/);
    const [, closed] = (await session.call('state')) as [number, string[]];
    assert.deepEqual(closed.toSorted(), ['async', 'sync', 'sync']);
  });

  it('calls back, and is called back, from methods and coroutines; pipelined calls meet', async () => {
    const { open } = await start(`
def twice(f, x): return f(f(x))
async def atwice(f, x): return await f(await f(x))
def adder(n):
    def add(x): return x + n
    return add
class Counter:
    def __init__(self): self.n = 0
    def up(self):
        self.n += 1
        return self.n
def counter(): return hauki.reference(Counter())
def user(): return {"name": "ada"}
def greet(name): return f"hello {name}"
`);
    const session = await open();
    const triple = (x: number) => x * 3;
    assert.equal(await session.call('twice', [triple, 2]), 18);
    assert.equal(await session.call('atwice', [async (x: number) => x * 3, 2]), 18);
    const add = (await session.call('adder', [5])) as (x: number) => Promise<number>;
    assert.equal(await add(1), 6);
    const counter = (await session.call('counter')) as { up(): Promise<number> };
    assert.deepEqual([await counter.up(), await counter.up()], [1, 2]);
    // Each waits for the one inside it: more of them than may run at once.
    const nested = (depth: number): Promise<unknown> =>
      session.call('twice', [depth === 0 ? (x: number) => x : () => nested(depth - 1), 1]);
    assert.equal(await nested(4), 1);
    const user = session.call('user') as any;
    assert.equal(await session.call('greet', [user.name]), 'hello ada');
  });

  it('runs methods that block beside each other, and shows cancellation and deadlines', async () => {
    const { open, until } = await start(`
import threading, asyncio
gate = threading.Barrier(8)
stopped = []
def meet(): return gate.wait(20) >= 0
def wait():
    call = hauki.call
    if call.signal.wait(20): stopped.append("sync")
async def await_():
    try: await asyncio.sleep(20)
    except asyncio.CancelledError:
        stopped.append("async")
        raise
async def forever(): await asyncio.sleep(20)
def deadline(): return hauki.call.deadline is not None
def state(): return stopped
`);
    const session = await open();
    assert.deepEqual(
      new Set(await Promise.all(Array.from({ length: 8 }, () => session.call('meet')))),
      new Set([true]),
    );
    for (const method of ['wait', 'forever']) {
      const controller = new AbortController();
      const call = session.call(method, [], { signal: controller.signal });
      setTimeout(() => controller.abort(), 50);
      await assert.rejects(call, /cancelled/);
    }
    await assert.rejects(session.call('wait', [], { timeout_ms: 50 }), /no answer within 50 ms/);
    assert.equal(await session.call('deadline', [], { timeout_ms: 5_000 }), true);
    let seen: unknown;
    await until('both waits were told', () => {
      void session.call('state').then((state) => {
        seen = state;
      });
      return JSON.stringify(seen) === '["sync","sync"]';
    });
  });

  it('takes a signal that was aborted before as such from the start', async () => {
    const { open } = await start('def seen(signal): return [signal.aborted, str(signal.reason)]');
    const session = await open();
    assert.deepEqual(await session.call('seen', [AbortSignal.abort('enough')]), [true, 'enough']);
    assert.deepEqual(await session.call('seen', [new AbortController().signal]), [false, 'None']);
  });

  it('ends the session of a caller that breaks the protocol, and no other', async () => {
    const { open, dial, shell, redeem } = await start('def add(a, b): return a + b\n');
    const session = await open();
    for (const text of [
      '[1]',
      'nonsense',
      '{"jsonrpc":"2.0","id":[1],"method":"add","params":[1,2]}',
      '{"jsonrpc":"2.0","method":"rpc.release","params":[[[[],1]]]}',
      '{"jsonrpc":"2.0","method":"rpc.credit","params":7}',
    ]) {
      const link = await dial();
      const { over } = await redeem(link);
      link.send(text);
      await over;
    }
    assert.equal(await session.call('add', [1, 2]), 3);
    assert.equal((await shell.sessions()).length, 1);
  });

  it('starts each stream once, also while heartbeats are answered', async () => {
    const { open } = await start(`
import time
def count(n):
    for i in range(n):
        time.sleep(0.001)
        yield i
`);
    const session = await open();
    let over = false;
    const beating = (async () => {
      while (!over) await Promise.all(Array.from({ length: 8 }, () => session.call('rpc.heartbeat', ['c', 'm'])));
    })();
    for (let round = 0; round < 40; round++)
      await Promise.all(
        Array.from({ length: 4 }, async () =>
          assert.deepEqual(
            await Array.fromAsync((await session.call('count', [3])) as AsyncIterable<number>),
            [0, 1, 2],
          ),
        ),
      );
    over = true;
    await beating;
  });

  it('keeps the lease while the worker’s threads are all busy', async () => {
    const { open } = await start(`
import time
def block():
    while True: time.sleep(1)
def spin():
    while True: pass
`);
    const session = await open();
    for (let i = 0; i < 60; i++) session.call(i === 0 ? 'spin' : 'block').catch(() => {});
    const beat = (await session.call('rpc.heartbeat', ['c', 'm'])) as { next: string };
    assert.equal(beat.next, 'c+');
    session.close();
  });
});
