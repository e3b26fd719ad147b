"""A client of Hauki in one file: clone workers, call them, stream, and be called back.

    import hauki

    with hauki.connect() as mesh:
        with mesh.clone(source="export const add = (a, b) => a + b") as worker:
            print(worker.add(1, 2))

It needs Python 3.9 and nothing but its standard library. It was written from docs/protocol.md; "section 8" and the like
below are that page's. Calls block; threads carry the rest:

- one thread of each session reads, and connects again when its connection is cut; one writes; an owner's third keeps
  the lease;
- what a worker calls back runs one after another, in the order in which it came, as in JavaScript: while one waits for
  a worker's answer the next may begin;
- a generator that was given to a worker runs on a thread of its own, as fast as the worker reads.
"""
from __future__ import annotations

import collections
import collections.abc
import contextlib
import datetime
import importlib
import itertools
import json
import math
import os
import queue
import re
import struct
import threading
import time
import warnings
import weakref


class _Late:
    """A module that is imported when it is first used: what dials and proves, which a guest that shares this file
    (packages/vault/src/guest/python) never does."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str):
        return getattr(importlib.import_module(self._name), attribute)


base64, hashlib, hmac, socket, ssl = map(_Late, ("base64", "hashlib", "hmac", "socket", "ssl"))
http_client, urllib_parse = _Late("http.client"), _Late("urllib.parse")

# ---- Bounds (section 14) -------------------------------------------------------------------------------------------

MESSAGE_BYTES = 8 * 1024 * 1024
HANDSHAKE_BYTES = 64 * 1024
UNSENT_BYTES = 32 * 1024 * 1024
CALLS_IN_FLIGHT = 4096
CALLS_SERVED = 256
"""Ours is lower than the protocol's: each call that waits here holds a thread."""
EXPORTS = 10_000
STREAMS = 128
STREAM_BYTES = 256 * 1024
ITEM_COST = 64
DEPTH = 128
BIGINT_DIGITS = 10_000
REGEXP_CHARS = 4096
STACK_CHARS = 4096
ERROR_CHARS = 64 * 1024
"""What is told of an error's own words."""
PATH_NAMES = 32
CALL_MS = 60_000
CLONE_MS = 45_000
CONNECT_S = 3.0
HANDSHAKE_S = 10.0
RESUME_MS = 30_000
ACK_MESSAGES, ACK_BYTES, ACK_S = 64, 256 * 1024, 0.05
SAFE_INTEGER = 2**53

# ---- Errors (section 13) -------------------------------------------------------------------------------------------


class MeshError(Exception):
    """Base of every typed error: one class for each name of section 13, e.g. `hauki.NoNodeFits`.

    `fields` says what the table says; `code` is JSON-RPC's; `retryable`: the same may succeed later without change.
    """

    code = -32603
    retryable = False

    def __init__(self, message: str, fields: dict | None = None):
        super().__init__(message)
        self.message = message
        self.fields = fields or {}

    @property
    def name(self) -> str:
        return type(self).__name__


_CODES = {
    "ParseError": -32700, "InvalidRequest": -32600, "NoSuchMethod": -32601, "InvalidParams": -32602,
    "InternalError": -32603, "RemoteError": -32000, "WorkerDied": -32001, "OutcomeUnknown": -32002,
    "ConnectionLost": -32003, "DeadlineExceeded": -32004, "Overloaded": -32005, "Unserialisable": -32006,
    "ProtocolViolation": -32007, "RefGone": -32008, "Cancelled": -32009, "TooLarge": -32010, "BadInput": -32011,
    "Unauthorised": -32012, "Forbidden": -32013, "GrantMissing": -32014, "TokenUnknown": -32015,
    "TicketForged": -32020, "TicketExpired": -32021, "TicketReplayed": -32022, "TicketAudience": -32023,
    "TicketMisdirected": -32024, "TicketUnproven": -32025, "SessionLost": -32026, "NoNodeFits": -32030,
    "VaultFailed": -32031, "SourceRejected": -32032, "WorkerUnknown": -32033, "QuotaExceeded": -32034,
    "WorkerPaused": -32035, "PointerMissing": -32040,
    "PointerDeleted": -32045, "PreconditionFailed": -32046, "VersionUnknown": -32047, "ChangesMissed": -32048,
    "RangeUnsatisfiable": -32049, "DigestMismatch": -32090, "UploadUnknown": -32091, "UploadOffset": -32092,
    "NotText": -32093,
    "PointerInvalid": -32041, "PointerUnknown": -32042, "PayloadLost": -32043, "StorageFailed": -32044,
    "VolumeInUse": -32070, "VolumeUnknown": -32071, "VolumeFailed": -32072,
    "NameTaken": -32060, "WorkerRestarting": -32061, "JobUnknown": -32062, "JobEnded": -32063, "KeyReused": -32064,
    "JobCancelled": -32065, "ModuleUnknown": -32080, "EvolveRejected": -32081, "EditRefused": -32082,
    "PluginFailed": -32083,
}  # fmt: skip
_RETRYABLE = {
    "ConnectionLost", "Overloaded", "TicketExpired", "NoNodeFits", "VaultFailed", "StorageFailed", "WorkerRestarting",
    "VolumeInUse", "QuotaExceeded", "WorkerPaused",
}  # fmt: skip
_ERRORS = {
    name: type(name, (MeshError,), {"code": code, "retryable": name in _RETRYABLE, "__module__": __name__})
    for name, code in _CODES.items()
}
globals().update(_ERRORS)


def error_from(wire) -> MeshError:
    """The error that an `error` member tells of: of its class where the name is known, else a RemoteError."""
    wire = wire if isinstance(wire, dict) else {}
    data = wire.get("data") if isinstance(wire.get("data"), dict) else {}
    fields = data.get("fields") if isinstance(data.get("fields"), dict) else {}
    text = wire["message"] if isinstance(wire.get("message"), str) else f"error {wire.get('code')}"
    made = _ERRORS.get(data.get("name")) if isinstance(data.get("name"), str) else None
    made = made or next((e for e in _ERRORS.values() if e.code == wire.get("code") and e.code <= -32600), RemoteError)
    error = made(text, fields)
    if isinstance(data.get("thrown"), BaseException):
        error.__cause__ = data["thrown"]
    return error


_TYPE_NAME = type.__dict__["__name__"]


def name_of(error: BaseException) -> str:
    """The name of an error's class, whatever its metaclass does."""
    return _TYPE_NAME.__get__(type(error))


def text_of(error: BaseException) -> str:
    """What an error says of itself. Never raises, whatever its class does."""
    try:
        # Of a class of one's own, a text could do things too.
        return str.__str__(str(error))[:ERROR_CHARS]
    except BaseException:  # noqa: BLE001: __str__ is a stranger's.
        return "(what it says cannot be shown)"


def error_to_wire(error: BaseException) -> dict:
    """The `error` member for what was raised. No traceback: files and lines here are no business of a worker's."""
    if isinstance(error, MeshError):
        data = {"name": error.name, "retryable": error.retryable, "fields": error.fields}
        return {"code": error.code, "message": error.message, "data": data}
    name = error.name if isinstance(error, JsError) else name_of(error)
    message = error.message if isinstance(error, JsError) else text_of(error)
    wire = {"code": RemoteError.code, "message": f"{name}: {message}"}
    wire["data"] = {"name": "RemoteError", "fields": {"error_name": name}}
    if error.__cause__ is not None or _errors(error) is not _MISSING or _props(error):
        wire["data"]["thrown"] = error
    return wire


# ---- Keys and proofs (sections 7, 8) -------------------------------------------------------------------------------


