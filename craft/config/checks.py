"""What a value may be, by its type, by the unit at the end of its name, and in relation to another.

Works on any dataclass: a new limit is checked by its name and needs no code here.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from craft.errors import ConfigError

MILLISECONDS_MAX = 24 * 60 * 60 * 1000
BYTES_MAX = 2**40
COUNT_MAX = 10**9

_PHRASES = {
    int: "a whole number",
    str: "a string",
    bool: "true or false",
    Path: "a path",
    dict: "a table",
    list: "a list of strings",
}


# -- types -----------------------------------------------------------------------------------------


def hints(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, resolved, in the fields' order."""
    resolved = typing.get_type_hints(kind)
    return {item.name: resolved[item.name] for item in fields(kind)}


def plain(hint: Any) -> type:
    """An annotation's type, without `| None` and without what it is made of: `dict[int, str]` → `dict`."""
    if isinstance(hint, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    kind: type = typing.get_origin(hint) or hint
    return kind


def phrase(kind: type) -> str:
    """What is allowed for this type, for people."""
    if kind in _PHRASES:
        return _PHRASES[kind]
    return f"a table of {', '.join(item.name for item in fields(kind))}"


def check_types(settings: Any, prefix: str = "") -> None:
    """Every field holds what its annotation says, tables inside too; True is not a number."""
    for name, hint in hints(type(settings)).items():
        key, value, kind = prefix + name, getattr(settings, name), plain(hint)
        if value is None and isinstance(hint, types.UnionType):
            continue
        _check_kind(key, value, kind)
        if isinstance(value, dict):
            key_kind, item_kind = typing.get_args(hint)
            for item_key, item in value.items():
                _check_kind(f"{key}.{item_key}", item_key, key_kind)
                _check_kind(f"{key}.{item_key}", item, item_kind)
        if isinstance(value, list):
            for place, item in enumerate(value):
                _check_kind(f"{key}[{place}]", item, *typing.get_args(hint))
        if is_dataclass(value):
            check_types(value, f"{key}.")


def _check_kind(key: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{key}: {value!r} is not allowed; allowed: {phrase(kind)}")


# -- ranges ----------------------------------------------------------------------------------------


def unit_range(name: str) -> tuple[int, int] | None:
    """What a limit of this name may be, inclusive, by its unit; None for a name without one."""
    stem = re.sub(r"_(min|max)$", "", name)
    if stem.endswith("_ms"):
        # A stagger of nothing is a choice; any other time of 0 is a busy loop or an instant timeout.
        return (0 if "stagger" in stem else 1), MILLISECONDS_MAX
    if stem.endswith("_bytes"):
        return 1, BYTES_MAX
    return (1, COUNT_MAX) if name.endswith("_max") else None


def limit_pairs(names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Fields of which one bounds the other by its name: `x_min` and `x_max`, `x` and `x_max`."""
    for name in names:
        greater = name.removesuffix("_min") + "_max"
        if greater in names:
            yield name, greater


def check_ranges(settings: Any, prefix: str = "") -> None:
    """Every limit is in the range of its unit, and pairs are in order; tables inside too."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    for name, value in values.items():
        if is_dataclass(value):
            check_ranges(value, f"{prefix}{name}.")
        span = unit_range(name) if isinstance(value, int) else None
        if span is not None and not span[0] <= value <= span[1]:
            raise ConfigError(f"{prefix}{name}: {value} is not allowed; allowed: {span[0]} to {span[1]}")
    for lesser, greater in limit_pairs(values):
        if values[lesser] > values[greater]:
            raise ConfigError(
                f"{prefix}{lesser}: {values[lesser]} is not allowed; allowed: at most {prefix}{greater}, "
                f"which is {values[greater]}"
            )


# -- relations -------------------------------------------------------------------------------------


class Relation(NamedTuple):
    """`factor * (sum of lesser) + margin <= greater`, by dotted keys; and why. Holds where one is unset."""

    lesser: tuple[str, ...]
    greater: str
    reason: str
    factor: int = 1
    margin: int = 0

    @property
    def bound(self) -> str:
        """The left side, for people: `3 * engine.heartbeat_interval_ms`."""
        terms = [key if self.factor == 1 else f"{self.factor} * {key}" for key in self.lesser]
        return " + ".join([*terms, *([str(self.margin)] if self.margin else [])])

    def check(self, settings: Any) -> None:
        """Raise ConfigError where it does not hold."""
        lesser = [value_at(settings, key) for key in self.lesser]
        if None in lesser:
            return
        least = self.factor * sum(filter(None, lesser)) + self.margin
        value = value_at(settings, self.greater)
        if value is not None and value < least:
            allowed = f"at least {least} ({self.bound}), {self.reason}"
            raise ConfigError(f"{self.greater}: {value} is not allowed; allowed: {allowed}")


def value_at(settings: Any, key: str) -> int | None:
    """The number under a dotted key; None where it may be left out, and is."""
    for name in key.split("."):
        settings = getattr(settings, name)
    assert settings is None or isinstance(settings, int)
    return settings
