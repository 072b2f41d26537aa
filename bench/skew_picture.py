"""The figures of `bench skew`, drawn and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from craft.testing.timeline.svg import Canvas, document

Cell = Mapping[str, Any]

LOADS = ("light", "busy")


class Series(NamedTuple):
    """One line of the picture: whose clock is wrong, whose writes are meant, and how it is drawn."""

    who: str
    whose: str
    words: str
    colour: str


SERIES = (
    Series("ahead", "own", "one clock ahead: its own server's writes", "#d55e00"),
    Series("ahead", "others", "one clock ahead: the others'", "#e69f00"),
    Series("behind", "own", "one clock behind: its own server's writes", "#0072b2"),
    Series("behind", "others", "one clock behind: the others'", "#56b4e9"),
    Series("all", "all", "all wrong, to either side: all writes", "#444444"),
)
"""Okabe and Ito's colours, which people with any colour vision tell apart."""

WIDTH, HEIGHT = 860.0, 430.0
PANEL_WIDTH, PANEL_HEIGHT, TOP, LEFT, GAP = 350.0, 250.0, 46.0, 56.0, 60.0
SIZE = 12.0
INK, GRID = "#222222", "#dddddd"


def skew(milliseconds: float) -> str:
    """In words."""
    return "1 h" if milliseconds == 3_600_000 else f"{milliseconds:g} ms"


def words(who: str, milliseconds: float) -> str:
    """A scenario in words."""
    return f"{who} {skew(milliseconds)}" if milliseconds else who


def _skews(cells: Sequence[Cell]) -> list[float]:
    return sorted({cell["skew_ms"] for cell in cells})


def _find(cells: Sequence[Cell], load: str, who: str, skew_ms: float) -> Cell:
    wanted = (load, who if skew_ms else "none", skew_ms)
    return next(cell for cell in cells if (cell["load"], cell["who"], cell["skew_ms"]) == wanted)


# -- the table -------------------------------------------------------------------------------------

COLUMNS = (
    "one ahead: its own",
    "one ahead: the others'",
    "one behind: its own",
    "one behind: the others'",
    "all differ: all",
    "entries a write",
)
APART = {
    "alike": "all ahead by the same",
    "jump ahead": "one jumps ahead while it serves",
    "jump behind": "one jumps behind while it serves",
}
"""What is measured at one skew only."""


def table(cells: Sequence[Cell]) -> str:
    """What skew adds to median and 99th percentile, in ms: a table a load, and one of what stands apart."""
    return "\n".join([*(_table(cells, load) for load in LOADS), _apart(cells)])


def _table(cells: Sequence[Cell], load: str) -> str:
    exact = _find(cells, load, "none", 0)
    plain = f"{exact['all']['p50_ms']:.2f} / {exact['all']['p99_ms']:.2f}"
    rows = [
        f"| {load} load | {' | '.join(COLUMNS)} |",
        "|" + "---|" * (len(COLUMNS) + 1),
        f"| no skew | {' | '.join([plain] * len(SERIES))} | {exact['entries_per_write']:.1f} |",
    ]
    for skew_ms in _skews(cells)[1:]:
        found = [_find(cells, load, one.who, skew_ms) for one in SERIES]
        added = [_added(cell[one.whose], exact["all"]) for one, cell in zip(SERIES, found, strict=True)]
        entries = sorted({f"{cell['entries_per_write']:.1f}" for cell in found}, key=float)
        span = " to ".join(dict.fromkeys((entries[0], entries[-1])))
        rows.append(f"| {skew(skew_ms)} | {' | '.join(added)} | {span} |")
    return "\n".join([*rows, ""])


def _added(found: Mapping[str, float], exact: Mapping[str, float]) -> str:
    added = [round(found[figure] - exact[figure], 2) for figure in ("p50_ms", "p99_ms")]
    return " / ".join(f"{one + 0.0:+.2f}" for one in added)  # + 0.0: nothing is no minus


