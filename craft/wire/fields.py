"""Checks of single fields, and how a wrong one is reported: message, field, value, what is allowed.

A check takes a field's value and the number of groups of the cluster. It returns what the message will hold,
or raises `Wrong`. Checks cost per message and per entry, never per command: bodies stay opaque bytes.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from craft.errors import WireError
from craft.types import SERVER_ID_MAX

NUMBER_MAX = 2**63 - 1

Check: TypeAlias = Callable[[Any, int], Any]

# A value may be megabytes long or nested a thousand deep; an error message shows the beginning.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxtuple, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 3, 6, 4, 100, 100


class Wrong(Exception):
    """A value that is not allowed, and where in its message it stands."""

    def __init__(self, value: object, allowed: str, where: str = "") -> None:
        super().__init__(value, allowed, where)
        self.value = value
        self.allowed = allowed
        self.where = where

    def named(self, message: str) -> WireError:
        """The error that leaves this package."""
        return WireError(f"{message}{self.where} is {shown(self.value)}; allowed is {self.allowed}")


def shown(value: object) -> str:
    """A value as an error message shows it: bounded, on one line."""
    return _SHORT.repr(value[:60] if isinstance(value, bytes) else value)


def a_number(value: Any, _groups: int) -> int:
    """A term, index, counter, request number, version or time in nanoseconds."""
    if type(value) is int and 0 <= value <= NUMBER_MAX:
        return value
    raise Wrong(value, "an integer 0 … 2**63-1")


_INT = frozenset({int})


def are_numbers(values: Sequence[Any]) -> bool:
    """Would each of these pass `a_number`? At one go, for it is asked of every frame and most messages."""
    return _INT.issuperset(map(type, values)) and min(values) >= 0 and max(values) <= NUMBER_MAX


def a_group(value: Any, groups: int) -> int:
    """A group that the cluster has."""
    if type(value) is int and 0 <= value < groups:
        return value
    raise Wrong(value, f"a group 0 … {groups - 1}")


def a_server(value: Any, _groups: int) -> int:
    """A server id."""
    if type(value) is int and 0 <= value <= SERVER_ID_MAX:
        return value
    raise Wrong(value, f"a server id 0 … {SERVER_ID_MAX}")


def a_flag(value: Any, _groups: int) -> bool:
    """True or false, and nothing that only looks like it."""
    if type(value) is bool:
        return value
    raise Wrong(value, "true or false")


def some_bytes(value: Any, _groups: int) -> bytes:
    """Opaque bytes; the frame's limit bounds them."""
    if type(value) is bytes:
        return value
    raise Wrong(value, "bytes")


def an_array(value: Any, items_max: int) -> tuple[Any, ...]:
    """An array, not too long, of anything."""
    if type(value) is not tuple:
        raise Wrong(value, "an array")
    if len(value) > items_max:
        raise Wrong(value, f"at most {items_max} items, not {len(value)}")
    return value


def _first_wrong(names: Sequence[str], checks: Sequence[Check], values: Sequence[Any], groups: int) -> Wrong:
    """Go over it again, slowly, for the name of the first that is wrong."""
    for name, check, value in zip(names, checks, values, strict=True):
        try:
            check(value, groups)
        except Wrong as wrong:
            return Wrong(wrong.value, wrong.allowed, name + wrong.where)
    raise AssertionError("nothing is wrong")


def array_of(check: Check, items_max: int) -> Check:
    """An array of up to `items_max` items that each pass `check`."""

    def check_all(value: Any, groups: int) -> tuple[Any, ...]:
        items = an_array(value, items_max)
        try:
            return tuple([check(item, groups) for item in items])
        except Wrong:
            raise _first_wrong(
                [f"[{at}]" for at in range(len(items))], [check] * len(items), items, groups
            ) from None

    return check_all


def group_terms(value: Any, groups: int) -> tuple[tuple[int, int], ...]:
    """Pairs (group, term). Written out, as are the commits below: both come with every heartbeat."""
    for at, pair in enumerate(an_array(value, groups)):
        if type(pair) is tuple and len(pair) == 2:
            group, term = pair
            if type(group) is int and 0 <= group < groups and type(term) is int and 0 <= term <= NUMBER_MAX:
                continue
        raise Wrong(pair, f"(group 0 … {groups - 1}, term 0 … 2**63-1)", f"[{at}]")
    return value  # type: ignore[no-any-return]  # checked just above


def group_terms_or_none(value: Any, groups: int) -> tuple[tuple[int, int], ...] | None:
    """Pairs (group, term), or nil."""
    return None if value is None else group_terms(value, groups)


def commits(value: Any, groups: int) -> tuple[tuple[int, int, int], ...]:
    """Triples (group, index, term)."""
    for at, triple in enumerate(an_array(value, groups)):
        if type(triple) is tuple and len(triple) == 3:
            group, index, term = triple
            whole = type(group) is int and type(index) is int and type(term) is int
            if whole and 0 <= group < groups and 0 <= index <= NUMBER_MAX and 0 <= term <= NUMBER_MAX:
                continue
        raise Wrong(triple, f"(group 0 … {groups - 1}, index 0 … 2**63-1, term 0 … 2**63-1)", f"[{at}]")
    return value  # type: ignore[no-any-return]  # checked just above


def checked(names: Sequence[str], checks: Sequence[Check], values: Any, groups: int) -> list[Any]:
    """Every value through its check; a wrong one is reported with its field's name."""
    if type(values) is not tuple or len(values) != len(checks):
        raise Wrong(values, f"an array of {len(checks)} ({', '.join(names)})")
    try:
        return [check(value, groups) for check, value in zip(checks, values, strict=True)]
    except Wrong:
        raise _first_wrong([f".{name}" for name in names], checks, values, groups) from None


def record_of(kind: Any, *checks: Check) -> Check:
    """An array that is a NamedTuple of class `kind`, field by field."""
    assert len(kind._fields) == len(checks)

    def check_fields(value: Any, groups: int) -> Any:
        return kind._make(checked(kind._fields, checks, value, groups))

    return check_fields
