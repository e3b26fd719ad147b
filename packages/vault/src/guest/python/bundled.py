"""The files that came with a module, as comments behind it (mesh/src/bundle-python.ts): importable under their own names.

They come before the machine's own modules, as what lies beside a script does. Only loaded where there are any.
"""
from __future__ import annotations

import os
import re
import sys
from importlib.machinery import ModuleSpec

from module import BUNDLED

_OWN = os.path.dirname(os.path.abspath(__file__))
_PART = re.compile(rf"^{BUNDLED}([\w./]+\.py)\n((?:#\|[^\n]*\n?)*)", re.MULTILINE)


class _Files:
    """Finds and loads them."""

    def __init__(self, files: dict):
        self._files = files

    def find_spec(self, name: str, path=None, target=None):
        base = name.replace(".", "/")
        for file, package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            if file in self._files:
                spec = ModuleSpec(name, self, origin=file, is_package=package)
                spec.has_location = True
                return spec
        if any(file.startswith(f"{base}/") for file in self._files):
            return ModuleSpec(name, None, is_package=True)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module) -> None:
        file = module.__spec__.origin
        code = compile(self._files[file], file, "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102: it is what a vault is for.

    def get_source(self, name: str) -> str:
        return self._files[sys.modules[name].__spec__.origin]


def take(source: str) -> None:
    """Makes importable what comes with the source."""
    files = {
        file: "\n".join(line[2:] for line in text.split("\n") if line.startswith("#|"))
        for file, text in _PART.findall(source)
    }
    # The guest's own modules have plain names too; it has what it needs of them by now.
    for name in {re.split(r"[./]", file)[0] for file in files}:
        if os.path.dirname(getattr(sys.modules.get(name), "__file__", None) or "") == _OWN:
            del sys.modules[name]
    sys.meta_path.insert(0, _Files(files))
