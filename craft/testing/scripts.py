"""Values of a plan that somebody has written: each is of its kind and within its range, or is named.

Knows: dataclasses of plain values, by their annotations. Must not know: which, what a run makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

AT_LEAST_ONE = frozenset(("servers", "groups", "clients", "clock_step", "window", "nth"))
"""Of these none would be a run of nothing, in which every property holds."""


class Allowed(NamedTuple):
    """Values of one annotation, and words for them."""

    test: Callable[[Any], bool]
    words: str


def _whole(value: Any) -> bool:
    return type(value) is int


def _share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _span(value: Any) -> bool:
    whole = isinstance(value, list | tuple) and len(value) == 2 and all(map(_whole, value))
    return whole and 0 <= value[0] <= value[1]


def _array(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_whole, value))


ALLOWED: Mapping[str, Allowed] = {
    "int": Allowed(lambda value: _whole(value) and value >= 0, "a whole number from 0 on"),
    "float": Allowed(_share, "a number from 0 to 1"),
    "bool": Allowed(lambda value: type(value) is bool, "true or false"),
    "str": Allowed(lambda value: type(value) is str, "a string"),
    "Span": Allowed(_span, "[least, greatest], whole numbers from 0 on"),
    "tuple[int, ...]": Allowed(_array, "an array of whole numbers"),
}
"""By annotation. What is not here is looked at where it is read."""

POSITIVE = Allowed(lambda value: _whole(value) and value >= 1, "a whole number from 1 on")


def checked(kind: type, found: Any, what: str) -> dict[str, Any]:
    """The values of such an object, arrays as tuples. Raises TypeError where it is none, and ValueError."""
    if not isinstance(found, dict):
        raise TypeError(f"{what} is {found!r:.80}; allowed: an object")
    for one in fields(kind):
        base = str(one.type).removesuffix(" | None")
        allowed = POSITIVE if one.name in AT_LEAST_ONE else ALLOWED.get(base)
        value = found.get(one.name)
        left_out = one.name not in found or (value is None and base != one.type)
        if allowed is not None and not left_out and not allowed.test(value):
            raise ValueError(
                f"not a plan: {one.name} of {what} is {value!r:.80}; allowed: {allowed.words}"
                f"{' or null' if base != one.type else ''}"
            )
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
