"""The servers' lanes: who leads, what is appended, committed, applied, who waits; and frames between them."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from craft.testing.timeline import style
from craft.testing.timeline.scale import Rows, Scale, about, time_words
from craft.testing.timeline.story import Led, Message, Operation, State, Story
from craft.testing.timeline.style import Omissions
from craft.testing.timeline.svg import Canvas, Look, shortened, text_width
from craft.testing.trace import MS, Event
from craft.types import GroupId, ServerId

LOST_SHARE = 0.42
"""How far a lost frame is drawn, as a share of its way."""

MARK_RANKS = {"commit": 2, "append": 1, "apply": 0}


@dataclass(frozen=True)
class Lane:
    """Where a server's lane is."""

    server: ServerId
    groups: int
    top: float
    rows: int

    def group(self, group: GroupId) -> float:
        """The middle of a group's row."""
        return self.top + style.LANE_PADDING + style.ROW * (group + 0.5)

    @property
    def frames(self) -> float:
        """The line on which frames leave and arrive."""
        return self.top + style.LANE_PADDING + style.ROW * self.groups + style.FRAMES_ROW / 2

    def operation(self, row: int) -> float:
        """The top of a row of its clients."""
        return self.frames + style.FRAMES_ROW / 2 + style.OPERATION_ROW * row

    @property
    def bottom(self) -> float:
        """The lane's end."""
        return self.operation(max(self.rows, 1)) + style.LANE_PADDING - 2


