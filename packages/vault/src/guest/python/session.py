"""The sessions inside: of callers with the worker, and of the gate outside with the guest.

They are those of the Python client (`hauki_peer`, the same file as clients/python/hauki.py) with a root to call, and
with the guest's threads and event loop instead of a caller's. A coroutine runs on the event loop, all else in the pool;
in a coroutine whatever waits gives something to await.
"""
import datetime
import json
import sys
import time

import hauki_peer as peer
from module import stack_of

_RESERVED = ("rpc.methods", "rpc.heartbeat", "rpc.destruct")
_COROUTINE = 0x80
"""CO_COROUTINE of the code of `async def`."""


def in_coroutine() -> bool:
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None


def waited(pending, then=lambda value: value):
    """What a call gives: in a coroutine something to await, elsewhere its result."""
    if not in_coroutine():
        return then(pending.result())
    import asyncio

    return asyncio.ensure_future(_settled(pending, then))


async def _settled(pending, then):
    import asyncio

    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    pending.when_done(lambda _: loop.call_soon_threadsafe(done.set))
    try:
        await asyncio.wait_for(done.wait(), max(0.0, pending._deadline - time.monotonic()))
    except asyncio.CancelledError:
        pending.cancel("the coroutine that waited was cancelled")
        raise
    except asyncio.TimeoutError:
        pass  # Then the next line raises DeadlineExceeded.
    return then(pending.result())


class GuestSession(peer._Session):
    """A session of this side's: `guest` has the pool, the loop and the worker."""

    calls_served = peer.CALLS_IN_FLIGHT
    """The protocol's: one that waits for its turn holds no thread here."""

    def __init__(self, channel, guest):
        super().__init__(channel, peer.CALL_MS, guest.pool)
        self.guest = guest
        self.served = 0
        self.awaited: set = set()
        """Streams that coroutines wait for."""

    def outcome(self, pending):
        return waited(pending)

    def wire_of(self, error: BaseException) -> dict:
        wire = peer.error_to_wire(error)
        stack = "" if isinstance(error, peer.MeshError) else stack_of(error)
        if stack:
            wire["data"]["fields"]["remote_stack"] = stack
        return wire

    def stats(self) -> dict:
        return {
            "calls_sent": self._next_id - 1, "calls_served": self.served, "in_flight": len(self._pending),
            "serving": self._serving, "exported": len(self._exports), "imported": len(self._imports),
            "kept": len(self._kept), "streams": len(self.readers) + len(self.producers),
            "carried_bytes": 0, "buffered_bytes": self.channel.kept_bytes,
        }  # fmt: skip

    def _begin(self, id, call, kept, target, path, method, params) -> None:
        self.served += 1
        code = getattr(getattr(target, "__func__", target), "__code__", None)
        # One that does not run in a thread waits for none, but for the results that it names.
        if code is not None and code.co_flags & _COROUTINE and not path and not _has_later(params):
            self.guest.on_loop(lambda: self._run(id, call, kept, target, path, method, params))
        else:
            super()._begin(id, call, kept, target, path, method, params)

    def _run(self, id, call, kept, target, path, method, params) -> None:
        with self.guest.serving(call):
            try:
                value = self._computed(target, path, method, params)
                later = hasattr(value, "__await__")
            except BaseException as raised:  # noqa: BLE001: whatever it raises is its caller's.
                return self._finished(id, kept, None, raised)
        if later:
            follow = lambda: self.guest.follow(value, call, lambda *made: self._finished(id, kept, *made))  # noqa: E731
            follow() if in_coroutine() else self.guest.on_loop(follow)
        else:
            self._finished(id, kept, value, None)

    def _producer(self, number: int, source, credit: int):
        if hasattr(source, "__anext__"):
            return AsyncProducer(self, number, source, credit)
        return PooledProducer(self, number, source, credit)

    def _stream(self, id: int, lazy: bool):
        return GuestStream(self, id, lazy)


def _has_later(value) -> bool:
    # Step by step, and each once: a value may hold itself, and whatever is raised here ends the session.
    seen, left = set(), [value]
    while left:
        one = left.pop()
        if isinstance(one, peer._Later):
            return True
        if isinstance(one, (dict, list)) and id(one) not in seen:
            seen.add(id(one))
            left.extend(one.values() if isinstance(one, dict) else one)
    return False


