"""An ASGI application as a microkernel calls it: one call for each request, its answer `[status, headers, body]`.

Everything in here runs on the event loop. What always holds: an answer that is there at once goes along whole, any
other is a stream whose chunks wait for its reader (and the application with them); a client that leaves is seen as
`http.disconnect`, and an application that does not end then is cancelled after a while; none can leave another waiting.
A WebSocket is a call too: its client's messages are the request's body, those for it the answer's.
"""
import asyncio
import collections
import sys
import urllib.parse

import hauki_peer as peer
from module import stack_of

_WHOLE_BYTES = 256 * 1024
"""An answer up to this is one message; a larger one goes in pieces, so that its memory is bounded on every hop."""
_PIECE_BYTES = 64 * 1024
_AHEAD_BYTES = 256 * 1024
"""What the application may be ahead of its reader."""
_EXCHANGES = 1024
"""Requests whose application has not returned, those of clients that have gone and background tasks included."""
_GONE_S = 30.0
"""So long may an application go on whose client has gone before it answered."""
_UNREAD_BYTES, _UNREAD_S = 16 * 1024 * 1024, 10.0
"""How much of a body that the application left unread is read and dropped, and for how long."""
_THREADS = 24
"""Blocking handlers that run at once: with the guest's own threads below the vault's limit of 64."""
_STUCK, _STUCK_S = 12, 40.0
"""So many that go on so long after their clients have gone, cancelled or not, will never return: half of the threads."""


class Disconnected(ConnectionResetError):
    """What `send` raises when nobody is left to read (an OSError, as ASGI 2.4 has it)."""


class LifespanFailed(Exception):
    """The application said that its start-up or shut-down failed; `told`: what it said, often a traceback."""

    def __init__(self, event: str, told: str):
        super().__init__(f"its {event} failed: {told.splitlines()[-1] if told else 'it did not say why'}")
        self.told = told


class Application:
    """An ASGI application, called request by request."""

    def __init__(self, app, log):
        self._app, self._log = app, log
        self._exchanges: set = set()
        self._state: dict = {}
        self._lifespan = None

    async def fetch(self, method: str, url: str, headers: list, body):
        """Has a request served. Raises what the application raises before it has answered."""
        if len(self._exchanges) >= _EXCHANGES:
            fields = {"what": "requests of this application", "limit": _EXCHANGES}
            raise peer.Overloaded(f"Too much at once: {fields['what']} is at its limit of {_EXCHANGES}", fields)
        scope = _scope(method, url, headers)
        scope["state"] = dict(self._state)
        pairs = scope["headers"]
        upgrade = any(name == b"upgrade" and value.lower() == b"websocket" for name, value in pairs)
        exchange = (_WebSocket if upgrade else _Http)(scope, body, self._log)
        self._exchanges.add(exchange)
        return await exchange.run(self._app, lambda: self._exchanges.discard(exchange))

    def stuck(self) -> bool:
        """Whether so much of it never returns that it should be started again."""
        return sum(exchange.gone_s() > _STUCK_S for exchange in self._exchanges) >= _STUCK

    async def startup(self) -> None:
        """Runs the application's start-up. Raises LifespanFailed; one that knows of none needs none."""
        if "anyio" in sys.modules:
            import anyio.to_thread

            anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        self._lifespan = lifespan = _Lifespan(self._app, self._state, self._log)
        await lifespan.ask("startup")

    async def shutdown(self) -> None:
        """Runs its shut-down, once what it serves has ended."""
        if self._lifespan is not None:
            await self._lifespan.ask("shutdown")


class _Lifespan:
    """The events that an application gets once: its start-up, and its shut-down."""

    def __init__(self, app, state: dict, log):
        self._log = log
        self._asked: asyncio.Queue = asyncio.Queue()
        self._told: dict = {}
        self._failed = None
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        self._task = asyncio.get_running_loop().create_task(self._run(app, scope))

    async def _run(self, app, scope) -> None:
        try:
            await app(scope, self._asked.get, self._send)
        except BaseException as error:  # noqa: BLE001: one that knows no lifespan raises whatever it likes.
            self._failed = error
        for waiting in self._told.values():
            if not waiting.done():
                waiting.set_result(None)

    async def _send(self, message: dict) -> None:
        event, _, how = message["type"].removeprefix("lifespan.").partition(".")
        waiting = self._told.get(event)
        if waiting is not None and not waiting.done():
            waiting.set_result(message.get("message", "") if how == "failed" else None)

    async def ask(self, event: str) -> None:
        if self._task.done():
            return
        waiting = self._told[event] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait({"type": f"lifespan.{event}"})
        told = await waiting
        if told is not None:
            raise LifespanFailed(event, str(told).strip())


