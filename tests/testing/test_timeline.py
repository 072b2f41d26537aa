"""The picture of a run: what is drawn is what happened, within bounds, and readable."""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from craft.testing import timeline
from craft.testing.parallel import attempt
from craft.testing.plan import MS, Plan
from craft.testing.timeline import style
from craft.testing.timeline.scale import Scale, about, side_by_side, step, time_words
from craft.testing.trace import Event, Trace
from craft.types import GroupId, ServerId
from tests.regenerate import PICTURE, PICTURE_PLAN, PICTURE_WINDOW, ROOT

SVG = "{http://www.w3.org/2000/svg}"


def event(
    ms: float, server: int, kind: str, rest: str = "", *, group: int | None = None, peer: int = 0
) -> Event:
    where = None if group is None else GroupId(group)
    return Event(int(ms * MS), ServerId(server), kind, where, ServerId(peer) if peer else None, rest)


ELECTION = [
    event(0, 1, "start", "counter 0"),
    event(0, 2, "start", "counter 0"),
    event(0, 3, "start", "counter 0"),
    event(10, 1, "lead", "term 1", group=0),
    event(12, 1, "propose", "#1"),
    event(12, 1, "append", "index 1 term 1 timestamp 5", group=0),
    event(13, 1, "send", "f1 AppendEntries g0", peer=2),
    event(13, 1, "send", "f2 AppendEntries g0", peer=3),
    event(13, 1, "lose", "f2 AppendEntries g0", peer=3),
    event(18, 2, "receive", "f1 AppendEntries g0", peer=1),
    event(20, 1, "commit", "index 1", group=0),
    event(22, 1, "merge", "position 1 timestamp 5 index 1", group=0),
    event(22, 1, "apply", "position 1"),
    event(23, 1, "answer", "#1 position 1"),
    event(25, 2, "read", "#2"),
    event(30, 1, "propose", "#3"),
    event(40, 0, "fault", "#1 kill"),
    event(40, 1, "crash", "killed: 0 of 0 unsynced batches survive"),
    event(40, 1, "unknown", "#3"),
    event(42, 2, "reject", "#2 too many reads"),
    event(60, 2, "lead", "term 2", group=0),
    event(70, 2, "merge", "position 2 timestamp 9 index 2", group=0),
    event(70, 3, "merge", "position 1 timestamp 5 index 1", group=0),
    event(80, 0, "heal", "#1 kill"),
    event(80, 1, "start", "counter 1"),
    event(90, 3, "pause"),
    event(95, 0, "phase", "everything heals but what is permanent"),
    event(100, 0, "phase", "all faults heal"),
]


def draw(events: list[Event], **options: int) -> ET.Element:
    return ET.fromstring(timeline.render(events, servers=3, groups=1, title="a run", **options))


def of_class(picture: ET.Element, name: str, tag: str = "*") -> list[ET.Element]:
    return [one for one in picture.iter() if one.get("class") == f"craft-{name}" and tag in {"*", one.tag}]


def texts(picture: ET.Element) -> list[str]:
    return [one.text or "" for one in picture.iter(f"{SVG}text")]


def tips(picture: ET.Element, name: str) -> list[str]:
    return [one.findtext(f"{SVG}title") or "" for one in of_class(picture, name)]


def x_of(ms: float, end_ms: float = 100) -> float:
    return round(Scale(0, int(end_ms * MS), style.LEFT, style.RIGHT).x(int(ms * MS)), 1)


def edges(box: ET.Element) -> tuple[float, float]:
    left = float(box.get("x") or 0)
    return left, round(left + float(box.get("width") or 0), 1)


# -- what is drawn ---------------------------------------------------------------------------------


def test_every_server_has_a_lane() -> None:
    """Even one that nothing happens to."""
    assert {f"server {i}" for i in (1, 2, 3)} <= set(texts(draw(ELECTION)))


def test_a_bar_stands_where_a_server_leads() -> None:
    """From its election to its crash, and from then on the next one's; with the term."""
    picture = draw(ELECTION)
    first, second = of_class(picture, "leads")
    assert edges(first) == (x_of(10), x_of(40))
    assert edges(second) == (x_of(60), x_of(100))
    assert tips(picture, "leads") == [
        "server 1 leads group 0 in term 1 from 10 ms to 40 ms",
        "server 2 leads group 0 in term 2 from 60 ms",
    ]
    assert {"term 1", "term 2"} <= set(texts(picture))


def test_a_group_has_one_colour_everywhere() -> None:
    """Its leader's bar, its frames and its merged entries."""
    picture = draw(ELECTION)
    frames = [one for one in of_class(picture, "frame") if one.get("stroke") == style.colour(GroupId(0))]
    assert len(frames) == 1
    shown = of_class(picture, "leads") + of_class(picture, "entry")
    assert {one.get("fill") for one in shown} == {style.colour(GroupId(0))}