class CallerSession(GuestSession):
    """A caller's: its root is the worker."""

    def __init__(self, channel, guest, role: str):
        super().__init__(channel, guest)
        self.role = role

    def root(self, method: str):
        return self.guest.method(method)

    def _serve(self, message: dict, attached) -> None:
        method, id, rpc = message["method"], message.get("id"), message.get("rpc")
        if method not in _RESERVED or (isinstance(rpc, dict) and ("on" in rpc or "of" in rpc)):
            return super()._serve(message, attached)
        params = message.get("params") if isinstance(message.get("params"), list) else []
        if method == "rpc.methods":
            return self._answer(id, self.guest.methods())
        if self.role != "owner":
            return self._answer(id, error=peer.NoSuchMethod(f"Method not found: {method}", {"method": method}))
        # On no thread of the pool: the worker may keep all of them busy, and the lease must be kept all the same.
        try:
            asked = self.guest.control.begin(method[4:], params[:2] if method == "rpc.heartbeat" else params[:1])
            # Elsewhere: the control session holds its lock while it tells.
            asked.when_done(lambda done: self.guest.apart(lambda: self._pass_on(id, done)))
        except peer.MeshError as error:
            self._answer(id, error=error)

    def _pass_on(self, id, done) -> None:
        with self.lock:
            self._answer(id, done._outcome, done._error)


class LiteralSession(CallerSession):
    """One without `rpc.open`: values are literal JSON, nothing goes by reference (section 12.6)."""

    def _serve(self, message: dict, attached) -> None:
        message.pop("rpc", None)
        super()._serve(message, attached)

    def _called(self, message: dict, attached, size: int) -> None:
        if attached is not None:
            peer._bad("tagged values without rpc.open")
        self._serve(message, attached)

    def _post(self, before: str, value, after: str = ""):
        text = f'{{"jsonrpc":"2.0",{before}{literal(value)}{after}}}'
        if len(text.encode()) > peer.MESSAGE_BYTES - 4:
            raise peer.TooLarge("A message is too large", {"what": "A message", "limit_bytes": peer.MESSAGE_BYTES})
        return self.channel.send(text, None), len(text)


def literal(value) -> str:
    """Literal JSON of a value. Raises Unserialisable for what JSON would change in silence."""

    def other(thing):
        if isinstance(thing, datetime.datetime):
            utc = thing.astimezone(datetime.timezone.utc)
            return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if thing is peer.undefined:
            return None
        _refuse(f"it is of type {type(thing).__name__}, which a session of plain JSON cannot carry")

    _check_literal(value)
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=other)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise peer.Unserialisable(f"This value cannot be sent: {error}", {"why": str(error)}) from None
    return text if text.isascii() else peer._LONE_HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _refuse(why: str):
    raise peer.Unserialisable(f"This value cannot be sent: {why}", {"why": why})


def _check_literal(value) -> None:
    """Refuses what json.dumps writes, but readers take for something else."""
    # Step by step, and each once: a value may hold itself.
    seen, left = set(), [("", value)]
    while left:
        key, one = left.pop()
        what = f"the value at {key!r}" if key != "" else "it"
        if isinstance(one, peer.BigInt) or (isinstance(one, int) and abs(one) > peer.SAFE_INTEGER):
            _refuse(f"{what} is a bigint, or an int beyond 2**53, which JSON rounds: send it as text")
        elif isinstance(one, (dict, list, tuple)) and id(one) not in seen:
            seen.add(id(one))
            for name in one if isinstance(one, dict) else ():
                if not isinstance(name, str):
                    _refuse(f"{what} has the key {name!r:.100}, and those of JSON are texts: make it one")
            left.extend(one.items() if isinstance(one, dict) else enumerate(one))


class ControlSession(GuestSession):
    """The gate's: it loads the worker, and passes on calls of connections that have no session."""

    def root(self, method: str):
        guest = self.guest
        known = {"load": guest.load, "call": guest.call, "stats": guest.stats, "activity": guest.activity,
                 "inspect": guest.inspect, "end": guest.end}  # fmt: skip
        return known.get(method) or peer._no_method(method)

    def _begin(self, id, call, kept, target, path, method, params) -> None:
        if target == self.guest.call:
            super()._begin(id, call, kept, target, path, method, params)
        else:
            # Whatever the worker does with its threads.
            self.guest.apart(lambda: self._run(id, call, kept, target, path, method, params))


# ---- Streams -------------------------------------------------------------------------------------------------------