_CLIENT = ("unknown", 0)
"""Nobody tells who it is; much code reads `request.client.host` all the same. No address, so that none is trusted."""


def _scope(method: str, url: str, headers: list) -> dict:
    scheme, _, rest = url.partition("://")
    target, _, query = rest.partition("?")
    host, slash, path = target.partition("/")
    raw = slash + path or "/"
    name, _, port = host.rpartition(":") if host.rpartition(":")[2].isdigit() else (host, "", "")
    pairs = [(headers[i].lower().encode("latin-1", "replace"), headers[i + 1].encode("latin-1", "replace"))
             for i in range(0, len(headers) - 1, 2)]  # fmt: skip
    prefix = next((value for name, value in pairs if name == b"x-forwarded-prefix"), b"")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": urllib.parse.unquote(raw),
        "raw_path": raw.encode("latin-1", "replace"),
        "query_string": query.encode("latin-1", "replace"),
        "root_path": prefix.decode("latin-1"),
        "headers": pairs,
        "client": _CLIENT,
        "server": (name, int(port) if port else 80),
    }


class _Exchange:
    """One request and its answer."""

    disconnect = {"type": "http.disconnect"}

    def __init__(self, scope: dict, body, log):
        self._scope, self._body, self._log = scope, body, log
        self._loop = asyncio.get_running_loop()
        self._answered = self._loop.create_future()
        self._chunks, self._ahead = collections.deque(), 0
        self._changed = asyncio.Event()
        """Something that somebody waits for has happened: chunks came or went, an end."""
        self._complete = False
        """All of the answer has been given out by the application."""
        self._gone, self._gone_at, self._failure = False, None, None

    async def run(self, app, over):
        """Gives the answer when it begins. The application may go on."""
        self._over = over
        self._task = self._loop.create_task(self._serve(app))
        try:
            return await asyncio.shield(self._answered)
        except asyncio.CancelledError:
            self.leave()
            raise

    async def _serve(self, app) -> None:
        error = None
        try:
            await app(self._scope, self.receive, self.send)
            if not self._complete:
                error = self.unfinished()
        except asyncio.CancelledError:
            error = RuntimeError("it was cancelled, because its client had gone")
        except BaseException as raised:  # noqa: BLE001: whatever it raises is this request's.
            error = raised
        self._over()
        self._discard()
        if error is not None and not self._gone:
            self._log("error", stack_of(error) or f"{peer.name_of(error)}: {peer.text_of(error)}")
            if self._answered.done():
                # Its answer has begun, or is there: a framework's own 500, after which it raises what it caught.
                self._failure = None if self._complete else error
            else:
                self._answered.set_exception(error)
        self._complete = True
        self._wake()

    def unfinished(self):
        return RuntimeError("the application returned before its response was complete")

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        if self._gone or (self._complete and not self._chunks):
            return
        self._gone = True
        self._chunks.clear()
        self._close_body()
        self._wake()
        if not self._task.done() and not self._complete:
            self._gone_at = self._loop.time()
            late = self._loop.call_later(_GONE_S, self._task.cancel)
            self._task.add_done_callback(lambda _: late.cancel())

    def gone_s(self) -> float:
        """For how long the application goes on that nobody waits for."""
        return 0.0 if self._gone_at is None else self._loop.time() - self._gone_at

    def answer(self, status: int, headers: list, body) -> None:
        if not self._answered.done():
            self._answered.set_result([status, headers, body])

    async def give(self, chunk) -> None:
        """A chunk for whoever reads; waits until they have room for it."""
        self._ahead += len(chunk)
        self._chunks.append(chunk)
        self._wake()
        while self._ahead > _AHEAD_BYTES and not self._gone:
            await self._change()
        if self._gone:
            raise Disconnected("the client has gone")

    def finish(self) -> None:
        self._complete = True
        self._wake()

    def _wake(self) -> None:
        # Each who waits holds on to the event that there was.
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        await self._changed.wait()

    def _close_body(self) -> None:
        body, self._body = self._body, None
        if hasattr(body, "close"):
            body.close()

    def _discard(self) -> None:
        """What the application did not read is read to its end, so that its client gets to reading the answer."""
        body, self._body = self._body, None
        if hasattr(body, "__anext__"):
            rest = self._loop.create_task(_read_out(body))
            rest.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def next_of_body(self):
        """The next of what the client sends; None at its end, or when it has gone."""
        try:
            return await self._body.__anext__()
        except StopAsyncIteration:
            return None
        except peer.MeshError:
            # What was on its way is lost: so is who sent it.
            self.leave()
            return None

    # -- As the answer's body, for the session

    def __aiter__(self):
        return self

    async def __anext__(self):
        while not self._chunks and not self._complete:
            await self._change()
        if not self._chunks:
            if self._failure is not None:
                raise self._failure
            raise StopAsyncIteration
        chunk = self._chunks.popleft()
        self._ahead -= len(chunk)
        self._wake()
        return chunk

    async def aclose(self) -> None:
        self.leave()


