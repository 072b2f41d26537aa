"""Colours and sizes, and how many of each thing a picture has.

The groups' colours are Okabe and Ito's, which people with any colour vision tell apart. A background is
painted, so that the picture is as readable on a dark page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from craft.types import GroupId

Item = TypeVar("Item")

# -- limits: in all at most ELEMENTS_MAX -----------------------------------------------------------

MESSAGES_MAX = 600
MARKS_MAX = 900
OPERATIONS_MAX = 300
BARS_MAX = 300
STATES_MAX = 100
FAULTS_MAX = 60
FAULT_ROWS_MAX = 8
NOTES_MAX = 8
SERVERS_MAX = 16
GROUPS_MAX = 16
OPERATION_ROWS_MAX = 3
CELLS_MAX = 150

ELEMENTS_MAX = 6000
"""More than all of the above, each drawn with up to three elements, with lanes, axis and legend."""

# -- sizes, in pixels ------------------------------------------------------------------------------

WIDTH = 1040.0
LEFT = 118.0
RIGHT = WIDTH - 18.0
MARGIN = 16.0

ROW = 14.0
"""Of a group in a lane."""
BAR = 11.0
FRAMES_ROW = 18.0
OPERATION_ROW = 13.0
LANE_PADDING = 6.0
LANE_GAP = 14.0
FAULT_ROW = 17.0
CELL_MAX, CELL_MIN = 24.0, 5.0
CELL_HEIGHT = 18.0

TITLE, HEADING, BODY, SMALL = 16.0, 12.0, 11.0, 9.0

# -- colours ---------------------------------------------------------------------------------------

PAPER, LANE, GRID = "#fdfdfb", "#f2f2ee", "#dededa"
INK, SOFT, FAINT = "#2b2d30", "#63666a", "#b9bbb8"
CLIENT = "#5b6470"
FAULT, FAULT_EDGE = "#f4e3d3", "#b07a4a"
ALARM = "#b3261e"

GROUP_COLOURS = (
    ("#0072b2", "#ffffff"),
    ("#e69f00", "#2b2d30"),
    ("#009e73", "#ffffff"),
    ("#cc79a7", "#2b2d30"),
    ("#56b4e9", "#2b2d30"),
    ("#7a5195", "#ffffff"),
    ("#8a8a2c", "#ffffff"),
    ("#d55e00", "#ffffff"),
)
"""Of a group, and of what stands on it. Beyond them colours come again: rows and tooltips tell it too."""


def colour(group: GroupId | None) -> str:
    """A group's colour; a quiet one for what is about none or several."""
    return "#84878a" if group is None else GROUP_COLOURS[group % len(GROUP_COLOURS)][0]


def on_colour(group: GroupId) -> str:
    """For what stands on a group's colour."""
    return GROUP_COLOURS[group % len(GROUP_COLOURS)][1]


class Omissions:
    """What was left out, in words."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def keep(
        self, items: Sequence[Item], most: int, what: str, rank: Callable[[Item], int] = lambda _item: 0
    ) -> list[Item]:
        """The `most` items of the highest rank, the later ones first; what goes is said."""
        if len(items) <= most:
            return list(items)
        order = sorted(range(len(items)), key=lambda place: (-rank(items[place]), -place))
        self.say(len(items) - most, what)
        return [items[place] for place in sorted(order[:most])]

    def say(self, count: int, what: str) -> None:
        """So many were left out, if any."""
        if count:
            self.words.append(f"{count:,} {what}")
