"""Everything that hauki.py does, against a mesh: HAUKI_URL=… HAUKI_TOKEN=… python3 test_live.py quickjs.

Prints each thing that holds; fails at the first that does not. test/python-client.test.ts runs it.
"""
import datetime
import math
import socket
import sys
import threading
import time

import hauki

SOURCE = """
export const add = (a, b) => a + b;
export const echo = (value) => value;
export const kind = (value) => Object.prototype.toString.call(value).slice(8, -1);
export const circle = () => { const me = { name: 'me' }; me.self = me; return [me, me]; };
export const values = () => [undefined, NaN, -0, 1n << 70n, new Date(1700000000123), /a+/gi, new Map([['k', new Set([1])]]),
  Uint8Array.of(1, 2), Float64Array.of(0.5), [1, , 3]];
export const fail = () => { throw Object.assign(new RangeError('too far', { cause: 'the road ends' }), { at: 5n }); };
export const relay_error = (error) => { throw error; };
export async function* count(n) { for (let i = 0; i < n; i++) yield i; }
let left = false, open = 0;
export async function* endless() { open++; try { for (let i = 0; ; i++) yield 'x'.repeat(1000); } finally { left = true; open--; } }
export const is_open = async () => { for (let i = 0; i < 100 && open; i++) await new Promise((r) => setTimeout(r, 20)); return open; };
export const was_left = async () => { for (let i = 0; i < 100 && !left; i++) await new Promise((r) => setTimeout(r, 20)); return left; };
export const sum = async (items) => { let sum = 0; for await (const item of items) sum += item; return sum; };
export const some = async (items) => { for await (const item of items) return item; };
export const each = async (list, f) => { const out = []; for (const item of list) out.push(await f(item)); return out; };
export const at_once = (n, f) => Promise.all(Array.from({ length: n }, (_, i) => f(i)));
export const use = async (thing) => [await thing.up(), await thing.up()];
export const hears = (f) => f().then(() => 'nothing', (error) => [error.name, error.message]);
class Counter { n = 0; up(by = 1) { return (this.n += by); } _secret() {} }
export const counter = () => new Counter();
export const doubler = () => (n) => n * 2;
export const user = () => ({ name: 'Ada', friends: [{ name: 'Bob' }] });
export const greet = (name) => `hello, ${name}`;
export const later = (ms, value) => new Promise((resolve) => setTimeout(() => resolve(value), ms));
export const seen = (signal) => [signal.aborted, signal.reason];
export const has_signals = () => typeof AbortController === 'function';
export const watch = (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve(signal.reason)));
"""


def raises(kind, run):
    try:
        run()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def cut(worker):
    """Ends the worker's connection as a network would."""
    channel = worker._session.channel
    with channel.cond:
        channel.cond.wait_for(lambda: channel.link, timeout=10)
        channel.link.sock.shutdown(socket.SHUT_RDWR)


def holds(condition, what="it"):
    if not condition:
        raise AssertionError(f"{what} does not hold")


def calls(w, mesh, driver):
    holds(w.add(1, 2) == 3)
    holds(w["add"](2.5, 2.5) == 5)
    pending = [w.add.start(i, i) for i in range(200)]
    holds([p.result() for p in pending] == [2 * i for i in range(200)])


