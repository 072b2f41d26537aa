"""Suspects in the engine: what a lost tail may have held besides entries (PROTOCOL 5, 10)."""

from __future__ import annotations

from craft.types import Write
from tests.driver import Cluster


def doubt(cluster: Cluster, i: int) -> None:
    """As a start does that finds the end of the log damaged."""
    storage = cluster.disks[i]
    storage.write(
        Write(0, (), (), None, suspicions=tuple((group, "torn") for group in range(cluster.groups)))
    )
    storage.sync()


def test_a_suspect_leaves_a_gap_in_its_session_numbers() -> None:
    """The tail that is missing may have held a number that was used: its open may still be on its way."""
    c = Cluster()
    c.settle()
    before = c.servers[1].engine.state.counter
    c.crash(1)
    doubt(c, 1)
    c.start(1)
    c.settle()
    assert c.servers[1].engine.state.counter > before + 500
    c.write_and_wait(1, b"x")
    assert not c.servers[1].engine.suspicions


def test_all_suspect_come_back_with_everything() -> None:
    """A power cut of all: everyone's vote decides, and nothing that was answered is lost."""
    c = Cluster()
    c.settle()
    for number in range(5):
        c.write_and_wait(number % 3, b"%d" % number)
    for i in c.ids:
        c.crash(i)
    for i in c.ids:
        doubt(c, i)
    for i in c.ids:
        c.start(i)
    c.settle()
    for i in c.ids:
        c.read_and_wait(i)
        assert c.commands(i) == [b"%d" % number for number in range(5)]
        assert not c.servers[i].engine.suspicions