class Lanes:
    """All lanes, one below the other from `top` on."""

    def __init__(
        self, story: Story, scale: Scale, out: Omissions, *, servers: int, groups: int, top: float
    ) -> None:
        self.story, self.scale, self.out = story, scale, out
        self.groups = min(groups, style.GROUPS_MAX)
        out.say(groups - self.groups, "groups")
        out.say(max(0, servers - style.SERVERS_MAX), "servers")
        ids = [ServerId(i) for i in range(1, min(servers, style.SERVERS_MAX) + 1)]
        self._led: dict[tuple[ServerId, GroupId | None], list[Led]] = {}  # in the order of time
        for led in story.led:
            self._led.setdefault((led.server, led.group), []).append(led)
        self.used: set[str] = set()  # what the legend must explain
        self.operations = self._place_operations(ids)
        self.lanes: dict[ServerId, Lane] = {}
        for i in ids:
            rows = max((row for one, row in self.operations if one.server == i), default=-1) + 1
            self.lanes[i] = Lane(i, self.groups, top, rows)
            top = self.lanes[i].bottom + style.LANE_GAP
        self.bottom = top - style.LANE_GAP

    def _place_operations(self, ids: Sequence[ServerId]) -> list[tuple[Operation, int]]:
        """Each operation in the window with its row."""
        shown = [one for one in self.story.operations if self.scale.shows(one.begin, one.end)]
        known = [one for one in shown if one.server in ids]
        kept = self.out.keep(known, style.OPERATIONS_MAX, "client operations")
        rows = {i: Rows(style.OPERATION_ROWS_MAX) for i in ids}
        placed = []
        for one in kept:
            end = self.scale.x(self.scale.end if one.end is None else one.end)
            row = rows[one.server].place(self.scale.x(one.begin), max(end, self.scale.x(one.begin) + 3) + 10)
            if row is not None:
                placed.append((one, row))
        self.out.say(len(kept) - len(placed), "client operations")
        return placed

    def paint_ground(self, canvas: Canvas) -> None:
        """What lies below the axis' lines."""
        for lane in self.lanes.values():
            self._ground(canvas, lane)

    def paint(self, canvas: Canvas) -> None:
        """What happened, the most important on top."""
        for lane in self.lanes.values():
            left, right = self.scale.left, self.scale.right
            canvas.line(left, lane.frames, right, lane.frames, stroke=style.SOFT, stroke_width=1.2)
        states = [one for one in self.story.states if one.server in self.lanes]
        shown = [one for one in states if self.scale.shows(one.begin, one.end)]
        kept = self.out.keep(shown, style.STATES_MAX, "crashes and pauses")
        for state in kept:
            self._state(canvas, state)
        self._messages(canvas)
        self._bars(canvas)
        self._marks(canvas)
        for operation, row in self.operations:
            self._operation(canvas, operation, self.lanes[operation.server].operation(row))
        for state in kept:
            self._state_words(canvas, state)

    # -- the ground -------------------------------------------------------------------------------

    def _ground(self, canvas: Canvas, lane: Lane) -> None:
        left, right = self.scale.left, self.scale.right
        canvas.box(left, lane.top, right - left, lane.bottom - lane.top, fill=style.LANE, rx=3)
        canvas.words(
            style.MARGIN, lane.frames + 4, f"server {lane.server}", style.HEADING, font_weight="bold"
        )
        canvas.open(stroke=style.GRID, stroke_width=1)
        for group in range(self.groups):
            y = lane.group(GroupId(group))
            canvas.line(left, y, right, y)
        canvas.close()
        canvas.open(font_size=style.SMALL, text_anchor="end", fill=style.SOFT)
        for group in range(self.groups):
            y = lane.group(GroupId(group)) + 3
            canvas.add("text", "", f"g{group}", x=left - 6, y=y, fill=style.colour(GroupId(group)))
        if lane.rows:
            canvas.add("text", "", "clients", x=left - 6, y=lane.operation(0) + 9)
        canvas.close()

    def _state(self, canvas: Canvas, state: State) -> None:
        lane = self.lanes[state.server]
        begin, end = self.scale.x(state.begin), self.scale.x(self._end(state.end))
        height = lane.bottom - lane.top
        self.used.add(state.kind)
        canvas.box(begin, lane.top, end - begin, height, fill=style.LANE)
        canvas.box(
            begin,
            lane.top,
            end - begin,
            height,
            _state_tip(state),
            fill=f"url(#craft-{state.kind})",
            class_=f"craft-{state.kind}",
        )

    def _state_words(self, canvas: Canvas, state: State) -> None:
        """What it is, in the middle of the span, if there is room."""
        lane = self.lanes[state.server]
        begin, end = self.scale.x(state.begin), self.scale.x(self._end(state.end))
        if state.kind == "down":
            why = state.why.partition(":")[0]
            words = why if why.startswith(("not ", "refused")) else f"down: {why}" if why else "down"
        else:
            words = state.kind
        width = text_width(words, style.BODY) + 10
        if width + 6 > end - begin:
            return
        middle = (begin + end) / 2
        canvas.box(middle - width / 2, lane.frames - 8, width, 16, fill=style.PAPER, rx=3, stroke=style.FAINT)
        canvas.words(middle, lane.frames + 4, words, style.BODY, text_anchor="middle", fill=style.INK)

    def _end(self, end: int | None) -> int:
        return self.story.end if end is None else end

    # -- leaders ----------------------------------------------------------------------------------

    def _bars(self, canvas: Canvas) -> None:
        led = [one for one in self.story.led if one.server in self.lanes and one.group < self.groups]
        shown = [one for one in led if self.scale.shows(one.begin, one.end)]
        for one in self.out.keep(shown, style.BARS_MAX, "times of a leader"):
            self._bar(canvas, one)

    def _bar(self, canvas: Canvas, led: Led) -> None:
        begin, end = self.scale.x(led.begin), self.scale.x(self._end(led.end))
        top = self.lanes[led.server].group(led.group) - style.BAR / 2
        until = "" if led.end is None else f" to {_at(led.end)}"
        tip = f"server {led.server} leads group {led.group} in term {led.term} from {_at(led.begin)}{until}"
        fill = style.colour(led.group)
        canvas.box(begin, top, end - begin, style.BAR, tip, fill=fill, rx=2, class_="craft-leads")
        words = f"term {led.term}"
        if text_width(words, style.SMALL) + 8 <= end - begin:
            canvas.words(begin + 4, top + 8.5, words, style.SMALL, fill=style.on_colour(led.group))

    # -- marks ------------------------------------------------------------------------------------

    def _marks(self, canvas: Canvas) -> None:
        """Entries appended and committed in their group's row, applied on the line of frames."""
        marks = [
            one for one in self.story.marks if one.server in self.lanes and self.scale.shows(one.at, one.at)
        ]
        marks = [one for one in marks if one.group is None or one.group < self.groups]
        marks = [
            one for one in marks if one.kind == "apply" or self._led_words_end(one) <= self.scale.x(one.at)
        ]
        kept = self.out.keep(
            marks, style.MARKS_MAX, "marks of appended, committed, applied", lambda one: MARK_RANKS[one.kind]
        )
        self.used.update(one.kind for one in kept)

        def look(one: Event) -> tuple[str, str]:
            if one.group is None:
                return one.kind, style.INK
            on_bar = self._leader(one) is not None
            return one.kind, style.on_colour(one.group) if on_bar else style.colour(one.group)

        for (kind, colour), some in groupby(sorted(kept, key=look), key=look):
            if kind == "append":
                canvas.open(stroke=colour, stroke_width=1.2, class_="craft-append")
            else:
                canvas.open(fill=colour, class_=f"craft-{kind}")
            for one in some:
                self._mark(canvas, one)
            canvas.close()

    def _leader(self, mark: Event) -> Led | None:
        """Whose bar is below a mark?"""
        some = self._led.get((mark.server, mark.group), [])
        place = bisect_right(some, mark.at, key=lambda led: led.begin) - 1
        if place >= 0 and mark.at <= self._end(some[place].end):
            return some[place]
        return None

    def _led_words_end(self, mark: Event) -> float:
        """Marks spare the term on a bar."""
        led = self._leader(mark)
        if led is None:
            return 0.0
        begin, width = self.scale.x(led.begin), text_width(f"term {led.term}", style.SMALL) + 8
        return begin + width if width <= self.scale.x(self._end(led.end)) - begin else 0.0

    def _mark(self, canvas: Canvas, mark: Event) -> None:
        x, lane = self.scale.x(mark.at), self.lanes[mark.server]
        y = lane.frames if mark.group is None else lane.group(mark.group)
        about_group = "" if mark.group is None else f" group {mark.group}"
        tip = f"{_at(mark.at)} {mark.kind}{about_group} {mark.rest}"
        if mark.kind == "append":
            canvas.line(x, y - 3.5, x, y + 3.5, tip)
        elif mark.kind == "commit":
            canvas.add("circle", tip, cx=x, cy=y, r=2.2)
        else:
            canvas.add("path", tip, d=_path((x, y - 3), (x + 3, y), (x, y + 3), (x - 3, y)) + "z")

    # -- frames -----------------------------------------------------------------------------------

    def _messages(self, canvas: Canvas) -> None:
        lanes, scale = self.lanes, self.scale
        known = [one for one in self.story.messages if one.sender in lanes and one.receiver in lanes]
        flights = [one.arrived - one.sent for one in known if one.arrived is not None]
        flight = int(statistics.median_low(flights)) if flights else (scale.end - scale.begin) // 50
        known = [one for one in known if scale.shows(one.sent, one.arrived or one.sent + flight)]
        for level, name in ((1, "heartbeats"), (2, "frames of commits alone"), (3, "frames of reads")):
            if len(known) > style.MESSAGES_MAX:
                quiet = [one for one in known if one.quiet == level]
                known = [one for one in known if one.quiet != level]
                self.out.say(len(quiet), name)
        kept = self.out.keep(known, style.MESSAGES_MAX, "earlier frames")
        slowest = max(flights, default=flight)
        canvas.open(clip_path="url(#craft-plot)", fill="none")
        for look, some in groupby(sorted(kept, key=_look), key=_look):
            self._some_messages(canvas, list(some), look, flight, slowest)
        canvas.close()

    def _some_messages(
        self, canvas: Canvas, some: list[Message], look: tuple[int, int], flight: int, slowest: int
    ) -> None:
        """Messages of one look: quiet ones thin and pale, the others in their group's colour."""
        loud, group = look
        colour = style.colour(GroupId(group) if group >= 0 else None) if loud else style.FAINT
        self.used.add("message" if loud else "quiet")
        look_: Look = {"stroke_width": 1.0, "stroke_opacity": 0.7} if loud else {"stroke_width": 0.7}
        canvas.open(stroke=colour, class_="craft-frame", **look_)
        for one in some:
            under_way = one.arrived is None and not one.lost and self.story.end - one.sent <= slowest
            begin, end = self.lanes[one.sender].frames, self.lanes[one.receiver].frames
            x, tip = self.scale.far(one.sent), _message_tip(one, under_way)
            if one.arrived is not None or under_way:
                there = self.scale.far(one.arrived if one.arrived is not None else one.sent + flight)
                canvas.add("path", tip, d=_arrow(x, begin, there, end))
                continue
            self.used.add("lost")
            to_x = x + LOST_SHARE * (self.scale.far(one.sent + flight) - x)
            to_y = begin + LOST_SHARE * (end - begin)
            canvas.line(x, begin, to_x, to_y, tip, stroke_dasharray="4 2.5", class_="craft-lost")
            canvas.add("path", "", d=_cross(to_x, to_y), stroke=style.ALARM, stroke_width=1.3)
        canvas.close()

    # -- clients ----------------------------------------------------------------------------------

    def _operation(self, canvas: Canvas, one: Operation, top: float) -> None:
        begin = self.scale.x(one.begin)
        end = self.scale.x(self.scale.end if one.end is None else one.end)
        width, height = max(end - begin, 3.0), style.OPERATION_ROW - 3
        outcome = one.outcome or "open"
        good = outcome in {"answer", "served"}
        self.used.add(one.kind if good else outcome)
        colour = style.ALARM if outcome == "reject" else style.CLIENT
        filled = good and one.kind == "write"
        dashes: Look = {} if good else {"stroke_dasharray": "3 2"}
        tip = _operation_tip(one)
        canvas.box(
            begin, top, width, height, tip, fill=colour if filled else style.PAPER, stroke=colour, rx=2,
            class_=f"craft-{outcome}", **dashes,
        )  # fmt: skip
        words = f"{one.kind} #{one.number}"
        short = f"#{one.number}"
        text = next((text for text in (words, short) if text_width(text, style.SMALL) + 8 <= width), "")
        if text:
            fill = style.PAPER if filled else colour
            canvas.words(begin + 4, top + 8, text, style.SMALL, fill=fill)
        sign = {"reject": "!", "unknown": "?"}.get(outcome)
        if sign and one.end is not None and one.end <= self.scale.end:
            canvas.words(end + 2, top + 9, sign, style.BODY, fill=colour, font_weight="bold")