class GuestStream(peer.RemoteStream):
    """A caller's stream: `for` in a method, `async for` in a coroutine."""

    _waiting = None
    """The loop and the event of a coroutine that waits for the next."""

    def __aiter__(self):
        return self

    async def __anext__(self):
        import asyncio

        while True:
            with self._cond:
                if self._items or self._end is not None:
                    try:
                        return next(self)
                    except StopIteration:
                        raise StopAsyncIteration from None
                self._ask()
                there = asyncio.Event()
                self._waiting = asyncio.get_running_loop(), there
            # The loop itself does not hold a task that waits, nor then the stream.
            self._session.awaited.add(self)
            try:
                await there.wait()
            finally:
                self._session.awaited.discard(self)

    def _ask(self) -> None:
        if self._granted == 0 and self._consumed == 0:
            self._granted = peer.STREAM_BYTES
            self._session.tell("rpc.credit", [self._id, peer.STREAM_BYTES])

    def took(self, value, size: int) -> None:
        super().took(value, size)
        self._tell()

    def ended(self, error: BaseException) -> None:
        with self._cond:
            super().ended(error)
            self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting:
            waiting[0].call_soon_threadsafe(waiting[1].set)


class PooledProducer(peer._Producer):
    """Sends what a generator gives, on a thread of the pool, and only while it has credit."""

    def start(self) -> None:
        self._waits = False
        self._session.guest.pool.add(self._run)

    def credit(self, amount) -> None:
        super().credit(amount)
        if self._waits and self._credit > 0:
            self._waits = False
            self._session.guest.pool.add(self._run)

    def stop(self) -> None:
        super().stop()
        if self._waits:
            self._waits = False
            self._session.guest.pool.add(self._close)

    def _run(self) -> None:
        session, id = self._session, self._id
        try:
            while True:
                with self._cond:
                    if self._credit <= 0 and not self._stopped:
                        self._waits = True
                        return
                    if self._stopped:
                        break
                try:
                    value = next(self._source)
                except StopIteration:
                    with session.lock:
                        if session.producers.pop(id, None):
                            session.tell("rpc.end", [id])
                    break
                with self._cond:
                    if not self._stopped:
                        self._credit -= session.notify("rpc.item", [id, value]) + peer.ITEM_COST
        except BaseException as error:  # noqa: BLE001: whatever the generator raises is the reader's.
            self._fail(error)
        self._close()

    def _fail(self, error: BaseException) -> None:
        session = self._session
        with session.lock:
            if session.producers.pop(self._id, None):
                session.tell_error(error, lambda wire: session.notify("rpc.fail", [self._id, wire]))

    def _close(self) -> None:
        close = getattr(self._source, "close", None)
        if close:
            with peer.contextlib.suppress(Exception):
                close()


class AsyncProducer(PooledProducer):
    """The same for an asynchronous generator, on the event loop."""

    def start(self) -> None:
        self._waits, self._more, self._making = False, None, None
        """The task that waits for the generator, while it does."""
        self._session.guest.on_loop(self._begin)

    def credit(self, amount) -> None:
        peer._Producer.credit(self, amount)
        self._wake()

    def stop(self) -> None:
        peer._Producer.stop(self)
        self._wake()
        self._session.guest.on_loop(self._leave)

    def _wake(self) -> None:
        if self._more is not None:
            self._session.guest.on_loop(self._more.set)

    def _leave(self) -> None:
        """A generator that waits for what it would give is not waited for."""
        if self._making is not None:
            self._making.cancel()

    def _begin(self) -> None:
        import asyncio

        self._more = asyncio.Event()
        self._session.guest.follow(self._send(), None, lambda *_: None)

    async def _send(self) -> None:
        import asyncio

        session, id = self._session, self._id
        try:
            while True:
                while self._credit <= 0 and not self._stopped:
                    self._more.clear()
                    await self._more.wait()
                if self._stopped:
                    break
                try:
                    self._making = asyncio.current_task()
                    value = await self._source.__anext__()
                except StopAsyncIteration:
                    with session.lock:
                        if session.producers.pop(id, None):
                            session.tell("rpc.end", [id])
                    break
                finally:
                    self._making = None
                with self._cond:
                    if not self._stopped:
                        self._credit -= session.notify("rpc.item", [id, value]) + peer.ITEM_COST
        except BaseException as error:  # noqa: BLE001: whatever the generator raises is the reader's.
            self._fail(error)
        close = getattr(self._source, "aclose", None)
        if close:
            with peer.contextlib.suppress(Exception):
                await close()