def values_both_ways(w, mesh, driver):
    when = datetime.datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=datetime.timezone.utc)
    error = ValueError("no")
    error.code = 7
    for value, kind in [
        (None, "Null"), (hauki.undefined, "Undefined"), (True, "Boolean"), (2**53, "Number"), (2**53 + 1, "BigInt"),
        (-(10**5000), "BigInt"), (hauki.BigInt(5), "BigInt"), (math.inf, "Number"), ("é😀\ud800", "String"), (b"\0\xff", "Uint8Array"),
        ([1, hauki.hole, [None]], "Array"), ({"$": 1}, "Object"), ({"a": {"b": []}}, "Object"), (when, "Date"),
        (hauki.RegExp("^a$", "gi"), "RegExp"), (hauki.Boxed("x"), "String"), ({1, 2}, "Set"),
        (hauki.Binary.of("Int16Array", [1, -2]), "Int16Array"),
    ]:  # fmt: skip
        holds(w.echo(value) == value and w.kind(value) == kind, f"a {type(value).__name__} as {kind}")
    holds(math.isnan(w.echo(math.nan)) and math.copysign(1, w.echo(-0.0)) == -1, "NaN and -0")
    holds(w.echo({1: "one", (2, 3): "two"})[1] == "one" and w.kind({1: 2}) == "Map", "a dict with other keys")
    back = w.echo(error)
    holds((back.name, back.message, back.props) == ("ValueError", "no", {"code": 7}), "an exception")
    holds(back.errors is None, "it gathers none")
    holds(w.kind(memoryview(bytearray(b"abc"))[1:]) == "Uint8Array" and w.kind(__import__("re").compile("a", 2)) == "RegExp")
    holds(bytes(w.echo(bytes(3_000_000))) == bytes(3_000_000), "megabytes")

    nothing, nan, zero, big, date, pattern, map, eight, floats, sparse = w.values()
    holds(nothing is hauki.undefined and math.isnan(nan) and math.copysign(1, zero) == -1 and big == 2**70)
    holds(date.timestamp() == 1700000000.123 and pattern == hauki.RegExp("a+", "gi") and map["k"] == {1})
    holds(eight == b"\1\2" and floats.elements() == [0.5] and sparse == [1, hauki.hole, 3])
    one, same = w.circle()
    holds(one is same and one["self"] is one, "what is shared, and cycles")
    mine = []
    mine.append(mine)
    back = w.echo(mine)
    holds(back[0] is back, "a list that holds itself")
    raises(hauki.Unserialisable, lambda: w.echo({"at": [object()]}))
    raises(hauki.TooLarge, lambda: w.echo(bytes(9_000_000)))


def errors(w, mesh, driver):
    error = raises(hauki.RemoteError, w.fail)
    holds(error.fields["error_name"] == "RangeError" and str(error) == "RangeError: too far")
    holds((error.__cause__.name, error.__cause__.cause, error.__cause__.props) == ("RangeError", "the road ends", {"at": 5}))
    holds("add" in raises(hauki.NoSuchMethod, w.fly).fields["has"])
    raises(hauki.NoSuchMethod, w["_private"])
    raises(hauki.WorkerUnknown, lambda: w.relay_error(hauki.WorkerUnknown("There is no worker w1", {"worker": "w1"})))


def streams(w, mesh, driver):
    holds(list(w.count(3000)) == list(range(3000)), "a generator of the worker's")
    holds(w.sum(range(10).__iter__()) == 45 and w.sum(n for n in range(3000)) == 4498500, "a generator of Python's")
    closed = threading.Event()

    def numbers():
        try:
            n = 0
            while True:
                yield n
                n += 1
        finally:
            closed.set()

    holds(w.some(numbers()) == 0 and closed.wait(10), "a worker that leaves a generator of Python's")
    with w.endless() as stream:
        for i, _ in enumerate(stream):
            if i == 1000:
                break
    holds(w.was_left(), "leaving a generator of the worker's")
    for _ in range(150):
        for _ in w.endless():
            break
    holds(w.is_open() == 0, "a generator of the worker's that nobody has any more")

    def broken():
        yield 1
        raise KeyError("gone")

    holds("KeyError" in str(raises(hauki.RemoteError, lambda: w.sum(broken()))))


def callbacks(w, mesh, driver):
    holds(w.each([1, 2, 3], lambda x: x * 10) == [10, 20, 30])
    holds(w.each([1, 2], lambda x: w.add(x, w.add(1, 1))) == [3, 4], "a callback that calls the worker")
    seen = []
    holds(w.at_once(50, lambda i: seen.append(i) or i) == list(range(50)) and seen == list(range(50)), "in order")

    class Counter:
        n = 0

        def up(self):
            self.n += 1
            return self.n

    mine = Counter()
    holds(w.each([1], lambda _: hauki.reference(mine))[0] is mine, "what comes home")
    holds(w.hears(lambda: 1 / 0) == ["RemoteError", "ZeroDivisionError: division by zero"])
    holds(w.use(hauki.reference(mine)) == [1, 2] and mine.n == 2, "an object of Python's")


