"""Tables: as Markdown for a page, and in columns for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[str]


def cell(text: str) -> str:
    """A text that stays within its cell, and means itself: no pipe, line break or markup of Markdown."""
    kept = "".join(f"\\{one}" if one in "\\|`*_<>[]" else one for one in text)
    return " ".join(kept.split())


def markdown(head: Row, rows: Sequence[Row]) -> list[str]:
    """The lines of a table. The first column is text, the others are figures, which stand to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [
        f"| {' | '.join(one)} |" for one in (list(map(cell, head)), rule, *(map(cell, row) for row in rows))
    ]


def columns(head: Row, rows: Sequence[Row]) -> list[str]:
    """The same with spaces."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