def test_a_lost_frame_is_told_from_one_that_arrives() -> None:
    """Dashed, with a cross; the other one ends where and when it arrived."""
    picture = draw(ELECTION)
    assert tips(picture, "lost") == ["13 ms 1 to 3: AppendEntries g0, lost"]
    assert of_class(picture, "lost")[0].get("stroke-dasharray")
    (arrived,) = (
        one
        for one in picture.iter(f"{SVG}path")
        if "arrived after 5 ms" in (one.findtext(f"{SVG}title") or "")
    )
    assert f"L{x_of(18):.1f} " in (arrived.get("d") or "")


def test_frames_that_arrive_twice_are_drawn_twice() -> None:
    """From the one time they were sent."""
    events = [*ELECTION, event(110, 2, "receive", "f1 AppendEntries g0", peer=1)]
    told = [title.text or "" for title in draw(events).iter(f"{SVG}title")]
    assert "13 ms 1 to 2: again: AppendEntries g0, arrived after 97 ms" in told


def test_faults_last_until_they_heal() -> None:
    """With their name, and what they chose."""
    events = [*ELECTION[:17], event(40, 0, "fault", "cut 1>2, 2>1"), *ELECTION[17:]]
    picture = draw(events)
    (fault,) = of_class(picture, "fault")
    assert edges(fault) == (x_of(40), x_of(80))
    assert tips(picture, "fault") == ["fault #1 kill from 40 ms to 80 ms: cut 1>2, 2>1"]
    assert "#1 kill: cut 1>2, 2>1" in texts(picture)


def test_a_crashed_and_a_paused_server_are_hatched() -> None:
    """With the reason, where there is room."""
    picture = draw(ELECTION)
    (down,) = tips(picture, "down")
    assert down.startswith("server 1 is down from 40 ms to 80 ms: killed")
    assert tips(picture, "paused") == ["server 3 is paused from 90 ms"]
    assert "down: killed" in texts(picture)


def test_outcomes_of_clients_look_different() -> None:
    """Answered, rejected, never known."""
    picture = draw(ELECTION)
    (answered,), (rejected,), (unknown,) = (
        of_class(picture, kind) for kind in ("answer", "reject", "unknown")
    )
    looks = {
        tuple(one.get(key) for key in ("fill", "stroke", "stroke-dasharray"))
        for one in (answered, rejected, unknown)
    }
    assert len(looks) == 3
    assert tips(picture, "reject") == ["read #2 on server 2 at 25 ms: reject after 17 ms too many reads"]


def test_the_merged_log_stands_in_its_order() -> None:
    """Each position once, tied to the time when a server first merged it."""
    picture = draw(ELECTION)
    assert [tip.rpartition(": ")[2] for tip in tips(picture, "entry")] == [
        "first merged by server 1 at 22 ms",
        "first merged by server 2 at 70 ms",
    ]


def test_a_violation_is_a_line_with_words() -> None:
    """At the time it was found; so is a phase, in another look."""
    picture = draw([*ELECTION, event(100, 0, "violation", "log matching: index 3 differs\nand much more")])
    (line,) = of_class(picture, "violation")
    assert float(line.get("x1") or 0) == x_of(100)
    assert line.get("stroke") == style.ALARM
    assert "VIOLATED: log matching: index 3 differs" in texts(picture)
    assert len(of_class(picture, "phase")) == 2


def test_who_cannot_see_it_is_told_what_it_shows() -> None:
    """A title and a description."""
    picture = draw(ELECTION)
    assert picture.findtext(f"{SVG}title") == "a run"
    assert str(picture.findtext(f"{SVG}desc")).startswith("3 servers, 1 groups. virtual time 0 ms to 100 ms")


def test_a_window_shows_what_reaches_into_it() -> None:
    """A leader of before, but no entry of before."""
    picture = draw(ELECTION, begin=30 * MS, end=50 * MS)
    assert len(of_class(picture, "leads")) == 1
    assert of_class(picture, "entry") == []
    assert "Virtual time 30 ms to 50 ms, of a run of 100 ms" in texts(picture)
    assert "nothing was merged in this time" in texts(picture)


# -- bad input, long input -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hostile", ['<script>alert("1")</script>', "a & b", "]]>", 'x" onload="y', "\x00\x1b[2J\ud800"]
)
def test_hostile_text_is_only_text(hostile: str) -> None:
    """In a title, in words of events, in tooltips and attributes."""
    events = [
        *ELECTION[:4],
        event(20, 0, "fault", f"#1 {hostile}"),
        event(30, 1, "crash", hostile),
        event(40, 0, "violation", hostile),
    ]
    text = timeline.render(events, servers=3, groups=1, title=hostile)
    picture = ET.fromstring(text)
    assert {one.tag.removeprefix(SVG) for one in picture.iter()}.isdisjoint({"script", "a", "image"})
    assert not any(key.startswith("on") for one in picture.iter() for key in one.attrib)
    text.encode("utf-8")


def test_nothing_happened() -> None:
    """No events are a picture as well."""
    assert {"server 1", "server 3"} <= set(texts(draw([])))