def references(w, mesh, driver):
    with w.counter() as counter:
        holds((counter.up(), counter.up(5)) == (1, 6) and w.echo(counter) is counter)
        raises(hauki.NoSuchMethod, counter["_secret"])
    raises(hauki.RefGone, counter.up)
    with w.doubler() as double:
        holds(double(21) == 42 and w.each([1, 2], double) == [2, 4])


def pipelines(w, mesh, driver):
    holds(w.pipeline().counter().up(3).result() == 3 and w.pipeline().user().friends["0"].name.result() == "Bob")
    holds(w.greet(w.pipeline().user().name) == "hello, Ada")
    holds(str(raises(hauki.RemoteError, w.pipeline().fail().name.result)) == "RangeError: too far")


def giving_up(w, mesh, driver):
    late = raises(hauki.DeadlineExceeded, lambda: hauki.with_options(w, timeout_ms=50).later(3000, 1))
    holds(late.fields["may_have_run"] is True)
    pending = w.later.start(3000, 1)
    pending.cancel("enough")
    raises(hauki.Cancelled, pending.result)
    if not w.has_signals():  # Not every vault's platform has them.
        return
    signal = hauki.Signal()
    pending = w.watch.start(signal)
    signal.abort("stop now")
    holds(pending.result() == "stop now", "a signal's reason")
    holds(w.seen(signal) == [True, "stop now"], "one that was aborted before")


def resuming(w, mesh, driver):
    with w.counter() as counter:
        counter.up()
        pending = w.later.start(300, "still here")
        cut(w)
        holds(counter.up() == 2, "a reference across a cut")
        holds(pending.result() == "still here", "a call under way across a cut")
    got = []
    for n in w.count(4000):
        got.append(n)
        if n in (700, 2100):
            cut(w)
    holds(got == list(range(4000)), "a stream across cuts: each item once, in order")
    asked = []

    def ask(n):
        asked.append(n)
        if n == 2:
            cut(w)
        return n

    holds(w.each([1, 2, 3, 4], ask) == [1, 2, 3, 4] and asked == [1, 2, 3, 4], "callbacks across a cut")
    with mesh.visit(w.name, routing="relay_only") as visitor:
        cut(visitor)
        holds(visitor.add(2, 2) == 4 and visitor.route == "relay", "a visitor across a cut, over the relay")


def leases(w, mesh, driver):
    with mesh.clone(source=SOURCE, driver=driver, lease_ms=1500) as short:
        cut(short)
        time.sleep(2.5)
        holds(short.add(1, 1) == 2, "the heartbeat")


def visitors(w, mesh, driver):
    with mesh.visit(w.name, routing="relay_only") as visitor:
        holds((visitor.role, visitor.route) == ("visitor", "relay") and visitor.add(20, 22) == 42)
        holds(visitor.each([1], lambda x: x + 1) == [2] and list(visitor.count(3)) == [0, 1, 2])
    holds(w.add(1, 1) == 2, "the worker, after its visitor has left")


def destructing(w, mesh, driver):
    with mesh.clone(source=SOURCE, driver=driver) as short:
        pending = short.later.start(30_000, 1)
        mesh.destruct(short.name)
        holds(raises(hauki.WorkerDied, pending.result).fields["cause"] == "destructed")
    raises(hauki.WorkerDied, lambda: short.add(1, 2))
    for _ in range(8):
        with mesh.clone(source=SOURCE, driver=driver) as own:
            pending = own.later.start(30_000, 1)
        for ended in (pending.result, lambda: own.add(1, 2)):
            holds(raises(hauki.WorkerDied, ended).fields["cause"] == "destructed", "a call that its own side ends")
    holds(short.name not in [known["worker"] for known in mesh.registry()["workers"]])
    raises(hauki.SourceRejected, lambda: mesh.clone(source="export const = 1", driver=driver))
    raises(hauki.Unauthorised, lambda: hauki.connect(token="hauki_wrong").registry())


if __name__ == "__main__":
    driver = sys.argv[1]
    with hauki.connect() as mesh:
        with mesh.clone(source=SOURCE, driver=driver, labels={}) as worker:
            for run in (calls, values_both_ways, errors, streams, callbacks, references, pipelines, giving_up, resuming,
                        leases, visitors, destructing):  # fmt: skip
                run(worker, mesh, driver)
                print(run.__name__.replace("_", " "), flush=True)