def to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """RFC 5869."""
    block, out = b"", b""
    pseudo_random = hmac.new(salt, secret, hashlib.sha256).digest()
    for i in range(1, -(-length // 32) + 1):
        block = hmac.new(pseudo_random, block + info + bytes([i]), hashlib.sha256).digest()
        out += block
    return out[:length]


def derived_key(secret: str, jti: str, use: str) -> bytes:
    """The key of a ticket for a use: "session", "lease" or "resume"."""
    return hkdf_sha256(from_base64url(secret), jti.encode(), f"hauki/1 {use}".encode())


def mac(key: bytes, text: str) -> str:
    return to_base64url(hmac.new(key, text.encode(), hashlib.sha256).digest())


def transcript(side: str, jti: str, worker_nonce: str, caller_nonce: str) -> str:
    return f"hauki/1 {side}\n{jti}\n{worker_nonce}\n{caller_nonce}"


def resume_text(side: str, jti: str, worker_nonce: str, caller_nonce: str, received: int) -> str:
    return f"hauki/1 resume {side}\n{jti}\n{worker_nonce}\n{caller_nonce}\n{received}"


def heartbeat_text(worker: str, epoch: int, challenge: str) -> str:
    return f"hauki/1 heartbeat\n{worker}\n{epoch}\n{challenge}"


def destruct_text(worker: str, epoch: int) -> str:
    return f"hauki/1 destruct\n{worker}\n{epoch}"


# Ed25519 (RFC 8032, section 5.1). Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z. Not in constant time: the
# key is used once for each ticket and lives as long as this process.
_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P


def _add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _base_point():
    y = 4 * pow(5, -1, _P) % _P
    x2 = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(x2, (_P + 3) // 8, _P)
    if (x * x - x2) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    x = x if x % 2 == 0 else _P - x
    return x, y, 1, x * y % _P


_BASE = _base_point()


def _times(scalar: int, point=_BASE):
    total = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point = _add(point, point)
        scalar >>= 1
    return total


def _point_bytes(point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


class CallerKey:
    """An Ed25519 key pair that tickets are issued to. The private half never leaves the process."""

    def __init__(self, seed: bytes | None = None):
        digest = hashlib.sha512(seed or os.urandom(32)).digest()
        self._scalar = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | (1 << 254)
        self._prefix = digest[32:]
        self._public = _point_bytes(_times(self._scalar))
        self.jwk = {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(self._public)}
        canonical = json.dumps(self.jwk, sort_keys=True, separators=(",", ":"))
        self.thumbprint = to_base64url(hashlib.sha256(canonical.encode()).digest())

    def sign(self, text: str) -> str:
        number = lambda *parts: int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")  # noqa: E731
        r = number(self._prefix, text.encode()) % _ORDER
        point = _point_bytes(_times(r))
        s = (r + number(point, self._public, text.encode()) * self._scalar) % _ORDER
        return to_base64url(point + s.to_bytes(32, "little"))


# ---- Values that Python has no type for (section 12) ---------------------------------------------------------------


class _Only:
    """A value of which there is one."""

    def __init__(self, name: str):
        self._name = name

    def __repr__(self):
        return f"hauki.{self._name}"

    def __bool__(self):
        return False


undefined = _Only("undefined")
hole = _Only("hole")
"""Stands in lists where JavaScript's array has no item."""


class BigInt(int):
    """An int that is a bigint in JavaScript whatever its size; every bigint arrives as one."""


class _Plain:
    """Small values that compare by what they hold."""

    __slots__ = ()

    def __eq__(self, other):
        return type(self) is type(other) and all(getattr(self, s) == getattr(other, s) for s in self.__slots__)

    __hash__ = None

    def __repr__(self):
        return f"hauki.{type(self).__name__}({', '.join(repr(getattr(self, s)) for s in self.__slots__)})"


class Date(_Plain):
    """A date that `datetime` cannot hold: `ms` since 1970, or None for JavaScript's invalid date."""

    __slots__ = ("ms",)

    def __init__(self, ms: int | None):
        self.ms = ms


class RegExp(_Plain):
    """A regular expression of JavaScript, whose syntax is not Python's: arrives so. `compile()` tries it anyway."""

    __slots__ = ("source", "flags")

    def __init__(self, source: str, flags: str = ""):
        self.source, self.flags = source, flags

    def compile(self) -> re.Pattern:
        known = {"i": re.I, "m": re.M, "s": re.S}
        return re.compile(self.source, sum(known[f] for f in self.flags if f in known))


class Boxed(_Plain):
    """A primitive in an object: new Number(5)."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Binary(bytes):
    """Bytes that are not a Uint8Array in JavaScript. `type`: "Float64Array", "ArrayBuffer", …"""

    type = "ArrayBuffer"

    def __new__(cls, type: str, data: bytes):
        made = super().__new__(cls, data)
        made.type = type
        return made

    @classmethod
    def of(cls, type: str, elements) -> Binary:
        return cls(type, struct.pack(f"<{len(elements)}{_ELEMENTS[type]}", *elements))

    def elements(self) -> list:
        return list(struct.unpack(f"<{len(self) // struct.calcsize(_ELEMENTS[self.type])}{_ELEMENTS[self.type]}", self))


_ELEMENTS = {
    "ArrayBuffer": "B", "DataView": "B", "Int8Array": "b", "Uint8Array": "B", "Uint8ClampedArray": "B",
    "Int16Array": "h", "Uint16Array": "H", "Int32Array": "i", "Uint32Array": "I", "Float16Array": "e",
    "Float32Array": "f", "Float64Array": "d", "BigInt64Array": "q", "BigUint64Array": "Q",
}  # fmt: skip


def _same_value(key):
    """What makes two keys the same in JavaScript: 1 is not true, and objects are themselves alone."""
    if isinstance(key, (str, bool)) or key is None or key is undefined:
        return type(key), key
    if isinstance(key, (int, float)):
        return "bigint" if isinstance(key, BigInt) else "number", "NaN" if key != key else key
    return "object", id(key)


class Map(collections.abc.MutableMapping):
    """JavaScript's Map: keys of any kind, in order, objects by identity. A dict with keys besides texts becomes one."""

    def __init__(self, pairs=()):
        self._pairs = {}
        for key, value in pairs.items() if isinstance(pairs, collections.abc.Mapping) else pairs:
            self[key] = value

    def __setitem__(self, key, value):
        self._pairs[_same_value(key)] = (key, value)

    def __getitem__(self, key):
        found = self._pairs.get(_same_value(key))
        if found is None:
            raise KeyError(key)
        return found[1]

    def __delitem__(self, key):
        del self._pairs[_same_value(key)]

    def __iter__(self):
        return (key for key, _ in list(self._pairs.values()))

    def __len__(self):
        return len(self._pairs)

    __hash__ = None

    def __repr__(self):
        return f"hauki.Map of {len(self)}"


class Set(collections.abc.MutableSet):
    """JavaScript's Set, in order, objects by identity. Equal to a Python set of the same items; a set becomes one."""

    def __init__(self, items=()):
        self._items = {_same_value(item): item for item in items}

    def __contains__(self, item):
        return _same_value(item) in self._items

    def __iter__(self):
        return iter(list(self._items.values()))

    def __len__(self):
        return len(self._items)

    def add(self, item):
        self._items.setdefault(_same_value(item), item)

    def discard(self, item):
        self._items.pop(_same_value(item), None)

    __hash__ = None

    def __repr__(self):
        return f"hauki.Set of {len(self)}"


_MISSING = object()
_ERROR_MEMBERS = ("name", "message", "stack", "cause", "errors")


class JsError(Exception):
    """An error that came as a value: `name`, `message`, `stack`, `cause`, `errors`, its own properties in `props`."""

    def __init__(self, name: str, message: str, stack: str | None = None):
        super().__init__(f"{name}: {message}")
        self.name, self.message, self.stack = name, message, stack
        self.cause = _MISSING
        self.errors: list | None = None
        """Those that it gathers, of an AggregateError and its like."""
        self.props: dict = {}


def _props(error: BaseException) -> dict:
    if isinstance(error, JsError):
        return error.props
    own = vars(error).items()
    return {k: v for k, v in own if not k.startswith("_") and k not in _ERROR_MEMBERS}


def _errors(error: BaseException):
    """The errors that one gathers: of an ExceptionGroup, or of an AggregateError that came; `_MISSING` for any other."""
    if isinstance(error, JsError):
        return _MISSING if error.errors is None else error.errors
    try:
        gathered = getattr(error, "exceptions", None)
    except Exception:  # noqa: BLE001: a property of a stranger's class.
        gathered = None
    return list(gathered) if isinstance(gathered, (list, tuple)) else _MISSING


class Reference:
    """Made by `reference()`."""

    def __init__(self, target):
        self.target = target


def reference(target) -> Reference:
    """Gives an object by reference: the worker can call its class's methods that do not begin with "_"."""
    return target if isinstance(target, Reference) else Reference(target)


class Signal:
    """JavaScript's AbortSignal, both ways: `aborted`, `reason`, `wait(seconds)`, and `abort(reason)` for your own."""

    def __init__(self):
        self._event = threading.Event()
        self._listeners: list = []
        self.reason = None

    @property
    def aborted(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        with _away():
            return self._event.wait(seconds)

    def abort(self, reason=None) -> None:
        if self._event.is_set():
            return
        self.reason = reason
        self._event.set()
        for listener in list(self._listeners):
            listener()


# ---- The codec (section 12) ----------------------------------------------------------------------------------------

_WITH_IDENTITY = (list, dict, Map, Set, set, frozenset, bytearray, Binary, BaseException, Boxed, Date, RegExp)
_LONE_HALF = re.compile("[\ud800-\udfff]")
_ONLY_PYTHONS = re.compile(r"\(\?(?:P|#|>|\(|[aiLmsux-]+[:)])|\\[AZ]|[*+?}]\+")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def _json(tree) -> str:
    text = json.dumps(tree, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Lone halves of surrogate pairs have no UTF-8.
    return text if text.isascii() else _LONE_HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


def _read_int(digits: str):
    value = int(digits) if len(digits) <= 17 else float(digits)
    return value if isinstance(value, float) or abs(value) <= SAFE_INTEGER else float(value)


_read_json = json.JSONDecoder(parse_int=_read_int, parse_constant=_no_constant).decode


def _from_digits(text: str) -> int:
    """int(text) for any length: Python's own refuses long texts."""
    if len(text) <= 4000:
        return int(text)
    half = len(text) // 2
    return _from_digits(text[:-half]) * 10**half + int(_from_digits(text[-half:]))


def _to_digits(value: int) -> str:
    if value < 0:
        return "-" + _to_digits(-value)
    if value.bit_length() <= 13_000:
        return int.__repr__(value)
    high, low = divmod(value, 10**3900)
    return _to_digits(high) + int.__repr__(low).zfill(3900)


class _Encoder:
    """Makes a tree for JSON of a value. A first pass finds out whether anything needs a tag, and what occurs twice."""

    def __init__(self, give):
        self._give = give
        self._dry = True
        self._tagged = False
        self._twice: set = set()
        self._begin()

    def _begin(self):
        self._seen: dict = {}
        self._labels: dict = {}
        self._path: list = []
        self._parts: list = []
        self._size = 0

    def encode(self, value):
        tree = self._node(value, 0)
        if not self._tagged:
            return _json(tree), None
        self._dry = False
        self._begin()
        return _json(self._node(value, 0)), self._parts

    def _refuse(self, why: str):
        place = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in self._path)
        raise Unserialisable(f"This value cannot be sent: value{place} is {why}", {"why": why})

    def _tag(self, *items):
        self._tagged = True
        return {"$": list(items)}

    def _node(self, value, depth: int):
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return value
        if isinstance(value, float):
            if math.isfinite(value) and (value or math.copysign(1, value) > 0):
                whole = value.is_integer() and abs(value) < SAFE_INTEGER
                return int(value) if whole else float(value)
            return self._tag("number", {math.inf: "Infinity", -math.inf: "-Infinity", 0.0: "-0"}.get(value, "NaN"))
        if isinstance(value, int):
            if abs(value) <= SAFE_INTEGER and not isinstance(value, BigInt):
                return int(value)
            if value.bit_length() > BIGINT_DIGITS * 4 or len(digits := _to_digits(int(value))) > BIGINT_DIGITS + 1:
                self._refuse(f"an int of more than {BIGINT_DIGITS} digits")
            return self._tag("bigint", digits)
        if value is undefined:
            return self._tag("undefined")
        if isinstance(value, _WITH_IDENTITY):
            return self._once(value, depth)
        if isinstance(value, tuple):
            return self._items(value, self._deeper(depth))
        if isinstance(value, (bytes, memoryview)):
            return self._bytes("Uint8Array", value)
        if isinstance(value, datetime.datetime):
            try:
                since = value.astimezone(datetime.timezone.utc) - _EPOCH
            except (OverflowError, ValueError, OSError):
                self._refuse("a datetime that lies outside of what can be told in UTC: send it as text")
            return self._tag("date", since // datetime.timedelta(milliseconds=1))
        if isinstance(value, re.Pattern):
            return self._tag(*self._pattern(value))
        if isinstance(value, type):
            self._refuse("a class: send an instance")
        if self._dry:
            return self._tag("mine")
        tag = self._give(value)
        if tag is None:
            self._refuse(f"of type {type(value).__name__}: send what you need of it, or wrap it in hauki.reference()")
        return self._tag(*tag)

    def _deeper(self, depth: int) -> int:
        if depth >= DEPTH:
            self._refuse(f"nested deeper than {DEPTH}")
        return depth + 1

    def _once(self, value, depth: int):
        key = id(value)
        if key in self._seen:
            self._twice.add(key)
            return self._tag("ref", self._labels.get(key))
        self._seen[key] = value
        label = self._labels.setdefault(key, len(self._labels)) if key in self._twice else None
        tree = self._whole(value, self._deeper(depth))
        return tree if label is None else self._tag("def", label, tree)

    def _whole(self, value, depth: int):
        if isinstance(value, list):
            return self._items(value, depth)
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                return self._pairs(value.items(), depth)
            tree = self._members(value, depth)
            return self._tag("object", tree) if len(tree) == 1 and "$" in tree and not self._dry else tree
        if isinstance(value, Map):
            return self._pairs(value.items(), depth)
        if isinstance(value, (Set, set, frozenset)):
            return self._tag("set", self._items(value, depth))
        if isinstance(value, bytearray):
            return self._bytes("Uint8Array", value)
        if isinstance(value, Binary):
            return self._bytes(value.type, value)
        if isinstance(value, Date):
            return self._tag("date", value.ms)
        if isinstance(value, RegExp):
            return self._tag("regexp", value.source, value.flags)
        if isinstance(value, Boxed):
            return self._tag("boxed", self._node(value.value, depth))
        return self._tag("error", self._error(value, depth))

    def _below(self, key, value, depth: int):
        self._path.append(key)
        tree = self._node(value, depth)
        self._path.pop()
        return tree

    def _items(self, items, depth: int):
        return [self._tag("hole") if v is hole else self._below(i, v, depth) for i, v in enumerate(items)]

    def _members(self, members: dict, depth: int):
        return {key: self._below(key, value, depth) for key, value in members.items()}

    def _pairs(self, pairs, depth: int):
        return self._tag("map", [[self._below(i, part, depth) for part in pair] for i, pair in enumerate(pairs)])

    def _bytes(self, type: str, data):
        data = b"" if self._dry else bytes(data)
        offset, self._size = self._size, self._size + len(data)
        self._parts.append(data)
        return self._tag("bytes", type, offset, len(data))

    def _pattern(self, value: re.Pattern):
        if not isinstance(value.pattern, str) or value.flags & (re.X | re.L) or _ONLY_PYTHONS.search(value.pattern):
            self._refuse("a regular expression that JavaScript does not have: send hauki.RegExp(source, flags)")
        if len(value.pattern) > REGEXP_CHARS:
            self._refuse(f"a regular expression of more than {REGEXP_CHARS} characters")
        flags = "".join(f for f, flag in (("i", re.I), ("m", re.M), ("s", re.S)) if value.flags & flag)
        return "regexp", value.pattern or "(?:)", flags

    def _error(self, error: BaseException, depth: int):
        if isinstance(error, MeshError):
            wire = error_to_wire(error)
            wire["data"]["fields"] = self._members(error.fields, self._deeper(depth))
            return {"name": error.name, "message": error.message, "wire": wire}
        if isinstance(error, JsError):
            tree = {"name": error.name, "message": error.message}
            cause, errors = error.cause, _errors(error)
            if error.stack is not None:
                tree["stack"] = error.stack[:STACK_CHARS]
        else:
            tree = {"name": name_of(error), "message": text_of(error)}
            cause = _MISSING if error.__cause__ is None else error.__cause__
            errors = _errors(error)
        if cause is not _MISSING:
            tree["cause"] = self._below("cause", cause, depth)
        if errors is not _MISSING:
            tree["errors"] = self._below("errors", errors, depth)
        if _props(error):
            tree["props"] = self._members(_props(error), depth)
        return tree


def encode_value(value, give=lambda value: None):
    """A value as (text, attachments), these None where the text is plain JSON. `give` makes references' tags."""
    return _Encoder(give).encode(value)


def _bad(why: str):
    raise ProtocolViolation(f"The peer broke the protocol: {why}", {"why": why})


def _is_tag(node) -> bool:
    return isinstance(node, dict) and len(node) == 1 and "$" in node


_ARITY = {
    "undefined": 0, "number": 1, "bigint": 1, "date": 1, "regexp": 2, "hole": 0, "boxed": 1, "map": 1, "set": 1,
    "bytes": 3, "error": 1, "object": 1, "def": 2, "ref": 1,
}  # fmt: skip
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "-0": -0.0}


class _Decoder:
    """Makes values of a tagged tree, which a stranger may have written: whatever is not well formed is a violation."""

    def __init__(self, attached: bytes, take):
        self._attached = attached
        self._take = take
        self._labels: dict = {}
        self._taken = 0

    def value(self, node, depth: int = 0, label=None):
        if isinstance(node, list):
            made = self._known([], depth, label)
            for item in node:
                made.append(hole if _is_tag(item) and item["$"] == ["hole"] else self.value(item, depth + 1))
            return made
        if _is_tag(node):
            return self._tag(node["$"], depth, label)
        if isinstance(node, dict):
            return self._members(node, self._known({}, depth, label), depth)
        return node

    def _known(self, made, depth: int, label):
        if depth >= DEPTH:
            _bad(f"a value nested deeper than {DEPTH}")
        if label is not None:
            self._labels[label] = made
        return made

    def _members(self, node: dict, made: dict, depth: int):
        for key, member in node.items():
            made[key] = self.value(member, depth + 1)
        return made

    def _tag(self, tag, depth: int, label):
        if not isinstance(tag, list) or not tag or not isinstance(tag[0], str):
            _bad("a tag that is not a list beginning with its kind")
        kind, *items = tag
        if kind in ("mine", "yours", "result"):
            return self._take(tag)
        if kind not in _ARITY or len(items) != _ARITY[kind]:
            _bad(f"a tag {kind[:40]!r} that is unknown, or with {len(items)} items")
        if kind == "hole":
            _bad("a hole outside of a list")
        return getattr(self, "_" + kind)(*items, depth=depth, label=label)

    def _undefined(self, depth, label):
        return undefined

    def _number(self, name, depth, label):
        if not isinstance(name, str) or name not in _NUMBERS:
            _bad('a tag "number" with an unknown name')
        return _NUMBERS[name]

    def _bigint(self, text, depth, label):
        if not isinstance(text, str) or len(text) > BIGINT_DIGITS + 1 or not re.fullmatch(r"0|-?[1-9][0-9]*", text):
            _bad('a tag "bigint" without a decimal number of bearable length')
        return BigInt(-_from_digits(text[1:]) if text[0] == "-" else _from_digits(text))

    def _date(self, ms, depth, label):
        if ms is not None and (type(ms) not in (int, float) or ms != int(ms) or abs(ms) > 8.64e15):
            _bad('a tag "date" without milliseconds')
        try:
            made = Date(None) if ms is None else _EPOCH + datetime.timedelta(milliseconds=int(ms))
        except OverflowError:
            made = Date(int(ms))
        return self._known(made, depth, label)

    def _regexp(self, source, flags, depth, label):
        if not isinstance(source, str) or not isinstance(flags, str):
            _bad('a tag "regexp" without texts')
        if len(source) > REGEXP_CHARS or len(flags) > 16:
            _bad("a regular expression that is too long")
        return self._known(RegExp(source, flags), depth, label)

    def _boxed(self, node, depth, label):
        primitive = self.value(node, depth + 1)
        if not isinstance(primitive, (bool, int, float, str)):
            _bad('a tag "boxed" without a primitive')
        return self._known(Boxed(primitive), depth, label)

    def _map(self, pairs, depth, label):
        made = self._known(Map(), depth, label)
        if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
            _bad('a tag "map" without a list of pairs')
        for key, value in pairs:
            key = self.value(key, depth + 1)
            made[key] = self.value(value, depth + 1)
        return made

    def _set(self, items, depth, label):
        made = self._known(Set(), depth, label)
        if not isinstance(items, list):
            _bad('a tag "set" without a list')
        for item in items:
            made.add(self.value(item, depth + 1))
        return made

    def _bytes(self, type, offset, length, depth, label):
        if not isinstance(type, str) or type not in _ELEMENTS:
            _bad('a tag "bytes" of unknown type')
        if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in (offset, length)):
            _bad('a tag "bytes" without numbers')
        self._taken += length
        if offset + length > len(self._attached) or self._taken > len(self._attached):
            _bad('a tag "bytes" outside of the attachments, or over other ones')
        if length % struct.calcsize(_ELEMENTS[type]):
            _bad(f'a tag "bytes" that cuts an element of {type}')
        data = self._attached[offset : offset + length]
        return self._known(data if type == "Uint8Array" else Binary(type, data), depth, label)

    def _error(self, body, depth, label):
        body = body if isinstance(body, dict) else {}
        name, message, stack = (body.get(k) for k in ("name", "message", "stack"))
        if not isinstance(name, str) or not isinstance(message, str):
            _bad("an error without name and message")
        if not (stack is None or isinstance(stack, str) and len(stack) <= STACK_CHARS):
            _bad("an error whose stack is no text, or too long")
        if "wire" in body:
            return self._mesh_error(body["wire"], depth, label)
        made = self._known(JsError(name, message, stack), depth, label)
        for key, member in body.items():
            if key == "cause":
                made.cause = self.value(member, depth + 1)
                made.__cause__ = made.cause if isinstance(made.cause, BaseException) else None
            elif key == "errors":
                made.errors = self.value(member, depth + 1)
                if not isinstance(made.errors, list):
                    _bad("an error whose errors are no list")
            elif key == "props":
                if not isinstance(member, dict) or any(k in _ERROR_MEMBERS for k in member):
                    _bad("an error whose properties are no object, or have another place")
                self._members(member, made.props, depth)
        return made

    def _mesh_error(self, wire, depth, label):
        data = wire.get("data") if isinstance(wire, dict) else None
        if not isinstance(data, dict) or not isinstance(data.get("fields"), dict):
            _bad("an error of the table without fields")
        made = self._known(error_from({**wire, "data": {**data, "fields": None}}), depth, label)
        made.fields = self._members(data["fields"], {}, depth + 1)
        return made

    def _object(self, node, depth, label):
        if not isinstance(node, dict):
            _bad('a tag "object" without an object')
        return self._members(node, self._known({}, depth, label), depth)

    def _def(self, number, node, depth, label):
        if not isinstance(number, int) or isinstance(number, bool) or number < 0 or label is not None:
            _bad("a label that is not a number, or on a label")
        if number in self._labels:
            _bad(f"the label {number} twice")
        made = self.value(node, depth, number)
        if number not in self._labels:
            _bad("a label on something that has no identity")
        return made

    def _ref(self, number, depth, label):
        if not isinstance(number, int) or number not in self._labels:
            _bad("a reference to a label that is not there")
        return self._labels[number]


def decode_value(tree, attached: bytes, take=lambda tag: _bad("a reference where there can be none")):
    """The value of a tagged message's tree. `take` gives what a reference's tag stands for."""
    try:
        return _Decoder(attached, take).value(tree)
    except RecursionError:
        _bad("a value nested too deeply")


# ---- Connections and frames (sections 1, 2, 16) --------------------------------------------------------------------

LITERAL, TAGGED, ACK, BYE = 1, 2, 3, 4


def frame(kind: int, *payload: bytes) -> bytes:
    return b"".join((struct.pack(">IB", sum(map(len, payload)) + 1, kind), *payload))


def message_frame(text: str, attachments) -> bytes:
    data = text.encode()
    if attachments is None:
        return frame(LITERAL, data)
    return frame(TAGGED, struct.pack(">I", len(data)), data, *attachments)


def read_message(kind: int, payload: bytes):
    """(text, attachments) of a frame of kind 1 or 2; attachments are None in a literal one."""
    try:
        if kind == LITERAL:
            return payload.decode(), None
        (length,) = struct.unpack_from(">I", payload)
        if length + 4 > len(payload):
            _bad("a frame whose text is longer than itself")
        return payload[4 : 4 + length].decode(), payload[4 + length :]
    except (UnicodeDecodeError, struct.error):
        return _bad("a frame without readable text")


class _Link:
    """One connection: frames over a socket."""

    def __init__(self, sock: socket.socket, early: bytes = b""):
        self.sock = sock
        self._buffer = bytearray(early)
        self.limit = HANDSHAKE_BYTES
        self._asked = 0

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            chunk = self.sock.recv(256 * 1024)
            if not chunk:
                raise ConnectionError("the connection ended")
            self._buffer += chunk
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def read(self):
        """The next frame as (kind, payload)."""
        length, kind = struct.unpack(">IB", self._read(5))
        if not 1 <= length <= self.limit + 1 or kind not in (LITERAL, TAGGED, ACK, BYE):
            _bad(f"a frame of {length} bytes and kind {kind}")
        return kind, self._read(length - 1)

    def ask(self, method: str, params: list):
        """One call before the session: of the handshake, or to resume."""
        self._asked += 1
        message = {"jsonrpc": "2.0", "id": self._asked, "method": method, "params": params}
        self.write(frame(LITERAL, _json(message).encode()))
        text, _ = read_message(*self.read())
        answer = _read_json(text)
        if not isinstance(answer, dict) or answer.get("id") not in (self._asked, None):
            _bad("an answer to nothing")
        if "error" in answer:
            raise error_from(answer["error"])
        return answer.get("result")

    def admitted(self) -> None:
        self.limit = MESSAGE_BYTES
        self.sock.settimeout(None)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def _dial_tcp(host: str, port: int, seconds: float) -> socket.socket:
    sock = socket.create_connection((host, port), timeout=seconds)
    sock.settimeout(HANDSHAKE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _secured(sock: socket.socket, tls) -> socket.socket:
    """Puts TLS with a pre-shared key around a connection (section 4)."""
    if tls is None:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not hasattr(context, "set_psk_client_callback"):
        sock.close()
        why = "This worker demands TLS with a pre-shared key, which Python has from 3.13 on"
        raise BadInput(why, {"what": "python", "why": why})
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-PSK-CHACHA20-POLY1305")
    context.set_psk_client_callback(lambda hint: tls)
    return context.wrap_socket(sock)


# ---- The channel (section 19): messages that outlive their connection ----------------------------------------------


class _Channel:
    """Numbers messages, keeps them until they are acknowledged, and writes them to whatever connection there is.

    Each message arrives once and in order, whatever was cut. Everything under `cond`; one thread writes.
    """

    def __init__(self):
        self.cond = threading.Condition()
        self.link: _Link | None = None
        self.kept: list = []
        self.kept_bytes = 0
        self.confirmed = 0
        self.handed = 0
        self.received = 0
        self._told = 0
        self._untold_bytes = 0
        self._tell_at: float | None = None
        self.ended: str | None = None
        self._bye = False
        threading.Thread(target=self._write, name="hauki-writer", daemon=True).start()

    def send(self, text: str, attachments) -> int:
        """Takes a message on; gives its number."""
        data = message_frame(text, attachments)
        with self.cond:
            self.kept.append(data)
            self.kept_bytes += len(data)
            self.cond.notify_all()
            return self.confirmed + len(self.kept)

    def attach(self, link: _Link, peer_has: int = 0) -> None:
        with self.cond:
            self._confirm(peer_has)
            self.handed = self.confirmed
            self._told = self.received
            self.link = link
            self.cond.notify_all()

    def detach(self) -> None:
        with self.cond:
            link, self.link = self.link, None
        if link:
            link.close()

    def took(self, size: int) -> None:
        """A message came in."""
        with self.cond:
            self.received += 1
            self._untold_bytes += size
            full = self.received - self._told >= ACK_MESSAGES or self._untold_bytes >= ACK_BYTES
            if full or self._tell_at is None:
                self._tell_at = time.monotonic() + (0 if full else ACK_S)
                self.cond.notify_all()

    def acknowledged(self, payload: bytes) -> None:
        if len(payload) != 8:
            _bad("an acknowledgement that is no number")
        with self.cond:
            self._confirm(struct.unpack(">Q", payload)[0])

    def _confirm(self, count: int) -> None:
        if not isinstance(count, int) or not self.confirmed <= count <= self.handed:
            _bad(f"it says that it has {count} of {self.handed} messages")
        done = self.kept[: count - self.confirmed]
        del self.kept[: count - self.confirmed]
        self.kept_bytes -= sum(map(len, done))
        self.confirmed = count

    def end(self, reason: str, bye: bool) -> None:
        """Ends it; what was sent before goes out first, then the bye, where there is a connection."""
        with self.cond:
            if self.ended is None:
                self.ended, self._bye = reason, bye
            self.cond.notify_all()

    def _write(self) -> None:
        while True:
            with self.cond:
                data, link = self._next()
                while data is None and self.ended is None:
                    self.cond.wait(None if self._tell_at is None else max(0.0, self._tell_at - time.monotonic()))
                    data, link = self._next()
            if data is None:
                if link is not None and self._bye:
                    with contextlib.suppress(OSError):
                        link.write(frame(BYE))
                return self.detach()
            try:
                link.write(data)
            except OSError:
                link.close()  # Its reader notices, and makes another.
                with self.cond:
                    if self.link is link:
                        self.link = None

    def _next(self):
        """What is to be written now, and to where."""
        if self.link is None:
            if self._tell_at is not None:
                self._tell_at = None  # It is told when a connection is made again.
            return None, None
        at = self.handed - self.confirmed
        parts = list(itertools.islice(self.kept, at, at + 64))
        self.handed += len(parts)
        if self._tell_at is not None and self._tell_at <= time.monotonic():
            self._told, self._untold_bytes, self._tell_at = self.received, 0, None
            parts.append(frame(ACK, struct.pack(">Q", self.received)))
        return b"".join(parts) if parts else None, self.link


# ---- Threads that wait ---------------------------------------------------------------------------------------------

_thread = threading.local()


@contextlib.contextmanager
def _away():
    """Around every wait for another side: lets the next callback of this thread's runner begin meanwhile."""
    turn = getattr(_thread, "turn", None)
    if turn is None:
        yield
        return
    turn.release()
    try:
        yield
    finally:
        turn.acquire()


class _Runner:
    """Runs jobs one after another, in order. A job that waits (`_away`) lets the next one begin."""

    def __init__(self):
        self._cond = threading.Condition()
        self._turn = threading.Lock()
        self._jobs: collections.deque = collections.deque()
        self._free = 0

    def add(self, job) -> None:
        with self._cond:
            self._jobs.append(job)
            if self._free == 0:
                self._free += 1
                threading.Thread(target=self._run, name="hauki-callbacks", daemon=True).start()
            self._cond.notify()

    def _run(self) -> None:
        _thread.turn = self._turn
        while True:
            with self._cond:
                if not self._jobs and not self._cond.wait_for(lambda: self._jobs, timeout=5):
                    self._free -= 1
                    return
            with self._turn:
                with self._cond:
                    if not self._jobs:
                        continue
                    job = self._jobs.popleft()
                    self._free -= 1
                job()
            with self._cond:
                self._free += 1


class Pending:
    """A call that was made: `result()` waits for its answer, `cancel()` gives it up."""

    def __init__(self, session: _Session, id: int, method: str, timeout_ms: float, keep: bool):
        self._session, self._id, self._method, self._timeout_ms, self._keep = session, id, method, timeout_ms, keep
        self._deadline = time.monotonic() + timeout_ms / 1000
        self._event = threading.Event()
        self._outcome = None
        self._error: BaseException | None = None
        self._given: list = []
        self._ordinal = 0
        self._listeners: list = []

    def done(self) -> bool:
        return self._event.is_set()

    def when_done(self, listener) -> None:
        """Calls `listener(self)` when the call has settled, on whatever thread that happens."""
        with self._session.lock:
            if not self._event.is_set():
                self._listeners.append(listener)
                return
        listener(self)

    def result(self):
        """The result. Raises what the worker raised, or DeadlineExceeded, Cancelled, OutcomeUnknown, WorkerDied, …"""
        with _away():
            answered = self._event.wait(max(0.0, self._deadline - time.monotonic()))
        if not answered:
            fields = {"what": f"{self._method}()", "timeout_ms": self._timeout_ms, "may_have_run": True}
            text = f"{self._method}() gave no answer within {self._timeout_ms} ms"
            text = f"{text}; it may have run or may be running still"
            self._session.give_up(self, DeadlineExceeded(text, fields))
        if self._error is not None:
            raise self._error
        return self._outcome

    def cancel(self, why: str = "the caller gave up") -> None:
        """Gives the call up: `result()` raises Cancelled at once, and the worker's signal is aborted."""
        text = f"The call {self._method}() was cancelled: {why}. It may have run, or be running still"
        self._session.give_up(self, Cancelled(text, {"method": self._method, "why": why, "may_have_run": True}))

    def settle(self, outcome=None, error: BaseException | None = None) -> None:
        self._outcome, self._error = outcome, error
        with self._session.lock:
            self._event.set()
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener(self)


class ServedCall:
    """A call that is being served, for who serves it: `hauki.current_call()`."""

    def __init__(self, rpc: dict):
        timeout_ms, trace = rpc.get("timeout_ms"), rpc.get("traceparent")
        self.signal = Signal()
        self.traceparent = trace if isinstance(trace, str) and len(trace) <= 256 else None
        number = isinstance(timeout_ms, (int, float)) and timeout_ms >= 0
        self.deadline = time.monotonic() + timeout_ms / 1000 if number else None
        """When the caller stops waiting, on time.monotonic()'s clock."""


def current_call() -> ServedCall | None:
    """Inside a function that a worker calls: its signal (aborted when the caller gives up), deadline and trace."""
    return getattr(_thread, "call", None)


# ---- What stands for things of the other side (sections 12.3 to 12.5) ----------------------------------------------


class _Method:
    """A method of a remote object: call it, or `start()` it and go on."""

    def __init__(self, target: RemoteObject, name: str):
        self._target, self._name = target, name

    def __call__(self, *args, **named):
        return self._target._session.outcome(self.start(*args, **named))

    def start(self, *args, **named) -> Pending:
        target = self._target
        target._check()
        args = [*args, named] if named else list(args)
        return target._session.begin(self._name, args, on=target._on, **target._options)


class RemoteObject:
    """Stands for an object of the other side: `thing.method(1, 2)`. Let go of it by `with`, or `hauki.release(thing)`.

    A method whose name Python does not allow, or that begins with "_": `thing["name"](1, 2)`.
    """

    _on: int | None = None
    _type = "object"

    def __init__(self, session: _Session, on: int | None, options: dict | None = None):
        self._session, self._on, self._options = session, on, options or {}
        self._released = False

    def __getattr__(self, name: str) -> _Method:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Method(self, name)

    def __getitem__(self, name: str) -> _Method:
        return _Method(self, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._release()

    def _check(self) -> None:
        if self._released:
            what = f"reference {self._on}"
            raise RefGone(f"There is no {what} any more: it was let go of here", {"what": what})

    def _release(self) -> None:
        if not self._released and self._on is not None:
            self._released = True
            self._session.let_go(self._on)

    def __del__(self):
        if self._on is not None and not self._released and self._session.dropped(self._on):
            text = f"a remote {self._type} was collected; let go of it with `with` or hauki.release()"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)


class RemoteFunction(RemoteObject):
    """Stands for a function of the other side; callable."""

    _type = "function"

    def __call__(self, *args):
        return _Method(self, "rpc.apply")(*args)

    def start(self, *args) -> Pending:
        return _Method(self, "rpc.apply").start(*args)


def release(thing) -> None:
    """Lets go of a remote function, object or stream."""
    thing.close() if isinstance(thing, RemoteStream) else thing._release()


def with_options(thing, **options):
    """The same remote object, with options for its calls: with_options(worker, timeout_ms=500, traceparent=…)."""
    return _View(thing, {**thing._options, **options})


class _View(RemoteObject):
    def __init__(self, thing: RemoteObject, options: dict):
        super().__init__(thing._session, thing._on, options)
        self._thing, self._released = thing, True  # The thing itself is let go of, not its views.

    def _check(self) -> None:
        self._thing._check()

    def __call__(self, *args):
        return _Method(self, "rpc.apply")(*args)


class Pipeline:
    """Calls on results that are not there yet, sent together: worker.pipeline().a().b(1).result().

    It may also be an argument: worker.greet(worker.pipeline().user().name). Each use sends its calls once more.
    """

    def __init__(self, target: RemoteObject, steps: tuple = (), path: tuple = ()):
        self._target, self._steps, self._path = target, steps, path

    def __getattr__(self, name: str) -> Pipeline:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Pipeline:
        return Pipeline(self._target, self._steps, (*self._path, name))

    def __call__(self, *args) -> Pipeline:
        return Pipeline(self._target, (*self._steps, (self._path, args)))

    def result(self):
        """Sends all of it and waits for the last result, or reads the property that the path ends with."""
        return self.start().result()

    def start(self) -> Pending:
        steps = [*self._steps, (self._path, None)] if self._path else self._steps
        return self._send(steps, keep_last=False)

    def _argument(self) -> _Result:
        """Sends the calls; what stands for the part of their result that the path names, in a call that follows."""
        return _Result(["result", self._send(self._steps, keep_last=True)._id, list(self._path)])

    def _send(self, steps, keep_last: bool) -> Pending:
        target, pending = self._target, None
        target._check()
        with target._session.lock:
            for i, (path, args) in enumerate(steps):
                where = {"of": pending._id} if pending else {"on": target._on}
                method = "rpc.get" if args is None else path[-1] if path else "rpc.apply"
                where["path"] = path if args is None else path[:-1]
                keep = keep_last or i < len(steps) - 1
                pending = target._session.begin(method, list(args or ()), keep=keep, **where, **target._options)
        return pending


class _Result:
    """Stands in arguments for the result of a call that was sent before."""

    def __init__(self, tag: list):
        self.tag = tag


class _Collector:
    """Sends what sessions have to say of what was collected as garbage: on a thread of its own, for any thread may
    collect, whatever locks it holds."""

    def __init__(self):
        # Its put() takes no lock that whoever collects may hold.
        self._sessions: queue.SimpleQueue = queue.SimpleQueue()
        self.add = self._sessions.put
        self._begun = False

    def begin(self) -> None:
        """From now on there is something that may be collected."""
        if self._begun:
            return
        self._begun = True
        # Where there is no room for a thread it goes with the session's next message.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._run, name="hauki-collector", daemon=True).start()

    def _run(self) -> None:
        while True:
            # One whose other side is gone tells nobody.
            with contextlib.suppress(OSError):
                self._sessions.get().tell_dropped()


_collector = _Collector()


class RemoteStream:
    """What the other side gives one after the other: iterate over it; `close()`, or `with`, to leave before its end.
    One that nobody has any more is left too."""

    def __init__(self, session: _Session, id: int, lazy: bool):
        self._session, self._id = session, id
        self._cond = threading.Condition(session.lock)
        self._items: collections.deque = collections.deque()
        self._granted = 0 if lazy else STREAM_BYTES
        self._consumed = 0
        self._end = None

    def __iter__(self):
        return self

    def __next__(self):
        with _away(), self._cond:
            if not self._items and self._end is None and self._granted == 0 and self._consumed == 0:
                self._granted = STREAM_BYTES
                self._session.tell("rpc.credit", [self._id, STREAM_BYTES])
            while not self._items and self._end is None:
                self._cond.wait()
            if not self._items:
                error, self._end = self._end, StopIteration()
                raise error
            value, cost = self._items.popleft()
            self._consumed += cost
            if self._consumed >= STREAM_BYTES / 2 and self._end is None:
                self._granted += self._consumed
                self._session.tell("rpc.credit", [self._id, self._consumed])
                self._consumed = 0
            return value

    def close(self) -> None:
        with self._cond:
            self._items.clear()
            if self._session.readers.pop(self._id, None):
                self._session.tell("rpc.stop", [self._id])
            self.ended(StopIteration())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if self._end is None:
            self._session.left(self._id)

    def took(self, value, size: int) -> None:
        if self._granted <= 0:
            _bad("an item of a stream without credit")
        self._granted -= size + ITEM_COST
        self._items.append((value, size + ITEM_COST))
        self._cond.notify_all()

    def ended(self, error: BaseException) -> None:
        with self._cond:
            self._end = self._end or error
            self._cond.notify_all()


class _Producer:
    """Sends what an iterator gives, while its reader's credit lasts."""

    def __init__(self, session: _Session, id: int, source, credit: int):
        self._session, self._id, self._source = session, id, source
        self._cond = threading.Condition(session.lock)
        self._credit = credit
        self._stopped = False

    def start(self) -> None:
        threading.Thread(target=self._run, name="hauki-stream", daemon=True).start()

    def credit(self, amount) -> None:
        if isinstance(amount, (int, float)) and amount > 0:
            self._credit = min(self._credit + amount, STREAM_BYTES)
            self._cond.notify_all()

    def stop(self) -> None:
        self._stopped = True
        self._cond.notify_all()

    def _run(self) -> None:
        session, id = self._session, self._id
        try:
            while True:
                with self._cond:
                    self._cond.wait_for(lambda: self._credit > 0 or self._stopped)
                    if self._stopped:
                        return
                try:
                    value = next(self._source)
                except StopIteration:
                    with session.lock:
                        if session.producers.pop(id, None):
                            session.tell("rpc.end", [id])
                    return
                with self._cond:
                    if self._stopped:
                        return
                    self._credit -= session.notify("rpc.item", [id, value]) + ITEM_COST
        except BaseException as error:  # noqa: BLE001: whatever the generator raises is the reader's.
            with session.lock:
                if session.producers.pop(id, None):
                    session.tell_error(error, lambda wire: session.notify("rpc.fail", [id, wire]))
        finally:
            close = getattr(self._source, "close", None)
            if close:
                with contextlib.suppress(Exception):
                    close()


# ---- The session (sections 5, 6, 11) -------------------------------------------------------------------------------


def _utf16(text: str) -> int:
    """A text's length as JavaScript counts it: what items of streams cost."""
    return len(text) if text.isascii() else len(text) + sum(1 for c in text if c > "\uffff")


def _read_path(value, path):
    """Reads a property by a path of names: own members of plain values alone."""
    for name in path:
        if isinstance(value, (str, list, tuple)):
            inside = name == "length" or (not isinstance(value, str) and name.isdecimal() and int(name) < len(value))
            value = undefined if not inside else len(value) if name == "length" else value[int(name)]
        elif isinstance(value, dict):
            value = value.get(name, undefined)
        else:
            _no_method(name)
    return value


def _no_method(name: str):
    raise NoSuchMethod(f"Method not found: {name}", {"method": name})


def _invoke(target, path, method: str | None, args: list):
    """Calls what lies at the end of a path: a function itself, or a method of an object given by reference."""
    target = _read_path(target, path)
    if isinstance(target, Reference):
        target = target.target
        found = None if method is None or method.startswith("_") else getattr(type(target), method, None)
        return found(target, *args) if callable(found) else _no_method(str(method))
    if isinstance(target, RemoteObject) and not isinstance(target, RemoteFunction):
        return target[method](*args) if method else _no_method("it")
    if method is None and callable(target):
        return target(*args)
    return _no_method(str(method or "it"))


class _Kept:
    """A result that the other side may call on."""

    def __init__(self):
        self._event = threading.Event()
        self._value = None
        self._error: BaseException | None = None

    def settle(self, value=None, error: BaseException | None = None) -> None:
        self._value, self._error = value, error
        self._event.set()

    def get(self):
        with _away():
            self._event.wait()
        if self._error is not None:
            raise self._error
        return self._value


class _Later:
    """Stands in parameters for a kept result until the call runs."""

    def __init__(self, kept: _Kept, path: list):
        self.kept, self.path = kept, path


def _arrived(value, seen=None):
    """Parameters with the results that they name in place; a value may hold itself."""
    if isinstance(value, _Later):
        return _read_path(value.kept.get(), value.path)
    seen = set() if seen is None else seen
    if isinstance(value, (list, dict)) and id(value) not in seen:
        seen.add(id(value))
        for key, member in list(enumerate(value) if isinstance(value, list) else value.items()):
            if isinstance(member, (_Later, list, dict)):
                value[key] = _arrived(member, seen)
    return value


class _Session:
    """JSON-RPC both ways over a channel: calls, references, streams. Everything of it under `lock`."""

    calls_served = CALLS_SERVED

    def __init__(self, channel: _Channel, timeout_ms: float, runner=None):
        self.lock = threading.RLock()
        self.channel = channel
        self.over = threading.Event()
        self.error: MeshError | None = None
        self._timeout_ms = timeout_ms
        self._next_id = 1
        self._pending: dict = {}
        self._given_up: dict = {}
        self._served: dict = {}
        self._serving = 0
        self._kept: dict = {}
        self._runner = runner or _Runner()
        # Those who read hold them; a stream that nobody holds is left.
        self.readers: weakref.WeakValueDictionary = weakref.WeakValueDictionary()
        self.producers: dict = {}
        self._signals: dict = {}
        self._exports: dict = {}  # id: [value, type, count]
        self._numbers: dict = {}  # id() of the value: id
        self._next_export = 1
        self._imports: dict = {}  # id: [weak reference, count]
        self._dropped: collections.deque = collections.deque()
        self._collector = _collector
        self._given: list = []
        self._begun: list = []
        self._lazy = False

    # -- What guests do otherwise

    def outcome(self, pending: Pending):
        """What a call gives to whoever makes it."""
        return pending.result()

    def root(self, method: str):
        """What a call goes to that names no target: callers offer nothing. Raises NoSuchMethod, or gives a callable."""
        raise NoSuchMethod(f"Method not found: {method}. There are no methods", {"method": method, "has": []})

    def wire_of(self, error: BaseException) -> dict:
        return error_to_wire(error)

    # -- Sending

    def begin(self, method: str, args: list, on=None, of=None, path=(), keep=False, timeout_ms=None, traceparent=None):
        """Sends a call; gives what waits for its answer."""
        with self.lock:
            self._refuse()
            if len(self._pending) >= CALLS_IN_FLIGHT:
                raise _overloaded("calls in flight on this session", CALLS_IN_FLIGHT)
            args = [arg._argument() if isinstance(arg, Pipeline) else arg for arg in args]
            id = self._next_id
            members = {"on": on, "of": of, "path": list(path) or None, "keep": keep or None, "timeout_ms": timeout_ms,
                       "traceparent": traceparent}  # fmt: skip
            rpc = {key: value for key, value in members.items() if value is not None}
            after = f',"rpc":{_json(rpc)}' if rpc else ""
            pending = Pending(self, id, method, self._timeout_ms if timeout_ms is None else timeout_ms, keep)
            self._next_id += 1
            self._pending[id] = pending
            try:
                pending._ordinal, _ = self._post(f'"id":{id},"method":{_json(method)},"params":', args, after)
            except BaseException:
                del self._pending[id]
                raise
            pending._given, self._given = self._given, []
            return pending

    def notify(self, method: str, params: list) -> int:
        """Sends a notification; gives what it costs in a stream."""
        with self.lock:
            self._refuse()
            _, size = self._post(f'"method":"{method}","params":', params)
            self._given = []
            return size

    def tell(self, method: str, params: list) -> None:
        """A notification of our own making; nothing where the session is over, or there is no room."""
        with contextlib.suppress(MeshError):
            self.notify(method, params)

    def _post(self, before: str, value, after: str = ""):
        """Encodes and sends; all or nothing."""
        try:
            text, attachments = encode_value(value, self._give)
            text = f'{{"jsonrpc":"2.0",{before}{text}{after}}}'
            size = sum(map(len, attachments or ()))
            bytes_ = size + (len(text) if text.isascii() else len(text.encode()))
            if bytes_ > MESSAGE_BYTES - 4:
                fields = {"what": "A message", "limit_bytes": MESSAGE_BYTES, "got_bytes": bytes_}
                raise TooLarge(f"A message is too large: {bytes_} bytes, but {MESSAGE_BYTES} are allowed", fields)
        except BaseException:
            self._begun = []
            for id in self._given:
                self._drop(id, 1)
            self._given = []
            raise
        self._send_dropped()
        ordinal = self.channel.send(text, attachments)
        for begin in self._begun:
            begin()
        self._begun = []
        return ordinal, size + _utf16(text)

    def _send_dropped(self) -> None:
        while self._dropped:
            method, params = self._dropped.popleft()
            self.channel.send(f'{{"jsonrpc":"2.0","method":"{method}","params":{params}}}', None)

    def tell_dropped(self) -> None:
        """Lets go now of what was collected."""
        with self.lock:
            if self.channel.ended is None:
                self._send_dropped()

    def _refuse(self) -> None:
        if self.over.is_set() or self.channel.ended is not None:
            why = self.channel.ended or "closed"
            raise self.error or ConnectionLost(f"Not connected: {why}. The call was not sent", {"why": why})
        if self.channel.kept_bytes > UNSENT_BYTES:
            raise _overloaded("unsent bytes of this session", UNSENT_BYTES)

    def _give(self, value):
        """The tag for what goes by reference; None for what cannot be sent."""
        if isinstance(value, _Result):
            return value.tag
        if isinstance(value, RemoteObject) and value._session is self and value._on is not None:
            value._check()
            return ["yours", value._on]
        if isinstance(value, RemoteObject):
            type = "function" if isinstance(value, RemoteFunction) else "object"
        elif hasattr(value, "__next__") or hasattr(value, "__anext__"):
            return self._give_stream(value)
        else:
            known = {Reference: "object", Signal: "signal"}
            type = known.get(value.__class__) or ("function" if callable(value) else None)
        if type is None:
            return None
        key = id(value.target if isinstance(value, Reference) else value)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self._number()
            self._exports[number] = [value, type, 0, key]
            if type == "signal":
                self._give_signal(number, value)
        self._exports[number][2] += 1
        self._given.append(number)
        if type == "signal" and value.aborted:
            return ["mine", number, type, [_told_reason(value.reason)]]
        return ["mine", number, type]

    def _number(self) -> int:
        if len(self._exports) >= EXPORTS:
            raise _overloaded("references given out by this session", EXPORTS)
        self._next_export += 1
        return self._next_export - 1

    def _give_stream(self, source):
        if len(self.producers) + len(self._begun) >= STREAMS:
            raise _overloaded("streams of this session", STREAMS)
        number = self._number()
        producer = self._producer(number, source, 0 if self._lazy else STREAM_BYTES)

        def begin():
            self.producers[number] = producer
            producer.start()

        self._begun.append(begin)
        return ["mine", number, "iterable", 0] if self._lazy else ["mine", number, "iterable"]

    def _producer(self, number: int, source, credit: int) -> _Producer:
        if not hasattr(source, "__next__"):
            raise Unserialisable("This value cannot be sent: an asynchronous iterator", {"why": "give a generator"})
        return _Producer(self, number, source, credit)

    def _stream(self, id: int, lazy: bool) -> RemoteStream:
        return RemoteStream(self, id, lazy)

    def _give_signal(self, number: int, signal: Signal) -> None:
        def aborted():
            with self.lock:
                if number in self._exports:
                    self._drop(number, math.inf)
                    self.tell("rpc.abort", [number, signal.reason])

        if signal.aborted:
            self._begun.append(aborted)
        else:
            signal._listeners.append(aborted)

    def _drop(self, number, count) -> None:
        entry = self._exports.get(number)
        if entry:
            entry[2] -= count
            if entry[2] <= 0:
                del self._exports[number], self._numbers[entry[3]]

    # -- References that came in

    def _take(self, tag: list):
        kind, id = tag[0], tag[1] if len(tag) > 1 else None
        if not isinstance(id, int) or isinstance(id, bool):
            _bad("a reference without a number")
        if kind == "yours":
            home = self._export_of(id)
            return home.target if isinstance(home, Reference) else home
        if kind == "result":
            if id not in self._kept:
                raise _gone(f"result of call {id}")
            return _Later(self._kept[id], _checked_path(tag[2] if len(tag) > 2 else None))
        type = tag[2] if len(tag) > 2 else None
        if type in ("iterable", "stream"):
            if len(self.readers) >= STREAMS:
                raise _overloaded("streams of this session", STREAMS)
            _collector.begin()
            self.readers[id] = stream = self._stream(id, tag[3:] == [0])
            return stream
        if type not in ("function", "object", "signal"):
            _bad("a reference of unknown type")
        if len(self._imports) + len(self._signals) >= EXPORTS:
            raise _overloaded("references taken by this session", EXPORTS)
        if type == "signal":
            signal = self._signals.setdefault(id, Signal())
            if len(tag) > 3 and isinstance(tag[3], list):
                # It was aborted before it was sent, and is so when the call begins.
                signal.abort(decode_value(tag[3][0] if tag[3] else None, b""))
            return signal
        known = self._imports.setdefault(id, [None, 0])
        known[1] += 1
        there = known[0] and known[0]()
        if there is None:
            there = (RemoteFunction if type == "function" else RemoteObject)(self, id)
            known[0] = weakref.ref(there)
        return there

    def _export_of(self, id):
        if id not in self._exports:
            raise _gone(f"reference {id}")
        return self._exports[id][0]

    def let_go(self, id: int) -> None:
        with self.lock:
            known = self._imports.pop(id, None)
            if known:
                self.tell("rpc.release", [[[id, known[1]]]])

    def dropped(self, id: int) -> bool:
        """For what was collected: it is let go of with the next message. Takes no lock: any thread may collect."""
        known = self._imports.get(id)
        if self.over.is_set() or known is None or (known[0] and known[0]() is not None):
            return False
        if self._imports.pop(id, None):
            self._dropped.append(("rpc.release", f"[[[{id},{known[1]}]]]"))
        return True

    def left(self, id: int) -> None:
        """For a stream that was collected: its producer is told. Takes no lock, as above."""
        self._dropped.append(("rpc.stop", f"[{id}]"))
        self._collector.add(self)

    def _discard(self, tree) -> None:
        """Lets go of what a message refers to that nobody will read."""
        if isinstance(tree, list):
            for member in tree:
                self._discard(member)
        elif _is_tag(tree) and isinstance(tree["$"], list) and tree["$"][:1] == ["mine"] and len(tree["$"]) > 2:
            _, id, type = tree["$"][:3]
            if type in ("iterable", "stream"):
                self.tell("rpc.stop", [id])
            elif type != "signal":
                self.tell("rpc.release", [[[id, 1]]])
        elif isinstance(tree, dict):
            for member in tree.values():
                self._discard(member)

    # -- Hearing

    def heard(self, kind: int, payload: bytes) -> None:
        """Takes a message in. Raises ProtocolViolation for what ends the session."""
        text, attached = read_message(kind, payload)
        try:
            message = _read_json(text)
        except (ValueError, RecursionError):
            _bad("something that is not JSON")
        if not isinstance(message, dict):
            _bad("a message that is no object")
        size = _utf16(text) + len(attached or b"")
        with self.lock:
            if isinstance(message.get("method"), str):
                self._called(message, attached, size)
            elif isinstance(message.get("id"), (int, float)):
                self._answered(message, attached)
            else:
                _bad("neither a call nor an answer")

    def _decoded(self, tree, attached):
        return tree if attached is None else decode_value(tree, attached, self._take)

    def _answered(self, message: dict, attached) -> None:
        pending = self._pending.pop(message["id"], None)
        if pending is None:
            if self._given_up.pop(message["id"], None) and attached is not None:
                self._discard(message.get("result"))
            return
        self._end_signals(pending)
        if pending._keep:
            self.tell("rpc.forget", [pending._id])
        if "error" in message:
            return pending.settle(error=error_from(self._decoded(message["error"], attached)))
        if pending._keep:
            if attached is not None:
                self._discard(message.get("result"))
            return pending.settle()
        try:
            pending.settle(self._decoded(message.get("result"), attached))
        except MeshError as error:
            pending.settle(error=error)
            if isinstance(error, ProtocolViolation):
                raise

    def _end_signals(self, pending: Pending) -> None:
        for number in pending._given:
            if number in self._exports and self._exports[number][1] == "signal":
                self._drop(number, 1)
                self.tell("rpc.abort", [number])

    def give_up(self, pending: Pending, error: MeshError) -> None:
        with self.lock:
            if self._pending.pop(pending._id, None) is None:
                return
            self._end_signals(pending)
            self.tell("rpc.cancel", [pending._id, str(error)])
            if pending._keep:
                self.tell("rpc.forget", [pending._id])
            self._given_up[pending._id] = True
            if len(self._given_up) > CALLS_IN_FLIGHT:
                del self._given_up[next(iter(self._given_up))]
            pending.settle(error=error)

    def _called(self, message: dict, attached, size: int) -> None:
        method, id = message["method"], message.get("id")
        if id is not None or not method.startswith("rpc."):
            return self._serve(message, attached)
        if method == "rpc.item" and _stream_of(message) not in self.readers:
            return self._discard(message.get("params")) if attached is not None else None
        params = self._decoded(message.get("params"), attached)
        if not isinstance(params, list):
            _bad(f"{method} has a list of parameters")
        first, second = (*params, None, None)[:2]
        known = isinstance(first, (int, str))
        if method == "rpc.release":
            for pair in first if isinstance(first, list) else _bad("rpc.release names no references"):
                if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], (int, float)) and pair[1] > 0:
                    self._drop(pair[0], pair[1])
        elif method == "rpc.forget":
            for kept in params:
                self._kept.pop(kept, None)
        elif not known:
            return
        elif method == "rpc.item":
            reader = self.readers.get(first)
            if reader is not None:
                reader.took(second, size)
        elif method in ("rpc.end", "rpc.fail"):
            reader = self.readers.pop(first, None)
            if reader is not None:
                reader.ended(StopIteration() if method == "rpc.end" else error_from(second))
        elif method == "rpc.credit" and first in self.producers:
            self.producers[first].credit(second)
        elif method == "rpc.stop" and first in self.producers:
            self.producers.pop(first).stop()
        elif method == "rpc.cancel" and first in self._served:
            self._served[first].signal.abort(second)
        elif method == "rpc.abort" and first in self._signals:
            signal = self._signals.pop(first)
            if len(params) > 1:
                threading.Thread(target=signal.abort, args=(second,), daemon=True).start()

    # -- Serving

    def _serve(self, message: dict, attached) -> None:
        id, method = message.get("id"), message["method"]
        rpc = message["rpc"] if isinstance(message.get("rpc"), dict) else {}
        kept = _Kept() if rpc.get("keep") is True and id is not None else None
        try:
            if self._serving >= self.calls_served:
                raise _overloaded("calls being served", self.calls_served)
            if kept and len(self._kept) >= EXPORTS:
                raise _overloaded("results kept for this session", EXPORTS)
            params = self._decoded(message.get("params", []), attached)
            path = _checked_path(rpc.get("path"))
            if "on" in rpc:
                target = self._export_of(rpc["on"]) if isinstance(rpc["on"], int) else _no_method(method)
            elif rpc.get("of") in self._kept:
                target = self._kept[rpc["of"]]
            elif "of" in rpc:
                raise _gone(f"result of call {rpc['of']}")
            else:
                target, method = self.root(method), "rpc.apply"
        except MeshError as error:
            if kept:
                kept.settle(error=error)
                self._kept[id] = kept
            return self._answer(id, error=error)
        call = ServedCall(rpc)
        if kept:
            self._kept[id] = kept
        if id is not None:
            self._served[id] = call
        self._serving += 1
        self._begin(id, call, kept, target, path, method, params)

    def _begin(self, id, call: ServedCall, kept: _Kept | None, target, path, method: str, params) -> None:
        self._runner.add(lambda: self._run(id, call, kept, target, path, method, params))

    def _run(self, id, call: ServedCall, kept: _Kept | None, target, path, method: str, params) -> None:
        value, error = None, None
        _thread.call = call
        try:
            value = self._computed(target, path, method, params)
        except BaseException as raised:  # noqa: BLE001: whatever a callback raises is its caller's.
            error = raised
        _thread.call = None
        self._finished(id, kept, value, error)

    def _computed(self, target, path, method: str, params):
        """What is asked for; waits for the results that it names."""
        args = _arrived(params)
        args = args if isinstance(args, list) else [args]
        target = target.get() if isinstance(target, _Kept) else target
        if method == "rpc.get":
            return _read_path(target, path)
        return _invoke(target, path, None if method == "rpc.apply" else method, args)

    def _finished(self, id, kept: _Kept | None, value, error: BaseException | None) -> None:
        if kept:
            kept.settle(value, error)
        with self.lock:
            self._serving -= 1
            self._served.pop(id, None)
            self._answer(id, value, error, lazy=kept is not None)

    def _answer(self, id, value=None, error: BaseException | None = None, lazy: bool = False) -> None:
        if id is None or self.over.is_set():
            return
        if self.channel.kept_bytes > UNSENT_BYTES:
            return self.channel.end("the peer reads more slowly than it asks", bye=True)
        self._lazy = lazy
        try:
            if error is None:
                self._post(f'"id":{_json(id)},"result":', value)
        except BaseException as raised:  # noqa: BLE001: a result that cannot be sent is answered so.
            error = raised
        finally:
            self._lazy = False
        if error is not None:
            self.tell_error(error, lambda wire: self._post(f'"id":{_json(id)},"error":', wire))
        self._given = []

    def tell_error(self, error: BaseException, send) -> None:
        """Calls `send` with the error's wire form: whole, or without what cannot be sent of it. Never raises."""
        for form in (lambda wire: wire, lambda wire: {**wire, "data": {"name": wire["data"]["name"]}}, None):
            try:
                return send(form(self.wire_of(error)) if form else _UNTOLD)
            except BaseException:  # noqa: BLE001: what is in it is a stranger's.
                continue

    # -- The end

    def finish(self, reason: str, error: MeshError | None) -> None:
        """The session is over: everybody who waits is told."""
        self.channel.end(reason, bye=False)
        with self.lock:
            if self.over.is_set():
                return
            # What is known of its death already wins.
            self.error = error = self.error or error
            self.over.set()
            for pending in self._pending.values():
                why = {"method": pending._method, "why": reason}
                text = f"The call {pending._method}() was sent but its answer was lost ({reason})"
                unknown = OutcomeUnknown(f"{text}. It may or may not have run", why)
                unsent = ConnectionLost(f"Not connected: {reason}. The call was not sent", why)
                pending.settle(error=error or (unknown if pending._ordinal <= self.channel.handed else unsent))
            lost = error or ConnectionLost(f"Not connected: {reason}", {"why": reason})
            for reader in self.readers.values():
                reader.ended(lost)
            for producer in self.producers.values():
                producer.stop()
            signals = [*self._signals.values(), *(call.signal for call in self._served.values())]
            for table in (self._pending, self.readers, self.producers, self._signals, self._exports, self._numbers,
                          self._imports, self._kept, self._served):  # fmt: skip
                table.clear()
        for signal in signals:
            signal.abort(lost)


_UNTOLD = {"code": RemoteError.code, "message": "Error: what was raised cannot be told",  # noqa: F821
           "data": {"name": "RemoteError", "fields": {}}}  # fmt: skip


def _told_reason(reason):
    """Why a signal was aborted, as it stands in its tag; where it cannot, an error with its words."""
    for form in (reason, JsError("Error", text_of(reason))):
        with contextlib.suppress(MeshError):
            text, attachments = encode_value(form)
            if not attachments:
                return _read_json(text)
    return None


def _stream_of(message: dict):
    params = message.get("params")
    first = params[0] if isinstance(params, list) and params else None
    return first if isinstance(first, int) else None


def _checked_path(path) -> list:
    if path is None:
        return []
    if isinstance(path, list) and len(path) <= PATH_NAMES and all(isinstance(n, str) and len(n) <= 256 for n in path):
        return path
    raise NoSuchMethod("A path is a short list of names", {"method": "?"})


def _overloaded(what: str, limit: int) -> MeshError:
    return Overloaded(f"Too much at once: {what} is at its limit of {limit}", {"what": what, "limit": limit})


def _gone(what: str) -> MeshError:
    return RefGone(f"There is no {what} any more: it was let go of", {"what": what})


# ---- Workers (sections 7 to 11) ------------------------------------------------------------------------------------


_DESTRUCTED, _LEFT = "destructed by this side", "this side has left the worker"


class Worker(RemoteObject):
    """A worker: `worker.add(1, 2)`. Leaving its `with` destructs it where it was cloned here, else leaves it.

    Names of its own: `name`, `methods`, `route`, `role`, `pipeline`, `destruct`, `leave`. A method so called is reached
    by `worker["name"]()`.
    """

    def __init__(self, core: _Core, key: CallerKey, ticket: dict, timeout_ms: float, routing: str):
        self._core, self._ticket, self._routing = core, ticket, routing
        self._body = json.loads(from_base64url(ticket["signed"].split(".")[1]))
        self.name, self.role = self._body["worker"], self._body["role"]
        self._jti, self._epoch, self._lease = self._body["jti"], self._body["epoch"], self._body["lease"]
        link = self._dial(self._tls())
        try:
            self.methods = self._redeem(link, key)
        except BaseException:
            link.close()
            raise
        channel = _Channel()
        super().__init__(_Session(channel, timeout_ms), None)
        channel.attach(link)
        threading.Thread(target=self._read, args=(link,), name="hauki-reader", daemon=True).start()
        if self.role == "owner":
            threading.Thread(target=self._beat, name="hauki-heart", daemon=True).start()

    def pipeline(self) -> Pipeline:
        """Begins calls on results that are not there yet."""
        return Pipeline(self)

    def leave(self) -> None:
        """Ends the session; the worker lives on as long as its lease."""
        self._end(_LEFT)

    def destruct(self) -> None:
        """Kills the worker at once. Returns when nothing of it is left."""
        destructed = self._died({"cause": "destructed", "reason": _DESTRUCTED})
        death = None
        try:
            self._core.request("DELETE", f"/api/v2/ephemeral/{self.name}")
            death = destructed
        except WorkerUnknown:
            death = destructed
        except WorkerDied as error:
            if error.fields.get("cause") == "node_lost":
                self._destruct_itself()
            death = error
        except ConnectionLost:
            self._destruct_itself()
            death = destructed
        finally:
            # Before the end, so that whoever calls meanwhile hears it too.
            self._session.error = self._session.error or death
            self._end(_DESTRUCTED if death else _LEFT)

    def _destruct_itself(self) -> None:
        """Without the core: section 10."""
        proof = mac(derived_key(self._ticket["secret"], self._jti, "lease"), destruct_text(self.name, self._epoch))
        with contextlib.suppress(OutcomeUnknown, WorkerDied):  # Its death is the answer.
            self._session.begin("rpc.destruct", [proof], timeout_ms=HANDSHAKE_S * 1000).result()

    def __exit__(self, *_):
        self.destruct() if self.role == "owner" else self.leave()

    def _release(self) -> None:
        self.leave()

    def _check(self) -> None:
        # Once the session has ended, what became of the worker is known in a moment.
        if self._session.channel.ended is not None:
            with _away():
                self._session.over.wait(CONNECT_S)

    def _end(self, reason: str) -> None:
        channel = self._session.channel
        channel.end(reason, bye=True)
        if not self._session.over.wait(2):
            channel.detach()
            self._session.over.wait(2)

    def _tls(self):
        tls = self._body["routes"]["direct"]["tls"]
        return (self._jti, derived_key(self._ticket["secret"], self._jti, "session")) if tls else None

    def _dial(self, tls) -> _Link:
        direct, relay = self._body["routes"]["direct"], self._body["routes"]["relay"]
        if self._routing != "relay_only":
            try:
                link = _Link(_secured(_dial_tcp(direct["host"], direct["port"], CONNECT_S), tls))
                self.route = "direct"
                return link
            except OSError:
                if self._routing == "p2p_only":
                    raise
        sock, early = self._core.upgrade(relay["path"])
        self.route = "relay"
        return _Link(_secured(sock, tls), early)

    def _redeem(self, link: _Link, key: CallerKey) -> list:
        """Section 8, as the caller: what the worker's methods are, once both sides have proved themselves."""
        secret, jti = self._ticket["secret"], self._jti
        if to_base64url(hashlib.sha256(secret.encode()).digest()) != self._body["secret_hash"]:
            raise TicketForged("ticket and secret do not belong together", {"why": "its secret is another"})
        theirs = str((link.ask("rpc.hello", []) or {}).get("nonce"))
        ours = to_base64url(os.urandom(16))
        said = transcript("caller", jti, theirs, ours)
        shared = derived_key(secret, jti, "session")
        redemption = {"ticket": self._ticket["signed"], "key": key.jwk, "nonce": ours}
        answer = link.ask("rpc.redeem", [{**redemption, "proof": mac(shared, said), "signature": key.sign(said)}]) or {}
        proof = mac(shared, transcript("worker", jti, theirs, ours))
        if answer.get("worker") != self.name or not hmac.compare_digest(proof, str(answer.get("proof"))):
            _bad("whoever answers is not the worker that the ticket names")
        link.write(frame(LITERAL, b'{"jsonrpc":"2.0","method":"rpc.open","params":[{"v":1}]}'))
        link.admitted()
        return answer["methods"]

    def _resume(self, link: _Link) -> None:
        """Carries the session on over another connection (section 19)."""
        jti, channel = self._jti, self._session.channel
        key = derived_key(self._ticket["secret"], jti, "resume")
        theirs, ours = str((link.ask("rpc.hello", []) or {}).get("nonce")), to_base64url(os.urandom(16))
        proof = mac(key, resume_text("caller", jti, theirs, ours, channel.received))
        asked = {"session": jti, "nonce": ours, "received": channel.received, "proof": proof}
        answer = link.ask("rpc.resume", [asked]) or {}
        received = answer.get("received")
        right = mac(key, resume_text("worker", jti, theirs, ours, received))
        if not hmac.compare_digest(right, str(answer.get("proof"))):
            _bad("whoever answers does not hold the session's key")
        link.admitted()
        channel.attach(link, received)

    def _read(self, link: _Link | None) -> None:
        """Reads until the session's end, over as many connections as it takes."""
        session, channel = self._session, self._session.channel
        reason, error = "", None
        while link is not None:
            try:
                self._read_link(link)
            except OSError as failure:
                reason = str(failure) or "the connection was cut"
            except MeshError as failure:
                channel.end(str(failure), bye=True)
            except Exception as failure:  # noqa: BLE001: whatever it is, those who wait are told.
                channel.end(f"the session failed: {failure!r}", bye=True)
            channel.detach() if channel.ended is None else None
            link = None
            if channel.ended is None:
                link, error = self._connect_again()
        if error is None and session.error is None and channel.ended not in (_DESTRUCTED, _LEFT):
            error = self._fate(20)
        session.finish(channel.ended or reason, error)

    def _read_link(self, link: _Link) -> None:
        session, channel = self._session, self._session.channel
        while True:
            kind, payload = link.read()
            if kind == ACK:
                channel.acknowledged(payload)
            elif kind == BYE:
                channel.end(payload.decode(errors="replace") or "the other side ended the session", bye=False)
                raise ConnectionError(channel.ended)
            else:
                channel.took(len(payload))
                session.heard(kind, payload)

    def _connect_again(self):
        """(connection, None), or (None, why there is none)."""
        wait_s = (self._lease["lease_ms"] if self.role == "owner" else RESUME_MS) / 1000
        until, pause = time.monotonic() + wait_s, 0.05
        channel = self._session.channel
        while channel.ended is None and time.monotonic() < until:
            link = None
            try:
                link = self._dial(self._tls())
                self._resume(link)
                return link, None
            except (OSError, MeshError, ValueError) as error:
                if link:
                    link.close()
                fate = self._fate(1)
                if fate or (isinstance(error, MeshError) and not error.retryable):
                    return None, fate
            time.sleep(pause)
            pause = min(pause * 2, 1.0)
        return None, None

    def _died(self, fate: dict) -> MeshError:
        fields = {"worker": self.name, "cause": fate["cause"], "reason": fate["reason"]}
        return WorkerDied(f"Worker {self.name} is dead: {fate['reason']}", fields)

    def _fate(self, tries: int) -> MeshError | None:
        """What the core knows of the worker's death; None while it lives, or nobody knows."""
        for i in range(tries):
            try:
                known = self._core.request("GET", f"/api/v2/ephemeral/{self.name}", timeout_s=2)
            except MeshError:
                return None
            if known.get("fate") or known.get("state") == "node_lost":
                lost = {"cause": "node_lost", "reason": f"its node {known.get('node')} is gone"}
                fate = known.get("fate") or lost
                return self._died(fate)
            if i + 1 < tries:
                time.sleep(0.05)
        return None

    def _beat(self) -> None:
        """Keeps the lease (section 9)."""
        session, challenge = self._session, self._jti
        key = derived_key(self._ticket["secret"], self._jti, "lease")
        again = False
        while not session.over.is_set():
            proof = mac(key, heartbeat_text(self.name, self._epoch, challenge))
            try:
                answer = session.begin("rpc.heartbeat", [challenge, proof], timeout_ms=self._lease["lease_ms"]).result()
                # Where the answer to the beat before was lost: once more, over what is now known.
                again = not again and not answer["renewed"] and answer["next"] != challenge
                challenge = answer["next"]
            except MeshError:
                again = False
            if not again:
                session.over.wait(self._lease["heartbeat_ms"] / 1000)


# ---- The core (sections 15, 16) ------------------------------------------------------------------------------------


class _Core:
    """The core's HTTP API."""

    def __init__(self, url: str, token: str):
        parts = urllib_parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(f"url: {url!r} is no http or https URL", {"what": "url"})
        self._secure, self._host = parts.scheme == "https", parts.hostname
        self._port = parts.port or (443 if self._secure else 80)
        self._base = parts.path.rstrip("/")
        self._token = token

    def request(self, method: str, path: str, body=None, timeout_s: float = 60.0) -> dict:
        """One request; gives the answer's JSON. Raises the typed error that it tells of, or ConnectionLost."""
        kind = http_client.HTTPSConnection if self._secure else http_client.HTTPConnection
        connection = kind(self._host, self._port, timeout=timeout_s)
        headers = {"authorization": f"Bearer {self._token}"}
        data = None if body is None else _json(body).encode()
        if data is not None:
            headers["content-type"] = "application/json"
        try:
            connection.request(method, self._base + path, data, headers)
            answer = json.loads(connection.getresponse().read() or b"{}")
        except (OSError, http_client.HTTPException, ValueError) as error:
            raise ConnectionLost(f"Not connected: the core does not answer: {error}", {"why": str(error)}) from error
        finally:
            connection.close()
        if "error" in answer:
            raise error_from(answer["error"])
        return answer

    def upgrade(self, path: str):
        """Route B: (socket, first bytes) of a connection that the core passes on."""
        sock = _dial_tcp(self._host, self._port, CONNECT_S)
        try:
            if self._secure:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self._host)
            head = (f"GET {self._base}{path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nConnection: Upgrade\r\n"
                    f"Upgrade: hauki\r\nAuthorization: Bearer {self._token}\r\n\r\n")  # fmt: skip
            sock.sendall(head.encode())
            data = b""
            while b"\r\n\r\n" not in data and len(data) < HANDSHAKE_BYTES:
                chunk = sock.recv(4096)
                if not chunk:
                    break
                data += chunk
            head, _, early = data.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101"):
                start = early.find(b"{")
                refusal = json.loads(early[start : early.rfind(b"}") + 1]) if start >= 0 else {}
                raise error_from(refusal.get("error") or {"message": f"the relay answered {head[:40]!r}"})
            return sock, early
        except (OSError, ValueError) as error:
            sock.close()
            raise ConnectionError(f"the relay: {error}") from error
        except BaseException:
            sock.close()
            raise


class Mesh:
    """A mesh, through its core. Leaving its `with` destructs the workers that were cloned here and live still."""

    def __init__(self, core: _Core):
        self._core = core
        self._key = CallerKey()
        self._workers: weakref.WeakSet = weakref.WeakSet()

    def clone(self, pointer: str | None = None, *, source: str | None = None, language: str | None = None,
              timeout_ms: float = CALL_MS, routing: str = "p2p_preferred", **options) -> Worker:  # fmt: skip
        """Clones a worker of a pointer or of a module's text.

        `options` are those of section 15: driver, labels, memory_mib, grants, lease_ms, heartbeat_ms, ttl_ms,
        load_timeout_ms. `routing`: p2p_preferred, p2p_only, relay_only. Raises NoNodeFits, SourceRejected, …
        """
        body = {"audience": self._key.thumbprint, "pointer": pointer, "source": source, "language": language, **options}
        body = {name: value for name, value in body.items() if value is not None}
        spawned = self._core.request("POST", "/api/v2/swarm_spawn_ephemeral", body, CLONE_MS / 1000)
        return self._open(spawned["ticket"], timeout_ms, routing)

    def visit(self, worker: str, *, timeout_ms: float = CALL_MS, routing: str = "p2p_preferred") -> Worker:
        """A session with a worker that somebody else owns."""
        path = f"/api/v2/ephemeral/{urllib_parse.quote(worker, safe='')}/ticket"
        ticket = self._core.request("POST", path, {"audience": self._key.thumbprint})["ticket"]
        return self._open(ticket, timeout_ms, routing)

    def _open(self, ticket: dict, timeout_ms: float, routing: str) -> Worker:
        worker = Worker(self._core, self._key, ticket, timeout_ms, routing)
        self._workers.add(worker)
        return worker

    def destruct(self, worker: str) -> None:
        """Kills a worker by its name."""
        self._core.request("DELETE", f"/api/v2/ephemeral/{urllib_parse.quote(worker, safe='')}")

    def registry(self) -> dict:
        """The nodes and workers that there are."""
        return self._core.request("GET", "/api/v2/service_registry")

    def write(self, pointer: str, content: str, **options) -> dict:
        """Writes a document to MeshFS."""
        return self._core.request("POST", "/api/v2/meshfs/write", {"pointer": pointer, "content": content, **options})

    def resolve(self, pointer: str) -> dict:
        """Reads a document of MeshFS."""
        return self._core.request("GET", f"/api/v2/meshfs/resolve?pointer={urllib_parse.quote(pointer, safe='')}")

    def close(self) -> None:
        for worker in list(self._workers):
            if not worker._session.over.is_set():
                worker.__exit__()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def connect(url: str | None = None, token: str | None = None) -> Mesh:
    """Connects to a mesh. `url`: HAUKI_URL, else http://127.0.0.1:8000; `token`: HAUKI_TOKEN."""
    token = token or os.environ.get("HAUKI_TOKEN")
    if not token:
        why = "No token: give connect(token=…), or set HAUKI_TOKEN. `hauki token` prints it"
        raise Unauthorised(why, {"why": why})
    core = _Core(url or os.environ.get("HAUKI_URL") or "http://127.0.0.1:8000", token)
    core.request("GET", "/health", timeout_s=HANDSHAKE_S)
    return Mesh(core)
