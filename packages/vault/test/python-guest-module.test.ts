/** The Python guest by itself: what of a module are methods, what its standard streams are, what plain JSON refuses. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isError, Unserialisable } from '@hauki/protocol';
import { no_python } from './gated-guest.ts';
import { usePythonGuests } from './python-guest-support.ts';

describe('the module of a Python guest', { skip: no_python }, () => {
  const start = usePythonGuests('python-module');

  it('has as methods also what functools wrapped, and no types', async () => {
    const module = await start(`
import functools
from typing import NewType
UserId = NewType("UserId", int)
class Adder:
    def __call__(self, n): return n + 1
adder = Adder()
@functools.cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
`);
    assert.deepEqual(module.methods, ['adder', 'fib']);
    assert.equal(await (await module.open()).call('fib', [70]), 190392490709135);
    const one = await start(`
import functools
from typing import NewType
UserId = NewType("UserId", int)
class Users:
    @functools.lru_cache
    def find(self, id): return UserId(id)
    @property
    @functools.lru_cache
    def hidden(self): return 1
    @functools.cached_property
    def hidden_too(self): return 1
    @functools.singledispatchmethod
    def told(self, id): return "something"
    @told.register
    def _(self, id: int): return "a number"
    first = functools.partialmethod(find, 1)
`);
    assert.deepEqual(one.methods, ['find', 'told', 'first']);
    const users = await one.open();
    assert.equal(await users.call('find', [3]), 3);
    assert.deepEqual([await users.call('told', ['x']), await users.call('told', [3])], ['something', 'a number']);
    assert.equal(await users.call('first'), 1);
  });

  it('gives the context to a constructor that wants it, and leaves what has a default as it is', async () => {
    const { open } = await start(`
from dataclasses import dataclass, field
@dataclass
class Worker:
    seen: list = field(default_factory=list)
    hauki: object = None
    def take(self, x):
        self.seen.append(x)
        return [*self.seen, self.hauki is None]
`);
    assert.deepEqual(await (await open()).call('take', [1]), [1, true]);
    for (const parameter of ['context', 'hauki=None']) {
      const { open } = await start(`
class Worker:
    def __init__(self, ${parameter}): self.h = ${parameter.split('=')[0]}
    def name(self): return self.h.worker
`);
      assert.match((await (await open()).call('name')) as string, /\S/, parameter);
    }
  });

  it('prints through whatever programs do to sys.stdout', async () => {
    const { open, effects, until } = await start(`
import sys
def show():
    sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
    sys.stdout.buffer.write("caf\\u00e9 ".encode()[:4])
    sys.stdout.buffer.write(b"\\xa9 by bytes\\n")
    print("by text", file=sys.stderr)
    return [sys.stdout.name, sys.stderr.name, sys.stdout.encoding, sys.stdout.line_buffering, sys.stdout.isatty()]
`);
    assert.deepEqual(await (await open()).call('show'), ['<stdout>', '<stderr>', 'utf-8', true, false]);
    const logged = () => effects.filter(([effect]) => effect === 'log').map(([, ...line]) => line.slice(0, 2));
    await until('both lines are logged', () => logged().length === 2);
    assert.deepEqual(logged(), [
      ['info', 'café by bytes'],
      ['error', 'by text'],
    ]);
  });

  it('serves more calls at once than it has threads', async () => {
    const { open } = await start(`
import asyncio, time
async def later(n):
    await asyncio.sleep(0.1)
    return n
def blocked(n):
    time.sleep(0.002)
    return n
`);
    const session = await open();
    const numbers = Array.from({ length: 600 }, (_, i) => i);
    for (const method of ['later', 'blocked'])
      assert.deepEqual(await Promise.all(numbers.map((n) => session.call(method, [n]))), numbers, method);
  });

  it('refuses in a plain session what JSON would change in silence, by its place', async () => {
    const { openLiteral } = await start(`
import hauki
VALUES = {
    "large": 1234567890123456789, "huge": 10**30, "below": {"at": [-2**53 - 1]}, "bigint": hauki.BigInt(5),
    "keys": {1: "a", "1": "b"}, "none": {"in": {None: 1}}, "itself": [], "safe": [2**53, -2**53, True, 1.5, {"a": (1,)}],
}
VALUES["itself"].append(VALUES["itself"])
def give(name): return VALUES[name]
`);
    const session = await openLiteral();
    const refused: [string, RegExp][] = [
      ['large', /it is a bigint, or an int beyond 2\*\*53.*text/],
      ['huge', /it is a bigint/],
      ['below', /value at 0 is a bigint/],
      ['bigint', /it is a bigint/],
      ['keys', /it has the key 1/],
      ['none', /value at 'in' has the key None/],
      ['itself', /Circular/],
    ];
    for (const [name, message] of refused)
      await assert.rejects(
        session.call('give', [name]),
        (error) => isError(error, Unserialisable) && message.test(error.message),
        name,
      );
    assert.deepEqual(await session.call('give', ['safe']), [2 ** 53, -(2 ** 53), true, 1.5, { a: [1] }]);
  });

  it('refuses times that no date in UTC can tell, in every session', async () => {
    const source = `
import datetime
def early(): return datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=5)))
`;
    for (const session of [await (await start(source)).open(), await (await start(source)).openLiteral()])
      await assert.rejects(session.call('early'), (error) => isError(error, Unserialisable));
  });
});
