"""What a worker finds: `hauki`, in its module and by `import hauki`. All of it only asks; the host decides and performs.

In a method whatever waits blocks; in a coroutine it gives something to await: `hauki.fetch(url)`, `await hauki.fetch(url)`.
"""
import base64
import codecs
import collections
import io
import json
import sys
import threading
import types

import hauki_peer as peer
from session import in_coroutine, waited

_AHEAD_BYTES, _PIECE_BYTES = 256 * 1024, 64 * 1024
"""What may wait to be sent over a connection, and how much of it goes at once."""
_FILE_BYTES = 5 * 1024 * 1024
"""The largest file that is written by `hauki.volume`."""
_LINES, _LINES_BYTES, _WINDOW_S = 2000, 512 * 1024, 1.0
"""What may be logged in a window; what is more is dropped, and counted: the agent, which takes less still, says how much."""


class Response:
    """What a fetch brought: `status`, `ok`, `url`, `headers` (by lower-case name; those that come more than once are
    joined by commas, and one by one in `header_list`), `content`, `text`, `json()`."""

    def __init__(self, fetched: dict):
        self.status, self.reason, self.url = fetched["status"], fetched["status_text"], fetched["url"]
        self.header_list = [(name.lower(), value) for name, value in fetched["headers"]]
        """All of them as they came, where one comes more than once: each Set-Cookie."""
        self.headers: dict = {}
        for name, value in self.header_list:
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        self.body = fetched.get("body")
        """With `stream=True`: what comes, piece by piece, for `for` or `async for`."""
        self.content = b"" if self.body is not None else _carried(fetched)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self):
        return json.loads(self.content)


class MeshFs:
    """Documents, by pointer."""

    def __init__(self, context):
        self._context = context

    def resolve(self, pointer: str):
        """`{"pointer", "content", "media_type"}`."""
        return self._context.effect("meshfs.resolve", pointer)

    def write(self, pointer: str, content: str, media_type=None):
        args = [pointer, content] if media_type is None else [pointer, content, media_type]
        return self._context.effect("meshfs.write", *args)


class Volume:
    """The private folder that lasts, by calls to the host; in lxc and process it is also the home, /root."""

    def __init__(self, context):
        self._context = context

    def _ask(self, then, name: str, *args):
        return waited(self._context._guest.control.begin("effect", [name, list(args)]), then)

    def read(self, path: str):
        """A file's text."""
        return self._ask(lambda carried: _carried(carried).decode(), "volume.read", path)

    def read_bytes(self, path: str):
        return self._ask(_carried, "volume.read", path)

    def write(self, path: str, content):
        """Writes text or bytes whole or not at all; it is on the disk when this is done."""
        data = content.encode() if isinstance(content, str) else content
        limit, got = _FILE_BYTES, memoryview(data).nbytes
        if got > limit:
            fields = {"what": path, "limit_bytes": limit, "got_bytes": got}
            raise peer.TooLarge(f"{path} is too large: {got} bytes, but {limit} bytes are allowed", fields)
        # What JSON's escapes would make longer than base64 goes as that.
        as_text = isinstance(content, str) and len(json.dumps(content, ensure_ascii=False)) <= len(content) * 4 / 3 + 2
        carried = {"text": content} if as_text else {"base64": base64.b64encode(data).decode()}
        return self._ask(lambda _: None, "volume.write", path, carried)

    def list(self, path: str = ""):
        """`[{"name", "kind", "bytes"}]`."""
        return self._ask(lambda entries: entries, "volume.list", path)

    def delete(self, path: str):
        return self._ask(lambda _: None, "volume.delete", path)


def _carried(carried: dict) -> bytes:
    return base64.b64decode(carried["base64"]) if "base64" in carried else carried["text"].encode()


class Child:
    """A clone of the worker's own: `child.method(1, 2)`; `destruct()`, or `with`, ends it."""

    def __init__(self, context, worker: str):
        self._context, self._worker = context, worker

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args: self._context._ask("clone.call", self._worker, name, list(args), peer.CALL_MS)

    def destruct(self):
        return self._context._ask("clone.destruct", self._worker)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.destruct()


class Outgoing:
    """What is sent over a connection: an iterator that waits for more, and makes who sends wait."""

    def __init__(self):
        self._cond = threading.Condition()
        self._pieces: collections.deque = collections.deque()
        self._waiting = 0
        self._over = False

    def put(self, data: bytes) -> None:
        with peer._away(), self._cond:
            self._cond.wait_for(lambda: self._waiting < _AHEAD_BYTES or self._over)
            if self._over:
                raise peer.ConnectionLost("Not connected: it was ended", {"why": "it was ended"})
            for at in range(0, len(data), _PIECE_BYTES):
                self._pieces.append(bytes(data[at : at + _PIECE_BYTES]))
            self._waiting += len(data)
            self._cond.notify_all()

    def close(self) -> None:
        with self._cond:
            self._over = True
            self._cond.notify_all()

    def __iter__(self):
        return self

    def __next__(self) -> bytes:
        with peer._away(), self._cond:
            self._cond.wait_for(lambda: self._pieces or self._over)
            if not self._pieces:
                raise StopIteration
            piece = self._pieces.popleft()
            self._waiting -= len(piece)
            self._cond.notify_all()
            return piece