def test_a_long_run_is_bounded_and_says_what_it_left_out() -> None:
    """Whatever there is too much of."""
    events = list(ELECTION)
    for number in range(5000):
        at = 101 + number / 10
        i = number % 3 + 1
        events += [
            event(at, i, "send", f"f{number + 10} AppendEntries g0", peer=i % 3 + 1),
            event(at, i, "send", f"f{number + 9000} heartbeat", peer=i % 3 + 1),
            event(at, i, "append", f"index {number} term 1 timestamp 1", group=0),
            event(at, i, "lead", f"term {number + 3}", group=0),
            event(at, i, "propose", f"#{number + 10}"),
            event(at, 0, "fault", f"#{number + 10} kill"),
            event(at, i, "pause"),
            event(at, i, "resume"),
            event(at, i, "merge", f"position {number + 3} timestamp 1 index 1", group=0),
            event(at, 0, "phase", "another"),
        ]
    text = timeline.render(events, servers=40, groups=50, title="long")
    picture = ET.fromstring(text)
    shapes = [one for one in picture.iter() if one.tag != f"{SVG}title"]
    assert len(shapes) < timeline.ELEMENTS_MAX
    assert len(text) < 2_000_000
    told = " ".join(texts(picture))
    for words in (
        "5,000 heartbeats", "earlier frames", "marks of", "times of a leader", "earlier faults",
        "client operations", "24 servers", "34 groups", "earlier entries of the merged log",
        "crashes and pauses",
    ):  # fmt: skip
        assert words in told


def test_the_least_telling_frames_are_left_out_first() -> None:
    """Heartbeats before anything else."""
    beats = [event(50, 1, "send", f"f{n + 10} heartbeat", peer=2) for n in range(timeline.MESSAGES_MAX)]
    picture = draw([*ELECTION, *beats])
    assert f"Left out: {timeline.MESSAGES_MAX} heartbeats" in texts(picture)
    assert len(tips(picture, "lost")) == 1


# -- arithmetic ------------------------------------------------------------------------------------


def test_ticks_are_round() -> None:
    """1, 2 or 5 times a power of ten, with exact words."""
    assert [step(span * MS) // MS for span in (10, 11, 40, 60, 1000)] == [1, 2, 5, 10, 100]
    assert next(Scale(19 * MS, 31 * MS, 0, 12).ticks()) == (20 * MS, "20 ms")
    assert time_words(1_234_500_000) == "1,234.5 ms"
    assert (about(8_669_604_254), about(61_234_567_890), about(0)) == ("8,669.6 ms", "61.23 s", "0 ms")


def test_cells_stand_side_by_side() -> None:
    """Near where they want to be, in their order, inside."""
    assert side_by_side([0, 1, 50], 10, 0, 100) == [0, 10, 50]
    assert side_by_side([95, 95, 95], 10, 0, 100) == [70, 80, 90]


# -- windows ---------------------------------------------------------------------------------------


def test_the_window_is_about_what_went_wrong() -> None:
    """The end of a run that violates something; else around the first fault behind the first election."""
    late = [event(0, 1, "start"), event(10, 1, "lead", "term 1", group=0), event(900, 0, "fault", "#1 kill")]
    assert timeline.telling_window([*late, event(5000, 1, "start")]) == (800 * MS, 1200 * MS)
    assert timeline.telling_window([*late, event(5000, 0, "violation", "x")]) == (4600 * MS, 5000 * MS)
    assert timeline.telling_window(late[:2]) == (0, 10 * MS)
    assert timeline.telling_window([]) == (0, 1)
    assert timeline.last_window(late, 100 * MS) == (800 * MS, 900 * MS)


# -- real runs -------------------------------------------------------------------------------------


def events_of(plan: Plan) -> list[Event]:
    return list(attempt(plan, trace=Trace(keep=True)).trace)


def kept() -> Plan:
    return Plan.from_json((ROOT / PICTURE_PLAN).read_text(encoding="utf-8"))


def test_the_same_plan_gives_the_same_picture() -> None:
    """Byte by byte; and all of its frames have a number and find their ends."""
    texts_ = []
    for _ in range(2):
        plan = kept()
        text = timeline.render(events_of(plan), servers=plan.servers, groups=plan.groups, title="twice")
        texts_.append(hashlib.sha256(text.encode()).hexdigest())
    assert texts_[0] == texts_[1]


def test_the_picture_in_the_docs_shows_what_the_page_says() -> None:
    """A leader is killed, another one is elected, three groups merge."""
    begin, end = PICTURE_WINDOW
    events = [one for one in events_of(kept()) if begin <= one.at <= end]
    (crashed,) = [one.server for one in events if one.kind == "crash"]
    (elected,) = [one.server for one in events if one.kind == "lead"]
    assert crashed != elected
    assert {one.group for one in events if one.kind == "merge"} == {0, 1, 2}
    text = (ROOT / PICTURE).read_text(encoding="utf-8")
    assert len(text) < 150_000
    shown = ET.fromstring(text)
    assert any(re.fullmatch("down: .*", one) for one in texts(shown))
    assert len(of_class(shown, "leads")) == 4


def test_a_picture_needs_nothing_else() -> None:
    """No script, no font, no other file; it stands on a background of its own."""
    text = (ROOT / PICTURE).read_text(encoding="utf-8")
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    assert "href" not in text
    assert f'fill="{style.PAPER}"' in text
    assert Path(ROOT / PICTURE).suffix == ".svg"
