"""The clocks' part of `craft status`: who sees whose clock how far off, and what to make of it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from craft.clock.offsets import Estimate
from craft.clock.verdict import MS_NS, duration, judge

COLUMNS = 80
HEAD = 11
"""Where the first column begins."""

CELL = 13
COLUMNS_MAX = (COLUMNS - HEAD) // CELL
"""So many servers fit beside each other; the others follow below."""

Status: TypeAlias = Mapping[str, Any]
Row: TypeAlias = dict[int, Estimate]


def row(status: Status) -> Row:
    """How far a server sees each other clock from its own."""
    return {
        peer["server_id"]: Estimate(
            peer["clock_offset_ns"], peer["clock_offset_error_ns"], peer["one_way_delay_ns"]
        )
        for peer in status["peers"]
        if peer["clock_offset_ns"] is not None
    }


def clocks(statuses: Sequence[Status]) -> list[str]:
    """The matrix, where several servers were asked, and the verdict; nothing for a server alone."""
    rows = {status["server_id"]: row(status) for status in statuses}
    servers = sorted({server for status in statuses for server in status["servers"]})
    if len(servers) < 2:
        return []
    offset_ns_max = min(status["clock_offset_ms_max"] for status in statuses) * MS_NS
    verdict = judge(rows, servers, offset_ns_max=offset_ns_max)
    lines = textwrap.wrap(f"{'clocks':<{HEAD}}{verdict}", COLUMNS, subsequent_indent=" " * HEAD)
    return [*lines, *(_matrix(rows, servers) if len(rows) > 1 else [])]


def _matrix(rows: Mapping[int, Row], servers: Sequence[int]) -> list[str]:
    """Two lines a server that was asked: offsets, and below them the delays."""
    lines = [f"{'':{HEAD}}the column's clock less the row's, and the one-way delay"]
    for first in range(0, len(servers), COLUMNS_MAX):
        columns = servers[first : first + COLUMNS_MAX]
        lines += [_line("", [f"server {column}" for column in columns])]
        for server, seen in sorted(rows.items()):
            cells = [_cell(server, seen, column) for column in columns]
            lines += [
                _line(f"server {server}", [offset for offset, _ in cells]),
                _line("", [delay for _, delay in cells]),
            ]
    return lines


def _line(head: str, cells: Sequence[str]) -> str:
    return (f"{head:<{HEAD}}" + "".join(f"{cell:>{CELL}}" for cell in cells)).rstrip()


def _cell(server: int, seen: Row, column: int) -> tuple[str, str]:
    if column == server:
        return "-", ""
    if column not in seen:
        return "unknown", ""
    return ahead(seen[column].offset_ns), duration(seen[column].delay_ns)


def ahead(offset_ns: int) -> str:
    """An offset with its sign."""
    return f"{'+' if offset_ns >= 0 else ''}{duration(offset_ns)}"
