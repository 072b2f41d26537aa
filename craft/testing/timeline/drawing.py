"""The whole picture: words, axis, faults, lanes, merged log, legend."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from craft.testing.timeline import style
from craft.testing.timeline.lanes import Lanes
from craft.testing.timeline.scale import Rows, Scale, about, side_by_side, time_words
from craft.testing.timeline.story import Fault, Story
from craft.testing.timeline.style import ELEMENTS_MAX, MESSAGES_MAX, Omissions
from craft.testing.timeline.svg import Canvas, Look, document, shortened, text_width
from craft.testing.trace import MS, Event
from craft.types import GroupId

__all__ = ["ELEMENTS_MAX", "MESSAGES_MAX", "render"]

WORDS_MAX = 110
"""Characters of a title, of what was violated, of a phase, each on its own line."""

DETAIL_MAX = 30
"""What a fault chose is put behind its name if it is this short; else it is in the tooltip."""

DEFINITIONS = (
    '<pattern id="craft-down" width="7" height="7" patternUnits="userSpaceOnUse"'
    ' patternTransform="rotate(45)">'
    '<rect width="7" height="7" fill="#c9cac7"/><rect width="2.5" height="7" fill="#aeb0ad"/></pattern>'
    '<pattern id="craft-paused" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect width="6" height="6" fill="#e6e4ef"/><circle cx="3" cy="3" r="1" fill="#9a94b8"/></pattern>'
)


def render(
    events: Sequence[Event],
    *,
    servers: int,
    groups: int,
    title: str,
    begin: int | None = None,
    end: int | None = None,
) -> str:
    """One SVG file of what happened from `begin` to `end` (ns of virtual time), or in all of the run."""
    story = Story(events)
    first = story.begin if begin is None else begin
    last = max(first + 1, story.end if end is None else end)
    picture = Picture(story, Scale(first, last, style.LEFT, style.RIGHT), servers=servers, groups=groups)
    return picture.render(title)


class Picture:
    """One picture. Its parts stand below each other; each knows how high it is before it is painted."""

    def __init__(self, story: Story, scale: Scale, *, servers: int, groups: int) -> None:
        self.story, self.scale = story, scale
        self.servers, self.groups = servers, groups
        self.out = Omissions()
        self.body = Canvas()

    def render(self, title: str) -> str:
        """The file."""
        axis = 16.0
        notes_end = self._notes_room(axis)
        faults, faults_end = self._place_faults(notes_end)
        lanes = Lanes(
            self.story, self.scale, self.out, servers=self.servers, groups=self.groups, top=faults_end + 6
        )
        painted = Canvas()
        lanes.paint(painted)
        log = Canvas()
        end = self._log(log, lanes.bottom + 26)
        lanes.paint_ground(self.body)
        self._grid(axis, lanes.bottom)
        for fault, row in faults:
            self._fault(fault, notes_end + row * style.FAULT_ROW, lanes.bottom)
        self.body.take(painted)
        self.body.take(log)
        self._notes(axis, lanes.bottom)
        end = self._legend(end + 12, lanes.used)
        return self._file(title, end, (lanes.lanes[1].top if lanes.lanes else 0.0, lanes.bottom))

    def _file(self, title: str, height: float, plot: tuple[float, float]) -> str:
        words, description = self._words()
        top = style.MARGIN + 12.0
        head = Canvas()
        head.words(style.MARGIN, top, shortened(title, WORDS_MAX), style.TITLE, font_weight="bold")
        for line in words:
            top += 16
            head.words(style.MARGIN, top, line, style.BODY, fill=style.SOFT)
        top += 16
        height += top + style.MARGIN
        scale = self.scale
        clip = (
            f'<clipPath id="craft-plot"><rect x="{scale.left:.1f}" y="{plot[0]:.1f}"'
            f' width="{scale.right - scale.left:.1f}" height="{max(plot[1] - plot[0], 0):.1f}"/></clipPath>'
        )
        ground = Canvas()
        ground.box(0, 0, style.WIDTH, height, fill=style.PAPER)
        assert head.count + self.body.count < ELEMENTS_MAX, "the limits of style.py add up to less"
        inside = [
            f"<defs>{DEFINITIONS}{clip}</defs>",
            *ground.parts,
            f'<g fill="{style.INK}">',
            *head.parts,
            f'<g transform="translate(0 {top:.1f})">',
            *self.body.parts,
            "</g>",
            "</g>",
        ]
        return document(style.WIDTH, height, title, description, inside)

    def _words(self) -> tuple[list[str], str]:
        """What is shown and what is not: as lines, and as a description for who cannot see the picture."""
        scale, story = self.scale, self.story
        shown = f"virtual time {about(scale.begin)} to {about(scale.end)}"
        if scale.begin > story.begin or scale.end < story.end:
            shown += f", of a run of {about(story.end)}"
        lines = [shown[0].upper() + shown[1:]]
        if self.out.words:
            lines += textwrap.wrap(f"Left out: {', '.join(self.out.words)}", 150)
        what = [f"{self.servers} servers, {self.groups} groups", shown]
        what += [
            f"{_at(one.at)} {one.kind}: {one.rest.splitlines()[0]}" for one in self._shown_notes() if one.rest
        ]
        return lines, shortened(". ".join([*what, *lines[1:]]), 1000)

    # -- axis, phases, violations -----------------------------------------------------------------

    def _grid(self, axis: float, bottom: float) -> None:
        """Round times, each with its line through the lanes."""
        body, last = self.body, -1e9
        for at, words in self.scale.ticks():
            x = self.scale.x(at)
            body.line(x, axis, x, bottom, stroke=style.GRID, stroke_width=1)
            half = text_width(words, style.BODY) / 2
            middle = min(max(x, self.scale.left + half - 14), self.scale.right + 14 - half)
            if middle - half > last + 6:
                body.words(middle, axis - 5, words, style.BODY, text_anchor="middle", fill=style.SOFT)
                last = middle + half
        body.line(self.scale.left, axis, self.scale.right, axis, stroke=style.SOFT, stroke_width=1)

    def _shown_notes(self) -> list[Event]:
        notes = [one for one in self.story.notes if self.scale.shows(one.at, one.at)]
        return notes[-style.NOTES_MAX :]

    def _notes_room(self, top: float) -> float:
        all_notes = [one for one in self.story.notes if self.scale.shows(one.at, one.at)]
        shown = self._shown_notes()
        self.out.say(len(all_notes) - len(shown), "earlier phases")
        return top + 6 + 16 * len(shown)

    def _notes(self, axis: float, bottom: float) -> None:
        """Phases and violations: a line through everything, and words."""
        body = self.body
        for row, note in enumerate(self._shown_notes()):
            x, y = self.scale.x(note.at), axis + 16 + 16 * row
            bad = note.kind == "violation"
            look = style.ALARM if bad else style.SOFT
            first = note.rest.splitlines()[0] if note.rest else ""
            words = shortened(f"{'VIOLATED: ' if bad else ''}{first}", WORDS_MAX)
            dashes: Look = {} if bad else {"stroke_dasharray": "5 4"}
            tip = f"{_at(note.at)} {note.kind}: {note.rest}"
            body.line(
                x, axis, x, bottom, tip, stroke=look, stroke_width=2 if bad else 1.2,
                class_=f"craft-{note.kind}", **dashes,
            )  # fmt: skip
            width = text_width(words, style.BODY)
            fits = x + 5 + width <= self.scale.right
            at = x + 5 if fits else max(x - 5, self.scale.left + width)
            anchor = "start" if fits else "end"
            weight = "bold" if bad else "normal"
            body.words(at, y, words, style.BODY, fill=look, text_anchor=anchor, font_weight=weight)

    # -- faults -----------------------------------------------------------------------------------

    def _place_faults(self, top: float) -> tuple[list[tuple[Fault, int]], float]:
        """Each fault in the window with its row, and where the rows end."""
        scale = self.scale
        shown = [one for one in self.story.faults if scale.shows(one.begin, one.end)]
        kept = self.out.keep(shown, style.FAULTS_MAX, "earlier faults")
        rows = Rows(style.FAULT_ROWS_MAX)
        placed = []
        for one in kept:
            begin, end = self._fault_span(one)
            left = self._fault_words_at(one)
            row = rows.place(
                min(begin, left), max(end, left + text_width(_fault_words(one), style.BODY)) + 12
            )
            if row is not None:
                placed.append((one, row))
        self.out.say(len(kept) - len(placed), "faults")
        return placed, top + rows.count * style.FAULT_ROW

    def _fault_span(self, fault: Fault) -> tuple[float, float]:
        end = self.story.end if fault.end is None else fault.end
        return self.scale.x(fault.begin), max(self.scale.x(end), self.scale.x(fault.begin) + 2)

    def _fault_words_at(self, fault: Fault) -> float:
        """In the bar or behind it; where that is beyond the edge, before its beginning."""
        begin, end = self._fault_span(fault)
        width = text_width(_fault_words(fault), style.BODY) + 6
        if width <= end - begin:
            return begin + 5
        if end + width <= self.scale.right:
            return end + 5
        return max(self.scale.left, begin - width)

    def _fault(self, fault: Fault, top: float, bottom: float) -> None:
        begin, end = self._fault_span(fault)
        until = "" if fault.end is None else f" to {_at(fault.end)}"
        tip = ": ".join([f"fault {fault.words} from {_at(fault.begin)}{until}", *fault.details])
        look: Look = {"fill": style.FAULT, "stroke": style.FAULT_EDGE, "stroke_width": 0.8}
        self.body.box(begin, top, end - begin, style.FAULT_ROW - 3, tip, rx=2, class_="craft-fault", **look)
        x = self._fault_words_at(fault)
        self.body.words(x, top + 11, _fault_words(fault), style.BODY, fill="#6f4520")
        for at in (fault.begin, fault.end):
            if at is not None and self.scale.begin <= at <= self.scale.end:
                x = self.scale.x(at)
                dashes = "2 3" if at == fault.begin else "1 5"
                edge: Look = {"stroke": style.FAULT_EDGE, "stroke_width": 0.9, "stroke_dasharray": dashes}
                self.body.line(x, top + style.FAULT_ROW - 3, x, bottom, **edge)

    # -- the merged log ---------------------------------------------------------------------------

    def _log(self, canvas: Canvas, top: float) -> float:
        """A cell an entry in merged order, tied to the time when a server first merged it."""
        scale = self.scale
        shown = [one for one in self.story.log if scale.shows(one.at, one.at)]
        kept = self.out.keep(shown, style.CELLS_MAX, "earlier entries of the merged log")
        canvas.words(style.MARGIN, top + 36, "merged log", style.HEADING, font_weight="bold")
        canvas.line(scale.left, top, scale.right, top, stroke=style.SOFT, stroke_width=1.2)
        kept.sort(key=lambda one: one.position)
        width = min(style.CELL_MAX, (scale.right - scale.left) / max(len(kept), 1))
        width = max(width, style.CELL_MIN)
        if not kept:
            nothing = "nothing was merged in this time"
            canvas.words(scale.left, top + 36, nothing, style.BODY, fill=style.SOFT)
        wanted = [scale.x(one.at) - width / 2 for one in kept]
        cell_top = top + 24
        for one, left in zip(kept, side_by_side(wanted, width, scale.left, scale.right), strict=True):
            x, colour = scale.x(one.at), style.colour(one.group)
            line = f"M{x:.1f} {top - 4:.1f}V{top + 4:.1f}L{left + width / 2:.1f} {cell_top:.1f}"
            canvas.add("path", d=line, stroke=colour, stroke_width=1, fill="none")
            tip = f"{one.words}, group {one.group}: first merged by server {one.server} at {_at(one.at)}"
            look: Look = {"fill": colour, "stroke": style.PAPER, "rx": 2.0, "class_": "craft-entry"}
            canvas.box(left, cell_top, width, style.CELL_HEIGHT, tip, **look)
            words = str(one.position)
            if text_width(words, style.SMALL) + 2 <= width:
                middle: Look = {"text_anchor": "middle", "fill": style.on_colour(one.group)}
                canvas.words(left + width / 2, cell_top + 12.5, words, style.SMALL, **middle)
        return cell_top + style.CELL_HEIGHT

    # -- the legend -------------------------------------------------------------------------------

    def _legend(self, top: float, used: set[str]) -> float:
        """What is in the picture, and nothing else."""
        x, y = style.LEFT, top + 10.0
        entries = [(f"g{group}", f"group {group}") for group in range(min(self.groups, style.GROUPS_MAX))]
        entries += [(kind, words) for kind, words in LEGEND.items() if kind in used]
        self.body.words(style.MARGIN, y, "legend", style.HEADING, font_weight="bold")
        for kind, words in entries:
            width = 26 + text_width(words, style.BODY) + 14
            if x + width > self.scale.right + 14:
                x, y = style.LEFT, y + 18
            self._sample(kind, x, y - 4)
            self.body.words(x + 26, y, words, style.BODY, fill=style.SOFT)
            x += width
        return y + 4

    def _sample(self, kind: str, x: float, y: float) -> None:
        """A small one of what it is: `x` is the left, `y` the middle."""
        body, middle = self.body, x + 10
        if kind.startswith("g") and kind[1:].isdigit():
            body.box(x, y - 5, 20, 10, fill=style.colour(GroupId(int(kind[1:]))), rx=2)
        elif kind in {"down", "paused"}:
            body.box(x, y - 6, 20, 12, fill=f"url(#craft-{kind})", rx=2)
        elif kind == "append":
            body.line(middle, y - 4, middle, y + 4, stroke=style.INK, stroke_width=1.2)
        elif kind == "commit":
            body.add("circle", cx=middle, cy=y, r=2.4, fill=style.INK)
        elif kind == "apply":
            body.add("path", d=f"M{middle} {y - 3.5}l3.5 3.5l-3.5 3.5l-3.5 -3.5z", fill=style.INK)
        elif kind in {"message", "quiet", "lost"}:
            colour = style.FAINT if kind == "quiet" else style.SOFT
            dashes: Look = {"stroke_dasharray": "4 2.5"} if kind == "lost" else {}
            body.line(x, y - 4, x + 20, y + 4, stroke=colour, stroke_width=1.1, **dashes)
            if kind == "lost":
                cross = f"M{x + 17} {y + 1}l6 6m0 -6l-6 6"
                body.add("path", d=cross, stroke=style.ALARM, stroke_width=1.3, fill="none")
        else:
            good = kind in {"write", "read"}
            colour = style.ALARM if kind == "reject" else style.CLIENT
            dashes = {} if good else {"stroke_dasharray": "3 2"}
            fill = colour if kind == "write" else style.PAPER
            body.box(x, y - 5, 20, 10, fill=fill, stroke=colour, rx=2, **dashes)


LEGEND = {
    "append": "appended (on the bar: by the leader)",
    "commit": "committed, as known there",
    "apply": "applied",
    "message": "frame, in its group's colour (several: grey)",
    "quiet": "heartbeat, commits, or question and report of a read",
    "lost": "frame that was lost",
    "write": "write, until answered",
    "read": "read, until served",
    "reject": "rejected: has no effect (!)",
    "unknown": "client never learns its outcome (?)",
    "open": "open at the end of the run",
    "down": "down",
    "paused": "paused",
}
"""In this order, in so far as they are in the picture."""


def _fault_words(fault: Fault) -> str:
    """Its name, and what it chose where that is short."""
    detail = fault.details[0] if fault.details else ""
    words = f"{fault.words}: {detail}" if detail and len(detail) <= DETAIL_MAX else fault.words
    return shortened(words, WORDS_MAX)


def _at(at: int) -> str:
    return time_words(at, MS)
