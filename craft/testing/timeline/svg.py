"""A little SVG: elements as text, everything escaped, counted.

Knows: shapes, colours, how wide text is, nearly. Must not know: what is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

CHARACTER = 0.57
"""How wide a character is on the average, as a share of the size of its font: a little too much."""

TIP_CHARACTERS_MAX = 300
"""Of a tooltip: what was seen of a violation may take pages."""

NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot have, escaped or not."""


def clean(text: str) -> str:
    """The text as it stands in an element."""
    return escape(NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text))


def shortened(text: str, characters: int) -> str:
    """So many characters at most, the last one an ellipsis if more were there."""
    return text if len(text) <= characters else f"{text[: max(0, characters - 1)]}…"


def number(value: float) -> str:
    """A coordinate, with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def text_width(text: str, size: float) -> float:
    """About so wide."""
    return len(text) * size * CHARACTER


Look = dict[str, Any]
"""Attributes of an element: strings, and numbers in pixels."""


class Canvas:
    """Elements, in the order in which they are painted."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.count = 0

    def add(self, name: str, /, tip: str = "", text: str = "", **attributes: Any) -> None:
        """An element. `tip` is shown by hovering over it; `_` in a name stands for `-`."""
        words = [name]
        for key, value in attributes.items():
            shown = value if isinstance(value, str) else number(value)
            words.append(f"{key.rstrip('_').replace('_', '-')}={quoteattr(NOT_XML.sub('?', shown))}")
        inside = clean(text)
        if tip:
            inside += f"<title>{clean(shortened(tip, TIP_CHARACTERS_MAX))}</title>"
        self.parts.append(f"<{' '.join(words)}>{inside}</{name}>" if inside else f"<{' '.join(words)}/>")
        self.count += 1

    def open(self, **attributes: Any) -> None:
        """A group begins, whose attributes hold for what is inside."""
        self.add("g", **attributes)
        self.parts[-1] = self.parts[-1].removesuffix("/>") + ">"

    def close(self) -> None:
        """The group ends."""
        self.parts.append("</g>")

    def take(self, other: Canvas) -> None:
        """Paint what another one has, on top."""
        self.parts += other.parts
        self.count += other.count

    # -- shapes -----------------------------------------------------------------------------------

    def line(self, x1: float, y1: float, x2: float, y2: float, tip: str = "", **more: Any) -> None:
        """A straight line."""
        self.add("line", tip, x1=x1, y1=y1, x2=x2, y2=y2, **more)

    def box(self, x: float, y: float, width: float, height: float, tip: str = "", **more: Any) -> None:
        """A rectangle. The narrowest can still be seen."""
        self.add("rect", tip, x=x, y=y, width=max(width, 0.8), height=height, **more)

    def words(self, x: float, y: float, text: str, size: float, **more: Any) -> None:
        """Text on its base line."""
        self.add("text", "", text, x=x, y=y, font_size=size, **more)


def document(width: float, height: float, title: str, description: str, inside: Sequence[str]) -> str:
    """The whole file."""
    size = f"{number(width)} {number(height)}"
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{number(width)}"'
        f' height="{number(height)}" role="img" aria-labelledby="craft-title craft-description"'
        ' font-family="Helvetica, Arial, sans-serif">'
    )
    named = f'<title id="craft-title">{clean(title)}</title>'
    described = f'<desc id="craft-description">{clean(description)}</desc>'
    return "\n".join([opening, named, described, *inside, "</svg>", ""])