class _Http(_Exchange):
    def __init__(self, scope, body, log):
        super().__init__(scope, body, log)
        self._start, self._asked = None, body is not None

    async def receive(self) -> dict:
        body = self._body
        if body is not None and not self._gone:
            if hasattr(body, "__anext__"):
                chunk = await self.next_of_body()
                if not self._gone and (chunk is not None or self._body is not None):
                    if chunk is None:
                        self._body = None
                    return {"type": "http.request", "body": _bytes(chunk), "more_body": chunk is not None}
            else:
                self._body = None
                return {"type": "http.request", "body": _bytes(body), "more_body": False}
        elif not self._asked and not self._gone:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while not self._gone and not self._complete:
            await self._change()
        return self.disconnect

    async def send(self, message: dict) -> None:
        kind = message["type"]
        if self._gone:
            raise Disconnected("the client has gone")
        if kind == "http.response.start" and self._start is None:
            headers = [text.decode("latin-1") for pair in message.get("headers", ()) for text in pair]
            self._start = int(message["status"]), headers
            # A body that follows at once makes the answer whole.
            self._loop.call_soon(self._as_stream)
        elif kind == "http.response.body" and self._start is not None and not self._complete:
            body, more = message.get("body", b""), message.get("more_body", False)
            if not self._answered.done() and not more and len(body) <= _WHOLE_BYTES:
                self.finish()
                self.answer(*self._start, bytes(body) or None)
                return
            self._as_stream()
            for at in range(0, len(body), _PIECE_BYTES):
                await self.give(bytes(body[at : at + _PIECE_BYTES]))
            if not more:
                self.finish()
        else:
            raise RuntimeError(f"the application sent {kind} where it does not belong")

    def _as_stream(self) -> None:
        if not self._gone:
            self.answer(*self._start, self)


class _WebSocket(_Exchange):
    # One that broke off.
    disconnect = {"type": "websocket.disconnect", "code": 1006}

    def __init__(self, scope, body, log):
        asked = next((value for name, value in scope["headers"] if name == b"sec-websocket-protocol"), b"")
        names = [name.strip() for name in asked.decode("latin-1").split(",") if name.strip()]
        scope = {**scope, "type": "websocket", "scheme": "ws", "subprotocols": names}
        del scope["method"]
        super().__init__(scope, body, log)
        self._connected = False

    async def receive(self) -> dict:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if self._body is not None and not self._gone and not self._complete:
            message = await self.next_of_body()
            if isinstance(message, (list, tuple)):
                self.disconnect = {**self.disconnect, "code": message[0], "reason": message[1]}
                self.leave()
            elif message is not None:
                return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}
            else:
                self.leave()
        return self.disconnect

    async def send(self, message: dict) -> None:
        kind, accepted = message["type"], self._answered.done()
        if self._gone:
            raise Disconnected("the client has gone")
        if kind == "websocket.accept" and not accepted:
            chosen = message.get("subprotocol")
            self.answer(101, ["sec-websocket-protocol", chosen] if chosen else [], self)
        elif kind == "websocket.send" and accepted and not self._complete:
            text = message.get("text")
            await self.give(bytes(message["bytes"]) if text is None else text)
        elif kind == "websocket.close" and not self._complete:
            # Its last words: how it is closed.
            close = [int(message.get("code") or 1000), str(message.get("reason") or "")]
            if accepted:
                self._ahead += len(close)
                self._chunks.append(close)
            self.finish()
            self.answer(403, [], None)
        else:
            raise RuntimeError(f"the application sent {kind} where it does not belong")

    def unfinished(self):
        # To return is to close.
        if self._answered.done():
            return None
        return RuntimeError("the application returned without having accepted the WebSocket")


def _bytes(chunk) -> bytes:
    return b"" if chunk is None else chunk.encode() if isinstance(chunk, str) else bytes(chunk)


async def _read_out(body) -> None:
    async def read() -> None:
        left = _UNREAD_BYTES
        async for chunk in body:
            left -= len(chunk)
            if left < 0:
                return

    try:
        await asyncio.wait_for(read(), _UNREAD_S)
    except asyncio.TimeoutError:
        pass
    finally:
        body.close()
