"""The guest: what stands between callers' sessions and the worker, inside a Python vault.

One thread reads fd 4 and never waits for the worker; methods run in the pool, coroutines on the event loop, which has
the main thread once it is needed (asyncio costs more to load than all the rest). The vault ends when fd 4 does.
"""
import collections
import contextlib
import contextvars
import os
import sys
import threading
import time

import hauki_peer as peer
import module
from bridge import CLOSE, OPEN, PRESSURE, Bridge, Channel
from context import Context, LogBound, redirect
from pool import Pool
from session import CallerSession, ControlSession, LiteralSession, waited

_CONTROL_FD = 4
_LOG_CHARS = 4096
_INSPECT_CHARS = 64 * 1024
_TOP_LEVEL_AWAIT = 0x2000
"""ast.PyCF_ALLOW_TOP_LEVEL_AWAIT"""
_call: contextvars.ContextVar = contextvars.ContextVar("hauki_call", default=None)


class Guest:
    def __init__(self, bridge: Bridge):
        self._bridge = bridge
        self.pool = Pool()
        self.control = ControlSession(Channel(bridge, 0), self)
        self._sessions = {0: self.control}
        self._names: dict = {}
        self._worker = None
        self.context = Context(self)
        later = lambda run, seconds: self.apart(lambda: (time.sleep(seconds), run()))  # noqa: E731
        self._log_bound = LogBound(time.monotonic, later, lambda dropped: self._log("warn", "", dropped))
        self._plain_calls = self._earlier_calls = 0
        self._active_at, self._seen = time.monotonic(), (0, 0)
        self._cond = threading.Condition()
        self._jobs: collections.deque = collections.deque()
        self._loop = None

    # -- Threads

    def main(self) -> None:
        """What the main thread does: to load the module, then to run the event loop if one is asked for."""
        threading.Thread(target=self._read, name="hauki-reader", daemon=True).start()
        while True:
            with self._cond:
                self._cond.wait_for(lambda: self._jobs)
                job = self._jobs.popleft()
            job()

    def _on_main(self, job) -> None:
        with self._cond:
            self._jobs.append(job)
            self._cond.notify()

    def apart(self, job) -> None:
        """Runs a job whatever the worker does with its threads, as long as there can be another."""
        try:
            threading.Thread(target=job, name="hauki-control", daemon=True).start()
        except RuntimeError:
            self.pool.add(job)

    def on_loop(self, job) -> None:
        """Runs a job on the event loop, which is started when it is first needed."""
        with self._cond:
            if self._loop is None:
                import asyncio

                self._loop = loop = asyncio.new_event_loop()
                self._jobs.append(lambda: (asyncio.set_event_loop(loop), loop.run_forever()))
                self._cond.notify()
        self._loop.call_soon_threadsafe(job)

    def follow(self, awaitable, call, done) -> None:
        """On the loop: waits for a coroutine, then calls done(value, error). Who gives up its call cancels it."""
        import asyncio

        async def run():
            try:
                done(await awaitable, None)
            except asyncio.CancelledError:
                why = "its caller gave it up"
                done(None, peer.Cancelled(f"The call was cancelled: {why}", {"why": why, "may_have_run": True}))
            except BaseException as error:  # noqa: BLE001: whatever it raises is its caller's.
                done(None, error)

        with self.serving(call):
            task = self._loop.create_task(run())
        if call is not None:
            aborted = lambda: self._loop.call_soon_threadsafe(task.cancel)  # noqa: E731
            call.signal._listeners.append(aborted)
            if call.signal.aborted:
                task.cancel()

    async def in_thread(self, run):
        """On the loop: what `run` gives on a thread of the pool."""
        import asyncio

        future = self._loop.create_future()

        def settle(value, error):
            if not future.done():
                future.set_result(value) if error is None else future.set_exception(error)

        def job():
            try:
                made = run(), None
            except BaseException as error:  # noqa: BLE001: it goes to who waits.
                made = None, error
            self._loop.call_soon_threadsafe(settle, *made)

        self.pool.add(job)
        return await asyncio.shield(future)

    # -- Frames

    def _read(self) -> None:
        try:
            for kind, number, payload in self._bridge.frames():
                self._frame(kind, number, payload)
            # The gate is gone: nobody is left to serve.
            os._exit(0)
        except BaseException as error:  # noqa: BLE001: without this thread there is no vault.
            os.write(2, f"the guest failed: {error!r}\n".encode(errors="replace"))
            os._exit(70)

    def _frame(self, kind: int, number: int, payload: bytes) -> None:
        if kind == OPEN:
            opened = peer._read_json(payload.decode())
            made = CallerSession if opened["tagged"] else LiteralSession
            self._sessions[number] = made(Channel(self._bridge, number), self, opened["role"])
            self._names[number] = opened["session"]
            return
        session = self._sessions.get(number)
        if session is None:
            return
        if kind == PRESSURE:
            session.channel.kept_bytes = int(payload)
        elif kind == CLOSE:
            self._over(number, payload.decode(errors="replace"))
        else:
            try:
                session.heard(kind, payload)
            except peer.MeshError as error:
                session.channel.end(str(error), bye=True)
            except Exception as error:  # noqa: BLE001: what a caller sends ends its own session at most.
                session.channel.end(f"the session failed: {error!r}", bye=True)
            if session.channel.ended is not None:
                self._over(number, session.channel.ended)

    def _over(self, number: int, reason: str) -> None:
        if number == 0:
            os._exit(0)
        session = self._sessions.pop(number)
        self._earlier_calls += session.served
        self._names.pop(number, None)
        # Those who wait are told on another thread: they may be many, and hold locks of their own.
        self.apart(lambda: session.finish(reason, None))

    # -- What the gate asks for

    def load(self, source: str, setup: dict) -> list:
        self.context.worker = setup["worker"]
        sys.modules["hauki"] = self.context
        done, begun, made = threading.Event(), threading.Event(), []
        within_ms = setup["load_timeout_ms"]

        def settle(worker, error=None):
            made.append(error if worker is None else worker)
            done.set()

        def job():
            try:
                if setup.get("kind") != "plugin":
                    return settle(module.load(source, self.context))
                import plugin

                plugin.prepare(source)
                begun.set()
                self.pool.bound(*plugin.POOL)
                loaded = module.load(source, self.context, lambda *of: plugin.Plugin(*of, self))
                self.on_loop(lambda: self.follow(loaded.start(), None, settle))
            except BaseException as error:  # noqa: BLE001: it goes to who asked.
                settle(None, error)

        self._on_main(job)
        if setup.get("kind") == "plugin":
            # A third is the module's own: what its framework takes before that is none of its doing.
            begun.wait(within_ms / 1000 * 2 / 3)
            within_ms = round(within_ms / 3)
        if not done.wait(within_ms / 1000):
            raise module.rejected("load", f"it did not finish loading within {within_ms} ms")
        if isinstance(made[0], BaseException):
            raise made[0]
        self._worker = made[0]
        return self.methods()

    def call(self, method: str, params, role: str):
        """A call over a connection that has no session: JSON lines, HTTP."""
        if method == "rpc.methods":
            return self.methods()
        if role == "owner" and method in ("rpc.heartbeat", "rpc.destruct"):
            return waited(self.control.begin(method[4:], list(params)[:2]))
        if method.startswith("rpc."):
            peer._no_method(method)
        self._plain_calls += 1
        return self.method(method)(*(params if isinstance(params, list) else [params]))

    def activity(self) -> dict:
        """What calls the worker has had. What changed since the last look happened just now, for all we know."""
        sessions = [session for number, session in list(self._sessions.items()) if number != 0]
        calls = self._earlier_calls + self._plain_calls + sum(session.served for session in sessions)
        streams = sum(len(session.readers) + len(session.producers) for session in sessions)
        under_way = streams + sum(session._serving for session in sessions) + self.control._serving - 1
        now = time.monotonic()
        if under_way > 0 or self._seen != (calls, under_way):
            self._active_at = now
        self._seen = calls, under_way
        return {"calls": calls, "under_way": under_way, "idle_ms": (now - self._active_at) * 1000}

    def inspect(self, expression: str, timeout_ms: float):
        """An expression beside the worker, `worker` and `hauki` in scope; its result as text."""
        code = compile(expression, "expression", "eval", _TOP_LEVEL_AWAIT, dont_inherit=True)
        scope = {**vars(self._worker.module), "worker": self._worker.object, "hauki": self.context}
        value = eval(code, scope)  # noqa: S307: it is the owner's, and runs as the worker's code does.
        return self._shown(value, timeout_ms) if hasattr(value, "__await__") else shown(value)

    async def _shown(self, value, timeout_ms: float) -> str:
        import asyncio

        return shown(await asyncio.wait_for(value, timeout_ms / 1000))

    def stats(self) -> dict:
        return {name: self._sessions[number].stats() for number, name in list(self._names.items())}

    def end(self, reason: str):
        return self._worker.end(reason) if self._worker else None

    # -- What sessions ask for

    def methods(self) -> list:
        return list(self._worker.methods) if self._worker else []

    def method(self, name: str):
        found = self._worker.methods.get(name) if self._worker else None
        if found is None:
            has = ", ".join(self.methods()) or "nothing"
            text = f"Method not found: {name}. There is: {has}"
            raise peer.NoSuchMethod(text, {"method": name, "has": self.methods()})
        return found

    @contextlib.contextmanager
    def serving(self, call):
        """The worker sees which call it serves; so do the coroutines and generators that it begins."""
        token = _call.set(call)
        try:
            yield
        finally:
            _call.reset(token)

    def current_call(self):
        return _call.get()

    def log(self, level: str, text: str) -> None:
        """Log lines want no answer; where there is no room for them they are dropped."""
        if self._log_bound.take(text):
            self._log(level, text[:_LOG_CHARS])

    def _log(self, *line) -> None:
        self.control.tell("effect", ["log", list(line)])


def shown(value) -> str:
    """Any value as text for a person; a text as it is."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _INSPECT_CHARS else f"{text[: _INSPECT_CHARS - 1]}…"


def main() -> None:
    # Between a method that computes and the thread that passes heartbeats and calls on.
    sys.setswitchinterval(0.001)
    guest = Guest(Bridge(_CONTROL_FD))
    redirect(guest)
    guest.main()
