"""From a module to a plugin (guest/plugin.ts is the same for JavaScript): its ASGI application behind the few methods
that a microkernel calls.

The application is the module's `app`, or is made of its FastAPI `router`. Whatever it answers becomes
`[status, headers, body]` or an error of that call.
"""
import contextlib
import importlib
import re
import sys

from asgi import Application, LifespanFailed
from module import FILE, line_of, rejected
from state import left_behind, native, take_over

POOL = 8, 16
"""What the guest's own threads may be here (pool.py): blocking handlers have theirs (asgi.py)."""
_ROUTES, _ROUTE_CHARS = 512, 200
_PLACE = re.compile(rf'File "{re.escape(FILE)}", line (\d+)')


def prepare(source: str) -> None:
    """Imports FastAPI, which takes longer than all else, for a module that seems to want it."""
    if "fastapi" in source:
        with contextlib.suppress(Exception):
            importlib.import_module("fastapi")


class Plugin:
    """The module as a kernel calls it. What it raises when it is made is the module's own."""

    def __init__(self, module, context, guest):
        self.module, self._guest = module, guest
        self.object = app = _application(module)
        self._routes = _routes(module, app)
        self._hooks = tuple(getattr(module, name, None) for name in ("dehydrate", "hydrate"))
        # Looked up anew each time: a module may give it another value.
        self._keeps = isinstance(getattr(module, "state", None), (dict, list, set)) and self._hooks == (None, None)
        self._asgi = Application(app, guest.log)
        self.methods = {
            "fetch": self._asgi.fetch, "describe": self.describe, "dehydrate": self.dehydrate, "hydrate": self.hydrate,
        }  # fmt: skip

    async def start(self):
        """Runs the application's start-up; gives itself. Raises SourceRejected."""
        try:
            await self._asgi.startup()
        except LifespanFailed as error:
            lines = _PLACE.findall(error.told)
            place = f" (at {FILE}:{lines[-1]}: {line_of(int(lines[-1]))})" if lines else ""
            raise rejected("load", f"{error}{place}") from None
        return self

    # Coroutines, so that a loop which stands still answers nothing: by that a kernel knows it.

    async def describe(self) -> dict:
        if self._asgi.stuck():
            raise RuntimeError("too many of its handlers never return")
        hooked = "hooks" if all(map(callable, self._hooks)) else "half"
        state = hooked if self._hooks != (None, None) else "export" if self._keeps else "none"
        return {"routes": self._routes, "state": state}

    async def dehydrate(self):
        if all(map(callable, self._hooks)):
            return await self._run(self._hooks[0])
        return getattr(self.module, "state", None) if self._keeps else None

    async def hydrate(self, given, from_version) -> None:
        if all(map(callable, self._hooks)):
            await self._run(self._hooks[1], native(given), from_version)
        elif self._keeps:
            left = left_behind(take_over(getattr(self.module, "state", None), given))
            if left:
                self._guest.log("info", left)

    async def end(self, reason: str) -> None:
        await self._asgi.shutdown()
        hook = getattr(self.module, "on_end", None) or getattr(self.module, "onEnd", None)
        if callable(hook):
            await self._run(hook, reason)

    async def _run(self, function, *args):
        """A hook of the module: a coroutine here, any other on a thread."""
        made = await self._guest.in_thread(lambda: function(*args)) if not _is_coroutine(function) else function(*args)
        return await made if hasattr(made, "__await__") else made


def _is_coroutine(function) -> bool:
    import inspect

    return inspect.iscoroutinefunction(function)


def _application(module):
    """The ASGI application. Raises SourceRejected where there is none."""
    app, router = getattr(module, "app", None), getattr(module, "router", None)
    if app is None and router is not None:
        app = _with_router(router)
    if not callable(app):
        names = [name for name in vars(module) if not name.startswith("_") and name != "hauki"]
        has = f"has only {', '.join(names)[:200]}" if names else "has nothing"
        raise rejected("exports", f"a plugin has a FastAPI `router`, or an ASGI `app`; this module {has}")
    return app


def _with_router(router):
    fastapi = sys.modules.get("fastapi")
    if fastapi is None or not isinstance(router, fastapi.APIRouter):
        # Starlette's, say: it is an application by itself.
        return router
    # The kernel has the descriptions of all its modules; a module's paths are its own.
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for route in router.routes:
        # What is served at the prefix itself.
        if getattr(route, "path", None) == "":
            route.path = "/"
    app.include_router(router)
    return app


def _routes(module, app) -> list:
    """Routes as `GET /path`: as the module lists them, or its OpenAPI does, and what that leaves out; else all."""
    listed = getattr(module, "routes", None)
    if isinstance(listed, (list, tuple)):
        found = [_listed(str(route)) for route in listed]
    elif callable(getattr(app, "openapi", None)) or isinstance(getattr(app, "routes", None), list):
        paths = app.openapi().get("paths", {}) if callable(getattr(app, "openapi", None)) else {}
        if getattr(app, "openapi_schema", None) is not None:
            # FastAPI keeps it; what it makes for a request names the prefix.
            app.openapi_schema = None
        found = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
        found += _hidden(app)
    else:
        found = ["* /*"]
    return [route[:_ROUTE_CHARS] for route in dict.fromkeys(found)][:_ROUTES]


def _listed(route: str) -> str:
    if route.startswith("/"):
        return f"* {route}"
    return f"* {route[4:]}" if route[:4].upper() == "ALL " else route


def _hidden(app):
    """Routes that are in no description: those that asked for it, WebSockets, and what is mounted."""
    for route in getattr(app, "routes", ()):
        path = getattr(route, "path_format", None) or getattr(route, "path", None)
        methods = getattr(route, "methods", None)
        if path is None or getattr(route, "include_in_schema", False) is True and methods:
            continue
        if methods:
            yield from (f"{method} {path}" for method in sorted(methods) if method != "HEAD")
        elif hasattr(route, "routes") or not hasattr(route, "endpoint"):
            # A mount's own format ends with a name for what lies below it.
            yield f"* {getattr(route, 'path', path).rstrip('/')}/*"
        else:
            yield f"GET {path}"