# -- words and lines -------------------------------------------------------------------------------


def _at(at: int) -> str:
    return time_words(at, MS)


def _look(message: Message) -> tuple[int, int]:
    """Quiet ones first, below the others; then by group."""
    group = message.group
    return int(not message.quiet), -1 if group is None else group


def _state_tip(state: State) -> str:
    until = "" if state.end is None else f" to {_at(state.end)}"
    why = f": {state.why}" if state.why else ""
    return f"server {state.server} is {state.kind} from {_at(state.begin)}{until}{why}"


def _message_tip(message: Message, under_way: bool) -> str:
    way = f"{_at(message.sent)} {message.sender} to {message.receiver}: {message.words}"
    if message.arrived is not None:
        return f"{way}, arrived after {about(message.arrived - message.sent)}"
    return f"{way}, {'lost' if message.lost else 'under way at the end' if under_way else 'never arrived'}"


def _operation_tip(one: Operation) -> str:
    words = f"{one.kind} #{one.number} on server {one.server} at {_at(one.begin)}"
    if one.end is None:
        return f"{words}: open"
    return f"{words}: {one.outcome} after {about(one.end - one.begin)} {shortened(one.told, 100)}".rstrip()


def _path(*points: tuple[float, float]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _cross(x: float, y: float) -> str:
    return _path((x - 3, y - 3), (x + 3, y + 3)) + _path((x - 3, y + 3), (x + 3, y - 3))


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """A line with a small head at its end."""
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5 or 1.0
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    one = (x2 - 5 * dx - 2 * dy, y2 - 5 * dy + 2 * dx)
    other = (x2 - 5 * dx + 2 * dy, y2 - 5 * dy - 2 * dx)
    return _path((x1, y1), (x2, y2)) + _path(one, (x2, y2), other)