def _apart(cells: Sequence[Cell]) -> str:
    rows = ["| | load | all writes | the slowest of all |", "|---|---|---|---|"]
    for load in LOADS:
        exact = _find(cells, load, "none", 0)
        plain = f"{exact['all']['p50_ms']:.2f} / {exact['all']['p99_ms']:.2f}"
        rows.append(f"| no skew | {load} | {plain} | {exact['all']['max_ms']:.2f} |")
        for cell in cells:
            if cell["load"] == load and cell["who"] in APART:
                name = f"{APART[cell['who']]}: {skew(cell['skew_ms'])}"
                rows.append(
                    f"| {name} | {load} | {_added(cell['all'], exact['all'])} | {cell['all']['max_ms']:.2f} |"
                )
    return "\n".join([*rows, ""])


# -- the picture -----------------------------------------------------------------------------------


def picture(cells: Sequence[Cell]) -> str:
    """Two panels side by side: medians as lines, the 99th percentiles thin and dashed."""
    canvas = Canvas()
    canvas.box(0, 0, WIDTH, HEIGHT, fill="#ffffff")
    greatest = max(cell[whose]["p99_ms"] for cell in cells for whose in ("all", "own", "others"))
    for number, load in enumerate(LOADS):
        left = LEFT + number * (PANEL_WIDTH + GAP)
        _panel(canvas, cells, load, left=left, greatest=max(1.0, -(-greatest // 0.5) * 0.5))
    _legend(canvas)
    title = "What wrong clocks cost a write"
    description = "Write latency against clock skew, for a light and a busy load, in a simulated LAN."
    return document(WIDTH, HEIGHT, title, description, canvas.parts)


def _panel(canvas: Canvas, cells: Sequence[Cell], load: str, *, left: float, greatest: float) -> None:
    skews = _skews(cells)
    bottom = TOP + PANEL_HEIGHT
    step = PANEL_WIDTH / (len(skews) - 1)
    canvas.words(left, TOP - 16, f"{load} load: a write's latency in ms, against skew", SIZE + 1, fill=INK)
    for tick in range(5):
        y = bottom - PANEL_HEIGHT * tick / 4
        canvas.line(left, y, left + PANEL_WIDTH, y, stroke=GRID)
        canvas.words(left - 8, y + 4, f"{greatest * tick / 4:.2f}", SIZE, fill=INK, text_anchor="end")
    for place, skew_ms in enumerate(skews):
        canvas.words(
            left + place * step, bottom + 18, skew(skew_ms) if skew_ms else "none", SIZE, fill=INK,
            text_anchor="middle",
        )  # fmt: skip
    for one in SERIES:
        for figure, looks in (("p50_ms", {"stroke_width": 2.2}), ("p99_ms", {"stroke_dasharray": "4 3"})):
            values = [_find(cells, load, one.who, skew_ms)[one.whose][figure] for skew_ms in skews]
            points = [
                f"{left + place * step:.1f},{bottom - PANEL_HEIGHT * value / greatest:.1f}"
                for place, value in enumerate(values)
            ]
            canvas.add("polyline", points=" ".join(points), fill="none", stroke=one.colour, **looks)


def _legend(canvas: Canvas) -> None:
    for number, one in enumerate(SERIES):
        x = LEFT + (number % 2) * (PANEL_WIDTH + GAP)
        y = TOP + PANEL_HEIGHT + 48 + (number // 2) * 22
        canvas.line(x, y - 4, x + 26, y - 4, stroke=one.colour, stroke_width=2.2)
        canvas.words(x + 34, y, one.words, SIZE, fill=INK)
    x, y = LEFT + PANEL_WIDTH + GAP, TOP + PANEL_HEIGHT + 48 + 44
    canvas.words(x, y, "line: median; dashed: 99th percentile", SIZE, fill=INK)
