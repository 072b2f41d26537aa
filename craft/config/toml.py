"""A dataclass from a TOML table and back, by the fields' names.

Works on any dataclass of strings, numbers, booleans, paths, lists of strings, addresses by id, and
dataclasses of these. What does not fit a field's type is handed on as it is: `checks` refuses it by name.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from craft.config.checks import hints, phrase, plain
from craft.errors import ConfigError
from craft.types import SERVER_ID_MAX


def tables(kind: type) -> dict[str, type]:
    """The fields of a dataclass that are dataclasses themselves."""
    kinds = {name: plain(hint) for name, hint in hints(kind).items()}
    return {name: inner for name, inner in kinds.items() if is_dataclass(inner)}


# -- known and unknown keys ------------------------------------------------------------------------


def known_keys(kind: type, prefix: str = "") -> list[str]:
    """Every key that a file may have, dotted, in the fields' order."""
    inner, keys = tables(kind), []
    for name in hints(kind):
        keys.append(prefix + name)
        if name in inner:
            keys += known_keys(inner[name], f"{prefix}{name}.")
    return keys


def refuse_unknown_keys(kind: type, table: Mapping[str, Any]) -> None:
    """Raise ConfigError that names every key which is no field, each with the known key that is closest."""
    known = known_keys(kind)
    unknown = [f"{key}: unknown key; {_suggestion(key, known)}" for key in _unknown_keys(kind, table, "")]
    if unknown:
        raise ConfigError("; ".join(unknown))


def _unknown_keys(kind: type, table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    names, inner = hints(kind), tables(kind)
    for name, value in table.items():
        if name not in names:
            yield prefix + name
        elif name in inner and isinstance(value, dict):
            yield from _unknown_keys(inner[name], value, f"{prefix}{name}.")


def _suggestion(key: str, known: list[str]) -> str:
    """The closest key; else the one closest by its last word, which may stand in the wrong table."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if not close:
        by_name = {candidate.rpartition(".")[2]: candidate for candidate in reversed(known)}
        names = difflib.get_close_matches(key.rpartition(".")[2], by_name, n=1)
        close = [by_name[name] for name in names]
    if close:
        return f"did you mean {close[0]}?"
    return f"allowed: {', '.join(name for name in known if '.' not in name)}"


# -- reading ---------------------------------------------------------------------------------------


def arguments(kind: type, table: Mapping[str, Any], directory: Path, prefix: str = "") -> dict[str, Any]:
    """A table as keyword arguments: strings become paths, tables become what they are tables of."""
    kinds = {name: plain(hint) for name, hint in hints(kind).items()}
    for item in fields(kind):
        required = item.default is MISSING and item.default_factory is MISSING
        if required and item.name not in table:
            raise ConfigError(f"{prefix}{item.name}: is missing; allowed: {phrase(kinds[item.name])}")
    return {name: _read(kinds[name], value, prefix + name, directory) for name, value in table.items()}


def _read(kind: type, value: Any, key: str, directory: Path) -> Any:
    if kind is Path and isinstance(value, str):
        if not value:
            raise ConfigError(f"{key}: '' is not allowed; allowed: a path")
        return directory / value
    if kind is dict and isinstance(value, dict):
        return {_server_id(key, text): address for text, address in value.items()}
    if is_dataclass(kind) and isinstance(value, dict):
        return kind(**arguments(kind, value, directory, f"{key}."))
    return value


def _server_id(key: str, text: str) -> int:
    """TOML's keys are strings; ids are numbers, written in one way only."""
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text, re.ASCII):
        raise ConfigError(f"{key}.{text}: {text!r} is not a server id; allowed: 1 to {SERVER_ID_MAX}")
    return int(text)


# -- writing ---------------------------------------------------------------------------------------


def dump(settings: Any) -> str:
    """A file's text; what is left at its default is left out. Plain values first, as TOML wants it."""
    lines, below = [], []
    for name, value in _changed(settings):
        if is_dataclass(value):
            below += ["", f"[{name}]", *(f"{key} = {_literal(item)}" for key, item in _changed(value))]
        elif isinstance(value, dict):
            below += ["", f"[{name}]", *(f"{key} = {_literal(value[key])}" for key in sorted(value))]
        else:
            lines.append(f"{name} = {_literal(value)}")
    return "\n".join([*lines, *below]) + "\n"


def _changed(settings: Any) -> Iterator[tuple[str, Any]]:
    """The fields that differ from their defaults, in order."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if value != default:
            yield item.name, value


def _literal(value: Any) -> str:
    """A string, path, number, boolean or a list of these as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    # JSON's strings are TOML's basic strings, but for one character that only TOML wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
