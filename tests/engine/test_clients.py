"""A remote client's requests through several servers: once, in its session, beyond what it was answered."""

from __future__ import annotations

import itertools

import msgpack
import pytest

from craft.applying import Applier, Told
from craft.client_sessions import OpenTag, RequestTag, Tag, TouchTag, encode_tagged
from craft.errors import Rejected
from craft.messages import Forward, Frame
from craft.ready import Merged, Verdict
from craft.types import TIMESTAMP_MAX
from tests.driver import MS, SECOND, Cluster, Server

ID = b"c" * 16
TTL_MS = 3_000


class _Places:
    """A state machine that answers with how many commands it has applied."""

    def __init__(self) -> None:
        self.count = 0

    def apply_batch(self, batch: list[bytes]) -> list[int]:
        first = self.count + 1
        self.count += len(batch)
        return list(range(first, self.count + 1))


class Clients(Cluster):
    """A cluster whose servers tell clients what became of their requests."""

    def __init__(self, servers: int = 3, groups: int = 3, *, seed: int = 0) -> None:
        self.told: dict[str, Told] = {}
        self.appliers: dict[int, Applier] = {}  # by incarnation
        self.names = itertools.count(1)
        super().__init__(servers, groups, seed=seed)

    def _apply(self, server: Server, run: tuple[Merged, ...]) -> None:
        applier = self.appliers.setdefault(server.incarnation, Applier(_Places()))  # type: ignore[arg-type]
        for token, told in applier.run(list(run)):
            if isinstance(told, Told):
                assert token not in self.told
                self.told[token] = told
        super()._apply(server, run)

    def ask(self, i: int, tag: Tag, *commands: bytes, floor: int = 0) -> str:
        """Propose a client's request through a server; returns what `told` will know it by."""
        name = f"client request {next(self.names)}"
        server = self.servers[i]
        server.engine.propose(name, encode_tagged(tag, msgpack.packb(commands)), floor)
        self._schedule(server, self.time)
        return name

    def tell(self, i: int, tag: Tag, *commands: bytes, floor: int = 0) -> Told:
        name = self.ask(i, tag, *commands, floor=floor)
        self.run_until(lambda: name in self.told)
        return self.told[name]

    def results(self, i: int) -> Applier:
        return self.appliers[self.servers[i].incarnation]


@pytest.fixture
def c() -> Clients:
    cluster = Clients()
    cluster.settle_evenly()
    return cluster


def test_a_request_that_enters_through_two_servers_takes_effect_once(c: Clients) -> None:
    """The client lost the first answer; the second server gives it, as it was."""
    opened = c.tell(0, OpenTag(ID, TTL_MS)).opened
    first = c.tell(0, RequestTag(ID, opened, 1, 1), b"a", b"b")
    again = c.tell(2, RequestTag(ID, opened, 1, 1), b"a", b"b")
    assert (first.verdict, first.results) == (Verdict.EXECUTED, [1, 2])
    assert (again.verdict, again.results) == (Verdict.REPEATED, [1, 2])
    c.quiesce()
    assert all(c.commands(i) == [b"a", b"b"] for i in c.ids)


def test_copies_under_way_at_the_same_time_take_effect_once(c: Clients) -> None:
    """Whichever merges first executes; both are answered with its results."""
    opened = c.tell(0, OpenTag(ID, TTL_MS)).opened
    names = [c.ask(i, RequestTag(ID, opened, 1, 1), b"a") for i in c.ids]
    c.run_until(lambda: all(name in c.told for name in names))
    assert sorted(c.told[name].verdict.name for name in names) == ["EXECUTED", "REPEATED", "REPEATED"]
    assert [c.told[name].results for name in names] == [[1]] * 3


def test_a_retry_survives_the_server_that_took_the_request(c: Clients) -> None:
    """It crashed before it could answer; its copy may still be merged, and then it was this one."""
    opened = c.tell(0, OpenTag(ID, TTL_MS)).opened
    c.ask(0, RequestTag(ID, opened, 1, 1), b"a")
    c.run(300_000)
    c.crash(0)
    told = c.tell(1, RequestTag(ID, opened, 1, 1), b"a")
    assert told.results == [1]
    c.start(0)
    c.settle()
    c.quiesce()
    assert all(c.commands(i) == [b"a"] for i in c.ids)
    assert c.tell(0, RequestTag(ID, opened, 1, 1), b"a").results == [1]  # replayed, it remembers too


