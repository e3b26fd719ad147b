"""From a module's text to a worker: which of its functions callers may call.

A worker is `worker = …` (an object, or a class), else the class `Worker`, else functions, else the one public class.
Only what was written as a function or method there is ever reachable; names that begin with "_" stay private, and
`on_end(reason)` is the end hook.
"""
from __future__ import annotations

import functools
import sys
import types

import hauki_peer as peer

FILE = "worker.py"
BUNDLED = "# hauki: file "
"""How a file begins that came with the module (bundled.py)."""
_HOOKS = ("on_end", "onEnd")
_PACKAGED = dict.fromkeys(("fastapi", "starlette", "pydantic"), "python3-fastapi")
"""What vaults have where their node has it, and Debian's package for it (drivers/lxc/staging-python.ts)."""
_LATE = {name: f"python3-{name.removeprefix('python-')}" for name in ("python-multipart", "email-validator")}
"""What FastAPI asks for in words of its own, and Debian's packages."""


def rejected(stage: str, reason: str) -> peer.MeshError:
    return peer.SourceRejected(f"The worker's source was refused ({stage}): {reason}", {"stage": stage, "reason": reason})


class _Source:
    """What tracebacks ask for the module's lines."""

    def __init__(self, source: str):
        self._source = source

    def get_source(self, name: str) -> str:
        return self._source


def line_of(number) -> str:
    """A line of the worker's module, for a person."""
    module = sys.modules.get("worker")
    lines = module.__loader__.get_source("worker").splitlines() if module else []
    return lines[number - 1].strip()[:120] if number and 0 < number <= len(lines) else ""


def frames_of(error: BaseException) -> list:
    """(function, file, line) of the worker's own part of a traceback, the innermost first."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if frames or code.co_filename == FILE:
            frames.append((code.co_name, code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    return frames[::-1]


def stack_of(error: BaseException) -> str:
    """The traceback as the other languages' workers tell theirs."""
    lines = [f"{peer.name_of(error)}: {peer.text_of(error)}"]
    for name, file, number in frames_of(error):
        text = f": {line_of(number)}" if file == FILE else ""
        lines.append(f"    at {name} ({file}:{number}){text}")
    return "\n".join(lines)[: peer.STACK_CHARS] if len(lines) > 1 else ""


def load(source: str, context, make=None):
    """Runs the module and finds its worker, or what else `make(module, context)` makes of it. Raises SourceRejected."""
    module = types.ModuleType("worker")
    module.__file__, module.__loader__, module.hauki = FILE, _Source(source), context
    sys.modules["worker"] = module
    try:
        code = compile(source, FILE, "exec", dont_inherit=True)
    except SyntaxError as error:
        place = f"{FILE}:{error.lineno}: {line_of(error.lineno)}"
        raise rejected("parse", f"{type(error).__name__}: {error.msg} (at {place})") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise rejected("parse", f"{type(error).__name__}: {error}") from None
    try:
        if f"\n{BUNDLED}" in source:
            import bundled

            bundled.take(source)
        exec(code, module.__dict__)  # noqa: S102: it is what a vault is for.
        return (make or Worker)(module, context)
    except peer.SourceRejected:
        raise
    except BaseException as error:  # noqa: BLE001: whatever a module raises while it loads, SystemExit included.
        own = [frame for frame in frames_of(error) if frame[1] == FILE]
        place = f" (at {FILE}:{own[0][2]}: {line_of(own[0][2])})" if own else ""
        absent = str(getattr(error, "name", None)).partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        told = peer.text_of(error) if isinstance(error, (RuntimeError, ImportError)) else ""
        late = next((name for name in _LATE if name in told), "")
        package = _PACKAGED.get(absent) or _LATE.get(late)
        if package:
            advice = f"{late or absent} is not installed on this node: apt-get install {package}, and start it again"
            raise rejected("import", f"{advice}{place}") from None
        raise rejected("load", f"{peer.name_of(error)}: {peer.text_of(error)}{place}") from None


class Worker:
    """The module's worker: itself (`self.object`), its `methods` by name, and its end hook."""

    def __init__(self, module: types.ModuleType, context):
        target = _target(module)
        if isinstance(target, type):
            target = target(context) if _takes_context(target) else target()
        self.module, self.object = module, target
        found = _members(target)
        self._hook = next((found[name] for name in _HOOKS if name in found), None)
        self.methods = {name: found[name] for name in found if name not in _HOOKS and not name.startswith("_")}
        if not self.methods:
            names = [name for name in vars(module) if not name.startswith("_") and name != "hauki"]
            has = f"has only {', '.join(names)[:200]}" if names else "has nothing"
            what = "`worker = …`, a class named Worker, or public functions"
            raise rejected("exports", f"a worker is {what}, with public methods; this module {has}")

    def end(self, reason: str):
        return self._hook(reason) if self._hook else None


def _target(module: types.ModuleType):
    """The worker itself: an object, a class, or the module."""
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", None) == "worker"}
    public = {name: value for name, value in own.items() if not name.startswith("_")}
    named = getattr(module, "worker", None)
    if named is not None and not isinstance(named, types.FunctionType):
        return named
    if isinstance(own.get("Worker"), type):
        return own["Worker"]
    classes = [v for v in public.values() if isinstance(v, type) and not issubclass(v, BaseException)]
    functions = [v for v in public.values() if _is_called(v)]
    return classes[0] if len(classes) == 1 and not functions else module


def _members(target) -> dict:
    """The functions and methods that were written for a worker, by name."""
    if isinstance(target, types.ModuleType):
        listed = getattr(target, "__all__", None)
        return {
            name: value
            for name, value in vars(target).items()
            if _is_called(value) and getattr(value, "__module__", None) == "worker"
            and (listed is None or name in listed or name in _HOOKS)
        }  # fmt: skip
    found = {}
    for kind in reversed(type(target).__mro__):
        if kind.__module__ != "builtins":
            found.update({name: value for name, value in vars(kind).items()})
    return {name: getattr(target, name) for name, value in found.items()
            if (isinstance(value, (staticmethod, classmethod)) or _is_function(value))
            and not (name.startswith("__") and name.endswith("__"))}  # fmt: skip


_AROUND = (functools.partialmethod, functools.singledispatchmethod)


def _is_function(value) -> bool:
    """Whether it was written as a function, whatever functools wrapped around it."""
    while isinstance(value, _AROUND) or (not isinstance(value, type) and "__wrapped__" in getattr(value, "__dict__", ())):
        value = value.func if isinstance(value, _AROUND) else value.__wrapped__
    return isinstance(value, types.FunctionType)


def _is_called(value) -> bool:
    """Whether a module's member is a function, or an object of a class of its own that is called like one."""
    return _is_function(value) or (
        callable(value) and type(value).__module__ == "worker" and not isinstance(value, type)
    )


def _takes_context(kind: type) -> bool:
    """Whether a constructor wants it: its first parameter has no default, or is named so."""
    code = getattr(kind.__init__, "__code__", None)
    if code is None or code.co_argcount < 2:
        return False
    return code.co_argcount - len(kind.__init__.__defaults__ or ()) > 1 or code.co_varnames[1] == "hauki"
