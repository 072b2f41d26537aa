"""Are two answers of a state machine the same? They are kept as texts: a machine may go on with what it gave.

Knows: values. Must not know: who gave them, where, when.

Invariants
- What is equal (`==`) is the same, however it is printed: the order of a set or of a dict's keys counts for
  nothing. What lets such an order out, a list or a string, differs.
- Objects without an `__eq__` of their own are compared by their attributes, never by their address.
- A sight can be compared in another process, under another PYTHONHASHSEED.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, NamedTuple

TEXT_MAX = 4000
"""Characters of a sight. Of a longer text a hash stands for the rest."""

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


PLAIN = frozenset((int, str, bytes, type(None)))
"""What prints alike where it is equal."""


class Sight(NamedTuple):
    """A value as it was seen. `packed`: itself, pickled, where only its own `__eq__` can judge it."""

    text: str
    packed: bytes | None = None


def sight(value: object) -> Sight:
    """Look at a value now; it may change later."""
    if type(value) in PLAIN:
        return Sight(_cut(repr(value)))
    writer = _Writer()
    text = _cut(writer.text(value))
    return Sight(text, _pack(value) if writer.met_judge else None)


def same(one: Sight, other: Sight) -> bool:
    """Were these two the same value?"""
    if one.text == other.text:
        return True
    if one.packed is None or other.packed is None:
        return False
    try:
        return bool(_unpack(one.packed) == _unpack(other.packed))
    except Exception:  # noqa: BLE001  # whatever a foreign `__eq__` raises: then the texts have decided
        return False


def _cut(text: str) -> str:
    if len(text) <= TEXT_MAX:
        return text
    rest = text[TEXT_MAX:]
    digest = blake2b(rest.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return f"{text[:TEXT_MAX]}… and {len(rest)} characters with hash {digest}"


# -- values that only their own `__eq__` can judge -------------------------------------------------


class _Unpickler(pickle.Unpickler):
    """A script's classes have another module name in a process that has imported it."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name == "__mp_main__":
            module_name = "__main__"
        return super().find_class(module_name, global_name)


def _pack(value: object) -> bytes | None:
    try:
        return pickle.dumps(value)
    except Exception:  # noqa: BLE001  # what cannot be pickled raises what it likes
        return None


def _unpack(packed: bytes) -> Any:
    return _Unpickler(io.BytesIO(packed)).load()


# -- texts -----------------------------------------------------------------------------------------


class _Writer:
    """Writes values down so that what is equal reads the same."""

    def __init__(self) -> None:
        self.met_judge = False
        """Was there an object whose own `__eq__` may know better than its text?"""
        self._inside: list[int] = []

    def text(self, value: object) -> str:
        """A value, and all that is in it."""
        if id(value) in self._inside:
            return "(itself)"
        self._inside.append(id(value))
        try:
            for kind, write in KINDS:
                if isinstance(value, kind):
                    return write(self, value)
            return self._object(value)
        finally:
            self._inside.pop()

    def each(self, values: Iterable[object]) -> Iterator[str]:
        """Each of them."""
        return map(self.text, values)

    def pairs(self, mapping: Mapping[Any, Any]) -> list[str]:
        """Keys and values, in their order."""
        return [f"{self.text(key)}: {self.text(value)}" for key, value in mapping.items()]

    def _object(self, value: object) -> str:
        kind = type(value)
        if is_dataclass(value) and not isinstance(value, type):
            names = [one.name for one in fields(value) if one.compare]
            return self._attributes(kind, {name: getattr(value, name) for name in names})
        if kind.__eq__ is not object.__eq__:
            self.met_judge = True
            if kind.__repr__ is not object.__repr__:
                return ADDRESS.sub("", repr(value))
        attributes = _attributes(value)
        return self._attributes(kind, attributes) if attributes else ADDRESS.sub("", repr(value))

    def _attributes(self, kind: type, attributes: Mapping[str, object]) -> str:
        inside = ", ".join(f"{name}={self.text(value)}" for name, value in sorted(attributes.items()))
        return f"{kind.__qualname__}({inside})"


def _attributes(value: object) -> dict[str, object]:
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _number(_writer: _Writer, value: Any) -> str:
    """1, 1.0 and True are equal."""
    if isinstance(value, float) and not value.is_integer():
        return float.__repr__(value)
    return int.__repr__(int(value))


def _list(writer: _Writer, value: Any) -> str:
    if PLAIN.issuperset(map(type, value)):  # most lists, and a tenth of the time
        return list.__repr__(value)
    return f"[{', '.join(writer.each(value))}]"


def _set(writer: _Writer, value: Any) -> str:
    return f"{{{', '.join(sorted(writer.each(value)))}}}" if value else "set()"


Write = Callable[[_Writer, Any], str]

KINDS: tuple[tuple[type | tuple[type, ...], Write], ...] = (
    ((bool, int, float), _number),
    (str, lambda _writer, value: str.__repr__(value)),
    ((bytes, bytearray, memoryview), lambda _writer, value: repr(bytes(value))),
    (list, _list),
    (tuple, lambda writer, value: f"({', '.join(writer.each(value))}{',' * (len(value) == 1)})"),
    (OrderedDict, lambda writer, value: f"OrderedDict({{{', '.join(writer.pairs(value))}}})"),
    (dict, lambda writer, value: f"{{{', '.join(sorted(writer.pairs(value)))}}}"),
    ((set, frozenset, AbstractSet), _set),
    (deque, lambda writer, value: f"deque([{', '.join(writer.each(value))}])"),
    (Enum, lambda _writer, value: f"{type(value).__qualname__}.{value.name}"),
    (BaseException, lambda w, value: f"{type(value).__qualname__}({', '.join(w.each(value.args))})"),
)
"""How a value is written down; the first that fits."""
