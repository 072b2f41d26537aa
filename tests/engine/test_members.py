"""What a server takes for its own membership, and when a new one counts as there (PROTOCOL 8)."""

from __future__ import annotations

from functools import partial

import pytest

from craft.engine import membership, merging
from craft.engine.state import EngineState
from craft.membership import Members
from craft.messages import Frame
from craft.sessions import NONCE_BYTES, OPEN, encode_payload
from craft.types import Configuration, EntryKind, Member, Proposal, make_entry
from tests.driver import MS, SECOND, Cluster

ME = 0


@pytest.fixture
def joiner() -> EngineState:
    """Server 0 as it joins on a new disk: told of version 8, in which nobody has its id; with no log yet."""
    e = Cluster().servers[ME].engine.state
    e.disk, e.was_member, e.reached_version = "new", False, 10
    e.roll = wanted(8)
    return e


def wanted(version: int, disk: str | None = None) -> Members:
    """A set of servers 1 and 2, and of ours on some disk."""
    members = Members({1, 2})
    members.version = version
    if disk is not None:
        members.servers[ME] = Member(disk=disk)
    return members


def merge(e: EngineState, members: Members) -> None:
    e.members = members
    membership.note_own(e)


def test_a_former_life_of_its_id_is_not_its_own(joiner: EngineState) -> None:
    """Soak seed 4727: who replays that its id was there, and left, would take itself for removed, and end."""
    merge(joiner, wanted(3, disk=""))
    merge(joiner, wanted(8))
    assert not joiner.removed
    merge(joiner, wanted(9, disk="new"))
    assert not joiner.removed
    merge(joiner, wanted(10))
    assert joiner.removed


def test_who_is_wanted_without_a_disk_is_removed_by_name(joiner: EngineState) -> None:
    """A set that is no older than what it was told at its joining means this very server."""
    merge(joiner, wanted(9, disk=""))
    merge(joiner, wanted(10))
    assert joiner.removed


def test_a_place_without_a_name_that_another_disk_takes_was_not_its_own(joiner: EngineState) -> None:
    """Soak seed 84168: told of version 8, it merges that: the place, and then who opened there."""
    merge(joiner, wanted(8, disk=""))
    merge(joiner, wanted(8, disk="former"))
    assert not joiner.removed
    merge(joiner, wanted(9, disk="former"))
    assert not joiner.removed
    merge(joiner, wanted(10, disk="new"))
    merge(joiner, wanted(11, disk="third"))
    joiner.reached_version = 11
    assert joiner.removed


def test_who_leaves_before_it_had_a_name_is_removed_whoever_comes_next(joiner: EngineState) -> None:
    """No session was opened under its id: the place was its own until it was left out."""
    merge(joiner, wanted(8, disk=""))
    merge(joiner, wanted(9))
    merge(joiner, wanted(10, disk="third"))
    assert joiner.removed


def test_a_session_that_is_merged_tells_at_once_whose_the_place_is(joiner: EngineState) -> None:
    """Before what comes behind it in the same turn, which may take that place away again."""
    merge(joiner, wanted(8, disk=""))
    opened = Proposal(ME, 1, OPEN, 0, 0, bytes(NONCE_BYTES) + b"former")
    entry = make_entry(
        0, index=1, term=1, timestamp=1, kind=EntryKind.SESSION, payload=encode_payload([opened])
    )
    merging._merge(joiner, 1, 0, entry)
    assert joiner.members.servers[ME].disk == "former"
    merge(joiner, wanted(9))
    assert not joiner.removed


def test_after_a_restart_its_configuration_tells_who_it_was(joiner: EngineState) -> None:
    """Its roll is of later than its membership then; but the groups had bound its disk."""
    joiner.roll = wanted(10)
    joiner.raft(0).bound = {ME: "new"}
    merge(joiner, wanted(9, disk=""))
    merge(joiner, wanted(10))
    joiner.raft(0).bound = {}
    assert joiner.removed


def test_after_a_restart_its_disks_name_tells_who_it_was(joiner: EngineState) -> None:
    """A set that named its disk meant nobody else, however old it is."""
    joiner.roll = wanted(10)
    merge(joiner, wanted(9, disk="new"))
    merge(joiner, wanted(10))
    assert joiner.removed


def test_a_configuration_ahead_of_the_merge_tells_nothing_of_former_lives(joiner: EngineState) -> None:
    """The groups have bound its disk for version 9; the merge is at its id's former life, long before."""
    for raft in joiner.replicas:
        raft.state.bound = {ME: "new"}
        raft.state.configuration = Configuration(frozenset({1, 2}), learners=frozenset({ME}), version=9)
    merge(joiner, wanted(3, disk=""))
    merge(joiner, wanted(8))
    assert not joiner.removed


def test_nobody_is_removed_who_votes_in_a_group(joiner: EngineState) -> None:
    """The merge may be far behind the logs."""
    merge(joiner, wanted(9, disk="new"))
    merge(joiner, wanted(10))
    joiner.raft(1).bound = {ME: "new"}
    assert not joiner.removed


def test_who_is_left_out_is_known_by_the_disk_that_votes(joiner: EngineState) -> None:
    """Soak seed 36176: server 1 came back on another disk, was left out soon after, and votes until then.

    Whoever had been away knew it by its first disk, and let it in no more; the two were the majority.
    """
    joiner.roll = Members({2})
    joiner.roll.version = 9
    older, newer, *_ = joiner.replicas
    older.state.bound = {1: "first"}
    older.state.configuration = Configuration(frozenset({1, 2}), version=3)
    newer.state.bound = {1: "second"}
    newer.state.configuration = Configuration(frozenset({1, 2}), version=8)
    assert membership.member(joiner, 1).disk == "second"
    joiner.roll.servers[1] = Member(disk="third")
    assert membership.member(joiner, 1).disk == "third"


def test_who_was_heard_before_it_was_wanted_is_not_there() -> None:
    """Soak seed 2770: switched off, and added again a moment later. It cannot have caught up since.

    Nor does it count by what it said before and is only heard now (93005): of us it has heard nothing since.
    """
    c = Cluster()
    c.settle_evenly()
    said: list[Frame] = []

    def note(sender: int, receiver: int, frame: Frame) -> Frame:
        if (sender, receiver) == (2, ME):
            said.append(frame)
        return frame

    c.intercept = note
    c.run(SECOND)
    e = c.servers[ME].engine.state
    assert membership._caught_up_here(e, e.raft(0)) == {0, 1, 2}
    c.pause(2)
    e.wished_at = c.time
    for frame in said[-3:]:
        c.at(5 * MS, partial(c._deliver, 2, ME, None, frame))
    c.run_until(lambda: 1 in membership._caught_up_here(e, e.raft(0)))
    assert membership._caught_up_here(e, e.raft(0)) == {0, 1}
    assert e.peers[2].heard_at is not None and e.peers[2].heard_at > e.wished_at
