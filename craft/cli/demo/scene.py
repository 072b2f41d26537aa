"""What the demo shows, and the picture of it: lines of text in 80 columns. Knows no terminal."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from craft.cli.demo.load import Load, Station
from craft.cli.status import clock_time

WIDTH = 80
LABEL = 10
STRIP = WIDTH - LABEL - 3
BAR = 15
STRIP_GROUPS_MAX = 6
LEADS_MAX = 5
CAPTION = " the groups' newest entries, a column each, fall into one log by timestamp:"
SAMPLE_S = 0.25
CAUGHT_UP = 0.95
"""Whoever has merged less than this share of what the foremost has is still catching up."""
BARS = " ▁▂▃▄▅▆▇█"
PALETTE = (39, 208, 77, 205, 220, 51, 141, 203)
"""Colours that differ in brightness too, out of the 256."""


class Ink(NamedTuple):
    """How to colour text; without colour, groups are told apart by their digits."""

    colour: bool

    def group(self, group: int, text: str) -> str:
        """Text in a group's colour."""
        return self._dress(f"38;5;{PALETTE[group % len(PALETTE)]}", text)

    def faint(self, text: str) -> str:
        """Text that stands back."""
        return self._dress("2", text)

    def bold(self, text: str) -> str:
        """Text that stands out."""
        return self._dress("1", text)

    def good(self, text: str) -> str:
        """Text about what is well."""
        return self._dress("32", text)

    def bad(self, text: str) -> str:
        """Text about what is not."""
        return self._dress("1;31", text)

    def _dress(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text


@dataclass
class Scene:
    """Everything that is shown while the demo runs."""

    load: Load
    groups: int
    events: list[str] = field(default_factory=list)
    elapsed: float = 0.0
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=STRIP))
    per_server: dict[int, float] = field(default_factory=dict)
    _samples: dict[int, int] = field(default_factory=dict)

    def sample(self, seconds: float) -> None:
        """Take the rates of the last so many seconds."""
        for station in self.load.stations:
            count = len(station.tally.answered)
            self.per_server[station.server_id] = (count - self._samples.get(station.server_id, 0)) / seconds
            self._samples[station.server_id] = count
        self.rates.append(sum(self.per_server.values()))


def picture(scene: Scene, ink: Ink) -> list[str]:
    """The whole scene, line by line."""
    return [
        *_title(scene, ink),
        "",
        *_servers(scene, ink),
        "",
        _spark(scene, ink),
        "",
        *_strip(scene, ink),
        "",
        *(f" {event}" for event in scene.events),
    ]


def _title(scene: Scene, ink: Ink) -> list[str]:
    stations = scene.load.stations
    left = f" craft demo   {len(stations)} server processes · {scene.groups} Raft groups · one merged log"
    return [ink.bold(f"{left:<{WIDTH - 8}}{scene.elapsed:5.1f} s"), ink.faint("─" * WIDTH)]


def _servers(scene: Scene, ink: Ink) -> list[str]:
    head = f" {'server':<8}{'process':<10}{'state':<12}{'leads groups':<14}{'writes/s':>8}   merged position"
    return [ink.faint(head), *(_server(scene, station, ink) for station in scene.load.stations)]


def _server(scene: Scene, station: Station, ink: Ink) -> str:
    process = station.process
    state, dress = "up", ink.good
    if not process.up:
        state, dress = ("starting", ink.bold) if process.pid else ("killed", ink.bad)
    elif station.position < scene.load.top * CAUGHT_UP:
        state, dress = "catching up", ink.bold
    rate = scene.per_server.get(station.server_id, 0.0)
    position = station.position if process.up else 0
    filled = min(BAR, BAR * position // max(1, scene.load.top))
    bar = "█" * filled + ink.faint("░" * (BAR - filled))
    pid = str(process.pid or "-")
    leads = _leads(station.leads(), ink)
    return f" {station.server_id:<8}{pid:<10}{dress(f'{state:<12}')}{leads}{rate:>8.0f}   {bar} {position:>8}"


def _leads(groups: list[int], ink: Ink) -> str:
    """Group numbers in their colours, in 14 columns."""
    shown = groups if len(groups) <= LEADS_MAX else groups[: LEADS_MAX - 1]
    rest = f" +{len(groups) - len(shown)}" if len(shown) < len(groups) else ""
    plain = " ".join(map(str, shown)) + rest or "-"
    coloured = " ".join(ink.group(group, str(group)) for group in shown) + rest or "-"
    return coloured + " " * (14 - len(plain))


def _spark(scene: Scene, ink: Ink) -> str:
    highest = max(scene.rates, default=0.0) or 1.0
    bars = "".join(BARS[round(rate / highest * (len(BARS) - 1))] for rate in scene.rates)
    return f" {ink.faint('writes/s'.ljust(LABEL))} {bars}"


def _strip(scene: Scene, ink: Ink) -> list[str]:
    """The newest entries, one a column: above in their groups' rows, below as they fell into one log."""
    load = scene.load
    positions = [position for position in range(load.top - STRIP + 1, load.top + 1) if position in load.rows]
    rows = [load.rows[position] for position in positions]
    lines = [ink.faint(CAPTION)]
    for group in range(min(scene.groups, STRIP_GROUPS_MAX)):
        cells = "".join(_cell(ink, row.group, row.group == group) for row in rows)
        lines.append(f" {ink.group(group, f'group {group}'.ljust(LABEL))} {cells}")
    if scene.groups > STRIP_GROUPS_MAX:
        lines.append(ink.faint(f" … and {scene.groups - STRIP_GROUPS_MAX} more groups"))
    merged = "".join(_cell(ink, row.group, True) for row in rows)
    lines.append(ink.faint(f" {'':<{LABEL}} " + "↓" * len(rows)))
    lines.append(f" {ink.bold('one log'.ljust(LABEL))} {merged}")
    if rows:
        span = f"{clock_time(rows[0].timestamp)} → {clock_time(rows[-1].timestamp)}"
        lines.append(ink.faint(f" {'':<{LABEL}} {span}   position {positions[0]} … {positions[-1]}"))
    return lines


def _cell(ink: Ink, group: int, here: bool) -> str:
    """One entry in one row."""
    if not here:
        return " "
    return ink.group(group, "■") if ink.colour else str(group % 10)