def test_without_an_open_nothing_takes_effect(c: Clients) -> None:
    """(†) Nor in a session that another `open` of this id made."""
    assert c.tell(1, RequestTag(ID, 1, 1, 1), b"a").verdict is Verdict.ENDED
    opened = c.tell(1, OpenTag(ID, TTL_MS)).opened
    assert c.tell(1, RequestTag(ID, opened - 1, 1, 1), b"a").verdict is Verdict.ENDED
    assert c.commands(1) == []


def test_a_session_ends_where_merged_time_says_so(c: Clients) -> None:
    """Not while nothing is merged, however long that takes; then everywhere at the same entry."""
    opened = c.tell(0, OpenTag(ID, TTL_MS)).opened
    c.run(60 * SECOND)
    assert all(len(server.engine.state.clients) == 1 for server in c.servers.values())
    c.write_and_wait(1, b"time passes")
    c.quiesce()
    assert all(len(server.engine.state.clients) == 0 for server in c.servers.values())
    assert c.tell(2, RequestTag(ID, opened, 1, 1), b"a").verdict is Verdict.ENDED


def test_a_wild_clock_ends_no_session_early(c: Clients) -> None:
    """A server whose clock reads a year ahead stamps by a majority's clocks (PROTOCOL 2)."""
    opened = c.tell(0, OpenTag(ID, TTL_MS)).opened
    c.clocks[1] = lambda time: c.clock_of(0) + 365 * 86_400 * SECOND
    c.run(SECOND)
    c.write_and_wait(1, b"from the future")
    assert c.tell(0, TouchTag(ID, opened)).verdict is Verdict.TOUCHED


def test_a_request_is_stamped_beyond_what_its_client_was_answered(c: Clients) -> None:
    """Its floor travels with it, also to a server whose clock is behind (PROTOCOL 2, attack 7)."""
    opened = c.tell(0, OpenTag(ID, TTL_MS)).opened
    c.clocks[2] = lambda time: c.clock_of(0) - 40 * MS
    floor = c.tell(0, RequestTag(ID, opened, 1, 1), b"a").timestamp
    told = c.tell(2, RequestTag(ID, opened, 2, 2), b"b", floor=floor)
    assert told.timestamp > floor


def test_a_clients_floor_rides_on_the_proposal(c: Clients) -> None:
    """The server's own line may be lower: the greater of the two is sent."""
    seen: list[int] = []

    def spy(sender: int, receiver: int, frame: Frame) -> Frame:
        for message in frame.messages:
            if isinstance(message, Forward):
                seen.extend(proposal.answered_timestamp for proposal in message.proposals)
        return frame

    two = Clients(3, 2)
    two.settle_evenly()
    two.intercept = spy
    floor = two.servers[2].engine.state.greatest_timestamp + 1
    two.tell(2, OpenTag(ID, TTL_MS), floor=floor)
    assert seen == [floor]


@pytest.mark.parametrize("ahead", [SECOND, TIMESTAMP_MAX])
def test_no_client_moves_the_clusters_time(c: Clients, ahead: int) -> None:
    """A floor beyond every clock is refused where it comes in, and leaves nothing waiting."""
    floor = min(TIMESTAMP_MAX, c.clock_of(0) + ahead)
    assert not c.servers[0].engine.takes_floor(floor)
    with pytest.raises(Rejected, match=f"answered at {floor}"):
        c.ask(0, OpenTag(ID, TTL_MS), floor=floor)
    assert not c.servers[0].engine.state.pending
    c.run(2 * SECOND)
    assert c.servers[0].engine.takes_floor(floor) is (ahead == SECOND)


def test_servers_keep_the_same_sessions_and_results(c: Clients) -> None:
    """Whatever lists they applied, and whoever answered."""
    ids = [bytes([n]) * 16 for n in range(5)]
    opened = [c.tell(n % 3, OpenTag(one, TTL_MS)).opened for n, one in enumerate(ids)]
    commands = itertools.count()
    for request in range(1, 8):
        names = [
            c.ask(
                (n + request) % 3, RequestTag(one, at, request, max(1, request - 3)), b"%d" % next(commands)
            )
            for n, (one, at) in enumerate(zip(ids, opened, strict=True))
        ]
        c.run(3 * MS)
        if request % 3 == 0:
            c.run_until(lambda: all(name in c.told for name in names))  # noqa: B023  # asked at once
    c.quiesce()
    kept = [c.results(i).client_results._kept for i in c.ids]
    assert kept[0] == kept[1] == kept[2] and len(kept[0]) >= 5
    for one in ids:
        sessions = [server.engine.state.clients.get(one) for server in c.servers.values()]
        assert len({(s.opened, s.deadline, s.below, tuple(sorted(s.executed))) for s in sessions if s}) == 1