class Connection:
    """A byte stream both ways: iterate over what comes, `send(data)`, `end()` to send no more, `close()` or `with`."""

    def __init__(self, opened: dict, outgoing: Outgoing):
        self.address: str = opened["address"]
        self._incoming, self._outgoing = opened["incoming"], outgoing

    def send(self, data: bytes):
        """Returns when it is on its way, so that who waits for it is never far ahead."""
        if in_coroutine():
            return self._incoming._session.guest.in_thread(lambda: self._outgoing.put(data))
        return self._outgoing.put(data)

    def __iter__(self):
        return self._incoming

    def __aiter__(self):
        return self._incoming

    def end(self) -> None:
        self._outgoing.close()

    def close(self) -> None:
        self._outgoing.close()
        self._incoming.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Context(types.ModuleType):
    """The module `hauki` of a worker."""

    def __init__(self, guest):
        super().__init__("hauki", "A worker's powers.")
        self._guest = guest
        self.worker = ""
        self.meshfs, self.volume = MeshFs(self), Volume(self)
        for name in ("reference", "release", "with_options", "undefined", "BigInt", "Map", "Set", "RegExp", "Binary",
                     "Boxed", "Date", "Signal", "JsError", "MeshError", *peer._CODES):  # fmt: skip
            setattr(self, name, getattr(peer, name))

    @property
    def call(self):
        """The call that is being served: its `signal` is aborted when the caller gives up; `deadline`, `traceparent`."""
        return self._guest.current_call()

    def log(self, *values) -> None:
        self._guest.log("info", " ".join(map(str, values)))

    def effect(self, name: str, *args):
        """Asks for any effect by its name."""
        return self._ask(name, *args)

    def _ask(self, name: str, *args, then=lambda made: made):
        return waited(self._guest.control.begin("effect", [name, list(args)]), then)

    def clone(self, pointer=None, *, source=None, language=None, **options):
        """Clones a worker within the grant; gives a Child. It ends with this one at the latest.

        `options`: driver, memory_mib, grants (no more than the worker's own), load_timeout_ms.
        """
        request = {"pointer": pointer, "source": source, "language": language, **options}
        request = {name: value for name, value in request.items() if value is not None}
        return self._ask("clone", request, then=lambda made: Child(self, made["worker"]))

    def connect(self, target: str):
        """A byte stream to `host:port`, where that is granted; gives a Connection."""
        outgoing = Outgoing()
        asked = self._guest.control.begin("effect", ["connect", [target, outgoing]])
        return waited(asked, lambda made: Connection(made, outgoing))

    def fetch(self, url: str, method: str = "GET", headers=None, body=None, json=None, stream: bool = False,
              redirect: str = "follow"):
        """A request to where the grants allow; gives a Response.

        `json`: a value to send as such. `body`: text, bytes, or a generator of them. `stream`: do not wait for the
        answer's body, but give it piece by piece. `redirect`: "follow", "manual" or "error".
        """
        pairs = [[str(name), str(value)] for name, value in dict(headers or {}).items()]
        if json is not None:
            body = peer._json(json)
            pairs.append(["content-type", "application/json"])
        request = {"method": method, "headers": pairs, **({"stream": True} if stream else {})}
        if redirect != "follow":
            request["redirect"] = redirect
        if body is not None:
            request["body"] = body
        return waited(self._guest.control.begin("effect", ["fetch", [str(url), request]]), Response)


class LogStream(io.TextIOBase):
    """What is printed becomes log lines."""

    encoding, errors, line_buffering, write_through = "utf-8", "replace", True, False

    def __init__(self, guest, level: str, name: str):
        self._guest, self._level = guest, level
        self._begun = threading.local()
        """Each thread's unfinished line."""
        self.name, self.mode, self.buffer = name, "w", LogBytes(self)

    def reconfigure(self, **_) -> None:
        """Log lines are UTF-8, and one is sent when it is whole, whatever is asked for."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun.part = (getattr(self._begun, "part", "") + text).split("\n")
        for line in lines:
            self._guest.log(self._level, line)
        if len(self._begun.part) > _LINES_BYTES // 64:
            self.flush()
        return len(text)

    def flush(self) -> None:
        part, self._begun.part = getattr(self._begun, "part", ""), ""
        if part:
            self._guest.log(self._level, part)


class LogBytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes become the text that they are in UTF-8."""

    def __init__(self, text: LogStream):
        self._text, self.raw = text, self
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        data = bytes(data)
        self._text.write(self._decoder.decode(data))
        return len(data)

    def flush(self) -> None:
        self._text.flush()


class LogBound:
    """How much may be logged; the rest is dropped, and told of a window later. `later(run, seconds)`: on a thread."""

    def __init__(self, now, later, tell):
        self._now, self._later, self._tell = now, later, tell
        self._since, self._lines, self._bytes, self._dropped = 0.0, 0, 0, 0
        # What is collected meanwhile may log too.
        self._lock = threading.RLock()

    def take(self, text: str) -> bool:
        """Whether to log a line now."""
        with self._lock:
            now = self._now()
            if now - self._since > _WINDOW_S:
                self._since, self._lines, self._bytes = now, 0, 0
            self._lines += 1
            self._bytes += len(text)
            if self._lines <= _LINES and self._bytes <= _LINES_BYTES:
                return True
            self._dropped += 1
            first = self._dropped == 1
        if first:
            # Maybe no line comes after these.
            self._later(self._over, _WINDOW_S)
        return False

    def _over(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        self._tell(dropped)


def redirect(guest) -> None:
    """print and stray tracebacks go to the log."""
    sys.stdout, sys.stderr = LogStream(guest, "info", "<stdout>"), LogStream(guest, "error", "<stderr>")
