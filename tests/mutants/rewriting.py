"""Changing a function's source in memory, for as long as a context lasts.

The code of the function object itself is replaced, so every reference to it sees the change: names imported
from its module, tables of handlers, methods. A fragment that is not found exactly once is an error: a mutant
of code that has changed must say so, not silently test nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True)
class Rewrite:
    """In `where` ("module:function" or "module:Class.method"), `old` becomes `new`."""

    where: str
    old: str
    new: str

    def function(self) -> FunctionType:
        """The function that is changed."""
        module, _, path = self.where.partition(":")
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = inspect.getattr_static(found, name)
        if isinstance(found, property):
            found = found.fget
        assert isinstance(found, FunctionType), f"{self.where} is no function"
        return found

    def code(self, function: FunctionType) -> CodeType:
        """The changed code; raises LookupError where the fragment is not found exactly once."""
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(self.old) != 1:
            raise LookupError(
                f"{self.where}: found {source.count(self.old)} times, allowed is once: {self.old!r}"
            )
        lines = source.replace(self.old, self.new).splitlines()
        while lines[0].startswith("@"):
            del lines[0]
        scope: dict[str, Any] = {}
        text = "from __future__ import annotations\n" + "\n".join(lines)
        exec(compile(text, self.where, "exec"), function.__globals__, scope)
        changed = scope[function.__name__]
        assert isinstance(changed, FunctionType)
        return changed.__code__


@contextlib.contextmanager
def rewritten(rewrites: tuple[Rewrite, ...]) -> Iterator[None]:
    """The product with these changes; the original again behind it."""
    functions = [rewrite.function() for rewrite in rewrites]
    assert len({id(function) for function in functions}) == len(functions), "one rewrite a function"
    codes = [rewrite.code(function) for rewrite, function in zip(rewrites, functions, strict=True)]
    originals = [function.__code__ for function in functions]
    try:
        for function, code in zip(functions, codes, strict=True):
            function.__code__ = code
        yield
    finally:
        for function, original in zip(functions, originals, strict=True):
            function.__code__ = original
